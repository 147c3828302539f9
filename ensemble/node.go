package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// Config is what a node needs to know beside its data folder.
type Config struct {
	Name         string // the node's name in the cluster, riak@host
	Address      string // where other nodes reach it, host:port
	Timing       session.Timing
	MinimumNodes int     // below it, a cluster that was never active does not elect
	Voters       int     // how many nodes vote; further ones follow. Default 5
	Join         []Place // nodes whose cluster a node without one looks for; see entering.go
	MaxHeld      int     // how many keyed members are held whose connections have ended; then no further keyed JOIN is taken. Default 20,000
	FormatLevel  uint64  // above this the cluster's level does not rise while the node is a member; 0: the newest
	Version      string  // of the program, for people

	// Listener is the cluster port, from [clusterport.Listen]; nil: no node can
	// connect to this one. The node closes it.
	Listener net.Listener

	// Key gives the key of the cluster's cookie; see [clusterport.Config]. It
	// must be set.
	Key func() (*clusterport.Key, error)

	// MinimumFree is how many bytes have to be free on the file system of the
	// data folder. With less a node does not start, or ends, in order.
	MinimumFree uint64

	// DeadManSwitch has the kernel kill the process if it is stopped, or
	// stalls, for longer than it may speak for its members.
	DeadManSwitch bool

	// Order answers what [Node.Order] has passed to this node, which is the raft
	// leader of that term; the answer goes back as JSON. It may be called at any
	// time, and several times at once. nil: this node takes no orders.
	Order func(ctx context.Context, term uint64, with json.RawMessage) (any, error)

	// LogElections has each change of a group's leader logged.
	LogElections bool

	Logger *slog.Logger

	// Seams of tests.
	dial         func(ctx context.Context, network, address string) (net.Conn, error)
	beforeCommit func()
	createState  func(name string) (replica.StateFile, error)
	stallLimit   time.Duration // of the log
	hangLimit    time.Duration // of all else in the folder
	released     time.Time
	freeSpace    func(path string) (uint64, error)
	now          func() session.Reading
	bootID       string
	alter        func(*state.State, state.Entry) state.Entry
	omit         session.Omissions
	omitReplica  replica.Omissions
	observe      func(replica.Observer) replica.Observer // who observes the replica in the node's place, and passes on to it
}

// Node is one node of the ensemble: the replicated state, this node's session
// in it, and the memberships of the clients that are connected here. It is
// safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	now     func() session.Reading
	dir     *Dir
	dirLife int // by which dir may be changed
	self    state.NodeID
	store   *logstore.Store
	replica *replica.Replica
	cluster *cluster
	opens   *opens
	duty    *duties
	folder  *folderWatch
	port    *clusterport.Port

	elections    *electionLog // nil: they are not logged
	dispatch     *session.Dispatcher
	observers    *observers
	wake         chan struct{}   // the loop has something to look at; room for one
	wakeProposer chan struct{}   // the session has something to propose; room for one
	life         context.Context // done: the goroutines end
	end          context.CancelFunc
	done         <-chan struct{} // of life
	running      sync.WaitGroup

	failure *failure

	seen seen

	stopOnce sync.Once
	stopErr  error

	mu      sync.Mutex      // guards what follows; taken after the fsm's lock, before the dispatcher's
	roster  *session.Roster // its guard is the mutex
	deadMan *deadMan        // nil: none
	changed chan struct{}   // closed and replaced when the roster has changed
	heard   time.Time       // when a renewal was accepted last, for people; zero: none yet
}

// Join asks that client becomes a member of group on behalf of m, as
// latch.Elections describes it. Join, and what it calls unless it refuses, needs
// little stack. A goroutine begins with 2 KiB. Thousands of clients may ask at once, each on
// its own goroutine; deeper calls would grow the stack of each.
func (n *Node) Join(group, client string, m session.Member) (*session.Membership, error) {
	n.mu.Lock()
	defer n.unlock()
	if err := n.refuses(); err != nil {
		return nil, err
	}
	return n.roster.Join(group, client, m), nil
}

