package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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

// Config is what a replica needs to know. Self, Folder and Logger suffice to look at a
// replica on disk, or to recover it.
type Config struct {
	Self      state.NodeID
	Heartbeat time.Duration // Raft's timeouts
	Lease     time.Duration // L: what takes longer is given up
	Folder    Folder
	Observer  Observer                   // nil: nobody
	Level     func() uint64              // of the formats that are written
	Room      func(snapshot int64) error // why a snapshot of the node's own state may not have so many bytes
	Logger    *slog.Logger

	// For tests.
	Alter       func(*state.State, state.Entry) state.Entry // what an entry is taken for; nil: for itself
	CreateState func(name string) (StateFile, error)        // makes the file for the state of a snapshot
	Omit        Omissions
}

// Folder is where a replica keeps its snapshots.
type Folder struct {
	Path   string
	Thread *diskthread.Thread // on which its files are used
	There  func() error       // why it is at its path no more; nil: it is
}

// Omissions are rules by which entries are sent while the own disk writes them (store.go). One that is true is left out, which shows in tests that
// it is needed.
type Omissions struct {
	Apply  bool // a raft leader applies what is not on its disk
	Commit bool // a raft leader says that what is not on its disk is committed
	Follow bool // a follower says that it has what is not on its disk
}

// Observer is told what becomes of a replica. Applied and Restored are called under the lock of
// the state, in order, and may read it until they return. The others are called by any
// goroutine, and Failed with that lock or without. None may wait for anything.
type Observer interface {
	Applied(s *state.State, effects []state.Effect) // of the newest entry
	Restored(s *state.State)
	Failed(err error)

	Follow()                // this node is no raft leader, or not known to be caught up
	Lead(still func() bool) // it is one, and its state is that of its log; unless still is false by now
	Turned()                // there is another raft leader, or none, or it may be that there is
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Applied(*state.State, []state.Effect) {}
func (nobody) Restored(*state.State)                {}
func (nobody) Failed(error)                         {}
func (nobody) Follow()                              {}
func (nobody) Lead(func() bool)                     {}
func (nobody) Turned()                              {}

// Replica is this node's copy of the state and of the log that makes it, and the node's part
// in Raft: what it is in there, and which other nodes are. It is safe for concurrent use.
type Replica struct {
	cfg      Config
	self     state.NodeID
	observer Observer
	log      *slog.Logger
	logger   hclog.Logger // Raft's

	store     *logstore.Store
	entries   *raftStore // store as Raft has it
	snapshots *snapshots
	fsm       *fsm
	forward   *forwarder

	port      *clusterport.Port // from Start on, and so is the transport
	transport *transport
	raft      *raft.Raft // set when started is closed; what Raft itself calls may come before
	started   chan struct{}
	leading   chan bool // Raft's notices

	done    <-chan struct{} // closed: the goroutines end
	end     context.CancelFunc
	running sync.WaitGroup // of these

	hearsay   atomic.Pointer[hearsay] // who leads, says another node
	yields    atomic.Bool             // its disk hangs, and it takes no part in Raft
	leads     atomic.Uint64           // the term in which this node is the raft leader; 0: none
	newest    atomic.Pointer[entryID]
	followers sync.Map               // raft.ServerID to *follower
	trailing  atomic.Uint64          // how many entries Raft leaves behind a snapshot
	unread    atomic.Pointer[string] // the last snapshot that could not be read again; nil: none yet
	turns     atomic.Uint64          // how often this node became the raft leader, or ceased to be

	heardAs sync.Map // state.NodeID to string: by which names nodes have introduced themselves
	met     sync.Map // state.NodeID to string: where members said that they are, unless the configuration says so too

	reloading sync.Mutex // held over a change of Raft's settings
}

// Open opens the snapshots that go with a log, and has the two agree. Nothing runs yet. An
// error is a [permanent.Error].
func Open(c Config, store *logstore.Store) (*Replica, error) {
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	r := &Replica{cfg: c, self: c.Self, observer: c.Observer, log: c.Logger, store: store, started: make(chan struct{}), leading: make(chan bool, 1)}
	life, end := context.WithCancel(context.Background())
	r.done, r.end = life.Done(), end
	r.trailing.Store(trailingEntries)
	r.logger = raftLogger(c.Logger, r.nameHeard)
	r.forward = &forwarder{dial: r.dialMember, limit: max(2*c.Heartbeat, c.Lease/4)}
	r.fsm = newFSM(c.Observer)
	r.fsm.snapshotted, r.fsm.changed = r.snapshotted, r.hintFollowers
	r.fsm.alter = c.Alter
	if !c.Omit.Apply {
		r.fsm.awaitFlushed = store.AwaitFlushed
	}
	var err error
	if r.snapshots, err = newSnapshots(c.Folder, store, r.logger); err != nil {
		return nil, permanent.Errorf("data folder: %w", err)
	}
	if c.CreateState != nil {
		r.snapshots.create = c.CreateState
	}
	if r.entries, err = newRaftStore(store, r.snapshots); err != nil {
		return nil, permanent.Errorf("data folder: %w; %s", err, permanent.CureFolder)
	}
	return r, nil
}

// IsNew reports whether there is nothing of a state in the folder.
func (r *Replica) IsNew() (bool, error) {
	last, err := r.store.LastIndex()
	return last == 0 && r.snapshots.newest.Load() == nil, err
}

// Start starts Raft on a port. Until Run it proposes nothing and tells nobody. An error is a
// [permanent.Error].
func (r *Replica) Start(port *clusterport.Port) (err error) {
	r.port = port
	layer := port.Raft(r.addressToDial)
	r.transport = newTransport(r, r.done, &raft.NetworkTransportConfig{
		Stream:                layer,
		ServerAddressProvider: layer,
		MaxPool:               pooledConns,
		// One at a time: with a pipeline, raft 1.8.0 waits for ever to hand over a
		// request when an answer before it was a refusal. The follower then gets
		// heartbeats and nothing else, and Shutdown never returns.
		MaxRPCsInFlight: 1,
		Timeout:         max(2*time.Second, 2*r.cfg.Heartbeat),
		Logger:          r.logger,
	})
	r.entries.append = r.store.Append
	r.entries.leads = func() bool { return r.cfg.Omit.Follow || r.raft.State() == raft.Leader } // which changes between what Raft stores
	r.entries.restart = r.observer.Failed
	r.snapshots.failed, r.snapshots.unread, r.snapshots.room = r.snapshotFailed, r.snapshotUnread, r.roomForSnapshot
	r.raft, err = withoutPanic(func() (*raft.Raft, error) {
		return raft.NewRaft(r.config(), r.fsm, r.entries, r.entries, r.snapshots, r.transport)
	})
	if err != nil {
		r.end()
		r.transport.Close()
		return permanent.Errorf("data folder: raft does not start on it: %w; %s", err, permanent.CureFolder)
	}
	close(r.started)
	return nil
}

// addressToDial is where Raft reaches a member, by its id.
func (r *Replica) addressToDial(id string) (string, error) {
	select {
	case <-r.started:
	case <-r.done:
		return "", errStopped
	}
	s, ok := r.Server(state.NodeID(id))
	switch {
	case !ok:
		return "", errors.New("not a member")
	case r.yields.Load():
		return "", errYields
	}
	return r.AddressOf(s), nil
}

// config gives Raft's settings.
func (r *Replica) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.self)
	c.HeartbeatTimeout = r.cfg.Heartbeat
	c.ElectionTimeout = r.cfg.Heartbeat
	// Less than HeartbeatTimeout, which missRaftLeader shortens, by a nanosecond each time.
	c.LeaderLeaseTimeout = r.cfg.Heartbeat / 10 * 9
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

