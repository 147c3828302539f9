package ensemble

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
)

// Recovery makes a node that has lost the majority of its cluster for good the
// only member of a new one. It has whatever the node's own log has; what a
// majority without this node decided is lost.
//
//   - The new cluster has an id of its own: nodes of the old one, should they come
//     back, are strangers to it.
//   - Tokens go on rising, above any that the old cluster can have given.
//   - The sessions of the lost nodes are kept until they expire. Since some of
//     their members may be in no log that is left, the node tells nobody anything
//     before the longest lease of the old cluster has passed.
type Recovery struct {
	dir  *Dir
	cfg  Config
	lost []server
}

// recoverTokens is how many entries the lost nodes may have had beyond this one's
// log, for tokens to go on rising: two years of a hundred a second.
const recoverTokens = 1 << 32

// PlanRecovery looks at a folder, which no node runs on, and finds out what a
// recovery would do. Of the configuration it needs Name, Address and Logger. The
// error is a [PermanentError] if there is nothing to recover. A recovery that was begun
// has to be finished, though the node may be the only member already.
func PlanRecovery(dir *Dir, cfg Config) (*Recovery, error) {
	id := dir.id()
	none := permanent.Errorf("%s: this node is in no cluster yet, so there is none to recover; move the folder away to start as a new node", dir.path)
	if !id.Settled {
		return nil, none
	}
	member := id.Join == ""
	r := &Recovery{dir: dir, cfg: cfg}
	err := r.withState(func(c *raft.Config, entries *raftStore, t raft.Transport) error {
		configuration, err := withoutPanic(func() (raft.Configuration, error) {
			return raft.GetConfiguration(c, newFSM(nobody{}), entries, entries, entries.snapshots, t)
		})
		if err != nil {
			return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
		}
		for _, s := range configuration.Servers {
			name, address := splitRaftAddress(s.Address)
			if state.NodeID(s.ID) != id.Node {
				r.lost = append(r.lost, server{id: state.NodeID(s.ID), name: name, address: address})
			} else if s.Suffrage == raft.Voter {
				member = true // it had a session before it got its vote, and was ended before it noted that
			}
		}
		return nil
	})
	slices.SortFunc(r.lost, func(a, b server) int { return strings.Compare(a.name, b.name) })
	if err == nil && !member {
		err = none
	}
	if err == nil && len(r.lost) == 0 && id.Recovery != recoveryBegun {
		err = permanent.Errorf("this node is the only member of its cluster already; there is nothing to recover")
	}
	return r, err
}

// Lost gives the names of the nodes that the new cluster will not have; none where an
// interrupted recovery has given them up already.
func (r *Recovery) Lost() (names []string) {
	for _, s := range r.lost {
		names = append(names, s.name)
	}
	return names
}

// Do carries the recovery out. Should it be interrupted, the node does not start
// before it was done once more, from the beginning: which cluster Raft's state is of
// then, nobody looks at, as nobody has seen the one that was begun.
func (r *Recovery) Do() error {
	life := r.dir.begin()
	if err := r.dir.change(life, func(id *identity) { id.Recovery = recoveryBegun }); err != nil {
		return err
	}
	cluster := identity{}
	err := r.withState(func(c *raft.Config, entries *raftStore, t raft.Transport) error {
		if err := entries.lengthen(); err != nil {
			return err
		}
		f := &recoveryFSM{fsm: newFSM(nobody{}), found: &cluster}
		err := raft.RecoverCluster(c, f, entries, entries, entries.snapshots, t, raft.Configuration{Servers: []raft.Server{
			{ID: raft.ServerID(r.dir.id().Node), Address: raftAddress(r.cfg.Name, r.cfg.Address)},
		}})
		if err != nil {
			return err
		}
		// The next start goes by the newest snapshot, and must not find another cluster's.
		newest, err := entries.snapshots.List()
		if err == nil && (len(newest) == 0 || len(newest[0].Configuration.Servers) != 1) {
			err = permanent.Errorf("%s: the snapshot of the new cluster is not the newest there; keep a copy of the folder, and run leader-latch recover again", r.dir.path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return r.dir.change(life, func(id *identity) {
		id.Cluster, id.TokenBase, id.Join, id.Recovery = cluster.Cluster, cluster.TokenBase, "", recoveryWaits
	})
}

// withState opens what Raft has in the folder, and has it agree, as a start does.
func (r *Recovery) withState(f func(*raft.Config, *raftStore, raft.Transport) error) error {
	store, err := logstore.Open(r.dir.raftPath(), logstore.Options{Format: state.LogstoreVersion(uint64(r.dir.id().Format)), Thread: r.dir.log})
	if err != nil {
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	defer store.Close()
	logger := raftLogger(r.cfg.Logger, func(state.NodeID) string { return "" })
	snapshots, err := newSnapshots(r.dir, store, logger)
	if err != nil {
		return permanent.Errorf("data folder: %w", err)
	}
	entries, err := newRaftStore(store, snapshots)
	if err != nil {
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.dir.id().Node)
	c.Logger = logger
	_, t := raft.NewInmemTransport("")
	return f(c, entries, t)
}

// recoveryFSM is the state machine with a new cluster's identity in its snapshot.
type recoveryFSM struct {
	*fsm
	found *identity
}

// Snapshot implements [raft.FSM].
func (f *recoveryFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	f.found.found(0)
	f.state.Refound(f.found.Cluster, f.found.TokenBase, recoverTokens)
	f.found.TokenBase = f.state.TokenBase()
	f.mu.Unlock()
	return f.fsm.Snapshot()
}

// nobody observes nothing.
type nobody struct{}

func (nobody) applied(*state.State, []state.Effect, uint64) {}
func (nobody) restored(*state.State)                        {}
func (nobody) failed(error)                                 {}
func (nobody) follow()                                      {}
func (nobody) lead(func() bool)                             {}
func (nobody) turned(state.NodeID)                          {}

// recoveryState is how far a recovery has come.
type recoveryState string

const (
	recoveryNone  recoveryState = ""
	recoveryBegun recoveryState = "begun" // Raft's state may be either cluster's
	recoveryWaits recoveryState = "waits" // for the leases of the old cluster to end
)
