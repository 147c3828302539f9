package ensemble

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// alone starts a node that elects with nobody else.
func alone(t *testing.T, name string, level uint64) *machine {
	t.Helper()
	m := newMachine(t, name, func(c *Config) { c.MinimumNodes, c.FormatLevel = 1, level }).start()
	m.ready()
	return m
}

// led has a client lead a group and leave it, and gives its token.
func led(t *testing.T, m *machine, group, name string) uint64 {
	t.Helper()
	c := join(t, m.Node, group, name)
	c.wantTold(name)
	c.close(true)
	poll(t, "it has left", func() bool { return len(m.Report().Groups(group)) == 0 })
	return c.tokens[0]
}

func raised(t *testing.T, m *machine) {
	t.Helper()
	poll(t, "level 2", func() bool { return m.seen.level.Load() == 2 })
}

// Two nodes that have elected apart are brought together: the tokens of a group rise, also
// for the clients of the one whose tokens were higher.
func TestTokensRiseWhenANodeJoinsAnotherCluster(t *testing.T) {
	a := alone(t, "a@127.0.0.1", 0)
	b := alone(t, "b@127.0.0.1", 0) // founded later
	first, second := led(t, a, "g", "x"), led(t, b, "g", "x")
	if second <= first {
		t.Fatalf("tokens %d, and %d of a cluster that was founded later", first, second)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.JoinCluster(ctx, a.place()); err != nil {
		t.Fatal(err)
	}
	b.again()
	if err := b.WaitMember(ctx); err != nil {
		t.Fatal(err)
	}
	poll(t, "what is settled is forgotten", func() bool {
		_, err := os.Stat(b.dir.Path("tokens"))
		return os.IsNotExist(err)
	})
	b.ready()
	third := led(t, b, "g", "x")
	if third <= second {
		t.Errorf("token %d after %d", third, second)
	}
	// A node that leaves founds a cluster with tokens above, whatever its clock says.
	b.dir.tokens.Store(0)
	given := third
	if err := b.Leave(ctx, ""); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.ready()
	if token := led(t, b, "g", "x"); token <= given {
		t.Errorf("token %d after %d", token, given)
	}
	// And the state that was lifted is there after a restart.
	kill(a.Node)
	a.start().ready()
	if token := led(t, a, "g", "x"); token <= third {
		t.Errorf("token %d after %d and a restart", token, third)
	}
}

// What cannot be lifted is not joined: the reason and the cure are said before the node has
// given up anything. Who has never elected has given no tokens, and may join.
func TestTokensThatCannotBeLiftedKeepANodeFromJoining(t *testing.T) {
	a := alone(t, "a@127.0.0.1", 1)
	b := alone(t, "b@127.0.0.1", 0)
	was := b.dir.id()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := b.JoinCluster(ctx, a.place())
	for _, want := range []string{"fencing tokens above those of the cluster", "level 2", "held at 1 by a@127.0.0.1", "leader_latch.format_level"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	old := invitation{Cluster: "c", TokenBase: was.TokenBase}
	if err := b.cluster.lift(ctx, a.place(), old, b.cluster.tokensGiven()); err == nil || !strings.Contains(err.Error(), "older version") {
		t.Errorf("a node of an older version: %v", err)
	}
	if is := b.dir.id(); is.Node != was.Node || is.Join != "" || b.Err() != nil {
		t.Errorf("identity %+v, failed %v", is, b.Err())
	}
	led(t, b, "g", "x")

	c := newMachine(t, "c@127.0.0.1", nil).start() // with minimum_nodes = 3
	poll(t, "a cluster of its own", c.hasEntered)
	if err := c.JoinCluster(ctx, a.place()); err != nil {
		t.Error(err)
	}
}

// A join that is given up has not lost what it was to bring along; nor has one whose other
// node belongs to another cluster by then.
func TestTokensOutliveAJoinThatIsGivenUp(t *testing.T) {
	b := alone(t, "b@127.0.0.1", 0)
	given := b.cluster.tokensGiven() + 1<<40
	nobody := newMachine(t, "nobody@127.0.0.1", nil)
	if _, err := b.cluster.beginAnewAbove(nobody.place().text(), given); err != nil {
		t.Fatal(err)
	}
	b.again()
	kill(b.Node)
	b.start()
	if got := b.dir.tokens.Load(); got != given {
		t.Fatalf("tokens %d after a restart, want %d", got, given)
	}
	a := alone(t, "a@127.0.0.1", 0)
	raised(t, a)
	in, _, err := b.cluster.inquire(t.Context(), a.place())
	if err != nil || in.Tokens >= given {
		t.Fatalf("invited to %+v, %v", in, err)
	}
	if err := b.cluster.accept(a.place(), in); err != nil {
		t.Fatal(err)
	}
	if token := led(t, a, "g", "x"); token <= given {
		t.Errorf("token %d in the cluster that was accepted, after %d", token, given)
	}
	if err := b.Leave(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.ready()
	if token := led(t, b, "g", "x"); token <= given {
		t.Errorf("token %d after %d", token, given)
	}
}

func TestADamagedTokensFileIsRefused(t *testing.T) {
	path := t.TempDir()
	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if err := os.WriteFile(filepath.Join(path, "tokens"), []byte("12x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if dir, err := OpenDir(t.Context(), path); err == nil || !strings.Contains(err.Error(), "tokens") {
		t.Errorf("%v", err)
		dir.Close()
	}
}

// A clock that is before the program itself founds nothing.
func TestNoClusterIsFoundedByAClockThatIsWrong(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(dir, Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: steady, MinimumNodes: 1, Key: testKey, Logger: testLog(t), released: time.Now().Add(time.Hour)})
	if err == nil || !strings.Contains(err.Error(), "set the clock right") {
		t.Fatalf("started: %v", err)
	}
	if id := dir.id(); id.Cluster != "" || id.Settled {
		t.Errorf("identity %+v", id)
	}
	startNodeOn(t, dir, nil) // by one that is right
}

// Nor does a node found one that gives up asking to be let in, or leaves, by such a clock:
// nothing is done, and with a clock that is right it can be.
func TestNobodyLeavesByAClockThatIsWrong(t *testing.T) {
	wrong := func(c *Config) { c.released = time.Now().Add(time.Hour) }
	nobody := newMachine(t, "nobody@127.0.0.1", nil)
	looks := func(c *Config) { c.Join = []Place{nobody.place()} }
	asks := newMachine(t, "asks@127.0.0.1", func(c *Config) {
		looks(c)
		wrong(c)
	}).start()
	all := founders(t, 3)
	_, others := raftLeaderOf(t, all)
	kill(others[0].Node)
	right := others[0].change
	others[0].change = func(c *Config) {
		right(c)
		wrong(c)
	}
	others[0].start().ready()
	for _, m := range []*machine{asks, others[0]} {
		was := m.dir.id()
		err := m.Leave(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), "nothing was done") || !strings.Contains(err.Error(), "set the clock right") {
			t.Errorf("%s left: %v", m.name, err)
		}
		if is := m.dir.id(); is != was || m.Err() != nil {
			t.Errorf("%s is %+v and was %+v; failed %v", m.name, is, was, m.Err())
		}
	}
	kill(asks.Node)
	asks.change = looks
	asks.start()
	if err := asks.Leave(t.Context(), ""); err != nil {
		t.Error(err)
	}
	asks.again()
}

// A Lift has all tokens from then on be above, and never makes them lower.
func TestLift(t *testing.T) {
	s := state.New()
	s.Apply(1, state.Entry{Ops: []state.Op{state.Found{Cluster: "c", TokenBase: 1000}, state.Activate{}, state.Open{Node: "n1", Counter: 1}}}, nil)
	s.Apply(2, state.Entry{Ops: []state.Op{state.Raise{Level: 2}, state.Lift{Tokens: 5_000_000}, state.Lift{Tokens: 70}}}, nil)
	inc := state.Incarnation(state.PositionOf(1, 2))
	effects := s.Apply(3, state.Entry{Ops: []state.Op{state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "a"}}}, nil)
	if got, want := effects[0].(state.Joined).Token, 5_000_000+uint64(state.PositionOf(3, 0)); got != want {
		t.Errorf("token %d, want %d", got, want)
	}
	restored, err := statetest.FromBytes(statetest.Bytes(s))
	if err != nil || restored.TokenBase() != 5_000_000 {
		t.Errorf("restored: %v, tokens from %d", err, restored.TokenBase())
	}
}

// A node that has left one cluster, and elects nobody while it is alone, brings the tokens of
// that one along to the next.
func TestTokensRiseThroughLeavingAndJoining(t *testing.T) {
	b := alone(t, "b@127.0.0.1", 0)
	raised(t, b)
	a := alone(t, "a@127.0.0.1", 0) // founded later: its tokens are higher
	c := newMachine(t, "c@127.0.0.1", nil).start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	joins := func(to *machine) {
		t.Helper()
		poll(t, "it may join", func() bool { return c.JoinCluster(ctx, to.place()) == nil })
		c.again()
		if err := c.WaitMember(ctx); err != nil {
			t.Fatal(err)
		}
		c.ready()
	}
	poll(t, "a cluster of its own", c.hasEntered)
	joins(a)
	given := led(t, c, "g", "x")
	if err := c.Leave(ctx, ""); err != nil {
		t.Fatal(err)
	}
	c.again()
	poll(t, "alone", c.hasEntered)
	joins(b)
	if token := led(t, c, "g", "x"); token <= given {
		t.Errorf("token %d after %d", token, given)
	}
}

// Tokens are not lifted to where a clock that was wrong has put them: that would be for good.
func TestTokensAreNotLiftedFarAhead(t *testing.T) {
	a := alone(t, "a@127.0.0.1", 0)
	raised(t, a)
	b := alone(t, "b@127.0.0.1", 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	in, _, err := b.cluster.inquire(ctx, a.place())
	if err != nil {
		t.Fatal(err)
	}
	far := uint64(time.Now().Add(2 * liftAhead).UnixMicro())
	if err := b.cluster.lift(ctx, a.place(), in, far); err == nil || !strings.Contains(err.Error(), "a clock that was wrong") {
		t.Errorf("two years ahead: %v", err)
	}
	if err := b.cluster.lift(ctx, a.place(), in, far-uint64(liftAhead.Microseconds()+time.Hour.Microseconds())); err != nil {
		t.Errorf("less than a year ahead: %v", err)
	}
	// From there on a node that was of this cluster, and has led on alone, is still a little ahead.
	if err := b.cluster.lift(ctx, a.place(), in, far-uint64(2*time.Hour.Microseconds())); err != nil {
		t.Errorf("nearly two years ahead, and one of the cluster's own: %v", err)
	}
	if err := b.cluster.lift(ctx, a.place(), in, far+2*uint64(liftAhead.Microseconds())); err == nil {
		t.Error("two years ahead of the cluster's own: lifted")
	}
}

// Where the raft leader is of a version that knows nothing of tokens which are lifted, the node
// that is asked says what helps, and who has to be upgraded.
func TestARaftLeaderOfAnOlderVersionCannotLift(t *testing.T) {
	all := foundersWith(t, 3, func(_ int, c *Config) { c.FormatLevel = 1 })
	leader, others := raftLeaderOf(t, all)
	for _, m := range all { // as the older program does, of which each might lead
		m.port.Handle(clusterport.Admin, m.cluster.answers(map[string]answerer{
			askView: m.cluster.answerView, askAdd: m.cluster.answerAdd, askRemove: m.cluster.answerRemove, askLeave: m.cluster.answerLeave, askCounter: m.cluster.answerCounter, askOrder: m.cluster.answerOrder,
		}))
	}
	b := alone(t, "b@127.0.0.1", 0) // founded later
	led(t, b, "g", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := b.JoinCluster(ctx, others[0].place())
	for _, want := range []string{"fencing tokens above those of the cluster", "held at 1 by", leader.name, "upgrade"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "does not know the question") {
		t.Error(err)
	}
}
