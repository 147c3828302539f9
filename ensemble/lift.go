package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
)

// The fencing tokens of a group rise when its clients go over to another cluster with the
// node that they are connected to. A node that joins brings along the highest token that
// the cluster which it gives up can have given; the other cluster lifts its own above that
// first, or the node is not let go. So it is with a cluster that a node founds which leaves
// another.

// tokensMeanwhile is by how much more the tokens are lifted, for those that are given before
// the node has ended its session: a million entries, in the seconds that takes.
const tokensMeanwhile = 1 << 20 << state.PositionBits

// maxToken is above every token that can have been given: up to it integers and JSON numbers
// are the same. A base of wall time gets there in two hundred years.
const maxToken = 1<<53 - 1

// liftAhead is how far tokens may be lifted beyond the wall clock, or beyond where the cluster's
// own are. A recovery leads them ahead of the clock by seven weeks, a clock that was wrong once by
// more; that would be for good. A cluster that is a year ahead already, by what way ever, still
// takes back a node that was of it.
const liftAhead = 366 * 24 * time.Hour

// tokensGiven is a token that is not below any that was given by the cluster of this node or
// by one that it gave up before, as far as the node knows; 0 if none was. Without elections
// there are none.
func (c *cluster) tokensGiven() uint64 {
	var given uint64
	last := c.replica.LastIndex()
	c.replica.Read(func(s *state.State) {
		if s.Active() {
			given = s.GivenBy(last)
		}
	})
	return max(given, c.dir.tokens.Load())
}

// lift has the cluster of another node give no tokens from here on but above these.
func (c *cluster) lift(ctx context.Context, via Place, in invitation, above uint64) error {
	if max(in.Tokens, in.TokenBase) >= above {
		return nil
	}
	if in.Tokens == 0 {
		return &refusal{fmt.Sprintf("%s, and %s runs an older version, which cannot lift those of its cluster; upgrade that cluster first", higherTokens(c.cfg.Name), via)}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*replica.ChangeTime)
	defer cancel()
	return c.untilNow(ctx, func() error {
		_, err := c.ask(ctx, clusterport.Join, via.Address, "", askLift, above, nil)
		return err
	})
}

func higherTokens(name string) string {
	return fmt.Sprintf("%s, with its clients, has given fencing tokens above those of the cluster that it is to join", name)
}

// passLift answers askLift of a node that is to join.
func (c *cluster) passLift(ctx context.Context, peer clusterport.Hello, with json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, replica.ChangeTime) // before the asking node gives up, so that it hears why
	defer cancel()
	err := c.askLeader(ctx, askLift, with, nil, func(ctx context.Context) error {
		_, err := c.answerLift(ctx, peer, with)
		return err
	})
	if err != nil && strings.Contains(err.Error(), notKnown) { // the raft leader is of an older version
		err = cmp.Or(c.liftHeld(), err)
	}
	return nil, err
}

// liftHeld is why no tokens can be lifted as long as the formats have a level below 2; nil:
// they have not.
func (c *cluster) liftHeld() error {
	var level uint64
	var nodes map[state.NodeID]known
	c.replica.Read(func(s *state.State) { level, nodes = s.Level(), knownNodes(s) })
	if level >= 2 {
		return nil
	}
	_, holding := nextLevel(level, c.replica.Servers(), nodes)
	if holding == nil {
		return later("the formats are just about to rise to level 2, at which tokens can be lifted")
	}
	var names []string
	for _, s := range holding {
		names = append(names, s.Name)
	}
	return fmt.Errorf("%s, which can lift its own from level 2 of the formats on, and is held at %d by %s; upgrade these, or let them rise (leader_latch.format_level)", higherTokens("the node"), level, strings.Join(names, ", "))
}

// answerLift answers members.
func (c *cluster) answerLift(_ context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var above uint64
	if err := json.Unmarshal(with, &above); err != nil {
		return nil, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if !c.node.serving() || c.node.Err() != nil {
		return nil, later("%s is not the raft leader any more", c.cfg.Name)
	}
	var now uint64
	c.replica.Read(func(s *state.State) { now = s.Given() })
	if now >= above {
		return nil, nil
	}
	if limit := max(uint64(time.Now().UnixMicro()), now) + uint64(liftAhead.Microseconds()); above > limit {
		return nil, fmt.Errorf("%s by more than a year, as its cluster was founded by a clock that was wrong, or recovered eight times; have it leave that one and give its folder up (move it away), or set the clocks right", higherTokens("the node"))
	}
	if err := c.liftHeld(); err != nil {
		return nil, err
	}
	if err := c.replica.Propose(state.Lift{Tokens: above}); err != nil {
		return nil, later("lift tokens: %w", err)
	}
	c.log.Info("fencing tokens go on above those of a node that joins", "above", above)
	return nil, nil
}
