package ensemble

import (
	"errors"
	"fmt"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
)

// startRaft starts Raft on the folder and the cluster port, and what drives
// them.
func (n *Node) startRaft() error {
	if err := n.cluster.checkRecovery(); err != nil {
		return err
	}
	if !n.dir.id().Settled {
		if err := n.dir.clear(n.dirLife); err != nil {
			return err
		}
	}
	if id := n.dir.id(); id.Cluster == "" && id.Join == "" && len(n.cfg.Join) == 0 {
		if err := n.cluster.foundCluster(); err != nil {
			return err
		}
	}
	if err := n.folder.checkSpace(); err != nil {
		return err
	}
	store, err := logstore.Open(n.dir.raftPath(), logstore.Options{
		Format:       state.LogstoreVersion(uint64(n.dir.id().Format)),
		Thread:       n.dir.log,
		There:        n.dir.there,
		OnError:      func(err error) { n.failed(fmt.Errorf("disk: %w", err)) },
		BeforeCommit: n.cfg.beforeCommit,
		StallLimit:   n.cfg.stallLimit,
	})
	switch {
	case errors.Is(err, logstore.ErrVersion):
		return permanent("data folder: %w; install that version again", err)
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.store = store
	counter, bound, err := boundBy(store)
	if err != nil {
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.opens.store = store
	n.opens.last.Store(counter)
	n.roster.Bind(bound)
	if err := n.replica.open(store); err != nil {
		return permanent("data folder: %w", err)
	}
	if err := n.checkState(); err != nil {
		return err
	}
	n.port, err = clusterport.New(clusterport.Config{
		Key:         n.cfg.Key,
		Self:        n.cluster.hello,
		Admit:       n.cluster.admit,
		Logger:      n.log,
		DialContext: n.cfg.dial,
		Refused: func(err *clusterport.RefusedError) {
			switch {
			case errors.Is(err, clusterport.ErrRemoved):
				go n.cluster.removed(err.Peer.String())
			case errors.Is(err, clusterport.ErrWrongCluster):
				go n.cluster.estranged(err.Peer)
			}
		},
	})
	if err != nil {
		return err
	}
	n.cluster.port = n.port
	if n.cfg.createState != nil {
		n.replica.snapshots.create = n.cfg.createState
	}
	if err := n.replica.start(n.port.Raft(n.replica.addressToDial)); err != nil {
		return err
	}
	if id := n.dir.id(); id.Cluster != "" && !id.Settled {
		if err := n.cluster.found(); err != nil {
			n.endRaft()
			return err
		}
	}
	n.replica.run()
	n.cluster.handle()
	if n.cfg.Listener != nil {
		n.running.Go(func() {
			if err := n.port.Serve(n.cfg.Listener); !errors.Is(err, clusterport.ErrClosed) {
				n.failed(fmt.Errorf("cluster port: %w", err))
			}
		})
	}
	n.running.Go(n.cluster.seekRaftLeader)
	n.running.Go(n.folder.watchSpace)
	n.running.Go(n.folder.watchFiles)
	n.running.Go(func() { n.folder.watchFolder(n.store) })
	n.running.Go(n.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.Run(n.done, n.allJoined) })
	switch id := n.dir.id(); {
	case id.Cluster == "" || id.Join != "":
		n.running.Go(n.cluster.enter)
	case id.Leaving:
		n.running.Go(n.cluster.stay)
	}
	return nil
}

// checkState makes sure that Raft's state is there if the folder says so. While a node
// waits to be added it may be there or not.
func (n *Node) checkState() error {
	if id := n.dir.id(); !id.Settled || id.Join != "" {
		return nil
	}
	switch isNew, err := n.replica.isNew(); {
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	case isNew:
		return permanent("%s is empty though this node has had state; %s", n.dir.raftPath(), cureFolder)
	}
	return nil
}

// endRaft ends Raft and the cluster port, and returns when the store is used no more.
func (n *Node) endRaft() error { return n.replica.end(n.port.Close) }

// follow, lead and turned implement observer: a raft leader acts on stamps only when its own
// state machine has caught up with its log.
func (n *Node) follow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.roster.Follow()
}

func (n *Node) lead(still func() bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if still() {
		n.roster.Lead(n.now())
		signal(n.wake)
	}
}

func (n *Node) turned(state.NodeID) { signal(n.wakeProposer) }
