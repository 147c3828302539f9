package ensemble

import (
	"context"
	"errors"
	"fmt"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// Start starts the node in its folder, founding a cluster of its own if the
// folder is new. It returns before there is a raft leader; see
// [Node.WaitReady]. After an error the folder is still the caller's to close.
func Start(dir *Dir, cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n, err := newNode(dir, cfg)
	if err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		n.end()
		n.running.Wait()
		if n.port != nil {
			n.port.Close()
		}
		n.deadMan.close()
		if n.store != nil {
			n.store.Close()
		}
		// A state that this program may not touch is told as itself, not as
		// Raft's failure to start on it.
		if f := n.Err(); f != nil {
			return nil, f
		}
		return nil, err
	}
	return n, nil
}

// complete sets what is not set.
func (c *Config) complete() error {
	if c.now == nil {
		c.now = session.Now
	}
	if c.released.IsZero() {
		c.released = released
	}
	if c.freeSpace == nil {
		c.freeSpace = freeSpace
	}
	if c.hangLimit == 0 {
		c.hangLimit = hangLimit
	}
	if c.bootID == "" {
		id, err := bootID()
		if err != nil {
			return fmt.Errorf("boot id: %w", err)
		}
		c.bootID = id
	}
	if err := c.Timing.Check(); err != nil {
		return err
	}
	if c.Voters <= 0 {
		c.Voters = 5
	}
	if c.MaxHeld <= 0 {
		c.MaxHeld = 20_000
	}
	return nil
}

// newNode gives a node of which nothing runs yet.
func newNode(dir *Dir, cfg Config) (*Node, error) {
	n := &Node{
		cfg:          cfg,
		log:          cfg.Logger,
		now:          cfg.now,
		dir:          dir,
		dispatch:     session.NewDispatcher(),
		wake:         make(chan struct{}, 1),
		wakeProposer: make(chan struct{}, 1),
		failure:      newFailure(),
		changed:      make(chan struct{}),
	}
	n.observers = &observers{n, make(chan struct{}, 1)}
	n.seen.level.Store(state.FirstLevel)
	n.dirLife = dir.begin()
	n.self = dir.id().Node
	n.life, n.end = context.WithCancel(context.Background())
	n.done = n.life.Done()
	n.roster = session.New(session.Config{
		Node: n.self, Boot: cfg.bootID, Name: cfg.Name, Address: cfg.Address, Reads: cfg.reads(),
		Timing: cfg.Timing, Omit: cfg.omit,
		Guard: guard{n}, Now: n.now, Dispatch: n.dispatch, Logger: n.log,
		Note:  func(counter uint64) { go n.note(counter) },
		Alive: n.renewed,
		Watch: func() { signal(n.observers.wake) },
	})
	if cfg.DeadManSwitch {
		var err error
		if n.deadMan, err = newDeadMan(); err != nil {
			return nil, err
		}
	}
	n.folder = &folderWatch{
		dir: dir, minimumFree: cfg.MinimumFree, freeSpace: cfg.freeSpace, hangLimit: cfg.hangLimit,
		failed: n.failed, done: n.done, log: n.log,
	}
	n.cluster = &cluster{
		cfg: &n.cfg, log: n.log, self: n.self, dir: dir, dirLife: n.dirLife,
		seen: &n.seen, life: n.life, lifeID: randomID(), node: n, born: n.now(),
		awaySince: make(map[state.NodeID]session.Reading),
		handOvers: handOvers{failed: make(map[state.NodeID]time.Time)},
	}
	if cfg.LogElections {
		n.elections = newElectionLog(n.log)
	}
	n.opens = &opens{cluster: n.cluster, failed: n.failed, wake: func() { signal(n.wake) }}
	n.duty = &duties{node: n}
	return n, nil
}

// start opens what is in the folder, starts Raft on it and the cluster port, and what drives
// them.
func (n *Node) start() error {
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
	if err := n.openStore(); err != nil {
		return err
	}
	if err := n.openPort(); err != nil {
		return err
	}
	if err := n.replica.Start(n.port); err != nil {
		return err
	}
	if id := n.dir.id(); id.Cluster != "" && !id.Settled {
		if err := n.cluster.found(); err != nil {
			n.replica.Stop()
			return err
		}
	}
	n.replica.Run()
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
	n.running.Go(loop{n}.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.Run(n.done, n.allJoined) })
	n.running.Go(n.observers.run)
	if n.elections != nil {
		n.running.Go(func() { n.elections.run(n.done) })
	}
	switch id := n.dir.id(); {
	case id.Cluster == "" || id.Join != "":
		n.running.Go(n.cluster.enter)
	case id.Leaving:
		n.running.Go(n.cluster.stay)
	}
	return nil
}

// openStore opens the log store, and the replica on it.
func (n *Node) openStore() error {
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
		return permanent.Errorf("data folder: %w; install that version again", err)
	case err != nil:
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	n.store = store
	counter, bound, err := boundBy(store)
	if err != nil {
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	n.opens.store = store
	n.opens.last.Store(counter)
	n.roster.Bind(bound)
	observes := replica.Observer(observer{n})
	if n.cfg.observe != nil {
		observes = n.cfg.observe(observes)
	}
	n.replica, err = replica.Open(replica.Config{
		Self: n.self, Heartbeat: n.cfg.Timing.Heartbeat, Lease: n.cfg.Timing.Lease, Folder: n.dir.ofReplica(),
		Observer: observes, Level: n.seen.level.Load, Room: n.folder.roomForSnapshot, Logger: n.log,
		Alter: n.cfg.alter, CreateState: n.cfg.createState, Omit: n.cfg.omitReplica,
	}, store)
	if err != nil {
		return err
	}
	n.cluster.replica = n.replica
	return n.checkState()
}

// openPort makes the cluster port, on which nobody is answered yet.
func (n *Node) openPort() (err error) {
	n.port, err = clusterport.New(clusterport.Config{
		Key:         n.cfg.Key,
		Self:        n.cluster.hello,
		Admit:       n.cluster.admit,
		Logger:      n.log,
		DialContext: n.cfg.dial,
		Lost:        n.cluster.lost,
		Refused: func(err *clusterport.RefusedError) {
			switch {
			case errors.Is(err, clusterport.ErrRemoved):
				go n.cluster.removed(err.Peer.String())
			case errors.Is(err, clusterport.ErrWrongCluster):
				go n.cluster.estranged(err.Peer)
			}
		},
	})
	n.cluster.port = n.port
	return err
}

// checkState makes sure that Raft's state is there if the folder says so. While a node
// waits to be added it may be there or not.
func (n *Node) checkState() error {
	if id := n.dir.id(); !id.Settled || id.Join != "" {
		return nil
	}
	switch isNew, err := n.replica.IsNew(); {
	case err != nil:
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	case isNew:
		return permanent.Errorf("%s is empty though this node has had state; %s", n.dir.raftPath(), permanent.CureFolder)
	}
	return nil
}
