package ensemble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// Nodes ask each other things, one question a connection: a frame with a
// question, a frame with its answer, both JSON. Fields that are not known are
// left alone, so that later versions may add some.
type question struct {
	Ask  string          `json:"ask"`
	With json.RawMessage `json:"with,omitempty"`
}

type answer struct {
	Error string          `json:"error,omitempty"` // why there is no other answer; one line
	Later bool            `json:"later,omitempty"` // with Error: it may be different soon
	Loss  bool            `json:"loss,omitempty"`  // with Error: the asking node has lost what it had
	Is    json.RawMessage `json:"is,omitempty"`
}

// What may be asked.
const (
	askView     = "view"     // of a member: how it sees the cluster; a view
	askAdd      = "add"      // of any node of a cluster: let an applicant in
	askLift     = "lift"     // of any node of a cluster: that its tokens are above others; a uint64
	askRemove   = "remove"   // of a member: a removal
	askLeave    = "leave"    // of a member: that it leaves
	askCounter  = "counter"  // of the raft leader: the asking node's last open counter; refused if its folder has gone back
	askCluster  = "cluster"  // of any node: what cluster it has; an inquiry, an invitation
	askOrder    = "order"    // of any node: what its cluster's raft leader answers; see Order
	askStepDown = "stepdown" // of the member where a group's leader is: a stepDownQuestion
	askEnded    = "ended"    // of a member: that the raft leader's process has ended; an endedQuestion, a bool
)

// notKnown is in the answer to a question that is not known, from the first version on.
const notKnown = "does not know the question"

// questionTime bounds a question from the dialling on where the context has no
// earlier end, and how long a node waits for one on a new connection.
const questionTime = 10 * time.Second

// laterError is a refusal that may be none a moment later: there is no raft
// leader, or another one.
type laterError struct{ error }

func later(format string, args ...any) error { return laterError{fmt.Errorf(format, args...)} }

// lossError is that the raft leader knows what the asking node has forgotten.
type lossError struct{ error }

func lossf(format string, args ...any) error { return lossError{fmt.Errorf(format, args...)} }

func isLater(err error) bool {
	_, is := errors.AsType[laterError](err)
	return is
}

// untilNow calls f until its error is none that may be none a moment later, ctx is done or
// the node ends.
func (c *cluster) untilNow(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !isLater(err) {
			return err
		}
		select {
		case <-time.After(askAnew):
		case <-c.node.Failed():
			return err
		case <-c.life.Done():
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// refusal is another node's answer that it will not.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// answered reports whether an error is the answer of a node that was asked.
func answered(err error) bool {
	_, refused := errors.AsType[*refusal](err)
	_, again := errors.AsType[laterError](err)
	return refused || again
}

// ask asks a node a question. An error that the node gave is a *refusal or a
// laterError; any other one says that it could not be asked.
func (c *cluster) ask(ctx context.Context, p clusterport.Purpose, address string, node state.NodeID, ask string, with, is any) (clusterport.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	conn, peer, err := c.port.Dial(ctx, p, address, string(node))
	if err != nil {
		return peer, err
	}
	c.replica.Meet(peer)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	a, err := func() (a answer, err error) {
		b, err := json.Marshal(with)
		if err == nil {
			b, err = json.Marshal(question{ask, b})
		}
		if err != nil {
			return a, err
		}
		f := clusterport.NewFramer(conn)
		if err := f.Write(b); err != nil {
			return a, err
		}
		if b, err = f.Read(); err != nil {
			return a, err
		}
		return a, json.Unmarshal(b, &a)
	}()
	switch {
	case ctx.Err() != nil:
		return peer, fmt.Errorf("%v does not answer: %w", peer, ctx.Err())
	case err != nil:
		return peer, fmt.Errorf("ask %v: %w", peer, err)
	case a.Later:
		return peer, laterError{errors.New(a.Error)}
	case a.Loss:
		return peer, lossError{errors.New(a.Error)}
	case a.Error != "":
		return peer, &refusal{a.Error}
	case is == nil:
		return peer, nil
	}
	return peer, json.Unmarshal(a.Is, is)
}

// answerer answers one kind of question.
type answerer func(ctx context.Context, peer clusterport.Hello, with json.RawMessage) (any, error)

// answers gives the handler of connections on which these may be asked.
func (c *cluster) answers(known map[string]answerer) func(net.Conn, clusterport.Hello) {
	return func(conn net.Conn, peer clusterport.Hello) {
		conn.SetReadDeadline(time.Now().Add(questionTime))
		f := clusterport.NewFramer(conn)
		b, err := f.Read()
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(c.life, questionTime)
		defer cancel()
		go func() { // who asked has gone, and with it who wanted to know
			f.Read()
			cancel()
		}()
		var q question
		var is any
		if err = json.Unmarshal(b, &q); err == nil {
			if answer := known[q.Ask]; answer != nil {
				is, err = answer(ctx, peer, q.With)
			} else {
				err = fmt.Errorf("this node "+notKnown+" %q; it is of another version", q.Ask)
			}
		}
		var a answer
		if err == nil {
			a.Is, err = json.Marshal(is)
		}
		if err != nil {
			_, a.Later = errors.AsType[laterError](err)
			_, a.Loss = errors.AsType[lossError](err)
			a.Error = err.Error()
		}
		if b, err = json.Marshal(a); err == nil {
			f.Write(b)
		}
	}
}

// askAnew is the pause before a question is put again that had no good answer.
const askAnew = 100 * time.Millisecond

// askLeader has the raft leader answer a question, whoever that is, and asks
// again until it does or ctx is done.
func (c *cluster) askLeader(ctx context.Context, ask string, with, is any, own func(context.Context) error) error {
	return c.untilNow(ctx, func() (err error) {
		switch leader := c.replica.LikelyRaftLeader(); leader {
		case "":
			err = later("there is no raft leader: a majority of the nodes has to be up")
		case c.self:
			err = own(ctx)
		default:
			s, ok := c.replica.Server(leader)
			if !ok {
				err = later("the raft leader %s is not known here yet", c.replica.NameOf(leader))
				break
			}
			if _, err = c.ask(ctx, clusterport.Admin, c.replica.AddressOf(s), leader, ask, with, is); err != nil {
				if _, refused := errors.AsType[*refusal](err); !refused {
					err = laterError{err}
				}
			}
		}
		return err
	})
}
