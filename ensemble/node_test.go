package ensemble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// testLog is a logger into the test's output, quiet for the common levels.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// steady is a timing whose lease outlasts any stall of a busy machine.
var steady = session.Timing{Name: "steady", Heartbeat: 150 * time.Millisecond, Renew: 100 * time.Millisecond, Lease: time.Minute, Close: 150 * time.Millisecond, Expiry: 61 * time.Second}

// testKey is the key of all nodes of a test.
var testKey = sync.OnceValues(func() (*clusterport.Key, error) { return clusterport.KeyFromSeed([32]byte{1}) })

// startNode starts a node of a cluster of its own, ready for JOINs.
func startNode(t testing.TB, path string, change func(*Config)) *Node {
	t.Helper()
	n := startNodeUnready(t, path, change)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

func startNodeUnready(t testing.TB, path string, change func(*Config)) *Node {
	t.Helper()
	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return startNodeOn(t, dir, change)
}

func startNodeOn(t testing.TB, dir *Dir, change func(*Config)) *Node {
	t.Helper()
	cfg := Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: steady, MinimumNodes: 1, Key: testKey, Logger: testLog(t)}
	if change != nil {
		change(&cfg)
	}
	n, err := Start(dir, cfg)
	if err != nil {
		dir.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(t, n)
		dir.Close()
	})
	return n
}

// session gives the incarnation of a node's session, and the open counter.
func (n *Node) session() (inc state.Incarnation, counter uint64) {
	n.replica.Read(func(s *state.State) { inc, counter, _ = s.Current(n.self) })
	return inc, counter
}

