package ensemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
)

// startRaft starts Raft on the folder and the cluster port, and what drives
// them.
func (n *Node) startRaft() error {
	if err := n.checkRecovery(); err != nil {
		return err
	}
	if !n.dir.id().Settled {
		if err := n.dir.clear(n.dirLife); err != nil {
			return err
		}
	}
	if id := n.dir.id(); id.Cluster == "" && id.Join == "" && len(n.cfg.Join) == 0 {
		if err := n.foundCluster(); err != nil {
			return err
		}
	}
	if err := n.checkSpace(); err != nil {
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
	n.counter.Store(counter)
	n.roster.Bind(bound)
	logger := raftLogger(n.log, n.nameHeard)
	snapshots, err := newSnapshots(n.dir, store, logger)
	if err != nil {
		return permanent("data folder: %w", err)
	}
	if err := n.checkState(snapshots); err != nil {
		return err
	}

	n.port, err = clusterport.New(clusterport.Config{
		Key:         n.cfg.Key,
		Self:        n.hello,
		Admit:       n.admit,
		Logger:      n.log,
		DialContext: n.cfg.dial,
		Refused: func(err *clusterport.RefusedError) {
			switch {
			case errors.Is(err, clusterport.ErrRemoved):
				go n.removed(err.Peer.String())
			case errors.Is(err, clusterport.ErrWrongCluster):
				go n.estranged(err.Peer)
			}
		},
	})
	if err != nil {
		return err
	}
	n.forward = &forwarder{dial: n.dialMember, limit: max(2*n.cfg.Timing.Heartbeat, n.cfg.Timing.Lease/4)}
	layer := n.port.Raft(func(id string) (string, error) {
		select {
		case <-n.started:
		case <-n.done:
			return "", errStopped
		}
		s, ok := n.server(state.NodeID(id))
		switch {
		case !ok:
			return "", errors.New("not a member")
		case n.yields.Load():
			return "", errYields
		}
		return n.addressOf(s), nil
	})
	n.fsm.awaitFlushed = store.AwaitFlushed
	n.transport = newTransport(n, n.done, &raft.NetworkTransportConfig{
		Stream:                layer,
		ServerAddressProvider: layer,
		MaxPool:               3,
		// One at a time: with a pipeline, raft 1.8.0 waits for ever to hand over a
		// request when an answer before it was a refusal. The follower then gets
		// heartbeats and nothing else, and Shutdown never returns.
		MaxRPCsInFlight: 1,
		Timeout:         max(2*time.Second, 2*n.cfg.Timing.Heartbeat),
		Logger:          logger,
	})

	leading := make(chan bool, 1)
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.self)
	c.HeartbeatTimeout = n.cfg.Timing.Heartbeat
	c.ElectionTimeout = n.cfg.Timing.Heartbeat
	// Less than HeartbeatTimeout, which missRaftLeader shortens, by a nanosecond each time.
	c.LeaderLeaseTimeout = n.cfg.Timing.Heartbeat / 10 * 9
	c.CommitTimeout = 200 * time.Millisecond // for what a hint did not tell
	c.MaxAppendEntries = 64                  // without BatchApplyCh: what waits in that has no answer when Raft shuts down
	c.SnapshotInterval = snapshotEvery
	c.SnapshotThreshold = snapshotEntries
	c.TrailingLogs = trailingEntries
	c.ShutdownOnRemove = false // it hands over before it is removed
	c.NotifyCh = leading
	c.Logger = logger

	n.entries, err = newRaftStore(store, snapshots)
	if err != nil {
		n.transport.Close()
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.entries.append = store.Append
	n.entries.leads = func() bool { return n.raft.State() == raft.Leader } // which changes between what Raft stores
	n.entries.restart = n.failed
	snapshots.failed, snapshots.unread, snapshots.room = n.snapshotFailed, n.snapshotUnread, n.roomForSnapshot
	if n.cfg.createState != nil {
		snapshots.create = n.cfg.createState
	}
	n.raft, err = withoutPanic(func() (*raft.Raft, error) {
		return raft.NewRaft(c, n.fsm, n.entries, n.entries, snapshots, n.transport)
	})
	if err != nil {
		n.transport.Close()
		return permanent("data folder: raft does not start on it: %w; %s", err, cureFolder)
	}
	close(n.started)
	if id := n.dir.id(); id.Cluster != "" && !id.Settled {
		if err := n.found(); err != nil {
			n.endRaft()
			return err
		}
	}

	n.entries.running.Store(true)

	changes := make(chan raft.Observation, 16)
	n.raft.RegisterObserver(raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	}))
	n.port.Handle(clusterport.Forward, n.acceptProposals)
	n.port.Handle(clusterport.Admin, n.answers(map[string]answerer{
		askView:    n.answerView,
		askAdd:     n.answerAdd,
		askLift:    n.answerLift,
		askRemove:  n.answerRemove,
		askLeave:   n.answerLeave,
		askCounter: n.answerCounter,
		askOrder:   n.answerOrder,
	}))
	n.port.Handle(clusterport.Join, n.answers(map[string]answerer{
		askCluster: n.invite,
		askAdd:     n.letIn,
		askLift:    n.passLift,
		askOrder:   n.passOrder,
	}))
	if n.cfg.Listener != nil {
		n.running.Go(func() {
			if err := n.port.Serve(n.cfg.Listener); !errors.Is(err, clusterport.ErrClosed) {
				n.failed(fmt.Errorf("cluster port: %w", err))
			}
		})
	}
	n.running.Go(func() { n.watchRaft(leading, changes) })
	n.running.Go(n.watchSilence)
	n.running.Go(n.seekRaftLeader)
	n.running.Go(n.watchSpace)
	n.running.Go(n.watchFiles)
	n.running.Go(n.watchFolder)
	n.running.Go(n.watchLog)
	n.running.Go(n.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.Run(n.done, n.allJoined) })
	switch id := n.dir.id(); {
	case id.Cluster == "" || id.Join != "":
		n.running.Go(n.enter)
	case id.Leaving:
		n.running.Go(n.stay)
	}
	return nil
}

