package ensemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
)

// replicaConfig is what a replica needs to know.
type replicaConfig struct {
	self      state.NodeID
	heartbeat time.Duration // Raft's timeouts
	lease     time.Duration // L: what takes longer is given up
	dir       *Dir          // holds the snapshots
	observer  observer
	level     func() uint64              // of the formats that are written
	room      func(snapshot int64) error // why a snapshot of the node's own state may not have so many bytes
	dial      func(ctx context.Context, to state.NodeID) (net.Conn, error)
	done      <-chan struct{} // closed: the goroutines end
	running   *sync.WaitGroup // of these
	log       *slog.Logger
}

// replica is this node's copy of the state and of the log that makes it, and the node's part
// in Raft: what it is in there, and which other nodes are. It is safe for concurrent use.
type replica struct {
	replicaConfig

	store     *logstore.Store
	entries   *raftStore // store as Raft has it
	snapshots *snapshots
	raft      *raft.Raft // set when started is closed; what Raft itself calls may come before
	started   chan struct{}
	leading   chan bool // Raft's notices
	fsm       *fsm
	transport *transport
	logger    hclog.Logger // Raft's
	forward   *forwarder

	hint      atomic.Pointer[hint] // who leads, says another node
	yields    atomic.Bool          // its disk hangs, and it takes no part in Raft
	leads     atomic.Uint64        // the term in which this node is the raft leader; 0: none
	newest    atomic.Pointer[entryID]
	followers sync.Map               // raft.ServerID to *follower
	trailing  atomic.Uint64          // how many entries Raft leaves behind a snapshot
	unread    atomic.Pointer[string] // the last snapshot that could not be read again; nil: none yet
	turns     atomic.Uint64          // how often this node became the raft leader, or ceased to be

	heardAs sync.Map // state.NodeID to string: by which names nodes have introduced themselves
	met     sync.Map // state.NodeID to string: where members said that they are, unless the configuration says so too

	reloading sync.Mutex // held over a change of Raft's settings
}

// observer is told what becomes of a replica. The first three calls come under the lock of the
// state, in order, by one goroutine at a time, and may read it until they return.
type observer interface {
	applied(s *state.State, effects []state.Effect, term uint64) // of the entry
	restored(s *state.State)
	failed(err error)

	follow()                    // this node is no raft leader, or not known to be caught up
	lead(still func() bool)     // it is one, and its state is that of its log; unless still is false by now
	turned(leader state.NodeID) // there is another raft leader; empty: none
}

func newReplica(c replicaConfig) *replica {
	r := &replica{replicaConfig: c, started: make(chan struct{}), leading: make(chan bool, 1)}
	r.fsm = newFSM(c.observer)
	r.fsm.snapshotted = r.snapshotted
	r.forward = &forwarder{dial: c.dial, limit: max(2*c.heartbeat, c.lease/4)}
	r.trailing.Store(trailingEntries)
	r.logger = raftLogger(c.log, r.nameHeard)
	return r
}

// open opens the snapshots that go with a log.
func (r *replica) open(store *logstore.Store) (err error) {
	r.store = store
	r.fsm.awaitFlushed = store.AwaitFlushed
	r.snapshots, err = newSnapshots(r.dir, store, r.logger)
	return err
}

// isNew reports whether there is nothing of a state in the folder.
func (r *replica) isNew() (bool, error) {
	last, err := r.store.LastIndex()
	return last == 0 && r.snapshots.newest.Load() == nil, err
}

// addressToDial is where Raft reaches a member, by its id.
func (r *replica) addressToDial(id string) (string, error) {
	select {
	case <-r.started:
	case <-r.done:
		return "", errStopped
	}
	s, ok := r.server(state.NodeID(id))
	switch {
	case !ok:
		return "", errors.New("not a member")
	case r.yields.Load():
		return "", errYields
	}
	return r.addressOf(s), nil
}

