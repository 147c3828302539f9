package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// How a node gets into a cluster. One with an empty folder founds its own, or,
// with leader_latch.join, looks for the cluster of the nodes in that list. One
// that an operator has told to join begins anew and asks to be added.
//
//	no cluster --found--> a cluster of its own
//	           --accepted by a node of one--> waits to be added --added--> a member
//
// Each arrow is on disk (node.json) before anything that depends on it is done,
// so that a start goes on where the one before stopped. No node ever founds a
// cluster because others cannot be reached: two halves would each do so.

// Place is a node that an operator names to be joined: its name, and where its
// cluster port is reached.
type Place struct{ Name, Address string }

func (p Place) String() string { return p.Name }

// inquiry is what a node says of itself that asks another one for its cluster.
type inquiry struct {
	Founders []string `json:"founders,omitempty"` // its leader_latch.join, addresses
}

// invitation is what a node says of its cluster.
type invitation struct {
	Cluster   string   `json:"cluster,omitempty"`    // empty: it has none
	TokenBase uint64   `json:"token_base,omitempty"` // of its founding
	Tokens    uint64   `json:"tokens,omitempty"`     // all that it gives from here on are above these; first programs did not say
	Entering  bool     `json:"entering,omitempty"`   // it has none, and is about to get into one
	Left      bool     `json:"left,omitempty"`       // it has left a cluster, and is alone
	Founders  []string `json:"founders,omitempty"`   // without a cluster: its leader_latch.join
	Nodes     []string `json:"nodes,omitempty"`      // names of the members with a session
	Stalled   string   `json:"stalled,omitempty"`    // why the cluster that it has takes nobody in now
}

// enterEvery is the pause between attempts to get into a cluster.
const enterEvery = 250 * time.Millisecond

// found makes this node the first member of a new cluster. Nothing is served
// before the folder says that it is settled.
func (c *cluster) found() error {
	if err := c.replica.Found(c.cfg.Name, c.cfg.Address); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return c.change(func(id *identity) { id.Settled = true })
}

// enter gets the node into a cluster, and returns when it is a member, with a
// session, or when the node's life ends.
func (c *cluster) enter() {
	var said string // what was logged last: a wait of hours has few reasons
	wait := func(err error) (goesOn bool) {
		if err != nil && err.Error() != said {
			why := err.Error()
			said = why
			c.waits.Store(&why)
			c.log.Warn("this node is in no cluster yet, trying on", "reason", said)
		}
		select {
		case <-time.After(enterEvery):
			return true
		case <-c.life.Done():
			return false
		}
	}
	for c.dir.id().Cluster == "" {
		err := c.seekCluster()
		if err != nil && !wait(err) {
			return
		}
	}
	if !c.dir.id().Settled {
		if err := c.found(); err != nil && c.life.Err() == nil {
			c.node.failed(err)
		} else if err == nil {
			c.replica.StandAlone()
		}
		return
	}
	via := placeOf(c.dir.id().Join)
	for !c.node.hasEntered() {
		var err error
		if _, member := c.replica.Server(c.self); !member {
			if err = c.askToBeAdded(via); c.dir.id().Cluster == "" {
				if wait(err) {
					c.enter() // from the beginning
				}
				return
			}
		}
		if !wait(err) {
			return
		}
	}
	if c.change(func(id *identity) { id.Join = "" }) == nil {
		c.waits.Store(nil)
		c.dir.forgetTokens()
		c.log.Info("joined the cluster", "cluster", c.dir.id().Cluster, "through", via.Name)
	}
}

// askToBeAdded asks the node through which this one joins. If that one belongs to
// another cluster by now, and nothing has come of the first, the node looks for
// its cluster once more.
func (c *cluster) askToBeAdded(via Place) error {
	peer, err := c.ask(c.life, clusterport.Join, via.Address, "", askAdd, nil, nil)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("ask %s to be added: %w", via, err)
	if peer.Cluster != "" && peer.Cluster != c.dir.id().Cluster && c.replica.LastIndex() == 0 {
		c.change(func(id *identity) { id.Cluster, id.TokenBase, id.Settled = "", 0, false })
	}
	return err
}

// stay forgets that the node wanted to leave, when it is a member all the same.
func (c *cluster) stay() {
	if c.WaitMember(c.life) == nil {
		c.change(func(id *identity) { id.Leaving = false })
	}
}

// change changes the node's identity. If that fails, so does the node: nobody
// knows what is on disk.
func (c *cluster) change(f func(*identity)) error {
	err := c.dir.change(c.dirLife, f)
	if err != nil && err != errFormerLife {
		c.node.failed(err)
	}
	return err
}

