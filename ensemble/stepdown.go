package ensemble

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// A step-down is the business of the node where the leader is: it closes the connection, or waits for
// the promises that it has made (HOLDS.md, rules 16 and 17). The node that was asked by an operator asks
// that one, and again if the leader has moved meanwhile, until its own state has another token.

// stepDownQuestion asks the node where a group's leader is to have it step down.
type stepDownQuestion struct {
	Group string `json:"group"`
	Token uint64 `json:"token"` // of the leadership that is to end
}

// stepDownAgain is how long after a question the next one is asked, if nothing has changed.
const stepDownAgain = 500 * time.Millisecond

// stepDownLook is how often it is looked whether another one leads.
const stepDownLook = 10 * time.Millisecond

// newsTime is for how long a node may know nothing yet of what another one has applied.
const newsTime = time.Second

// StepDown has the leader of a group step down, and gives who leads then, with the token. With a token
// other than 0 it does so only if that is the present one. It changes nothing where nobody
// would follow. A leader with a hold goes on until all that it was promised is over: for the
// longest of its hold and S.
func (n *Node) StepDown(ctx context.Context, group string, token uint64) (leader string, next uint64, err error) {
	return n.cluster.stepDown(ctx, group, token)
}

// dismiss has a leader at this node step down, which is in the state that the caller reads.
func (n *Node) dismiss(leader state.MemberID, token uint64) (closing session.Connection, here, begins bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster.StepDown(leader, token)
}

func (c *cluster) stepDown(ctx context.Context, group string, token uint64) (leader string, next uint64, err error) {
	missing := c.node.Missing()
	if missing != nil {
		return "", 0, fmt.Errorf("nothing was done: %w", missing) // what this node knows may be old
	}
	was, err := c.stepsDown(group, token)
	for began := time.Now(); err != nil && time.Since(began) < newsTime && sleep(ctx, stepDownLook); {
		was, err = c.stepsDown(group, token) // who asks may know better, from a node that is ahead of this one
	}
	if err != nil {
		return "", 0, fmt.Errorf("nothing was done: %w", err)
	}
	var asked time.Time
	done := "nothing was done" // that is known of
	for {
		c.replica.Read(func(s *state.State) { leader, next = s.Leader(group) })
		switch {
		case leader == "":
			return "", 0, fmt.Errorf("%s, and nobody leads %s: the others have left it meanwhile", done, group)
		case next != was.Token:
			return leader, next, nil
		case time.Since(asked) >= stepDownAgain:
			g, err := c.stepsDown(group, was.Token)
			if err != nil {
				return "", 0, fmt.Errorf("%s: %w", done, err)
			}
			missing = c.askToStepDown(ctx, g)
			switch asked = time.Now(); {
			case missing == nil:
				done = was.Leader + " was asked to step down"
			case !isLater(missing):
				return "", 0, fmt.Errorf("%s: %w", done, missing)
			}
		}
		if !sleep(ctx, stepDownLook) {
			if missing != nil {
				return "", 0, fmt.Errorf("%s, and still leads %s: %w", done, group, missing)
			}
			return "", 0, fmt.Errorf("%s, and still leads %s; that may change yet", done, group)
		}
	}
}

// groupNamed gives a group as this node knows it, with the members' nodes.
func (c *cluster) groupNamed(name string) (g state.GroupRecord, ok bool) {
	c.replica.Read(func(s *state.State) { g, ok = s.Group(name) })
	return g, ok
}

// stepsDown gives a group whose leader may step down; an error says why it may not.
func (c *cluster) stepsDown(group string, token uint64) (g state.GroupRecord, err error) {
	g, ok := c.groupNamed(group)
	switch {
	case !ok:
		return g, fmt.Errorf("there is no group %q", group)
	case token != 0 && token != g.Token:
		return g, fmt.Errorf("%s leads %s with the token %d, not %d", g.Leader, group, g.Token, token)
	case len(g.Members) == 1:
		return g, nobodyFollows(g)
	}
	return g, nil
}

func nobodyFollows(g state.GroupRecord) error {
	return fmt.Errorf("%s is the only member of %s: nobody would follow", g.Leader, g.Name)
}

// askToStepDown asks the node where the leader of a group is. An error that is none for good is a
// laterError.
func (c *cluster) askToStepDown(ctx context.Context, g state.GroupRecord) error {
	at, q := g.Members[0], stepDownQuestion{g.Name, g.Token}
	switch srv, ok := c.replica.Server(at.Node); {
	case at.Away:
		return later("its node %s was stopped or started again, and it has not come back yet; if it does not, another one leads soon", c.replica.NameOf(at.Node))
	case at.Node == c.self:
		return c.stepDownHere(q)
	case !ok:
		return later("its node %s is no member of the cluster", c.replica.NameOf(at.Node))
	default:
		_, err := c.ask(ctx, clusterport.Admin, c.replica.AddressOf(srv), srv.ID, askStepDown, q, nil)
		if err != nil && !answered(err) {
			err = laterError{err}
		}
		return err
	}
}

// answerStepDown answers members.
func (c *cluster) answerStepDown(_ context.Context, peer clusterport.Hello, with json.RawMessage) (any, error) {
	var q stepDownQuestion
	if err := json.Unmarshal(with, &q); err != nil {
		return nil, err
	}
	return nil, c.stepDownHere(q)
}

// stepDownHere has a leader step down that is connected to this node. It waits for nothing.
func (c *cluster) stepDownHere(q stepDownQuestion) error {
	var closing session.Connection
	var here, begins bool
	c.replica.Read(func(s *state.State) {
		if g, ok := s.Group(q.Group); ok && g.Token == q.Token && len(g.Members) > 1 {
			closing, here, begins = c.node.dismiss(g.Members[0].ID, g.Token)
		}
	})
	if !here { // or this node lags behind the one that asks
		return later("%s does not have it at the moment, or knows of nobody who would follow", c.cfg.Name)
	}
	if closing != nil {
		closing.Close()
	}
	if begins {
		c.log.Info("a leader is to step down, as an operator wants it", "group", q.Group, "token", q.Token)
	}
	return nil
}