// Run begins what goes on for as long as Raft runs, and takes proposals of other nodes.
func (r *Replica) Run() {
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
	r.port.Handle(clusterport.Forward, r.acceptProposals)
	r.StandAlone()
}

// Stop ends Raft, and closes the port meanwhile: Raft waits for what it has asked other nodes.
// It returns when the store is used no more.
func (r *Replica) Stop() error {
	r.end()
	r.forward.close()
	shutdown := r.raft.Shutdown()
	r.port.Close()
	err := shutdown.Error()
	r.transport.end()
	r.running.Wait()
	return err
}

// Read calls fn with the state as of the last entry applied.
func (r *Replica) Read(fn func(*state.State)) { r.fsm.read(fn) }

// Found makes this node, which has nothing yet, the only member.
func (r *Replica) Found(name, address string) error {
	servers := []raft.Server{{ID: raft.ServerID(r.self), Address: raftAddress(name, address)}}
	return r.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
}

// Add makes a node a member that votes or only follows, or has the one that it is change.
func (r *Replica) Add(s Server) error {
	change := r.raft.AddNonvoter
	if s.Voter {
		change = r.raft.AddVoter
	}
	return r.await(change(raft.ServerID(s.ID), raftAddress(s.Name, s.Address), 0, ChangeTime))
}