// WaitMember returns nil as soon as the node is a member of a cluster, with a
// session, or an error when ctx is done or the node has failed.
func (c *cluster) WaitMember(ctx context.Context) error {
	for {
		if id := c.dir.id(); id.Settled && id.Join == "" && c.node.hasEntered() {
			return nil
		}
		select {
		case <-time.After(enterEvery / 10):
		case <-c.node.Failed():
			return c.node.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s is not a member yet, and goes on asking (leader-latch cluster leave gives that up): %s", c.cfg.Name, cmp.Or(c.waitsFor(), ctx.Err().Error()))
		}
	}
}

// text is a place as the folder has it.
func (p Place) text() string { return p.Name + " " + p.Address }

func placeOf(text string) Place {
	name, address, _ := strings.Cut(text, " ")
	return Place{name, address}
}

// seekCluster finds out which cluster the node belongs into, and writes that
// down: the one of the node that an operator named; else the first one that a
// node of leader_latch.join has; else a new one, if this node is the first of
// the list and all others have answered, with the same list, that they have
// none either. An error says what it waits for.
func (c *cluster) seekCluster() error {
	if via := c.dir.id().Join; via != "" {
		in, _, err := c.inquire(c.life, placeOf(via))
		if err != nil {
			return err
		}
		if in.Cluster == "" && in.Stalled != "" {
			return fmt.Errorf("%s has had a cluster, which takes nobody in: %s", placeOf(via), in.Stalled)
		}
		if in.Cluster == "" {
			return fmt.Errorf("%s has no cluster itself", placeOf(via))
		}
		return c.accept(placeOf(via), in)
	}

	var waits error
	first := false
	var through Place
	var cluster invitation
	for i, p := range c.cfg.Join {
		in, peer, err := c.inquire(c.life, p)
		switch {
		case err != nil:
			waits = errors.Join(waits, err)
		case state.NodeID(peer.Node) == c.self:
			first = first || i == 0
		case in.Cluster == "" && in.Stalled != "":
			waits = errors.Join(waits, fmt.Errorf("%s has had a cluster, which takes nobody in: %s", p, in.Stalled))
		case in.Left:
			waits = errors.Join(waits, fmt.Errorf("%s has left its cluster; have it join again, or take it off leader_latch.join", p))
		case in.Cluster != "" && cluster.Cluster == "":
			through, cluster = p, in
		case in.Cluster != "" && in.Cluster != cluster.Cluster:
			return fmt.Errorf("%s and %s of leader_latch.join are of different clusters; have one of them leave, or tell this node which to join (cluster join)", through, p)
		case in.Cluster != "":
		case in.Entering:
			waits = errors.Join(waits, fmt.Errorf("%s is just getting into a cluster", p))
		case !slices.Equal(in.Founders, c.founders()):
			waits = errors.Join(waits, fmt.Errorf("%s has another leader_latch.join than this node; make it the same on all", p))
		}
	}
	switch {
	case cluster.Cluster != "":
		return c.accept(through, cluster)
	case waits != nil:
		return waits
	case !first:
		return fmt.Errorf("%s, the first of leader_latch.join, has not founded the cluster yet", c.cfg.Join[0])
	}
	c.log.Info("founding the cluster: no node of leader_latch.join has one")
	return c.foundCluster()
}

// waitsFor is what keeps the node from being a member, or one that elects; empty: nothing that
// it knows of.
func (c *cluster) waitsFor() string {
	if why := c.waits.Load(); why != nil {
		return *why
	}
	return ""
}

// estranged takes note of a refusal by a node of another cluster. If that one is a member of
// this node's, it was recovered, and this one was given up.
func (c *cluster) estranged(by clusterport.Hello) {
	if _, member := c.replica.Server(state.NodeID(by.Node)); !member {
		return
	}
	why := fmt.Sprintf("%s refuses this node: it was made a new cluster (leader-latch recover), to which this node is a stranger; stop this node, move %s away, start it again and let it join (leader-latch cluster join %s)", by.Name, c.dir.path, by.Name)
	if old := c.waits.Swap(&why); old == nil || *old != why {
		c.log.Warn("this node's cluster has been given up", "reason", why)
	}
}

// foundCluster writes down that the node has a cluster of its own.
func (c *cluster) foundCluster() error {
	if err := checkClock(time.Now(), c.cfg.released); err != nil {
		return err
	}
	return c.dir.change(c.dirLife, func(id *identity) { id.found(c.dir.tokens.Load()) })
}