// stop stops a node once.
func stop(t testing.TB, n *Node) {
	select {
	case <-n.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Stop(ctx); err != nil && n.Err() == nil {
		t.Errorf("stop: %v", err)
	}
}

// A node that is alone does not wait for a raft leader that could be missed, neither when it
// founds its cluster nor when it starts again. The timeout is longer than the test waits.
func TestANodeThatIsAloneLeadsAtOnce(t *testing.T) {
	patient := func(c *Config) {
		c.Timing = session.Timing{Name: "patient", Heartbeat: time.Minute, Renew: 100 * time.Millisecond, Lease: 3 * time.Minute, Close: 150 * time.Millisecond, Expiry: 182 * time.Second}
	}
	path := t.TempDir()
	kill(startNode(t, path, patient))
	startNode(t, path, patient)

	m := newMachine(t, "riak@127.0.0.1", nil)
	m.change = func(c *Config) {
		patient(c)
		c.MinimumNodes, c.Join = 1, []Place{m.place()}
	}
	m.start().ready()
}

// A node whose log takes long to apply says so, and not that there is no majority.
func TestAStartThatAppliesItsLogSaysSo(t *testing.T) {
	path := t.TempDir()
	kill(startNode(t, path, nil))
	appendEntries(t, path, 10_000) // Raft hands over 8,192 before it waits for the state machine
	goOn := make(chan struct{})
	apply := sync.OnceFunc(func() { close(goOn) })
	defer apply()
	n := startNodeUnready(t, path, func(c *Config) {
		c.alter = func(_ *state.State, e state.Entry) state.Entry {
			<-goOn
			return e
		}
	})
	poll(t, "it is known what is committed", n.replica.HasHeard)
	if err := n.Missing(); err == nil || !strings.Contains(err.Error(), "still applies what is in its log") {
		t.Errorf("a JOIN would be refused as %v", err)
	}
	apply()
	poll(t, "JOINs are answered", func() bool { return n.Missing() == nil })
}

// appendEntries has entries that change nothing at the end of a log.
func appendEntries(t *testing.T, path string, count uint64) {
	t.Helper()
	log, err := logstore.Open(filepath.Join(path, "raft.db"), logstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var end raft.Log
	if err := log.GetLog(last, &end); err != nil {
		t.Fatal(err)
	}
	var more []*raft.Log
	for i := range count {
		more = append(more, &raft.Log{Index: last + 1 + i, Term: end.Term, Type: raft.LogCommand, Data: state.Encode(state.FirstLevel, state.Entry{At: time.Now()})})
	}
	if err := log.StoreLogs(more); err != nil {
		t.Fatal(err)
	}
}

// client is a Member that keeps what it is told. It is a connection whose
// client learns at once that it was closed.
type client struct {
	t          *testing.T
	name       string
	membership *session.Membership

	mu      sync.Mutex
	told    []string
	tokens  []uint64
	waits   []string // the nodes for whose members it waited
	closed  bool
	deaf    bool // its client never learns
	changed chan struct{}
}

func join(t *testing.T, n *Node, group, name string) *client {
	t.Helper()
	return joinAs(t, n, group, name, func(c *client) session.Member { return c })
}

// joinAs has a client join for which another Member speaks, which may pass on to it.
func joinAs(t *testing.T, n *Node, group, name string, as func(*client) session.Member) *client {
	t.Helper()
	c := &client{t: t, name: name, changed: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := n.Join(group, name, as(c))
	if err != nil {
		t.Fatalf("JOIN %s %s: %v", group, name, err)
	}
	c.membership = m
	return c
}

func (c *client) Leader(name string, token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer signal(c.changed)
	if c.closed || !c.membership.Live() {
		return
	}
	if len(c.told) == 0 || c.told[len(c.told)-1] != name {
		c.told, c.tokens = append(c.told, name), append(c.tokens, token)
	}
}

// Promised has the client told what it has asked for.
func (c *client) Waits(holder string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = append(c.waits, holder)
}
func (c *client) Promised()         { signal(c.changed) }
func (*client) Alive(time.Duration) {}

func (c *client) Close() { c.close(!c.deaf) }

// close ends the connection, as a client does that closes.
func (c *client) close(acknowledged bool) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	signal(c.changed)
	c.mu.Unlock()
	c.membership.Closed("closed", acknowledged)
}

// until waits until cond holds of what the client was told.
func (c *client) until(what string, cond func(told []string, closed bool) bool) {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		told, closed := slices.Clone(c.told), c.closed
		c.mu.Unlock()
		if cond(told, closed) {
			return
		}
		select {
		case <-c.changed:
		case <-deadline:
			c.t.Fatalf("client %s: waits for %s; was told %q, closed %v", c.name, what, told, closed)
		}
	}
}

func (c *client) wantTold(want ...string) {
	c.t.Helper()
	c.until(fmt.Sprintf("%q", want), func(told []string, closed bool) bool {
		if len(told) >= len(want) && !slices.Equal(told, want) {
			c.t.Fatalf("client %s was told %q, want %q", c.name, told, want)
		}
		return len(told) == len(want)
	})
}

func (c *client) wantClosed() {
	c.t.Helper()
	c.until("the end", func(_ []string, closed bool) bool { return closed })
}

func TestMembersSucceedInOrderOfJoining(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	b := join(t, n, "g", "b")
	b.wantTold("a")
	c := join(t, n, "g", "c")
	c.wantTold("a")
	a.close(true)
	b.wantTold("a", "b")
	c.wantTold("a", "b")
	b.close(true)
	c.wantTold("a", "b", "c")
	if !slices.IsSorted(c.tokens) || c.tokens[0] == c.tokens[1] || c.tokens[1] == c.tokens[2] {
		t.Errorf("tokens do not rise: %d", c.tokens)
	}
	if c.tokens[0] < uint64(time.Now().Add(-time.Hour).UnixMicro()) {
		t.Errorf("the first token %d is not above what a cluster founded an hour ago gave", c.tokens[0])
	}
}

// PROTOCOL.md, rule 11: a name that a member has waits until that member goes.
func TestANameIsWaitedFor(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a := join(t, n, "g", "x")
	a.wantTold("x")
	second := join(t, n, "g", "x")
	third := join(t, n, "g", "x")
	poll(t, "two clients wait", func() bool {
		g := n.Report().Groups("g")
		return len(g) == 1 && len(g[0].Waiting) == 2 && len(g[0].Members) == 1
	})
	second.close(true) // gives up
	poll(t, "one client waits", func() bool { return len(n.Report().Groups("g")[0].Waiting) == 1 })
	if len(third.told) != 0 {
		t.Fatalf("told %q beside a live namesake", third.told)
	}
	a.close(true)
	third.wantTold("x")
	third.mu.Lock()
	defer third.mu.Unlock()
	if want := []string{"riak@127.0.0.1", ""}; !slices.Equal(third.waits, want) {
		t.Errorf("it was told that it waits for members through %q, want %q", third.waits, want)
	}
}

func TestAJoinWhoseClientHasGoneLeavesNoMember(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	for i := range 200 {
		join(t, n, "g", fmt.Sprint(i)).close(true)
	}
	last := join(t, n, "g", "last")
	last.wantTold("last")
	last.close(true)
	poll(t, "no group is left", func() bool { return len(n.Report().Groups("")) == 0 })
}

func TestARestartEndsTheOldMembershipsAtOnce(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	// The process dies: nothing is said, nothing is closed in order.
	kill(n)

	n = startNode(t, path, nil)
	started := time.Now()
	again := join(t, n, "g", "a")
	again.wantTold("a")
	if again.tokens[0] <= a.tokens[0] {
		t.Errorf("token %d after %d", again.tokens[0], a.tokens[0])
	}
	if g := n.Report().Groups("g"); len(g[0].Members) != 1 {
		t.Errorf("members %v", g[0].Members)
	}
	if d := time.Since(started); d > steady.Lease {
		t.Errorf("answered after %v: the old session was waited for", d)
	}
}

// kill ends a node as the death of its process would, but for the lock.
func kill(n *Node) {
	n.end()
	n.replica.Stop()
	n.port.Close()
	n.running.Wait()
	n.store.Close()
	n.dir.Close()
}

// After a boot the lock proves nothing: the old session goes by Expire, and
// only then is the node back.
func TestAfterABootTheOldSessionExpires(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, func(c *Config) { c.bootID, c.Timing = "before", session.Quick })
	join(t, n, "g", "a").wantTold("a")
	old, _ := n.session()
	kill(n)

	start := time.Now()
	n = startNodeUnready(t, path, func(c *Config) { c.bootID, c.Timing = "after", session.Quick })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < session.Quick.Expiry {
		t.Errorf("back after %v; the old session may live for %v", d, session.Quick.Expiry)
	}
	if is, _ := n.session(); is <= old {
		t.Errorf("incarnation %d after %d", is, old)
	}
	if g := n.Report().Groups(""); len(g) != 0 {
		t.Errorf("old groups are left: %v", g)
	}
}