// Demote has a member vote no more.
func (r *Replica) Demote(id state.NodeID) error {
	return r.await(r.raft.DemoteVoter(raft.ServerID(id), 0, ChangeTime))
}

// Remove has a node be a member no more.
func (r *Replica) Remove(id state.NodeID) error {
	return r.await(r.raft.RemoveServer(raft.ServerID(id), 0, ChangeTime))
}

// ChangeTime bounds the wait for one change of the members to be committed.
const ChangeTime = 5 * time.Second

// Drop ends all dealings with a node that was removed.
func (r *Replica) Drop(id state.NodeID) {
	if f, ok := r.followers.LoadAndDelete(raft.ServerID(id)); ok {
		close(f.(*follower).gone)
	}
	r.transport.answered(raft.ServerID(id))
}

// Lost gives what a node has lost of the log that it had stored in this term, as far as this
// one knows, as the raft leader.
func (r *Replica) Lost(id state.NodeID) (stored, end uint64, lost bool) {
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

// HandOver has another voter take raft leadership. A question may have stayed behind, for as
// long as the other one is busy: asked says so.
func (r *Replica) HandOver(to Server) (asked bool) {
	switch r.await(r.raft.LeadershipTransferToServer(raft.ServerID(to.ID), raftAddress(to.Name, to.Address))) {
	case nil, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout, raft.ErrNotLeader:
		return false
	}
	return true
}

// RaftLeader is the raft leader that this node follows or is, by Raft; empty: none.
func (r *Replica) RaftLeader() state.NodeID {
	_, id := r.raft.LeaderWithID()
	return state.NodeID(id)
}

// HasHeard reports whether this node has heard of a commit since its start.
func (r *Replica) HasHeard() bool { return r.raft.CommitIndex() > 0 }

// CatchingUp reports whether there is more in the log that is known to be committed than was
// handed to the state machine.
func (r *Replica) CatchingUp() bool { return r.raft.AppliedIndex() < r.raft.CommitIndex() }

// IsRaftLeader reports whether this node is the raft leader, caught up or not.
func (r *Replica) IsRaftLeader() bool { return r.raft.State() == raft.Leader }

// LastIndex is that of the last entry in the log.
func (r *Replica) LastIndex() uint64 { return r.raft.LastIndex() }

// Term is Raft's.
func (r *Replica) Term() uint64 { return r.raft.CurrentTerm() }

// Role is what this node is in Raft, in Riak's words for a peer.
func (r *Replica) Role() string {
	switch r.raft.State() {
	case raft.Leader:
		return "leading"
	case raft.Candidate:
		return "election"
	}
	if r.RaftLeader() == "" {
		return "probe"
	}
	return "following"
}

// Propose has operations committed, as the raft leader, and applied by this node. An error says
// that they are not, or that nobody knows.
func (r *Replica) Propose(ops ...state.Op) error { return r.ProposeAs(r.cfg.Level(), ops...) }

// ProposeAs does so in the formats of a level.
func (r *Replica) ProposeAs(level uint64, ops ...state.Op) error {
	return r.await(r.raft.Apply(entryOf(level, ops), r.cfg.Lease))
}

// Submit has operations put into the log as one entry, by this node's Raft or by that of the
// raft leader. The outcome goes to done, once, from another goroutine; Raft may leave it out
// when it shuts down.
func (r *Replica) Submit(ops []state.Op, done func(index uint64, err error)) {
	entry := entryOf(r.cfg.Level(), ops)
	if leader := r.LikelyRaftLeader(); leader != "" && leader != r.self {
		r.forward.send(leader, entry, done)
		return
	}
	future := r.raft.Apply(entry, r.cfg.Lease)
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
func (r *Replica) snapshotFailed(index uint64, err error) {
	if r.wasSent(index) && !errors.Is(err, diskthread.ErrClosed) {
		r.observer.Failed(fmt.Errorf("disk: the snapshot of entry %d, which the raft leader sent, cannot be stored in %s: %w; make room, or replace the disk", index, r.cfg.Folder.Path, err))
	}
}

// roomForSnapshot refuses a snapshot of the node's own state for which there is no room. One
// that the raft leader has sent the node cannot do without.
func (r *Replica) roomForSnapshot(index uint64, bytes int64) error {
	select {
	case <-r.started:
	default:
		return nil
	}
	if r.wasSent(index) {
		return nil
	}
	return r.cfg.Room(bytes)
}

// wasSent reports whether a snapshot that ends with an entry came from the raft leader. At its
// start Raft says itself what it cannot read.
func (r *Replica) wasSent(index uint64) bool {
	select {
	case <-r.started:
		return index > r.raft.AppliedIndex()
	default:
		return false
	}
}

// NameOf is a node's name for people, its id where the name is not known.
func (r *Replica) NameOf(id state.NodeID) string {
	name := r.nameHeard(id)
	if name == "" {
		r.Read(func(s *state.State) {
			known, _ := s.Node(id)
			name = known.Name
		})
	}
	return cmp.Or(name, string(id))
}

// Yields is why this node takes no part in Raft now; nil: it does.
func (r *Replica) Yields() error {
	if r.yields.Load() {
		return errYields
	}
	return nil
}

var (
	errYields  = errors.New("the disk of this node hangs")
	errStopped = errors.New("the node stops")
)

// Raise has the log store write the formats of a level. Should that fail, so does the node.
func (r *Replica) Raise(level uint64) { r.store.Raise(state.LogstoreVersion(level)) }

// hearsay is who leads, as another node said at a time.
type hearsay struct {
	leader state.NodeID
	at     time.Time
}

// hearsayLasts is for how long it is believed. What comes of it is a refusal.
const hearsayLasts = 3 * time.Second

// HearOf takes note of who leads, as another node says.
func (r *Replica) HearOf(leader state.NodeID) {
	r.hearsay.Store(&hearsay{leader, time.Now()})
	r.observer.Turned()
}

// reloadRaft changes settings of Raft while it runs.
func (r *Replica) reloadRaft(change func(*raft.ReloadableConfig)) {
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
func (r *Replica) snapshotUnread(name string, err error) {
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
func (r *Replica) lacksSnapshot() bool {
	name := r.unread.Load()
	return name != nil && r.snapshots.isNewest(*name)
}

// nameHeard is a node's name by the configuration, or as it has introduced itself to this
// one; empty: it is not known by these. It takes no lock.
func (r *Replica) nameHeard(id state.NodeID) string {
	select {
	case <-r.started:
		if s, ok := r.Server(id); ok {
			return s.Name
		}
	default:
	}
	name, _ := r.heardAs.Load(id)
	known, _ := name.(string)
	return known
}

// LikelyRaftLeader is the raft leader by Raft or, where that knows none, by what another node
// has said just now; empty: nobody has.
func (r *Replica) LikelyRaftLeader() state.NodeID {
	if _, id := r.raft.LeaderWithID(); id != "" {
		return state.NodeID(id)
	}
	if h := r.hearsay.Load(); h != nil && time.Since(h.at) < hearsayLasts {
		return h.leader
	}
	return ""
}

// watchRaft follows whether this node is the raft leader, and who is. Raft waits
// for its notices to be taken, so nothing here blocks. A raft leader acts on
// stamps only when its own state machine has caught up with its log.
func (r *Replica) watchRaft(changes <-chan raft.Observation) {
	silent := map[raft.ServerID]bool{}
	for {
		select {
		case <-r.done:
			return
		case o := <-changes:
			switch o := o.Data.(type) {
			case raft.LeaderObservation:
				leader := r.RaftLeader()
				r.forward.turn(leader)
				r.observer.Turned()
				if leader != "" && leader != r.self {
					r.log.Info("follows the raft leader", "leader", r.NameOf(leader))
				}
			case raft.FailedHeartbeatObservation:
				if _, member := r.Server(state.NodeID(o.PeerID)); member && !silent[o.PeerID] {
					silent[o.PeerID] = true
					r.log.Warn("a node does not answer", "node", r.NameOf(state.NodeID(o.PeerID)))
				}
			case raft.ResumedHeartbeatObservation:
				if silent[o.PeerID] {
					delete(silent, o.PeerID)
					r.log.Info("a node answers again", "node", r.NameOf(state.NodeID(o.PeerID)))
				}
			}
		case is := <-r.leading:
			turn := r.turns.Add(1)
			r.observer.Follow()
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
					r.observer.Lead(func() bool { return r.turns.Load() == turn })
				}
			}()
		}
	}
}

// caughtUp returns when all that is in the log of this raft leader is applied, or false when
// it is none any more. While Raft hands over it takes no question.
func (r *Replica) caughtUp() bool {
	for {
		if err := r.raft.Barrier(0).Error(); err != raft.ErrLeadershipTransferInProgress {
			return err == nil
		}
		select {
		case <-r.done:
			return false
		case <-time.After(r.cfg.Heartbeat / 4):
		}
	}
}

// follows reports whether this node follows in a term, a raft leader or as yet nobody.
func (r *Replica) follows(term uint64) bool {
	select {
	case <-r.started:
		return r.raft.State() == raft.Follower && r.raft.CurrentTerm() == term
	default:
		return false
	}
}

// flushed is up to which entry this node's log is on its disk.
func (r *Replica) flushed() uint64 {
	if r.cfg.Omit.Commit {
		return math.MaxUint64
	}
	return r.store.Flushed()
}

// await gives the outcome of something that Raft was asked for. Raft leaves some
// without one when it shuts down.
func (r *Replica) await(f raft.Future) error {
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

// Yield has a raft leader whose disk hangs step aside, early enough for the others
// to elect another one before their leases end. Raft would not: it goes on sending
// heartbeats while it cannot store an entry. If the disk comes back, so does the
// node, as a follower; if not, the store ends it. It has to be called again and again.
func (r *Replica) Yield() {
	hangs := r.store.Busy() > r.cfg.Lease/3
	switch {
	case !hangs && r.yields.Load():
		r.yields.Store(false)
		r.log.Info("the disk answers again")
	case hangs && !r.yields.Load() && r.leads.Load() != 0:
		r.yields.Store(true)
		r.log.Warn("the disk hangs: no raft leader until it answers", "for", r.store.Busy())
		r.port.ClosePurpose(clusterport.Raft)
	}
}

// signal wakes the reader of a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
