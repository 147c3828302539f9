package replica

import (
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// Inside is what tests of the code that drives a replica reach in the replica. Raft and
// Transport are nil until the replica is started.
type Inside struct {
	Raft      *raft.Raft
	Transport *raft.NetworkTransport
	Snapshots raft.SnapshotStore

	replica *Replica
}

// Inside is for tests.
func (r *Replica) Inside() Inside {
	i := Inside{Raft: r.raft, Snapshots: r.snapshots, replica: r}
	if r.transport != nil {
		i.Transport = r.transport.NetworkTransport
	}
	return i
}

// Trail has so many entries stay in the log behind a snapshot.
func (i Inside) Trail(entries uint64) {
	i.replica.reloadRaft(func(c *raft.ReloadableConfig) { c.TrailingLogs = entries })
}

// Bound has a snapshot be taken after so many bytes, and so many stay behind it.
func (i Inside) Bound(most, keep int) {
	f := i.replica.fsm
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = logSize{most: most, keep: keep}
}

// Change replaces the state by what f makes of it, under its lock.
func (i Inside) Change(f func(*state.State) *state.State) {
	i.replica.fsm.mu.Lock()
	defer i.replica.fsm.mu.Unlock()
	i.replica.fsm.state = f(i.replica.fsm.state)
}

// Stored is up to which entry a follower has said that it has the log.
func (i Inside) Stored(id state.NodeID) uint64 {
	if f, ok := i.replica.followers.Load(raft.ServerID(id)); ok {
		if stored := f.(*follower).stored.Load(); stored != nil {
			return stored.index
		}
	}
	return 0
}

// Waits reports whether one of Raft's goroutines waits until a node answers.
func (i Inside) Waits(id state.NodeID) bool {
	t := i.replica.transport
	t.answering.Lock()
	defer t.answering.Unlock()
	return t.answers[raft.ServerID(id)] != nil
}
