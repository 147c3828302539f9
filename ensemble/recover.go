package ensemble

import (
	"fmt"
	"slices"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/replica"
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
//     before the longest S and the longest hold of the old cluster have passed.
type Recovery struct {
	dir  *Dir
	cfg  Config
	lost []string
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
	err := r.withReplica(func(of *replica.Replica) error {
		members, err := of.ServersOnDisk()
		for _, s := range members {
			if s.ID != id.Node {
				r.lost = append(r.lost, s.Name)
			} else if s.Voter {
				member = true // it had a session before it got its vote, and was ended before it noted that
			}
		}
		return err
	})
	slices.Sort(r.lost)
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
func (r *Recovery) Lost() []string { return slices.Clone(r.lost) }

// Do carries the recovery out. Should it be interrupted, the node does not start
// before it was done once more, from the beginning: which cluster Raft's state is of
// then, nobody looks at, as nobody has seen the one that was begun.
func (r *Recovery) Do() error {
	life := r.dir.begin()
	if err := r.dir.change(life, func(id *identity) { id.Recovery = recoveryBegun }); err != nil {
		return err
	}
	cluster := identity{}
	err := r.withReplica(func(of *replica.Replica) error {
		return of.Recover(r.cfg.Name, r.cfg.Address, func(s *state.State) {
			cluster.found(0)
			s.Refound(cluster.Cluster, cluster.TokenBase, recoverTokens)
			cluster.TokenBase = s.TokenBase()
		})
	})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return r.dir.change(life, func(id *identity) {
		id.Cluster, id.TokenBase, id.Join, id.Recovery = cluster.Cluster, cluster.TokenBase, "", recoveryWaits
	})
}

// withReplica opens what the node has of its cluster's state.
func (r *Recovery) withReplica(f func(*replica.Replica) error) error {
	store, err := logstore.Open(r.dir.raftPath(), logstore.Options{Format: state.LogstoreVersion(uint64(r.dir.id().Format)), Thread: r.dir.log})
	if err != nil {
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	defer store.Close()
	of, err := replica.Open(replica.Config{Self: r.dir.id().Node, Folder: r.dir.ofReplica(), Logger: r.cfg.Logger}, store)
	if err != nil {
		return err
	}
	return f(of)
}

// recoveryState is how far a recovery has come.
type recoveryState string

const (
	recoveryNone  recoveryState = ""
	recoveryBegun recoveryState = "begun" // Raft's state may be either cluster's
	recoveryWaits recoveryState = "waits" // for the leases of the old cluster to end
)