// refuses says why no JOIN can succeed now, whatever the client does; nil: one may. The node's
// mutex is held.
func (n *Node) refuses() error {
	switch {
	case n.roster.Stopping() || n.Err() != nil || n.inactive():
		return n.missing()
	case n.roster.Size() >= n.cfg.Timing.MaxMembers():
		return fmt.Errorf("%w: this node has %d clients, as many as it could close in time with leader_latch.timing = %s", ErrUnavailable, n.cfg.Timing.MaxMembers(), n.cfg.Timing.Name)
	}
	return nil
}

// JoinKeyed is Join for a keyed member, which outlives its connection and its node: with the key
// it goes on at another one. The key is kept nowhere, but a checksum of it. hold is how long the
// client asks to stay without a connection; see [session.Timing.Hold].
func (n *Node) JoinKeyed(group, client, key string, hold time.Duration, m session.Member) (*session.Membership, error) {
	sum := state.KeyOf(group, client, key)
	n.mu.Lock()
	defer n.unlock()
	if err := n.refuses(); err != nil {
		return nil, err
	}
	if n.roster.Away() >= n.cfg.MaxHeld && !n.roster.Holds(group, client) { // who comes back is no further one
		return nil, fmt.Errorf("%w: this node holds %d members without a connection (leader_latch.max_held)", ErrUnavailable, n.cfg.MaxHeld)
	}
	joined, ok := n.roster.JoinKeyed(group, client, sum, hold, m)
	if !ok {
		return nil, fmt.Errorf("%w: the formats of the cluster have no keyed members yet: a member runs an older version, or leader_latch.format_level holds them (leader-latch cluster status)", ErrUnavailable)
	}
	return joined, nil
}

// unlock lets go of the mutex and wakes whoever may have something to do.
func (n *Node) unlock() {
	due := n.roster.Due()
	n.tellWaiters()
	n.mu.Unlock()
	if due {
		signal(n.wake)
	}
	signal(n.wakeProposer)
}

// guard is the node's mutex as memberships take it.
type guard struct{ n *Node }

func (g guard) Lock()   { g.n.mu.Lock() }
func (g guard) Unlock() { g.n.unlock() }

// tellWaiters has those look again who wait for a change of the roster. The node's mutex
// is held.
func (n *Node) tellWaiters() {
	if n.roster.Changed() {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// inactive reports whether elections are known not to have begun: the cluster is
// too small, or the node is not in one yet.
func (n *Node) inactive() bool {
	return n.roster.Known() && !n.seen.active.Load() && n.cluster.size() < n.cfg.MinimumNodes || !n.dir.isSettled()
}

// allJoined gives the dispatcher this node's memberships as the state has
// them at one index.
func (n *Node) allJoined() (index uint64, all []session.Delivery) {
	n.replica.Read(func(s *state.State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		index, all = n.roster.Joined(s)
	})
	return index, all
}

// failed ends the node's service: the loop, woken, shuts the gate and closes the connections, and
// whoever runs the node learns of it by [Node.Failed].
func (n *Node) failed(err error) {
	n.failure.fail(err, func() { signal(n.wake) })
}

// Failed is closed when the node cannot go on; [Node.Err] says why.
func (n *Node) Failed() <-chan struct{} { return n.failure.set }

// Err is why the node failed, nil while it has not.
func (n *Node) Err() error { return n.failure.get() }

// Healthy reports whether the node goes on: its loop looks at the clocks, and it
// has not failed. It waits for the locks that everything waits for; where one of
// those is held for ever it does not return.
func (n *Node) Healthy() bool {
	n.replica.Read(func(*state.State) {})
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Err() == nil && n.now().AtMost(n.roster.Looked()) < stallsAfter
}

// stallsAfter is after how long without a look at the clocks a node is not healthy.
const stallsAfter = 5 * time.Second

// renewed is called when a renewal was accepted, with the node's mutex held. It moves the
// dead-man's switch on.
func (n *Node) renewed(killAt time.Duration) {
	n.heard = time.Now()
	if killAt > 0 {
		n.deadMan.arm(killAt)
	}
}

// WaitReady returns nil as soon as a JOIN at this node would succeed, or an
// error that says what is missing when ctx is done or the node has failed.
func (n *Node) WaitReady(ctx context.Context) error { return n.await(ctx, n.Missing) }

// WaitRolled is WaitReady, and waits until all keyed members have come back whose session is
// over: then the next node may be stopped. A member that lost two nodes before it came back
// could be removed (holdmodel/HOLDS.md, rule 27).
func (n *Node) WaitRolled(ctx context.Context) error {
	return n.await(ctx, func() (missing error) {
		if missing = n.Missing(); missing == nil {
			n.replica.Read(func(s *state.State) {
				missing = cmp.Or(notBack(s), notUp(s, n.replica.Servers(), n.self, n.cfg.Voters))
			})
		}
		return missing
	})
}

// await returns nil as soon as nothing is missing.
func (n *Node) await(ctx context.Context, missing func() error) error {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		missing := missing()
		if missing == nil {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // a lease ends, elections begin and other nodes' members move without notice
		case <-n.failure.set:
			return fmt.Errorf("%w: %w", ErrUnavailable, n.failure.err)
		case <-ctx.Done():
			if why := n.cluster.waitsFor(); why != "" {
				missing = fmt.Errorf("%w; %s", missing, strings.ReplaceAll(why, "\n", "; "))
			}
			return missing
		}
	}
}

// notUp says which member of the cluster has no session, or that this node is about to get a vote,
// of so many; nil: neither. Another node that is stopped then may take the majority with it.
func notUp(s *state.State, servers []replica.Server, self state.NodeID, most int) error {
	voters, votes := 0, false
	for _, srv := range servers {
		if _, _, ok := s.Current(srv.ID); !ok {
			return fmt.Errorf("%s has no session: it is down, or just starting", srv.Name)
		}
		if srv.Voter {
			voters++
			votes = votes || srv.ID == self
		}
	}
	if !votes && voters < most {
		return errors.New("this node has no vote yet")
	}
	return nil
}

// notBack says of which nodes members have not come back yet whose session is over; nil: of
// none.
func notBack(s *state.State) error {
	away := awayFrom(s)
	if len(away) == 0 {
		return nil
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(away)) {
		all = append(all, fmt.Sprintf("%d of %s", away[name], name))
	}
	return fmt.Errorf("members have not come back yet whose node was stopped: %s", strings.Join(all, ", "))
}

// Missing is why a JOIN would not succeed now; nil: it would, as far as this node knows.
func (n *Node) Missing() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.missing()
}