func TestStopClosesThenEndsTheSession(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	a, b := join(t, n, "g", "a"), join(t, n, "h", "b")
	a.wantTold("a")
	b.wantTold("b")
	c := join(t, n, "g", "c")
	c.wantTold("a")
	stop(t, n)
	for _, c := range []*client{a, b, c} {
		c.wantClosed()
	}
	if _, err := n.Join("g", "d", a); !errors.Is(err, ErrUnavailable) {
		t.Errorf("JOIN of a stopped node: %v", err)
	}
	c.wantTold("a") // was never told to lead on the way out
	n.replica.Read(func(s *state.State) {
		for ses := range s.Sessions() {
			t.Errorf("the session was not ended: %v", ses)
		}
		for g := range s.Groups() {
			t.Errorf("a group is left: %v", g)
		}
	})
}

// Closing order, DESIGN.md, rules 6b and 9: who was told to lead goes first.
func TestLeadersAreClosedFirst(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	var order []string
	var mu sync.Mutex
	recorded := func(group, name string) *client {
		return joinAs(t, n, group, name, func(c *client) session.Member {
			return &recorder{c, func() {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}}
		})
	}
	for i := range 20 {
		recorded("g", fmt.Sprint("g", i)).wantTold("g0")
		recorded(fmt.Sprint("solo", i), "leader").wantTold("leader")
	}
	stop(t, n)
	for i, name := range order {
		if leads := name == "leader" || name == "g0"; leads != (i < 21) {
			t.Fatalf("closed in the order %q", order)
		}
	}
	if len(order) != 40 {
		t.Fatalf("closed %d of 40", len(order))
	}
}

type recorder struct {
	session.Member
	closing func()
}

func (r *recorder) Close() { r.closing(); r.Member.Close() }

