package ensemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/boltstore"
)

// ErrUnavailable is returned by [Node.Join] when no membership can come about
// at this node now: the cluster has never reached its minimum size, or the
// node is stopping or has failed.
var ErrUnavailable = errors.New("elections are unavailable")

// Config is what a node needs to know beside its data folder.
type Config struct {
	Name         string // the node's name in the cluster, riak@host
	Address      string // where other nodes reach it, host:port
	Timing       Timing
	MinimumNodes int // below it, a cluster that was never active does not elect

	// DeadManSwitch has the kernel kill the process if it is stopped, or
	// stalls, for longer than it may speak for its members.
	DeadManSwitch bool

	Logger *slog.Logger

	// Seams of tests.
	now    func() reading
	bootID string
}

// Node is one node of the ensemble: the replicated state, this node's session
// in it, and the memberships of the clients that are connected here. It is
// safe for concurrent use.
type Node struct {
	cfg   Config
	log   *slog.Logger
	now   func() reading
	dir   *Dir
	store *boltstore.Store
	raft  *raft.Raft
	fsm   *fsm
	addr  raft.ServerAddress

	dispatch     *dispatcher
	wake         chan struct{} // the loop has something to look at; room for one
	wakeProposer chan struct{} // the session has something to propose; room for one
	done         chan struct{} // closed: the goroutines end
	running      sync.WaitGroup

	failOnce sync.Once
	failure  error
	failing  chan struct{} // closed once failure is set

	founded atomic.Bool // the state has a cluster id
	active  atomic.Bool // the state is active
	onDuty  atomic.Bool // duties are being proposed

	mu       sync.Mutex // guards what follows; taken after the fsm's lock, before the dispatcher's
	roster   *roster
	deadMan  *deadMan      // nil: none
	changed  chan struct{} // closed and replaced when roster.changed is set
	asked    reading       // when Found or Activate was proposed last
	askedYet bool
	warned   bool // that elections are not active
}