// start starts Raft. Until run it proposes nothing and tells nobody.
func (r *replica) start(layer *clusterport.RaftLayer) (err error) {
	r.transport = newTransport(r, r.done, &raft.NetworkTransportConfig{
		Stream:                layer,
		ServerAddressProvider: layer,
		MaxPool:               3,
		// One at a time: with a pipeline, raft 1.8.0 waits for ever to hand over a
		// request when an answer before it was a refusal. The follower then gets
		// heartbeats and nothing else, and Shutdown never returns.
		MaxRPCsInFlight: 1,
		Timeout:         max(2*time.Second, 2*r.heartbeat),
		Logger:          r.logger,
	})
	r.entries, err = newRaftStore(r.store, r.snapshots)
	if err != nil {
		r.transport.Close()
		return permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	r.entries.append = r.store.Append
	r.entries.leads = func() bool { return r.raft.State() == raft.Leader } // which changes between what Raft stores
	r.entries.restart = r.observer.failed
	r.snapshots.failed, r.snapshots.unread, r.snapshots.room = r.snapshotFailed, r.snapshotUnread, r.roomForSnapshot
	r.raft, err = withoutPanic(func() (*raft.Raft, error) {
		return raft.NewRaft(r.config(), r.fsm, r.entries, r.entries, r.snapshots, r.transport)
	})
	if err != nil {
		r.transport.Close()
		return permanent.Errorf("data folder: raft does not start on it: %w; %s", err, permanent.CureFolder)
	}
	close(r.started)
	return nil
}

// config gives Raft's settings.
func (r *replica) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.self)
	c.HeartbeatTimeout = r.heartbeat
	c.ElectionTimeout = r.heartbeat
	// Less than HeartbeatTimeout, which missRaftLeader shortens, by a nanosecond each time.
	c.LeaderLeaseTimeout = r.heartbeat / 10 * 9
	c.CommitTimeout = 200 * time.Millisecond // for what a hint did not tell
	c.MaxAppendEntries = 64                  // without BatchApplyCh: what waits in that has no answer when Raft shuts down
	c.SnapshotInterval = snapshotEvery
	c.SnapshotThreshold = snapshotEntries
	c.TrailingLogs = trailingEntries
	c.ShutdownOnRemove = false // it hands over before it is removed
	c.NotifyCh = r.leading
	c.Logger = r.logger
	return c
}

// run begins what goes on for as long as Raft runs.
func (r *replica) run() {
	r.entries.running.Store(true)
	changes := make(chan raft.Observation, 16)
	r.raft.RegisterObserver(raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	}))
	r.running.Go(func() { r.watchRaft(changes) })
	r.running.Go(r.watchSilence)
	r.running.Go(r.watchLog)
}

// end ends Raft. It returns when the store is used no more. The ports to other nodes go
// meanwhile, by close: Raft waits for what it has asked others.
func (r *replica) end(close func() error) error {
	r.forward.close()
	shutdown := r.raft.Shutdown()
	close()
	err := shutdown.Error()
	r.transport.end()
	return err
}

// read calls fn with the state as of the last entry applied.
func (r *replica) read(fn func(*state.State)) { r.fsm.read(fn) }

// found makes this node, which has nothing yet, the only member.
func (r *replica) found(name, address string) error {
	servers := []raft.Server{{ID: raft.ServerID(r.self), Address: raftAddress(name, address)}}
	return r.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
}

// add makes a node a member that votes or only follows, or has the one that it is change.
func (r *replica) add(s server) error {
	change := r.raft.AddNonvoter
	if s.voter {
		change = r.raft.AddVoter
	}
	return r.await(change(raft.ServerID(s.id), raftAddress(s.name, s.address), 0, changeTime))
}

// demote has a member vote no more.
func (r *replica) demote(id state.NodeID) error {
	return r.await(r.raft.DemoteVoter(raft.ServerID(id), 0, changeTime))
}

// remove has a node be a member no more.
func (r *replica) remove(id state.NodeID) error {
	return r.await(r.raft.RemoveServer(raft.ServerID(id), 0, changeTime))
}

// drop ends all dealings with a node that was removed.
func (r *replica) drop(id state.NodeID) {
	if f, ok := r.followers.LoadAndDelete(raft.ServerID(id)); ok {
		close(f.(*follower).gone)
	}
	r.transport.answered(raft.ServerID(id))
}

// lost gives what a node has lost of the log that it had stored in this term, as far as this
// one knows, as the raft leader.
func (r *replica) lost(id state.NodeID) (stored, end uint64, lost bool) {
	f, ok := r.followers.Load(raft.ServerID(id))
	if !ok {
		return 0, 0, false
	}
	l := f.(*follower).lost.Load()
	if l == nil || l.stored.term != r.leads.Load() {
		return 0, 0, false
	}
	return l.stored.index, l.end, true
}

// handOver has another voter take raft leadership. A question may have stayed behind, for as
// long as the other one is busy: asked says so.
func (r *replica) handOver(to server) (asked bool) {
	switch r.await(r.raft.LeadershipTransferToServer(raft.ServerID(to.id), raftAddress(to.name, to.address))) {
	case nil, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout, raft.ErrNotLeader:
		return false
	}
	return true
}

// leader is the raft leader that this node follows or is, by Raft; empty: none.
func (r *replica) leader() state.NodeID {
	_, id := r.raft.LeaderWithID()
	return state.NodeID(id)
}

// hasHeard reports whether this node has heard of a commit since its start.
func (r *replica) hasHeard() bool { return r.raft.CommitIndex() > 0 }

