package ensemble

import (
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// observers is what tells clients that observe groups who leads these. It has a goroutine of
// its own: members do not wait for them, however many there are.
type observers struct {
	node *Node
	wake chan struct{} // has room for one
}

// Observe has a client told who leads a group, as latch.Elections describes it.
func (n *Node) Observe(group string, by session.Observer) (*session.Observation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.refuses(); err != nil {
		return nil, err
	}
	return n.roster.Observe(group, by), nil
}

// How long many observers wait after a change, and some of them after others: on all nodes members
// are told meanwhile, and elections go on.
const (
	observersWait  = 3 * time.Millisecond
	observersPause = time.Millisecond
)

// run admits and tells until the node ends.
func (o *observers) run() {
	for {
		select {
		case <-o.node.done:
			return
		case <-o.wake:
		}
		if !o.few() {
			time.Sleep(observersWait)
		}
		for more := true; more; {
			admitted := o.admit() // in between, whatever is to be told
			if more = o.tell() || admitted; more {
				time.Sleep(observersPause)
			}
		}
	}
}

// few reports whether those that are to be told are so few that they delay nobody.
func (o *observers) few() bool {
	o.node.mu.Lock()
	defer o.node.mu.Unlock()
	return o.node.roster.Few()
}

// admit has some of those told for the first time that have asked, by the state that the node has then.
func (o *observers) admit() (some bool) {
	n := o.node
	n.mu.Lock()
	asking := n.roster.Asking()
	n.mu.Unlock()
	if !asking {
		return false
	}
	n.replica.Read(func(s *state.State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.roster.Admit(s)
	})
	return true
}

// tell tells some of those that have not been told yet.
func (o *observers) tell() (some bool) {
	o.node.mu.Lock()
	words := o.node.roster.Tell(nil)
	o.node.mu.Unlock()
	for _, w := range words {
		w.To.Leader(w.Leader, w.Token)
	}
	return len(words) > 0
}