func (n *Node) missing() error {
	switch {
	case n.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, n.Err())
	case n.roster.Stopping():
		return fmt.Errorf("%w: the node is stopping", ErrUnavailable)
	case !n.dir.id().Settled:
		return fmt.Errorf("%w: this node is in no cluster yet", ErrUnavailable)
	case n.dir.id().Recovery != recoveryNone:
		return fmt.Errorf("%w: %w", ErrUnavailable, errRecovering)
	case n.roster.SilentFor(n.now()) > 0:
		return fmt.Errorf("%w: this node waits until what its last session promised is over", ErrUnavailable)
	case n.inactive():
		return fmt.Errorf("%w: the cluster has never had %d nodes (leader_latch.minimum_nodes)", ErrUnavailable, n.cfg.MinimumNodes)
	case !n.roster.Known() && n.replica.CatchingUp():
		return fmt.Errorf("%w: this node is just starting, and still applies what is in its log", ErrUnavailable)
	case !n.seen.active.Load() || !n.roster.Live():
		return fmt.Errorf("%w: this node has no session: its renewals are not committed, by a majority and its own disk", ErrUnavailable)
	}
	return nil
}

// Stop ends the node in the one order of DESIGN.md, rule 9: raft leadership is handed over, JOINs are
// refused, all connections closed, leaders first; when their clients know,
// the session ends; Raft goes last. If ctx is done first the rest
// happens without waiting, as if the process were killed: other nodes then
// wait for the session's expiry. The folder stays locked; it is the caller's
// to close, when no connection is left. A further call waits for the first.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() { n.stopErr = n.stop(ctx) })
	return n.stopErr
}

func (n *Node) stop(ctx context.Context) error {
	if err := n.Err(); err == nil || inOrder(err) {
		// First: whose connections are closed comes back elsewhere at once, and needs a raft
		// leader. Of a node that failed the others have to see at once that it is gone.
		n.cluster.handOver()
	}
	err := n.retire(ctx)
	if err == nil {
		n.deadMan.close() // no connection is left
	}
	// A disk that hangs may hold these for ever; the process then ends with them.
	released := make(chan error, 1)
	go func() { released <- n.release() }()
	select {
	case e := <-released:
		err = cmp.Or(err, e)
	case <-ctx.Done():
		err = cmp.Or(err, fmt.Errorf("stop: %w", context.Cause(ctx)))
	}
	if f, ok := errors.AsType[*PermanentError](n.Err()); ok {
		return f // learned of meanwhile, it is what the next start would say
	}
	return err
}