// A lease that was not renewed ends: every connection is closed and the node
// comes back with a new incarnation, not before each client knows or the old
// session could have expired.
func TestALostLeaseClosesAllAndOpensAnew(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			var mu sync.Mutex
			var jump time.Duration
			n := startNode(t, t.TempDir(), func(c *Config) {
				c.now = func() session.Reading {
					mu.Lock()
					defer mu.Unlock()
					return session.Now().Later(jump)
				}
			})
			a := join(t, n, "g", "a")
			a.deaf = deaf
			a.wantTold("a")
			first, _ := n.session()
			n.mu.Lock()
			renewed := n.roster.KillAt() - steady.KillAfter(1) // was sent then
			mu.Lock()
			jump += steady.Lease // as after a pause of the process
			mu.Unlock()
			n.mu.Unlock()
			if a.membership.Live() {
				t.Error("the gate is open after the lease")
			}
			a.wantClosed()
			b := join(t, n, "g", "b")
			b.wantTold("b")
			if is, _ := n.session(); is == first {
				t.Fatal("the lease came back to life")
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			silent := n.roster.KillAt() - steady.KillAfter(1) - renewed
			if deaf && silent < steady.Expiry {
				t.Errorf("opened %v after the last renewal though a client may still believe until %v", silent, steady.Expiry)
			}
			if a.membership.Live() {
				t.Error("the old lease is live")
			}
		})
	}
}

// A JOIN that comes before the node can know whether there are elections is refused
// when it does, and does not wait until the client's time is up.
func TestAnEarlyJoinIsRefusedWhereThereAreNoElections(t *testing.T) {
	n := startNodeUnready(t, t.TempDir(), func(c *Config) { c.MinimumNodes = 3 })
	c := join(t, n, "g", "a") // no raft leader yet: an election takes its time
	c.wantClosed()
	if len(c.told) > 0 {
		t.Errorf("told %q", c.told)
	}
}

func TestBelowItsMinimumAClusterDoesNotElect(t *testing.T) {
	n := startNodeUnready(t, t.TempDir(), func(c *Config) { c.MinimumNodes = 3 })
	poll(t, "the node knows", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.roster.Known()
	})
	if _, err := n.Join("g", "a", &client{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("JOIN: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := n.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "leader_latch.minimum_nodes") {
		t.Errorf("WaitReady: %v", err)
	}
	if c := n.Cluster(t.Context()); c.Active || len(c.Members) != 1 {
		t.Errorf("cluster %+v", c)
	}
}

// Before the next node is stopped, those members are waited for that are keyed and whose session
// is over, whichever node had it: until they have moved or were expired.
func TestWhoIsWaitedForBetweenTwoStops(t *testing.T) {
	s, index := state.New(), uint64(0)
	apply := func(ops ...state.Op) {
		index++
		s.Apply(index, state.Entry{Ops: ops}, nil)
	}
	open := func(node string, counter uint64) (inc state.Incarnation) {
		apply(state.Open{Node: state.NodeID(node), Counter: counter, Name: "riak@" + node})
		inc, _, _ = s.Current(state.NodeID(node))
		return inc
	}
	keyed := func(inc state.Incarnation, seq uint64, client string) state.Op {
		return state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: seq, Group: "g", Client: client}, Hold: time.Second}
	}
	want := func(waits string) {
		t.Helper()
		got := "<nil>"
		if err := notBack(s); err != nil {
			got = err.Error()
		}
		if waits != "<nil>" {
			waits = "members have not come back yet whose node was stopped: " + waits
		}
		if got != waits {
			t.Errorf("after entry %d: %s, want %s", index, got, waits)
		}
	}
	apply(state.Raise{Level: state.KeyedLevel})
	n1, n2 := open("n1", 1), open("n2", 1)
	apply(keyed(n1, 1, "a"), keyed(n1, 2, "b"), keyed(n2, 1, "c"), state.Join{Incarnation: n2, Seq: 2, Group: "g", Client: "plain"})
	want("<nil>")
	apply(state.End{Incarnation: n2, Seq: 3})
	again := open("n1", 2) // started again, as after a kill
	want("2 of riak@n1, 1 of riak@n2")
	apply(keyed(again, 1, "c"))
	want("2 of riak@n1")
	third := open("n1", 3)
	want("3 of riak@n1")
	apply(state.Expire{Incarnation: n1})
	want("1 of riak@n1")
	apply(keyed(third, 1, "c"))
	want("<nil>")
}