// withoutPanic makes an error of what Raft, at its start, panics about: entries that it
// cannot read or decode, a term that it cannot save.
func withoutPanic[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// endRaft ends Raft and the cluster port, and returns when the store is used no
// more. The port goes first: Raft waits for what it has asked others.
func (n *Node) endRaft() error {
	shutdown := n.raft.Shutdown()
	n.port.Close()
	err := shutdown.Error()
	n.transport.end()
	return err
}

// reloadRaft changes settings of Raft while it runs.
func (n *Node) reloadRaft(change func(*raft.ReloadableConfig)) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	c := n.raft.ReloadableConfig()
	change(&c)
	if err := n.raft.ReloadConfig(c); err != nil {
		n.log.Error("Raft goes on with its settings", "error", err)
	}
}

// checkState makes sure that Raft's state is there if the folder says so. While a node
// waits to be added it may be there or not.
func (n *Node) checkState(snapshots *snapshots) error {
	if id := n.dir.id(); !id.Settled || id.Join != "" {
		return nil
	}
	last, err := n.store.LastIndex()
	switch {
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	case last == 0 && snapshots.newest.Load() == nil:
		return permanent("%s is empty though this node has had state; %s", n.dir.raftPath(), cureFolder)
	}
	return nil
}

// snapshotFailed ends a node that cannot store, or read again, a snapshot that it was
// sent. Raft would go on as it is, and be sent it for ever. Nor would the node learn how a
// session ends, so it does not wait for that. Of its own, it has all in its log, and tries
// again.
func (n *Node) snapshotFailed(index uint64, err error) {
	select {
	case <-n.started:
	default:
		return // NewRaft says itself what it cannot read
	}
	if index > n.raft.AppliedIndex() && !errors.Is(err, diskthread.ErrClosed) {
		n.failed(fmt.Errorf("disk: the snapshot of entry %d, which the raft leader sent, cannot be stored in %s: %w; make room, or replace the disk", index, n.dir.path, err))
	}
}

// snapshotUnread has a new snapshot be taken in the place of the newest one, which cannot be
// read any more though it is of this node's own state. Raft would try for ever to send it to
// a node that needs one.
func (n *Node) snapshotUnread(name string, err error) {
	select {
	case <-n.started:
	default:
		return // NewRaft says itself what it cannot read
	}
	if errors.Is(err, diskthread.ErrClosed) {
		return
	}
	if told := n.unread.Swap(&name); told == nil || *told != name {
		n.log.Error("the newest snapshot cannot be read any more, so a new one is taken in its place; should that come again, replace the disk", "folder", n.entries.snapshots.path, "snapshot", name, "error", err)
	}
	signal(n.fsm.full) // each time: the new one may have failed
}