// isLeader reports whether this node is the raft leader, caught up or not.
func (r *replica) isLeader() bool { return r.raft.State() == raft.Leader }

// lastIndex is that of the last entry in the log.
func (r *replica) lastIndex() uint64 { return r.raft.LastIndex() }

// term is Raft's.
func (r *replica) term() uint64 { return r.raft.CurrentTerm() }

// role is what this node is in Raft, in Riak's words for a peer.
func (r *replica) role() string {
	switch r.raft.State() {
	case raft.Leader:
		return "leading"
	case raft.Candidate:
		return "election"
	}
	if r.leader() == "" {
		return "probe"
	}
	return "following"
}

// propose has operations committed, as the raft leader, and applied by this node. An error says
// that they are not, or that nobody knows.
func (r *replica) propose(ops ...state.Op) error { return r.proposeAs(r.level(), ops...) }

// proposeAs does so in the formats of a level.
func (r *replica) proposeAs(level uint64, ops ...state.Op) error {
	return r.await(r.raft.Apply(entryOf(level, ops), r.lease))
}

// submit has operations put into the log as one entry, by this node's Raft or by that of the
// raft leader. The outcome goes to done, once, from another goroutine; Raft may leave it out
// when it shuts down.
func (r *replica) submit(ops []state.Op, done func(index uint64, err error)) {
	entry := entryOf(r.level(), ops)
	if leader := r.raftLeader(); leader != "" && leader != r.self {
		r.forward.send(leader, entry, done)
		return
	}
	future := r.raft.Apply(entry, r.lease)
	go func() {
		err := awaitCommit(future)
		done(future.Index(), err)
	}()
}

func entryOf(level uint64, ops []state.Op) []byte {
	return state.Encode(level, state.Entry{At: time.Now(), Ops: ops})
}

// awaitCommit waits until an entry is committed, and applied by this node. An error says that
// it is not, or that nobody knows.
func awaitCommit(f raft.ApplyFuture) error {
	if err := f.Error(); err != nil {
		return err
	}
	err, _ := f.Response().(error)
	return err
}

// snapshotFailed ends a node that cannot store, or read again, a snapshot that it was
// sent. Raft would go on as it is, and be sent it for ever. Nor would the node learn how a
// session ends, so it does not wait for that. Of its own, it has all in its log, and tries
// again.
func (r *replica) snapshotFailed(index uint64, err error) {
	if r.wasSent(index) && !errors.Is(err, diskthread.ErrClosed) {
		r.observer.failed(fmt.Errorf("disk: the snapshot of entry %d, which the raft leader sent, cannot be stored in %s: %w; make room, or replace the disk", index, r.dir.path, err))
	}
}

// roomForSnapshot refuses a snapshot of the node's own state for which there is no room. One
// that the raft leader has sent the node cannot do without.
func (r *replica) roomForSnapshot(index uint64, bytes int64) error {
	select {
	case <-r.started:
	default:
		return nil
	}
	if r.wasSent(index) {
		return nil
	}
	return r.room(bytes)
}

// wasSent reports whether a snapshot that ends with an entry came from the raft leader. At its
// start Raft says itself what it cannot read.
func (r *replica) wasSent(index uint64) bool {
	select {
	case <-r.started:
		return index > r.raft.AppliedIndex()
	default:
		return false
	}
}

// nameOf is a node's name for people, its id where the name is not known.
func (r *replica) nameOf(id state.NodeID) string {
	name := r.nameHeard(id)
	if name == "" {
		r.read(func(s *state.State) {
			known, _ := s.Node(id)
			name = known.Name
		})
	}
	return cmp.Or(name, string(id))
}

var errYields = errors.New("the disk of this node hangs")

// hint is who leads, as another node said at a time.
type hint struct {
	leader state.NodeID
	at     time.Time
}

// hintLasts is for how long a hint is believed. What comes of it is a refusal.
const hintLasts = 3 * time.Second

// reloadRaft changes settings of Raft while it runs.
func (r *replica) reloadRaft(change func(*raft.ReloadableConfig)) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	c := r.raft.ReloadableConfig()
	change(&c)
	if err := r.raft.ReloadConfig(c); err != nil {
		r.log.Error("Raft goes on with its settings", "error", err)
	}
}

// snapshotUnread has a new snapshot be taken in the place of the newest one, which cannot be
// read any more though it is of this node's own state. Raft would try for ever to send it to
// a node that needs one.
func (r *replica) snapshotUnread(name string, err error) {
	select {
	case <-r.started:
	default:
		return // NewRaft says itself what it cannot read
	}
	if errors.Is(err, diskthread.ErrClosed) {
		return
	}
	if told := r.unread.Swap(&name); told == nil || *told != name {
		r.log.Error("the newest snapshot cannot be read any more, so a new one is taken in its place; should that come again, replace the disk", "folder", r.snapshots.path, "snapshot", name, "error", err)
	}
	signal(r.fsm.full) // each time: the new one may have failed
}