// founders is leader_latch.join in the form in which nodes compare it.
func (c *cluster) founders() (all []string) {
	for _, p := range c.cfg.Join {
		all = append(all, p.Address)
	}
	return all
}

func (c *cluster) inquire(ctx context.Context, p Place) (in invitation, peer clusterport.Hello, err error) {
	peer, err = c.ask(ctx, clusterport.Join, p.Address, "", askCluster, inquiry{c.founders()}, &in)
	if err != nil {
		err = fmt.Errorf("%s: %w", p, err)
	}
	return in, peer, err
}

// accept writes down to which cluster the node will belong. Raft's state counts
// from then on: the node may be a member before it knows.
func (c *cluster) accept(via Place, in invitation) error {
	if err := c.lift(c.life, via, in, c.dir.tokens.Load()); err != nil {
		return err
	}
	return c.change(func(id *identity) {
		id.Cluster, id.TokenBase, id.Settled = in.Cluster, in.TokenBase, true
		id.Join = via.text()
	})
}

// invite answers askCluster.
func (c *cluster) invite(ctx context.Context, peer clusterport.Hello, with json.RawMessage) (any, error) {
	if peer.Cluster != "" && peer.Cluster == c.dir.id().Cluster {
		c.replica.Meet(peer)
	}
	var of inquiry
	if err := json.Unmarshal(with, &of); err != nil {
		return nil, err
	}
	id := c.dir.id()
	switch {
	case id.Left && len(of.Founders) > 0 && len(c.replica.Others()) == 0:
		return invitation{Left: true}, nil
	case id.Cluster == "" && id.Join == "":
		return invitation{Founders: c.founders()}, nil
	case !id.Settled || id.Join != "":
		return invitation{Entering: true}, nil
	case !c.seen.founded.Load() && len(c.replica.Others()) > 0: // it has been started again, and others with it have not
		return invitation{Entering: true, Stalled: c.noMajority(errors.New("there is no raft leader")).Error()}, nil // Entering is for older programs
	case !c.seen.founded.Load():
		return nil, later("the cluster is just being founded")
	}
	in := invitation{Cluster: id.Cluster, TokenBase: id.TokenBase}
	var before state.NodeID // has the name of who asks
	c.replica.Read(func(s *state.State) {
		in.Tokens = s.Given()
		for node := range s.Nodes() {
			if !node.Session {
				continue
			}
			in.Nodes = append(in.Nodes, node.Name)
			if node.Name == peer.Name && node.ID != state.NodeID(peer.Node) {
				before = node.ID
			}
		}
	})
	slices.Sort(in.Nodes)
	if peer.Cluster != id.Cluster && c.replica.LikelyRaftLeader() == "" {
		in.Stalled = c.noMajority(errors.New("there is no raft leader")).Error()
		return in, nil // no session expires either
	}
	if before != "" && before != c.self {
		if s, member := c.replica.Server(before); !member || !c.answersAt(ctx, s) {
			return nil, sessionLasts(peer.Name)
		}
	}
	return in, nil
}