// What is listed of keyed members: that they are, their hold, and whether they are away. Of plain
// ones nothing is said that was not said before.
func TestWhatIsListedOfKeyedMembers(t *testing.T) {
	s := state.New()
	s.Apply(1, state.Entry{Ops: []state.Op{state.Raise{Level: state.KeyedLevel}, state.Open{Node: "n1", Counter: 1, Name: "riak@n1"}, state.Open{Node: "n2", Counter: 1, Name: "riak@n2"}}}, nil)
	n1, _, _ := s.Current("n1")
	n2, _, _ := s.Current("n2")
	s.Apply(2, state.Entry{At: time.UnixMilli(1000), Ops: []state.Op{
		state.KeyedJoin{Join: state.Join{Incarnation: n1, Seq: 1, Group: "g", Client: "away"}, Hold: 2 * time.Second},
		state.KeyedJoin{Join: state.Join{Incarnation: n2, Seq: 1, Group: "g", Client: "keyed"}},
		state.Join{Incarnation: n2, Seq: 2, Group: "g", Client: "plain"},
		state.End{Incarnation: n1, Seq: 2},
	}}, nil)
	g, _ := s.Group("g")
	var got []string
	for _, m := range groupWith(g, map[state.NodeID]string{"n1": "riak@n1", "n2": "riak@n2"}).Members {
		m.Since = time.Unix(1, 0).UTC()
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	want := []string{
		`{"client":"away","node":"riak@n1","since":"1970-01-01T00:00:01Z","keyed":true,"hold_ms":2000,"away":true}`,
		`{"client":"keyed","node":"riak@n2","since":"1970-01-01T00:00:01Z","keyed":true}`,
		`{"client":"plain","node":"riak@n2","since":"1970-01-01T00:00:01Z"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if away := awayFrom(s); len(away) != 1 || away["riak@n1"] != 1 {
		t.Errorf("away: %v", away)
	}
}

// With as many members held as the limit says no further one is taken, and who comes back is.
func TestWhoComesBackIsTakenBeyondTheLimit(t *testing.T) {
	n := startNode(t, t.TempDir(), func(c *Config) { c.MaxHeld = 1 })
	levelIs(t, n, state.NewestLevel)
	join := func(name string) (*session.Membership, error) {
		return n.JoinKeyed("g", name, "secret", time.Minute, leaderFunc(func(string) {}))
	}
	var all []*session.Membership
	for _, name := range []string{"a", "b"} {
		m, err := join(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	poll(t, "both are members", func() bool { g := n.Report().Groups("g"); return len(g) == 1 && len(g[0].Members) == 2 })
	for _, m := range all {
		m.Closed("reset", true)
	}
	if _, err := join("c"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "leader_latch.max_held") {
		t.Errorf("a further one: %v", err)
	}
	if m, err := join("b"); err != nil {
		t.Errorf("one that comes back: %v", err)
	} else {
		m.Closed("reset", true)
	}
}

func TestTheClusterOfOneNode(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	poll(t, "the raft leader is ready", func() bool { return n.serving() })
	c := n.Cluster(t.Context())
	if !c.Active || !c.Majority || len(c.Members) != 1 {
		t.Fatalf("cluster %+v", c)
	}
	m := c.Members[0]
	if !m.Up || !m.Voter || !m.RaftLeader || m.Role != "leading" || m.Term != n.replica.Term() || !m.Follows || !m.Serving || !m.Agrees {
		t.Errorf("member %+v", m)
	}
}

// A snapshot replaces the log; a restart from it gives the same state.
func TestSnapshotAndRestart(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	if err := snapshot(n); err != nil {
		t.Fatal(err)
	}
	snaps, _ := filepath.Glob(filepath.Join(path, "snapshots", "*", "state.bin"))
	if len(snaps) != 1 {
		t.Fatalf("snapshots: %v", snaps)
	}
	_, counter := n.session()
	kill(n)
	n = startNode(t, path, nil)
	if _, is := n.session(); is <= counter {
		t.Errorf("open counter %d after %d", is, counter)
	}
	b := join(t, n, "g", "b")
	b.wantTold("b")
	if b.tokens[0] <= a.tokens[0] {
		t.Errorf("token %d after %d", b.tokens[0], a.tokens[0])
	}
}

// A snapshot that is installed on a live node is compared by member id.
func TestARestoredSnapshotClosesWhoIsNotInIt(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a, b := join(t, n, "g", "a"), join(t, n, "g", "b")
	a.wantTold("a")
	b.wantTold("a")
	n.replica.Inside().Change(func(s *state.State) *state.State {
		s, err := statetest.FromBytes(statetest.Bytes(s))
		if err != nil {
			t.Fatal(err)
		}
		// In the snapshot a has gone and another a, of another node, has joined.
		s.Apply(s.Index()+1, state.Entry{Ops: []state.Op{state.Open{Node: "other", Counter: 1}}}, nil)
		other := state.Incarnation(state.PositionOf(s.Index(), 0))
		inc, _, _ := s.Current(n.self)
		seq, _, _ := s.Accepted(inc)
		g, _ := s.Group("g")
		s.Apply(s.Index()+1, state.Entry{Ops: []state.Op{state.Leave{Incarnation: inc, Seq: seq + 1, Join: g.Members[0].ID.Seq}, state.Join{Incarnation: other, Seq: 1, Group: "g", Client: "a"}}}, nil)
		observer{n}.Restored(s)
		return s
	})
	a.wantClosed()
	b.wantTold("a", "b")
	kill(n) // the state has the number of its next operation
}

// The session outlives every connection: while one client does not know yet
// that it was closed, nobody may be named in its place.
func TestStopEndsTheSessionWhenEveryClientKnows(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	slow := &slowMember{closing: make(chan struct{})}
	a := joinAs(t, n, "g", "a", func(c *client) session.Member {
		slow.client = c
		return slow
	})
	a.wantTold("a")
	sessions := func() (count int) {
		n.replica.Read(func(s *state.State) { count = len(slices.Collect(s.Sessions())) })
		return count
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop(t, n)
	}()
	<-slow.closing
	for range 100 {
		if sessions() != 1 {
			t.Fatal("the session has ended before its last client knew")
		}
		time.Sleep(time.Millisecond) // gives a wrong End its chance; the right order needs none
	}
	a.Close()
	<-stopped
	if sessions() != 0 {
		t.Fatal("the session was not ended")
	}
}

// slowMember is told to close, and closes when the test says so.
type slowMember struct {
	*client
	once    sync.Once
	closing chan struct{}
}

func (m *slowMember) Close() { m.once.Do(func() { close(m.closing) }) }

// A node that cannot go on falls silent and closes its connections by itself.
func TestAFailedNodeClosesItsConnections(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	n.failed(errors.New("disk: gone"))
	a.wantClosed()
	if a.membership.Live() {
		t.Error("the gate is open")
	}
	if _, err := n.Join("g", "b", a); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "disk: gone") {
		t.Errorf("JOIN: %v", err)
	}
}

type leaderFunc func(name string)

func (f leaderFunc) Leader(name string, _ uint64) { f(name) }
func (leaderFunc) Waits(string)                   {}
func (f leaderFunc) Promised()                    {}
func (leaderFunc) Alive(time.Duration)            {}
func (leaderFunc) Close()                         {}

func poll(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A node takes no more clients than it could close before its lease is over.
func TestANodeHoldsNoMoreThanItCanClose(t *testing.T) {
	n := startNodeUnready(t, t.TempDir(), func(c *Config) {
		c.Timing = session.Timing{Name: "tiny", Heartbeat: 10 * time.Millisecond, Renew: 5 * time.Millisecond, Lease: 40 * time.Millisecond, Close: 10 * time.Millisecond, Expiry: 60 * time.Millisecond}
		c.MinimumNodes = 1
	})
	poll(t, "no more", func() bool {
		_, err := n.Join("g", "a", &recorder{leaderFunc(func(string) {}), func() {}})
		if err == nil {
			return false
		}
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "800 clients") {
			t.Fatal(err)
		}
		return true
	})
	kill(n) // its members would never be closed
	if have := n.roster.Size(); have != 800 {
		t.Errorf("%d members", have)
	}
}