// lacksSnapshot reports whether the newest snapshot is still one that cannot be read.
func (n *Node) lacksSnapshot() bool {
	name := n.unread.Load()
	return name != nil && n.entries.snapshots.isNewest(*name)
}

// hello is how the node introduces itself to others.
func (n *Node) hello() clusterport.Hello {
	id := n.dir.id()
	return clusterport.Hello{
		Cluster: id.Cluster, Node: string(id.Node), Name: n.cfg.Name, Address: n.cfg.Address,
		// At its start the state may be older than what the folder says.
		Formats: clusterport.Formats{Oldest: state.FirstLevel, Newest: state.NewestLevel, Writes: max(int(n.level.Load()), id.Format)},
	}
}

// admit decides whether a node of this cluster may connect. A node whose log is
// behind does not know the newest members, and one of those may be the raft
// leader that could bring it up to date: while it follows nobody, it lets in all
// but those that it knows to be removed.
func (n *Node) admit(peer clusterport.Hello, p clusterport.Purpose) error {
	if p == clusterport.Join {
		return nil
	}
	id := state.NodeID(peer.Node)
	n.meet(peer)
	var known state.NodeRecord
	n.fsm.read(func(s *state.State) { known, _ = s.Node(id) })
	_, member := n.server(id)
	_, leader := n.raft.LeaderWithID()
	switch {
	case known.Removed:
		return clusterport.ErrRemoved
	case p == clusterport.Raft && n.yields.Load():
		return errYields
	case !member && leader != "" && state.NodeID(leader) != id:
		return clusterport.ErrUnknownNode
	}
	return nil
}

// yield has a raft leader whose disk hangs step aside, early enough for the others
// to elect another one before their leases end. Raft would not: it goes on sending
// heartbeats while it cannot store an entry. If the disk comes back, so does the
// node, as a follower; if not, the store ends it.
func (n *Node) yield() {
	hangs := n.store.Busy() > n.cfg.Timing.Lease/3
	switch {
	case !hangs && n.yields.Load():
		n.yields.Store(false)
		n.log.Info("the disk answers again")
	case hangs && !n.yields.Load() && n.leads.Load() != 0:
		n.yields.Store(true)
		n.log.Warn("the disk hangs: no raft leader until it answers", "for", n.store.Busy())
		n.port.ClosePurpose(clusterport.Raft)
	}
}

var errYields = errors.New("the disk of this node hangs")

// dropped ends all dealings with a node that was removed.
func (n *Node) dropped(id state.NodeID) {
	if id == n.self {
		n.removed("its own log")
		return
	}
	if f, ok := n.followers.LoadAndDelete(raft.ServerID(id)); ok {
		close(f.(*follower).gone)
	}
	n.transport.answered(raft.ServerID(id))
	n.port.CloseNode(string(id))
}

// dialMember opens a connection for proposals.
func (n *Node) dialMember(ctx context.Context, to state.NodeID) (net.Conn, error) {
	s, ok := n.server(to)
	if !ok {
		return nil, fmt.Errorf("%s is not a member", n.nameOf(to))
	}
	c, _, err := n.port.Dial(ctx, clusterport.Forward, n.addressOf(s), string(to))
	return c, err
}

// hint is who leads, as another node said at a time.
type hint struct {
	leader state.NodeID
	at     time.Time
}

// hintLasts is for how long a hint is believed. What comes of it is a refusal.
const hintLasts = 3 * time.Second

// nameOf is a node's name for people, its id where the name is not known.
func (n *Node) nameOf(id state.NodeID) string {
	return cmp.Or(n.nameHeard(id), n.names()[id], string(id))
}

// nameHeard is a node's name by the configuration, or as it has introduced itself to this
// one; empty: it is not known by these. It takes no lock.
func (n *Node) nameHeard(id state.NodeID) string {
	select {
	case <-n.started:
		if s, ok := n.server(id); ok {
			return s.name
		}
	default:
	}
	name, _ := n.heardAs.Load(id)
	known, _ := name.(string)
	return known
}

// raftLeader is the raft leader as far as this node knows, "" if it does not.
func (n *Node) raftLeader() state.NodeID {
	if _, id := n.raft.LeaderWithID(); id != "" {
		return state.NodeID(id)
	}
	if h := n.hint.Load(); h != nil && time.Since(h.at) < hintLasts {
		return h.leader
	}
	return ""
}