// Start starts the node in its folder, founding a cluster of its own if the
// folder is new. It returns before there is a raft leader; see
// [Node.WaitReady]. After an error the folder is still the caller's to close.
func Start(dir *Dir, cfg Config) (*Node, error) {
	if cfg.now == nil {
		cfg.now = readClocks
	}
	if cfg.bootID == "" {
		id, err := bootID()
		if err != nil {
			return nil, fmt.Errorf("boot id: %w", err)
		}
		cfg.bootID = id
	}
	if err := cfg.Timing.Check(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:          cfg,
		log:          cfg.Logger,
		now:          cfg.now,
		dir:          dir,
		addr:         raft.ServerAddress(cfg.Address),
		dispatch:     newDispatcher(),
		wake:         make(chan struct{}, 1),
		wakeProposer: make(chan struct{}, 1),
		done:         make(chan struct{}),
		failing:      make(chan struct{}),
		changed:      make(chan struct{}),
	}
	n.roster = newRoster(session{
		node: dir.identity.Node, boot: cfg.bootID,
		name: cfg.Name, address: cfg.Address, timing: cfg.Timing,
	}, n.now, n.dispatch.add, n.log)
	n.roster.alive = n.rearm
	if cfg.DeadManSwitch {
		var err error
		if n.deadMan, err = newDeadMan(); err != nil {
			return nil, err
		}
	}
	n.fsm = newFSM(n)
	if err := n.startRaft(); err != nil {
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

func (n *Node) startRaft() error {
	if n.dir.fresh {
		// What a start before may have left was never served from.
		if err := n.dir.clear(); err != nil {
			return err
		}
	}
	store, err := boltstore.Open(n.dir.raftPath(), boltstore.Options{OnError: func(err error) {
		n.failed(fmt.Errorf("disk: %w", err))
	}})
	switch {
	case errors.Is(err, boltstore.ErrVersion):
		return permanent("data folder: %w; install that version again", err)
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.store = store
	logger := raftLogger(n.log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.dir.path, 2, logger)
	if err != nil {
		return permanent("data folder: %w", err)
	}
	_, transport := raft.NewInmemTransport(n.addr)

	leading := make(chan bool, 1)
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.dir.identity.Node)
	c.HeartbeatTimeout = n.cfg.Timing.Heartbeat
	c.ElectionTimeout = n.cfg.Timing.Heartbeat
	c.LeaderLeaseTimeout = n.cfg.Timing.Heartbeat / 2
	c.CommitTimeout = 10 * time.Millisecond
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.SnapshotInterval = 30 * time.Second
	c.SnapshotThreshold = 8192
	c.TrailingLogs = 16384
	c.NotifyCh = leading
	c.Logger = logger

	if err := n.found(c, snapshots, transport); err != nil {
		return err
	}
	n.raft, err = raft.NewRaft(c, n.fsm, store, store, snapshots, transport)
	if err != nil {
		return permanent("data folder: raft does not start on it: %w; %s", err, cureFolder)
	}
	n.running.Go(func() { n.watchRaft(leading) })
	n.running.Go(n.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.run(n.done, n.allJoined) })
	return nil
}

// found makes Raft's first state in a fresh folder, or checks that there is
// one in any other.
func (n *Node) found(c *raft.Config, snapshots raft.SnapshotStore, t raft.Transport) error {
	if n.dir.fresh {
		servers := []raft.Server{{ID: c.LocalID, Address: n.addr}}
		if err := raft.BootstrapCluster(c, n.store, n.store, snapshots, t, raft.Configuration{Servers: servers}); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
		return n.dir.founded()
	}
	exists, err := raft.HasExistingState(n.store, n.store, snapshots)
	if err != nil {
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	first, err := n.store.FirstIndex()
	if err != nil {
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	kept, err := snapshots.List()
	switch {
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	case !exists:
		return permanent("%s is empty though this node has had state; %s", n.dir.raftPath(), cureFolder)
	case first > 1 && len(kept) == 0:
		return permanent("the log in %s begins at entry %d and there is no snapshot of what was before; %s", n.dir.raftPath(), first, cureFolder)
	}
	return nil
}

// Join asks that client becomes a member of group on behalf of m, as
// latch.Elections describes it.
func (n *Node) Join(group, client string, m Member) (*Membership, error) {
	n.mu.Lock()
	defer n.unlock()
	if n.roster.stopping || n.Err() != nil || n.inactive() {
		return nil, n.missing()
	}
	ms := &Membership{node: n, member: m, group: group, client: client}
	n.roster.join(ms)
	return ms, nil
}

// closed is [Membership.Closed].
func (n *Node) closed(m *Membership, acknowledged bool) {
	n.mu.Lock()
	defer n.unlock()
	n.roster.closed(m, acknowledged)
}

// applied implements observer: it is called with every entry's effects, under
// the fsm's lock.
func (n *Node) applied(s *State, effects []Effect) {
	n.noteCluster(s)
	n.mu.Lock()
	defer n.unlock()
	n.roster.applied(s, effects)
}

// restored implements observer.
func (n *Node) restored(s *State) {
	n.noteCluster(s)
	n.mu.Lock()
	defer n.unlock()
	n.roster.restored(s)
}

// unlock lets go of the mutex and wakes whoever may have something to do.
func (n *Node) unlock() {
	if n.roster.changed {
		n.roster.changed = false
		close(n.changed)
		n.changed = make(chan struct{})
	}
	n.mu.Unlock()
	signal(n.wake)
	signal(n.wakeProposer)
}

// inactive reports whether the cluster is known to be too small for
// elections to have begun.
func (n *Node) inactive() bool {
	return n.roster.known && !n.active.Load() && n.size() < n.cfg.MinimumNodes
}

// noteCluster takes over what holds for the whole cluster. A data folder whose
// state is another cluster's was put together from two.
func (n *Node) noteCluster(s *State) {
	id := n.dir.identity
	if s.cluster != "" && !n.founded.Swap(true) && (s.cluster != id.Cluster || s.tokenBase != id.TokenBase) {
		n.failed(permanent("the state in %s is of cluster %s with tokens from %d, node.json says %s and %d; %s",
			n.dir.path, s.cluster, s.tokenBase, id.Cluster, id.TokenBase, cureFolder))
	}
	if s.active && !n.active.Swap(true) {
		n.log.Info("elections are active")
	}
}

// allJoined gives the dispatcher this node's memberships as the state has
// them at one index.
func (n *Node) allJoined() (index uint64, all []delivery) {
	n.fsm.read(func(s *State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		index, all = n.roster.joined(s)
	})
	return index, all
}

// failed implements observer, and ends the node's service for any other
// reason: the loop, woken, shuts the gate and closes the connections, and
// whoever runs the node learns of it by [Node.Failed].
func (n *Node) failed(err error) {
	n.failOnce.Do(func() {
		n.failure = err
		close(n.failing)
		signal(n.wake)
	})
}

// Failed is closed when the node cannot go on; [Node.Err] says why.
func (n *Node) Failed() <-chan struct{} { return n.failing }

// Err is why the node failed, nil while it has not.
func (n *Node) Err() error {
	select {
	case <-n.failing:
		return n.failure
	default:
		return nil
	}
}

// run is the node's loop: it looks at the clocks. Go's timers stand still
// while the machine sleeps, so it polls.
func (n *Node) run() {
	tick := time.NewTicker(min(max(n.cfg.Timing.Close/10, 5*time.Millisecond), 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-n.done:
			return
		case <-tick.C:
		case <-n.wake:
		}
		n.step()
	}
}

func (n *Node) step() {
	now := n.now()
	n.mu.Lock()
	if n.Err() != nil && n.roster.session.phase == phaseOpen {
		n.roster.session.lease.end()
	}
	what, closing := n.roster.step(now)
	duties := n.duties(now)
	stopping := n.roster.stopping
	n.mu.Unlock()

	if what == needClose {
		n.log.Warn("session lost: closing its connections", "count", len(closing))
	}
	for _, m := range closing {
		m.member.Close()
	}
	if what == needClose {
		n.deadMan.disarm() // all closed, in time
	}
	if what == needOpen && !stopping && n.Err() == nil {
		n.open()
	}
	if len(duties) > 0 && n.onDuty.CompareAndSwap(false, true) {
		go func() {
			defer n.onDuty.Store(false)
			n.propose(duties).Error() // its effect is what counts
		}()
	}
	signal(n.wakeProposer) // a Renew may be due
}

// rearm moves the dead-man's switch on to the end of the lease and a part of
// the time that closing may take: who closes in time is not killed.
func (n *Node) rearm() {
	if l := n.roster.session.lease; l.left() > 0 {
		n.deadMan.arm(l.sent.Load().boot + l.length + n.cfg.Timing.Close/2)
	}
}

// open writes the next counter down and asks for a session with it.
func (n *Node) open() {
	counter, err := nextCounter(n.store)
	if err != nil {
		n.failed(err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.roster.session.begin(counter, n.now())
}

// duties are the raft leader's: to found and activate the cluster, and to
// expire silent nodes.
func (n *Node) duties(now reading) []Op {
	if n.Err() != nil {
		return nil
	}
	ops := n.roster.expirer.due(now)
	for _, op := range ops {
		n.log.Warn("a node has been silent for too long: expiring its session", "incarnation", op.(Expire).Incarnation)
	}
	if !n.roster.expirer.leading || n.askedYet && now.atLeast(n.asked) < askAgain {
		return ops
	}
	quiet := len(ops)
	if !n.founded.Load() {
		ops = append(ops, Found{n.dir.identity.Cluster, n.dir.identity.TokenBase})
	}
	if !n.active.Load() {
		if size := n.size(); size >= n.cfg.MinimumNodes {
			ops = append(ops, Activate{})
		} else if !n.warned {
			n.warned = true
			n.log.Warn("elections are not active yet: JOINs are refused until the cluster has leader_latch.minimum_nodes", "nodes", size, "minimum", n.cfg.MinimumNodes)
		}
	}
	if len(ops) > quiet {
		n.asked, n.askedYet = now, true
	}
	return ops
}

// size is how many nodes the cluster has.
func (n *Node) size() int {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return 0
	}
	return len(f.Configuration().Servers)
}

// watchRaft follows whether this node is the raft leader. Raft waits for its
// notices to be taken, so nothing here blocks. A raft leader acts on stamps
// only when its own state machine has caught up with its log.
func (n *Node) watchRaft(leading <-chan bool) {
	turn := 0 // guarded by the node's mutex
	for {
		select {
		case <-n.done:
			return
		case is := <-leading:
			n.mu.Lock()
			turn++
			mine := turn
			n.roster.expirer.follow()
			n.mu.Unlock()
			if !is {
				n.log.Info("no longer the raft leader")
				continue
			}
			n.log.Info("raft leader")
			// On its own: Raft may leave the question without an answer when
			// it shuts down, and nothing may wait for it.
			go func() {
				if n.raft.Barrier(0).Error() != nil {
					return
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				if mine == turn {
					n.roster.expirer.lead(n.now())
					signal(n.wake)
				}
			}()
		}
	}
}

// WaitReady returns nil as soon as a JOIN at this node would succeed, or an
// error that says what is missing when ctx is done or the node has failed.
func (n *Node) WaitReady(ctx context.Context) error {
	for {
		n.mu.Lock()
		changed := n.changed
		missing := n.missing()
		n.mu.Unlock()
		if missing == nil {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // a lease ends and elections begin without notice
		case <-n.failing:
			return n.failure
		case <-ctx.Done():
			return missing
		}
	}
}

// missing is why a JOIN would not succeed now.
func (n *Node) missing() error {
	switch {
	case n.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, n.Err())
	case n.roster.stopping:
		return fmt.Errorf("%w: the node is stopping", ErrUnavailable)
	case n.inactive():
		return fmt.Errorf("%w: the cluster has never had %d nodes (leader_latch.minimum_nodes)", ErrUnavailable, n.cfg.MinimumNodes)
	case !n.active.Load() || n.roster.session.phase != phaseOpen || !n.roster.session.lease.live():
		return fmt.Errorf("%w: this node has no session: its renewals are not committed, by a majority and its own disk", ErrUnavailable)
	}
	return nil
}

// Stop ends the node in the one order of DESIGN.md, rule 9: JOINs are
// refused, all connections closed, leaders first; when their clients know,
// the session ends; raft leadership goes last. If ctx is done first the rest
// happens without waiting, as if the process were killed: other nodes then
// wait for the session's expiry. The folder stays locked; it is the caller's
// to close, when no connection is left.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	closing := n.roster.stop()
	n.unlock()
	n.log.Info("stopping: closing all connections", "count", len(closing))
	for _, m := range closing {
		m.member.Close()
	}
	err := n.wait(ctx, func(r *roster) bool { return r.members.Len() == 0 })
	if err == nil {
		n.mu.Lock()
		n.roster.session.endAsked = true
		n.unlock()
		err = n.wait(ctx, func(r *roster) bool { return r.session.phase != phaseOpen || r.session.lease.left() == 0 })
	}

	if err == nil {
		n.deadMan.disarm() // no connection is left
	}
	// A disk that hangs may hold these for ever; the process then ends with them.
	released := make(chan error, 1)
	go func() { released <- n.release() }()
	select {
	case e := <-released:
		return cmp.Or(err, e)
	case <-ctx.Done():
		return cmp.Or(err, fmt.Errorf("stop: %w", context.Cause(ctx)))
	}
}

// release ends the node's goroutines, Raft and the store.
func (n *Node) release() error {
	close(n.done)
	err := n.raft.Shutdown().Error()
	n.running.Wait()
	n.deadMan.close()
	return errors.Join(err, n.store.Close())
}

// wait returns when cond holds, which is called with the node's mutex held.
func (n *Node) wait(ctx context.Context, cond func(*roster) bool) error {
	for {
		n.mu.Lock()
		ok, changed := cond(n.roster), n.changed
		n.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // a lease ends without notice
		case <-n.failing:
			return n.failure
		case <-ctx.Done():
			return fmt.Errorf("stop: %w", context.Cause(ctx))
		}
	}
}

// signal wakes the reader of a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
