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
	Logger       *slog.Logger

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

	mu       sync.Mutex // guards what follows; taken after the fsm's lock, before the dispatcher's
	session  session
	expirer  *expirer
	members  map[*Membership]struct{} // all that are not over
	held     map[nameKey][]*Membership
	known    bool // the state has been seen up to date once: active is right
	stopping bool
	changed  chan struct{} // closed and replaced when session, stopping or members' end may matter to a waiter
	asked    reading       // when Found or Activate was proposed last
	askedYet bool
}

// nameKey is a client's name in a group.
type nameKey struct{ group, client string }

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
		expirer:      newExpirer(cfg.Timing.Renew),
		members:      make(map[*Membership]struct{}),
		held:         make(map[nameKey][]*Membership),
		changed:      make(chan struct{}),
	}
	n.session = session{
		node: dir.identity.Node, boot: cfg.bootID,
		name: cfg.Name, address: cfg.Address, timing: cfg.Timing,
	}
	n.fsm = newFSM(n)
	if err := n.startRaft(); err != nil {
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
	store, err := boltstore.Open(n.dir.raftPath(), boltstore.Options{OnError: func(err error) {
		n.failed(fmt.Errorf("disk: %w", err))
	}})
	if err != nil {
		return permanent("data folder: %w", err)
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

	exists, err := raft.HasExistingState(store, store, snapshots)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	switch {
	case !exists && !n.dir.fresh:
		return permanent("%s is empty though this node has had state; restore the data folder from one copy, or move it away to start as a new node", n.dir.raftPath())
	case !exists:
		servers := []raft.Server{{ID: c.LocalID, Address: n.addr}}
		if err := raft.BootstrapCluster(c, store, store, snapshots, transport, raft.Configuration{Servers: servers}); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
		fallthrough
	case n.dir.fresh:
		if err := n.dir.founded(); err != nil {
			return err
		}
	}

	n.raft, err = raft.NewRaft(c, n.fsm, store, store, snapshots, transport)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.running.Go(func() { n.watchRaft(leading) })
	n.running.Go(n.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.run(n.done, n.allJoined) })
	return nil
}

// Join asks that client becomes a member of group on behalf of m, as
// latch.Elections describes it.
func (n *Node) Join(group, client string, m Member) (*Membership, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping || n.Err() != nil || n.inactive() {
		return nil, ErrUnavailable
	}
	ms := &Membership{node: n, member: m, group: group, client: client}
	n.members[ms] = struct{}{}
	n.session.join(ms)
	signal(n.wakeProposer)
	return ms, nil
}

// inactive reports whether the cluster is known to be too small for
// elections to have begun.
func (n *Node) inactive() bool {
	return n.known && !n.active.Load() && n.size() < n.cfg.MinimumNodes
}

// closed is [Membership.Closed].
func (n *Node) closed(m *Membership, acknowledged bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := m.state
	if was == memberOver {
		return
	}
	m.state = memberOver
	delete(n.members, m)
	switch was {
	case memberQueued:
		n.session.forget()
	case memberHeld:
		n.unhold(m)
		n.log.Info("JOIN given up: another member has the name", "group", m.group, "client", m.client, "holder", m.holder)
	case memberProposed, memberJoined:
		n.dispatch.add(delivery{what: deliverGone, member: m})
		if l := m.lease.Load(); l == n.session.lease {
			switch n.session.phase {
			case phaseOpen:
				// A node that stops leaves with one End for all: no leader is
				// named here that closes in the next moment.
				if !n.stopping {
					n.session.leave(m.seq)
					signal(n.wakeProposer)
				}
			case phaseClosing:
				if acknowledged {
					n.session.unheard--
					signal(n.wake)
				}
			}
		}
	}
	if n.stopping {
		n.change()
	}
}

// unhold takes a membership from those that wait for a name.
func (n *Node) unhold(m *Membership) {
	key := nameKey{m.group, m.client}
	waiting := n.held[key]
	for i, w := range waiting {
		if w == m {
			waiting = append(waiting[:i], waiting[i+1:]...)
			break
		}
	}
	if len(waiting) == 0 {
		delete(n.held, key)
	} else {
		n.held[key] = waiting
	}
}

// requeue asks again for the memberships that waited for a name.
func (n *Node) requeue(key nameKey) {
	for _, m := range n.held[key] {
		m.state = memberQueued
		n.session.join(m)
	}
	delete(n.held, key)
	signal(n.wakeProposer)
}