// lacksSnapshot reports whether the newest snapshot is still one that cannot be read.
func (r *replica) lacksSnapshot() bool {
	name := r.unread.Load()
	return name != nil && r.snapshots.isNewest(*name)
}

// nameHeard is a node's name by the configuration, or as it has introduced itself to this
// one; empty: it is not known by these. It takes no lock.
func (r *replica) nameHeard(id state.NodeID) string {
	select {
	case <-r.started:
		if s, ok := r.server(id); ok {
			return s.name
		}
	default:
	}
	name, _ := r.heardAs.Load(id)
	known, _ := name.(string)
	return known
}

// raftLeader is the raft leader as far as this node knows, "" if it does not.
func (r *replica) raftLeader() state.NodeID {
	if _, id := r.raft.LeaderWithID(); id != "" {
		return state.NodeID(id)
	}
	if h := r.hint.Load(); h != nil && time.Since(h.at) < hintLasts {
		return h.leader
	}
	return ""
}

// watchRaft follows whether this node is the raft leader, and who is. Raft waits
// for its notices to be taken, so nothing here blocks. A raft leader acts on
// stamps only when its own state machine has caught up with its log.
func (r *replica) watchRaft(changes <-chan raft.Observation) {
	silent := map[raft.ServerID]bool{}
	for {
		select {
		case <-r.done:
			return
		case o := <-changes:
			switch o := o.Data.(type) {
			case raft.LeaderObservation:
				leader := r.leader()
				r.forward.turn(leader)
				r.observer.turned(leader)
				if leader != "" && leader != r.self {
					r.log.Info("follows the raft leader", "leader", r.nameOf(leader))
				}
			case raft.FailedHeartbeatObservation:
				if _, member := r.server(state.NodeID(o.PeerID)); member && !silent[o.PeerID] {
					silent[o.PeerID] = true
					r.log.Warn("a node does not answer", "node", r.nameOf(state.NodeID(o.PeerID)))
				}
			case raft.ResumedHeartbeatObservation:
				if silent[o.PeerID] {
					delete(silent, o.PeerID)
					r.log.Info("a node answers again", "node", r.nameOf(state.NodeID(o.PeerID)))
				}
			}
		case is := <-r.leading:
			turn := r.turns.Add(1)
			r.observer.follow()
			r.leads.Store(0)
			if !is {
				r.log.Info("no longer the raft leader")
				continue
			}
			r.leads.Store(r.raft.CurrentTerm())
			r.log.Info("raft leader")
			// On its own: Raft may leave the question without an answer when
			// it shuts down, and nothing may wait for it.
			go func() {
				if r.caughtUp() {
					r.observer.lead(func() bool { return r.turns.Load() == turn })
				}
			}()
		}
	}
}

// caughtUp returns when all that is in the log of this raft leader is applied, or false when
// it is none any more. While Raft hands over it takes no question.
func (r *replica) caughtUp() bool {
	for {
		if err := r.raft.Barrier(0).Error(); err != raft.ErrLeadershipTransferInProgress {
			return err == nil
		}
		select {
		case <-r.done:
			return false
		case <-time.After(r.heartbeat / 4):
		}
	}
}

// follows reports whether this node follows in a term, a raft leader or as yet nobody.
func (r *replica) follows(term uint64) bool {
	select {
	case <-r.started:
		return r.raft.State() == raft.Follower && r.raft.CurrentTerm() == term
	default:
		return false
	}
}

// flushed is up to which entry this node's log is on its disk.
func (r *replica) flushed() uint64 { return r.store.Flushed() }

// await gives the outcome of something that Raft was asked for. Raft leaves some
// without one when it shuts down.
func (r *replica) await(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.done:
		return errStopped
	}
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

// yield has a raft leader whose disk hangs step aside, early enough for the others
// to elect another one before their leases end. Raft would not: it goes on sending
// heartbeats while it cannot store an entry. If the disk comes back, so does the
// node, as a follower; if not, the store ends it. leaveRaft closes its connections of Raft.
func (r *replica) yield(leaveRaft func()) {
	hangs := r.store.Busy() > r.lease/3
	switch {
	case !hangs && r.yields.Load():
		r.yields.Store(false)
		r.log.Info("the disk answers again")
	case hangs && !r.yields.Load() && r.leads.Load() != 0:
		r.yields.Store(true)
		r.log.Warn("the disk hangs: no raft leader until it answers", "for", r.store.Busy())
		leaveRaft()
	}
}
