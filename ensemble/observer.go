package ensemble

import (
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
)

// observer has a node hear what becomes of its replica.
type observer struct{ n *Node }

// Applied hands on the effects of an entry.
func (o observer) Applied(s *state.State, effects []state.Effect) {
	n := o.n
	o.noteCluster(s)
	for _, e := range effects {
		switch e := e.(type) {
		case state.Removed:
			go n.cluster.dropped(e.Node) // closes connections; nothing waits here
		case state.Opened:
			if e.Node == n.self {
				n.opens.check(e.Counter)
			}
		}
	}
	n.mu.Lock()
	current := n.roster.Current()
	n.roster.Applied(s, effects)
	current = current || n.roster.Current()
	n.unlock()
	if n.elections != nil && current {
		n.elections.applied(s, effects)
	}
}

// Restored hands on a state that was in a snapshot.
func (o observer) Restored(s *state.State) {
	n := o.n
	o.noteCluster(s)
	if me, ok := s.Node(n.self); ok {
		n.opens.check(me.Counter)
	}
	n.mu.Lock()
	defer n.unlock()
	n.roster.Restored(s)
}

// noteCluster takes over what holds for the whole cluster. A data folder whose
// state is another cluster's was put together from two.
func (o observer) noteCluster(s *state.State) {
	n := o.n
	id := n.dir.id()
	if s.Cluster() != "" && !n.seen.founded.Swap(true) && (s.Cluster() != id.Cluster || s.TokenBase() < id.TokenBase) {
		n.failed(permanent.Errorf("the state in %s is of cluster %s with tokens from %d, node.json says %s and %d; %s",
			n.dir.path, s.Cluster(), s.TokenBase(), id.Cluster, id.TokenBase, permanent.CureFolder))
	}
	if s.Active() && !n.seen.active.Swap(true) {
		n.log.Info("elections are active")
	}
	if level := s.Level(); n.seen.level.Swap(level) < level {
		n.running.Go(func() { n.cluster.raised(level) }) // to disk; nothing waits here
	}
}

// Failed ends the node's service.
func (o observer) Failed(err error) { o.n.failed(err) }

// Follow and Lead: a raft leader acts on stamps only when its own state machine has caught
// up with its log.
func (o observer) Follow() {
	o.n.mu.Lock()
	defer o.n.mu.Unlock()
	o.n.roster.Follow()
}

func (o observer) Lead(still func() bool) {
	o.n.mu.Lock()
	defer o.n.mu.Unlock()
	if still() {
		o.n.roster.Lead(o.n.now())
		signal(o.n.wake)
	}
}

// Turned has proposed again what another raft leader has to take.
func (o observer) Turned() { signal(o.n.wakeProposer) }