// applied implements observer: it is called with every entry's effects, under
// the fsm's lock.
func (n *Node) applied(s *State, effects []Effect) {
	n.noteCluster(s)
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	n.session.electing = s.active
	for _, e := range effects {
		switch e := e.(type) {
		case Opened:
			n.expirer.opened(e.Node, e.Incarnation, e.Expiry, now)
			if e.Node == n.session.node && n.session.opened(e.Counter, e.Incarnation, n.now) {
				n.entered()
			}
		case Renewed:
			n.expirer.renewed(e.Node, e.Incarnation, e.Seq, now)
			if n.session.current(e.Incarnation) {
				n.session.renewedAt(e.Seq)
			}
		case Ended:
			n.expirer.ended(e.Node)
			if e.Node == n.session.node {
				n.sessionEnded(e.Incarnation)
			}
		case Joined:
			if m := n.joining(e.Member); m != nil {
				m.state = memberJoined
				n.dispatch.add(delivery{what: deliverJoined, index: s.index, member: m, leader: e.Leader, token: e.Token})
			}
		case Refused:
			if m := n.joining(e.Member); m != nil {
				n.hold(m, e.Holder)
			}
		case Left:
			if key := (nameKey{e.Group, e.Client}); n.held[key] != nil {
				n.requeue(key)
			}
		case Led:
			n.dispatch.add(delivery{what: deliverLed, index: s.index, group: e.Group, leader: e.Leader, token: e.Token})
		}
	}
	if n.session.phase == phaseOpen {
		if seq, _, ok := s.accepted(n.session.lease.incarnation); ok {
			n.session.settled(seq)
		}
	}
}

// noteCluster takes over what holds for the whole cluster. A data folder whose
// state is another cluster's was put together from two.
func (n *Node) noteCluster(s *State) {
	if s.cluster != "" && !n.founded.Swap(true) && s.cluster != n.dir.identity.Cluster {
		n.failed(permanent("the state in %s is of cluster %s, node.json says %s; restore the whole data folder from one copy, or move it away to start as a new node",
			n.dir.path, s.cluster, n.dir.identity.Cluster))
	}
	if s.active && !n.active.Swap(true) {
		n.log.Info("elections are active")
	}
}

// joining gives the membership whose Join was just accepted, unless it is not
// of this node's present life or its connection has gone meanwhile.
func (n *Node) joining(id MemberID) *Membership {
	if !n.session.current(id.Incarnation) {
		return nil
	}
	op, ok := n.session.accepted(id.Seq)
	if !ok || op.member == nil || op.member.state != memberProposed {
		return nil
	}
	return op.member
}

func (n *Node) hold(m *Membership, holder NodeID) {
	m.state, m.holder = memberHeld, holder
	key := nameKey{m.group, m.client}
	n.held[key] = append(n.held[key], m)
	n.log.Info("JOIN waits: another member has the name", "group", m.group, "client", m.client, "holder", holder)
}

// entered begins the node's life in an incarnation.
func (n *Node) entered() {
	n.known = true
	n.log.Info("session opened", "incarnation", n.session.lease.incarnation)
	for key := range n.held {
		n.requeue(key) // the names may have come free unseen
	}
	n.change()
	signal(n.wake)
	signal(n.wakeProposer)
}

func (n *Node) sessionEnded(inc Incarnation) {
	switch {
	case n.session.current(inc):
		if n.stopping {
			n.session.phase = phaseEnded
			n.log.Info("session ended")
			n.change()
		} else {
			n.session.lease.end() // the loop closes the connections
		}
	case n.session.phase == phaseOpening:
		n.session.retry = true // what was in the way may be gone
	}
	signal(n.wake)
}

// restored implements observer: the state was replaced by a snapshot's. What
// happened in between is found by comparing, by member id and never by name.
func (n *Node) restored(s *State) {
	n.noteCluster(s)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.session.electing = s.active
	n.expirer.reset(s, n.now())
	if me := s.nodes[n.session.node]; me != nil && me.session != nil {
		if n.session.opened(me.counter, me.session.incarnation, n.now) {
			n.entered()
		}
	}
	if n.session.phase == phaseOpen {
		inc := n.session.lease.incarnation
		seq, renewal, ok := s.accepted(inc)
		if !ok {
			n.sessionEnded(inc)
			return
		}
		n.session.renewedAt(renewal)
		for m := range n.members {
			if m.state != memberProposed && m.state != memberJoined || m.seq > seq || m.lease.Load() != n.session.lease {
				continue
			}
			switch holder := s.holder(m.group, m.client); {
			case s.member(MemberID{inc, m.seq}) != nil:
				m.state = memberJoined
			case m.state == memberProposed && holder != "":
				n.hold(m, holder)
			default:
				go m.member.Close() // takes locks that may be taken before ours
			}
		}
		n.session.settled(seq)
	}
	n.dispatch.add(delivery{what: deliverAll})
}

// allJoined gives the dispatcher this node's memberships as the state has
// them at one index.
func (n *Node) allJoined() (index uint64, all []delivery) {
	n.fsm.read(func(s *State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		index = s.index
		for m := range n.members {
			l := m.lease.Load()
			if m.state != memberJoined || l == nil {
				continue
			}
			if in := s.member(MemberID{l.incarnation, m.seq}); in != nil {
				all = append(all, delivery{member: m, leader: in.group.first.client, token: in.group.token})
			}
		}
	})
	return index, all
}

// failed implements observer, and ends the node's service for any other
// reason: the gate shuts at once, and whoever runs the node learns of it by
// [Node.Failed].
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

