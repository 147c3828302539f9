package ensemble

import (
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// observers is what tells clients that observe groups who leads these. It has a goroutine of
// its own: however many there are, members are told before.
type observers struct {
	node *Node
	wake chan struct{} // has room for one
}

// Observe has a client told who leads a group, as latch.Elections describes it.
func (n *Node) Observe(group string, by session.Observer) (*session.Observation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.roster.Stopping() || n.Err() != nil || n.inactive() {
		return nil, n.missing()
	}
	return n.roster.Observe(group, by), nil
}

// run tells until the node ends, and then closes who is left.
func (o *observers) run() {
	for {
		select {
		case <-o.wake:
		case <-o.node.done:
			o.tell()
			return
		}
		o.admit()
		o.tell()
	}
}

// admit has those told for the first time that have asked, by the state that the node has then.
func (o *observers) admit() {
	n := o.node
	n.mu.Lock()
	asking := n.roster.Asking()
	n.mu.Unlock()
	if !asking {
		return
	}
	n.replica.Read(func(s *state.State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.roster.Admit(s)
	})
}

// tell tells all that there is to tell.
func (o *observers) tell() {
	var words []session.Word
	for {
		o.node.mu.Lock()
		words = o.node.roster.Tell(words[:0])
		o.node.mu.Unlock()
		if len(words) == 0 {
			return
		}
		for i, w := range words {
			if w.Close {
				w.To.Close()
			} else {
				w.To.Leader(w.Leader, w.Token)
			}
			words[i] = session.Word{}
		}
	}
}