// watchRaft follows whether this node is the raft leader, and who is. Raft waits
// for its notices to be taken, so nothing here blocks. A raft leader acts on
// stamps only when its own state machine has caught up with its log.
func (n *Node) watchRaft(leading <-chan bool, changes <-chan raft.Observation) {
	turn := 0 // guarded by the node's mutex
	silent := map[raft.ServerID]bool{}
	for {
		select {
		case <-n.done:
			return
		case o := <-changes:
			switch o := o.Data.(type) {
			case raft.LeaderObservation:
				_, leader := n.raft.LeaderWithID()
				n.forward.turn(state.NodeID(leader))
				signal(n.wakeProposer)
				if leader != "" && state.NodeID(leader) != n.self {
					n.log.Info("follows the raft leader", "leader", n.nameOf(state.NodeID(leader)))
				}
			case raft.FailedHeartbeatObservation:
				if _, member := n.server(state.NodeID(o.PeerID)); member && !silent[o.PeerID] {
					silent[o.PeerID] = true
					n.log.Warn("a node does not answer", "node", n.nameOf(state.NodeID(o.PeerID)))
				}
			case raft.ResumedHeartbeatObservation:
				if silent[o.PeerID] {
					delete(silent, o.PeerID)
					n.log.Info("a node answers again", "node", n.nameOf(state.NodeID(o.PeerID)))
				}
			}
		case is := <-leading:
			n.mu.Lock()
			turn++
			mine := turn
			n.roster.Follow()
			n.mu.Unlock()
			n.leads.Store(0)
			if !is {
				n.log.Info("no longer the raft leader")
				continue
			}
			n.leads.Store(n.raft.CurrentTerm())
			n.log.Info("raft leader")
			// On its own: Raft may leave the question without an answer when
			// it shuts down, and nothing may wait for it.
			go func() {
				if !n.caughtUp() {
					return
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				if mine == turn {
					n.roster.Lead(n.now())
					signal(n.wake)
				}
			}()
		}
	}
}

// caughtUp returns when all that is in the log of this raft leader is applied, or false when
// it is none any more. While Raft hands over it takes no question.
func (n *Node) caughtUp() bool {
	for {
		if err := n.raft.Barrier(0).Error(); err != raft.ErrLeadershipTransferInProgress {
			return err == nil
		}
		select {
		case <-n.done:
			return false
		case <-time.After(n.cfg.Timing.Heartbeat / 4):
		}
	}
}

// follows reports whether this node follows in a term, a raft leader or as yet nobody.
func (n *Node) follows(term uint64) bool {
	select {
	case <-n.started:
		return n.raft.State() == raft.Follower && n.raft.CurrentTerm() == term
	default:
		return false
	}
}

// flushed is up to which entry this node's log is on its disk.
func (n *Node) flushed() uint64 { return n.store.Flushed() }

// seekRaftLeader asks the other members who leads while this node does not know:
// it may have moved, so that the raft leader looks for it at an old address; and
// it may have been removed, which only the others can tell. Those of
// leader_latch.join are asked too, so that nodes meet that have all moved.
func (n *Node) seekRaftLeader() {
	every := max(2*n.cfg.Timing.Heartbeat, 500*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	alone := 0 // for how many ticks it has known none
	for {
		select {
		case <-n.done:
			return
		case <-tick.C:
		}
		_, leader := n.raft.LeaderWithID()
		if leader != "" || len(n.others()) == 0 {
			alone = 0
			continue
		}
		alone++
		if alone < 2 {
			continue
		}
		answering := 0
		ctx, cancel := context.WithTimeout(n.life, viewTime)
		for id, v := range n.views(ctx) {
			if id != n.self {
				answering++
			}
			if v.Leader != "" && v.Leader != n.self {
				n.hint.Store(&hint{v.Leader, time.Now()})
				signal(n.wakeProposer)
			}
		}
		cancel()
		for _, p := range n.cfg.Join { // where all have moved, these are where they are now
			ctx, cancel := context.WithTimeout(n.life, viewTime)
			n.inquire(ctx, p)
			cancel()
		}
		if alone == 2 {
			n.log.Warn("no raft leader: without a majority of the nodes nobody is elected", "others_answering", answering, "others", len(n.others()))
		}
	}
}