// closingPace is how long closing one connection takes: measured as 18 us on
// two cores, rounded up.
const closingPace = 25 * time.Microsecond

func (n *Node) step() {
	now := n.now()
	n.mu.Lock()
	if n.Err() != nil && n.session.phase == phaseOpen {
		n.session.lease.end()
	}
	var first, rest []*Membership
	early := min(time.Duration(len(n.members))*closingPace, n.cfg.Timing.Lease/4)
	what := n.session.check(now, early)
	if what == needClose {
		first, rest = n.lost()
	}
	duties := n.duties(now)
	stopping := n.stopping
	n.mu.Unlock()

	switch {
	case what == needClose:
		n.log.Warn("session lost: closing its connections", "leaders", len(first), "others", len(rest))
		closeAll(first, rest)
	case what == needOpen && !stopping && n.Err() == nil:
		n.open()
	}
	if len(duties) > 0 {
		go func() { n.propose(duties).Error() }() // its effect is what counts
	}
	signal(n.wakeProposer) // a Renew may be due
}

// lost gives the memberships of the incarnation that has just ended, those
// that were told that they lead first.
func (n *Node) lost() (leaders, others []*Membership) {
	for m := range n.members {
		if l := m.lease.Load(); l != n.session.lease || m.state == memberHeld {
			continue
		}
		if m.leads.Load() {
			leaders = append(leaders, m)
		} else {
			others = append(others, m)
		}
	}
	n.session.unheard = len(leaders) + len(others)
	n.change()
	return leaders, others
}

func closeAll(leaders, others []*Membership) {
	for _, m := range leaders {
		m.member.Close()
	}
	for _, m := range others {
		m.member.Close()
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
	n.session.begin(counter, n.now())
	signal(n.wakeProposer)
}

// duties are the raft leader's: to found and activate the cluster, and to
// expire silent nodes.
func (n *Node) duties(now reading) []Op {
	if n.Err() != nil {
		return nil
	}
	ops := n.expirer.due(now)
	for _, op := range ops {
		n.log.Warn("a node has been silent for too long: expiring its session", "incarnation", op.(Expire).Incarnation)
	}
	if !n.expirer.leading || n.askedYet && now.atLeast(n.asked) < askAgain {
		return ops
	}
	quiet := len(ops)
	if !n.founded.Load() {
		ops = append(ops, Found{n.dir.identity.Cluster, n.dir.identity.TokenBase})
	}
	if !n.active.Load() && n.size() >= n.cfg.MinimumNodes {
		ops = append(ops, Activate{})
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
			n.expirer.follow()
			n.mu.Unlock()
			if !is {
				n.log.Info("no longer the raft leader")
				continue
			}
			n.log.Info("raft leader")
			n.running.Go(func() {
				if n.raft.Barrier(0).Error() != nil {
					return
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				if mine == turn {
					n.expirer.lead(n.now())
					signal(n.wake)
				}
			})
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
		return n.Err()
	case n.stopping:
		return fmt.Errorf("%w: the node is stopping", ErrUnavailable)
	case n.inactive():
		return fmt.Errorf("%w: the cluster has never had %d nodes (leader_latch.minimum_nodes)", ErrUnavailable, n.cfg.MinimumNodes)
	case !n.active.Load() || n.session.phase != phaseOpen || !n.session.lease.live():
		return fmt.Errorf("%w: no majority of the nodes answers", ErrUnavailable)
	}
	return nil
}

// Stop ends the node in the one order of design section 3, rule 9: JOINs are
// refused, all connections closed, leaders first; when their clients know,
// the session ends; raft leadership goes last. If ctx is done first the rest
// happens without waiting, as if the process were killed: other nodes then
// wait for the session's expiry. The folder stays locked; it is the caller's
// to close, when no connection is left.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	n.stopping = true
	for _, held := range n.held {
		for _, m := range held {
			m.state = memberQueued // nothing waits for names any more
		}
	}
	clear(n.held)
	n.session.joins = nil
	var leaders, others []*Membership
	for m := range n.members {
		if m.leads.Load() {
			leaders = append(leaders, m)
		} else {
			others = append(others, m)
		}
	}
	n.mu.Unlock()
	n.log.Info("stopping: closing connections", "leaders", len(leaders), "others", len(others))
	closeAll(leaders, others)

	err := n.wait(ctx, func() bool { return len(n.members) == 0 })
	if err == nil {
		n.mu.Lock()
		ask := n.session.phase == phaseOpen
		n.session.endAsked = ask
		n.mu.Unlock()
		if ask {
			signal(n.wakeProposer)
			err = n.wait(ctx, func() bool { return n.session.phase != phaseOpen || !n.session.lease.live() })
		}
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
	return errors.Join(err, n.store.Close())
}

// wait returns when cond holds, which is called with the node's mutex held.
func (n *Node) wait(ctx context.Context, cond func() bool) error {
	for {
		n.mu.Lock()
		ok, changed := cond(), n.changed
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

// change wakes those who wait; the caller holds the mutex.
func (n *Node) change() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// signal wakes the reader of a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