// JoinCluster has this node leave the cluster that it has for itself and join
// the one of another node. It returns when that is on disk; the node then fails
// with [ErrAnew], and the next one on the folder is added, or goes on asking to
// be.
func (c *cluster) JoinCluster(ctx context.Context, via Place) error {
	peer, in, err := c.joinable(ctx, via)
	if err != nil {
		return err
	}
	// A node that has just been started knows its state only when it leads Raft.
	err = c.untilNow(ctx, func() error {
		if id := c.dir.id(); id.Settled && id.Join == "" && !c.node.serving() {
			return later("%s is just starting", c.cfg.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	given := c.tokensGiven()
	if given > 0 {
		given += tokensMeanwhile
	}
	if err := c.lift(ctx, via, in, given); err != nil {
		return err
	}
	// Nobody is let in from here on: it would be a member of what is given up.
	c.changing.Lock()
	defer c.changing.Unlock()
	if err := c.hasOthers(); err != nil {
		return err
	}
	if c.tokensGiven() > given-min(given, tokensMeanwhile/2) {
		return &refusal{fmt.Sprintf("%s has just begun to elect leaders; try again", c.cfg.Name)}
	}
	begun, err := c.beginAnewAbove(Place{peer, via.Address}.text(), given)
	if err == nil && !begun {
		return &refusal{fmt.Sprintf("%s is already about to leave its cluster or to join another", c.cfg.Name)}
	}
	return err
}

// Joinable reports an error unless this node could join the cluster of another
// one, and gives the names of the nodes that live there.
func (c *cluster) Joinable(ctx context.Context, via Place) (nodes []string, err error) {
	_, in, err := c.joinable(ctx, via)
	return in.Nodes, err
}

func (c *cluster) joinable(ctx context.Context, via Place) (peer string, in invitation, err error) {
	if err := c.hasOthers(); err != nil {
		return "", in, err
	}
	hello, err := c.askUntilNow(ctx, via, &in)
	switch {
	case answered(err):
		err = fmt.Errorf("%s: %w", via, err)
	case err != nil:
		err = fmt.Errorf("%s %w: %w", via, ErrUnreachable, err)
	case state.NodeID(hello.Node) == c.self:
		err = &refusal{"a node cannot join itself"}
	case in.Cluster == "":
		err = &refusal{fmt.Sprintf("%s has no cluster itself yet", via)}
	case slices.Contains(in.Nodes, c.cfg.Name):
		err = &refusal{fmt.Sprintf("the cluster of %s has a live node of the name %s; give this one another nodename", via, c.cfg.Name)}
	}
	return hello.Name, in, err
}

// askUntilNow asks a node for its cluster, again while that is just being founded, as nodes
// are told to join others that have just been started; and while this node's predecessor of
// the same name, which is dead, still has its session there. For a majority it does not wait
// long.
func (c *cluster) askUntilNow(ctx context.Context, via Place, in *invitation) (hello clusterport.Hello, err error) {
	began := time.Now()
	err = c.untilNow(ctx, func() (err error) {
		*in = invitation{}
		hello, err = c.ask(ctx, clusterport.Join, via.Address, "", askCluster, inquiry{}, in)
		switch {
		case err != nil || in.Stalled == "":
			return err
		case time.Since(began) < mayTime: // a raft leader may be about to be elected
			return later("its cluster takes nobody in now: %s", in.Stalled)
		}
		return &refusal{"its cluster takes nobody in now: " + in.Stalled}
	})
	return hello, err
}

func (c *cluster) hasOthers() error {
	if len(c.replica.Others()) == 0 {
		return nil
	}
	return &refusal{fmt.Sprintf("%s is already a member of a cluster; let it leave that first (cluster leave)", c.cfg.Name)}
}

// beginAnew ends the node's life on this identity, unless that has been done. The
// next one joins through via, or is alone if via is empty.
func (c *cluster) beginAnew(via string) (begun bool, err error) {
	return c.beginAnewAbove(via, c.tokensGiven())
}

func (c *cluster) beginAnewAbove(via string, given uint64) (begun bool, err error) {
	c.anew.Lock()
	defer c.anew.Unlock()
	if c.begunAnew {
		return false, nil
	}
	if err := c.dir.beginAnew(c.dirLife, via, given); err != nil {
		c.node.failed(err) // nobody knows what is on disk
		return false, err
	}
	c.begunAnew = true
	c.node.failed(ErrAnew)
	return true, nil
}

func (c *cluster) hasBegunAnew() bool {
	c.anew.Lock()
	defer c.anew.Unlock()
	return c.begunAnew
}

// checkRecovery refuses to start where a recovery was interrupted.
func (c *cluster) checkRecovery() error {
	switch c.dir.id().Recovery {
	case recoveryBegun:
		return permanent.Errorf("%s: a recovery was begun and not finished; run leader-latch recover again", c.dir.path)
	case recoveryWaits:
		c.log.Info("the cluster was recovered: JOINs are refused until the leases of the lost nodes have ended", "at_least", session.Calm.Expiry)
	}
	return nil
}

// recovering reports whether this node still has to be silent after a recovery:
// nodes that it has lost may speak for members of whom it knows nothing, for as
// long as the longest lease lasts, and have made promises to them that last as long as a hold.
func (c *cluster) recovering(now session.Reading) bool {
	if c.dir.id().Recovery == recoveryNone {
		return false
	}
	var longest time.Duration
	c.replica.Read(func(s *state.State) { longest = longestSilence(s) })
	if now.AtLeast(c.born) < longest {
		return true
	}
	c.recovered.Do(func() {
		go c.change(func(id *identity) { id.Recovery = recoveryNone })
	})
	return false
}

// longestSilence is after how long nothing lasts that any node may have promised: the longest
// S that a program has, or that a session of the state has, or a hold in that.
func longestSilence(s *state.State) time.Duration {
	longest := session.Calm.Expiry
	for ses := range s.Sessions() {
		longest = max(longest, ses.Silence)
	}
	return longest
}

var errRecovering = errors.New("it was recovered just now, and waits until the leases of the lost nodes have ended")
