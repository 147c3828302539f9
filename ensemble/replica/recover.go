package replica

import (
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
)

// ServersOnDisk gives the members by what is on disk, while Raft does not run.
func (r *Replica) ServersOnDisk() ([]Server, error) {
	_, t := raft.NewInmemTransport("")
	c, err := withoutPanic(func() (raft.Configuration, error) {
		return raft.GetConfiguration(r.offline(), newFSM(nobody{}), r.entries, r.entries, r.snapshots, t)
	})
	if err != nil {
		return nil, permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	return serversOf(c), nil
}

// Recover makes this node, while Raft does not run, the only member, with all that its log
// has. refound changes the state before it is written down.
func (r *Replica) Recover(name, address string, refound func(*state.State)) error {
	if err := r.entries.lengthen(); err != nil {
		return err
	}
	_, t := raft.NewInmemTransport("")
	members := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.self), Address: raftAddress(name, address)}}}
	err := raft.RecoverCluster(r.offline(), &recoveryFSM{newFSM(nobody{}), refound}, r.entries, r.entries, r.snapshots, t, members)
	if err != nil {
		return err
	}
	// The next start goes by the newest snapshot, and must not find another cluster's.
	if newest := r.snapshots.newest.Load(); newest == nil || len(newest.Configuration.Servers) != 1 {
		return permanent.Errorf("%s: the snapshot of the new cluster is not the newest there; keep a copy of the folder, and run leader-latch recover again", r.cfg.Folder.Path)
	}
	return nil
}

// offline gives settings for what Raft does without running.
func (r *Replica) offline() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.self)
	c.Logger = r.logger
	return c
}

// recoveryFSM is the state machine with another cluster's identity in its snapshot.
type recoveryFSM struct {
	*fsm
	refound func(*state.State)
}

// Snapshot implements [raft.FSM].
func (f *recoveryFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	f.refound(f.state)
	f.mu.Unlock()
	return f.fsm.Snapshot()
}