// retire closes all connections and ends the session. It may be called again.
func (n *Node) retire(ctx context.Context) error {
	n.mu.Lock()
	closing := n.roster.Stop()
	n.unlock()
	n.log.Info("stopping: closing all connections", "count", len(closing))
	for _, m := range closing {
		m.Close()
	}
	// Rule 10: the End waits for promises too, unless their clients say that they have stopped.
	err := n.wait(ctx, n.roster.Empty)
	if err != nil {
		return err
	}
	why := state.ReasonNodeStopped
	if n.dir.id().Leaving {
		why = state.ReasonRemoved
	}
	n.mu.Lock()
	n.roster.AskEnd(why)
	n.unlock()
	return n.wait(ctx, n.roster.Over)
}

// release ends the node's goroutines, Raft, the cluster port and the store.
func (n *Node) release() error {
	n.end()
	err := n.replica.Stop()
	n.running.Wait()
	if n.elections != nil {
		n.elections.write(nil) // what was applied after its goroutine had ended
	}
	n.unpromise()
	n.deadMan.close()
	return errors.Join(err, n.store.Close())
}

// wait returns when cond holds, which is called with the node's mutex held.
func (n *Node) wait(ctx context.Context, cond func() bool) error {
	failing := n.failure.set
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
		case <-failing:
			if failing = nil; !inOrder(n.failure.err) {
				return n.failure.err
			}
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

// hasEntered reports whether the node has had a session: then the entry that added
// it is committed.
func (n *Node) hasEntered() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster.Known()
}

// serving reports whether this node is the raft leader and caught up as such.
func (n *Node) serving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster.Leading()
}

// Here is the node as others may be told of it.
func (n *Node) Here() Place { return Place{n.cfg.Name, n.cfg.Address} }

// Cluster gives the members, with what those say that answer within a second.
func (n *Node) Cluster(ctx context.Context) Cluster { return n.cluster.Cluster(ctx) }

// WaitMember returns nil as soon as the node is a member of a cluster, with a
// session, or an error when ctx is done or the node has failed.
func (n *Node) WaitMember(ctx context.Context) error { return n.cluster.WaitMember(ctx) }

// JoinCluster has this node leave the cluster that it has for itself and join
// the one of another node. It returns when that is on disk; the node then fails
// with [ErrAnew], and the next one on the folder is added, or goes on asking to
// be.
func (n *Node) JoinCluster(ctx context.Context, via Place) error {
	return n.cluster.JoinCluster(ctx, via)
}

// Joinable reports an error unless this node could join the cluster of another
// one, and gives the names of the nodes that live there.
func (n *Node) Joinable(ctx context.Context, via Place) (nodes []string, err error) {
	return n.cluster.Joinable(ctx, via)
}

// Leave has the node of a name leave the cluster in order; an empty name is this
// node's. When that is done it begins anew, alone; of this node [Node.Failed]
// tells so, with [ErrAnew].
func (n *Node) Leave(ctx context.Context, name string) error { return n.cluster.Leave(ctx, name) }

// ForceRemove removes the node of a name from the cluster, dead or alive. Its
// session, if it has one, goes on until its own end or expiry; it is told that
// it was removed when it comes back, and stops for good. Without a majority
// nothing is begun.
func (n *Node) ForceRemove(ctx context.Context, name string) error {
	return n.cluster.ForceRemove(ctx, name)
}

// Order has the raft leader's [Config.Order] answer, and reads its answer into is.
// Without a raft leader it waits for one, until ctx is done.
func (n *Node) Order(ctx context.Context, with, is any) error { return n.cluster.Order(ctx, with, is) }

// OrderAt is Order in the cluster of another node. The error wraps
// [ErrUnreachable] if that node does not answer.
func (n *Node) OrderAt(ctx context.Context, via Place, with, is any) error {
	return n.cluster.OrderAt(ctx, via, with, is)
}
