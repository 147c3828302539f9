package session

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// fakeClock is a clock that stands still unless it is moved.
type fakeClock struct{ at Reading }

func (c *fakeClock) now() Reading                      { return c.at }
func (c *fakeClock) pass(d time.Duration)              { c.at = c.at.Later(d) }
func (c *fakeClock) set(boot, mono, raw time.Duration) { c.at = Reading{boot, mono, raw, mono} }

// openSession gives a session that has just been opened as incarnation 1024;
// its Open was sent first at the clock's zero.
func openSession(c *fakeClock) *session {
	s := &session{node: "n1", boot: "boot", timing: Normal, electing: true}
	s.begin(1, c.now())
	s.cut(c.now())
	s.opened(1, 1024, c.now)
	return s
}

func queue(s *session, group, client string) *Membership {
	m := &Membership{group: group, client: client}
	s.join(m)
	return m
}

func TestALeaseCountsFromTheFirstSendingOfItsOpen(t *testing.T) {
	var c fakeClock
	s := &session{node: "n1", timing: Normal}
	s.begin(7, c.now())
	if got := s.cut(c.now()); len(got) != 1 || got[0].(state.Open).Counter != 7 {
		t.Fatalf("first batch %v", got)
	}
	c.pass(500 * time.Millisecond)
	s.rewind() // the raft leader was lost
	if got := s.cut(c.now()); len(got) != 1 || got[0].(state.Open).Counter != 7 {
		t.Fatalf("the Open is not sent again as it was: %v", got)
	}
	c.pass(time.Second)
	if s.opened(6, 1024, c.now) {
		t.Fatal("an Open of another counter was taken for its own")
	}
	if !s.opened(7, 1024, c.now) {
		t.Fatal("its own Open was not taken")
	}
	if got := s.lease.left(); got != Normal.Lease-1500*time.Millisecond {
		t.Errorf("left %v", got)
	}
	if s.opened(7, 2048, c.now) {
		t.Error("a second copy was taken for a new session")
	}
}

func TestARenewalCountsFromItsFirstSending(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	c.pass(Normal.Renew)
	first := s.cut(c.now())
	if want := []state.Op{state.Renew{Incarnation: 1024, Seq: 1}}; !reflect.DeepEqual(first, want) {
		t.Fatalf("batch %v, want %v", first, want)
	}
	c.pass(time.Second)
	s.rewind()
	again := s.cut(c.now())
	if again[0] != first[0] {
		t.Fatalf("sent again as %v", again)
	}
	c.pass(500 * time.Millisecond)
	s.renewedAt(1)
	if got, want := s.lease.left(), Normal.Lease-1500*time.Millisecond; got != want {
		t.Errorf("left %v, want %v: the renewal was sent 1.5 s ago", got, want)
	}
}

func TestALeaseThatIsOverStaysOver(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	c.pass(Normal.Lease - time.Millisecond)
	s.cut(c.now()) // sends a renewal at the last moment
	l := s.lease
	c.pass(time.Millisecond)
	s.renewedAt(1) // accepted too late
	if l.live() {
		t.Fatal("a late renewal revived the lease")
	}
	if got := s.check(c.now(), 0); got != NeedClose {
		t.Fatalf("check: %v", got)
	}
	if s.cut(c.now()) != nil {
		t.Error("a lost session proposes")
	}
}

func TestOneClockRunningAheadEndsTheLease(t *testing.T) {
	for name, set := range map[string]func(*fakeClock){
		"suspended, which only BOOTTIME counts": func(c *fakeClock) { c.set(Normal.Lease, 0, 0) },
		"slewed back, which only RAW shows":     func(c *fakeClock) { c.set(0, 0, Normal.Lease) },
	} {
		var c fakeClock
		s := openSession(&c)
		set(&c)
		if s.lease.live() {
			t.Errorf("%s: the lease runs on", name)
		}
	}
}

// DESIGN.md, rule 7: where all clocks but the wall clock may have stood
// still, the gate is shut until a renewal sent after that is accepted.
func TestAJumpOfTheWallClockShutsTheGateUntilTheNextRenewal(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	check := func(what string, open bool) {
		t.Helper()
		if got := s.check(c.now(), 0); got != NeedNothing {
			t.Fatalf("%s: check says %v", what, got)
		}
		if s.lease.live() != open {
			t.Fatalf("%s: gate open %v, want %v", what, !open, open)
		}
	}
	check("at first", true)
	c.pass(Normal.Renew)
	s.cut(c.now()) // Renew 1, sent before the jump
	c.pass(10 * time.Millisecond)
	c.at.Wall += jumpLimit
	check("a small step", true)
	c.pass(10 * time.Millisecond)
	c.at.Wall += jumpLimit + time.Millisecond
	if s.lease.live() {
		t.Error("the gate is open until somebody looks at the clocks")
	}
	check("a jump forward", false)
	s.renewedAt(1)
	check("a renewal sent before it", false)
	c.pass(10 * time.Millisecond)
	if got, want := s.cut(c.now()), []state.Op{state.Renew{Incarnation: 1024, Seq: 2}}; !reflect.DeepEqual(got, want) {
		t.Fatalf("after the jump it proposes %v, want %v at once", got, want)
	}
	s.renewedAt(2)
	check("a renewal sent after it", true)
	c.at.Wall -= time.Hour
	check("a jump back", false)
}

func TestClosingBeginsEarlyEnoughForItsConnections(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	c.pass(Normal.Lease - 100*time.Millisecond)
	if got := s.check(c.now(), 99*time.Millisecond); got != NeedNothing {
		t.Errorf("too early: %v", got)
	}
	if got := s.check(c.now(), 100*time.Millisecond); got != NeedClose {
		t.Errorf("too late: %v", got)
	}
	if s.lease.live() {
		t.Error("lines may be written while the connections are being closed")
	}
}

// DESIGN.md, rule 6b.
func TestItOpensAnewWhenAllClientsKnowOrNobodyCanBelieve(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	c.pass(Normal.Lease)
	s.check(c.now(), 0)
	s.unheard = 2
	if got := s.check(c.now(), 0); got != NeedNothing {
		t.Fatalf("two clients do not know yet: %v", got)
	}
	s.unheard = 0
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("all know: %v", got)
	}

	c = fakeClock{}
	s = openSession(&c)
	c.pass(Normal.Lease)
	s.check(c.now(), 0)
	s.unheard = 1
	over := Normal.Lease + Normal.Promise()
	c.set(over, over, over-1) // by one clock not yet
	if got := s.check(c.now(), 0); got != NeedNothing {
		t.Fatalf("before the last promise is over by the slowest clock: %v", got)
	}
	c.pass(1)
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("after it: %v", got)
	}
}

func TestItOpensAnewWhenNobodyIsPromisedAnything(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	c.pass(Normal.Lease)
	s.check(c.now(), 0)
	s.bound = 1 // a client that knows, and may go on by its clock
	if got := s.check(c.now(), 0); got != NeedNothing || s.due() {
		t.Fatalf("while a promise lasts: %v, due %v", got, s.due())
	}
	s.bound = 0
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("after it: %v", got)
	}
}

func TestASuccessorIsSilentWhileAPromiseLasts(t *testing.T) {
	var c fakeClock
	c.pass(time.Hour)
	s := &session{node: "n1", timing: Normal, started: c.now(), silent: Calm.Promise()}
	c.pass(Calm.Promise() - 1)
	if got := s.check(c.now(), 0); got != NeedNothing {
		t.Fatalf("while a promise of the session before may last: %v", got)
	}
	c.pass(1)
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("after it: %v", got)
	}
}

func TestAnOpenThatTakesTooLongIsAskedForAfresh(t *testing.T) {
	var c fakeClock
	s := &session{node: "n1", timing: Normal}
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("at the start: %v", got)
	}
	s.begin(1, c.now())
	c.pass(Normal.Lease - 1)
	if got := s.check(c.now(), 0); got != NeedNothing {
		t.Fatalf("while it may come: %v", got)
	}
	c.pass(1)
	if got := s.check(c.now(), 0); got != NeedOpen {
		t.Fatalf("it would be born dead: %v", got)
	}
	// The next counter is on its way to the disk. An acceptance of the old
	// Open in this moment must not begin a life that begin would overwrite.
	if s.opened(1, 1024, c.now) {
		t.Fatal("an Open that was given up was taken for its own")
	}
}

func TestAnOpenThatWasInTheWayOfASessionIsSentAgain(t *testing.T) {
	var c fakeClock
	s := &session{node: "n1", timing: Normal}
	s.begin(1, c.now())
	first := s.cut(c.now())
	if s.cut(c.now()) != nil {
		t.Fatal("handed out twice")
	}
	s.unblocked()
	if again := s.cut(c.now()); !reflect.DeepEqual(again, first) {
		t.Fatalf("sent again: %v, was %v", again, first)
	}
}

func TestRenewalsAndLeavesGoAheadOfJoins(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	a, b := queue(s, "g", "a"), queue(s, "g", "b")
	s.leave(99, state.ReasonClosed)
	c.pass(Normal.Renew)
	want := []state.Op{state.Renew{Incarnation: 1024, Seq: 1}, state.Leave{Incarnation: 1024, Seq: 2, Join: 99}, state.Join{Incarnation: 1024, Seq: 3, Group: "g", Client: "a"}, state.Join{Incarnation: 1024, Seq: 4, Group: "g", Client: "b"}}
	if got := s.cut(c.now()); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	if a.seq != 3 || b.seq != 4 || a.state != memberProposed || !a.Live() {
		t.Errorf("members %+v %+v", a, b)
	}
	if got := s.cut(c.now()); got != nil {
		t.Errorf("handed out twice: %v", got)
	}
}

func TestWhatWasNotAcceptedIsSentAgainInOrder(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	queue(s, "g", "a")
	s.cut(c.now())
	queue(s, "g", "b")
	s.cut(c.now())
	queue(s, "g", "c")
	s.settled(1)
	s.rewind()
	want := []state.Op{state.Join{Incarnation: 1024, Seq: 2, Group: "g", Client: "b"}, state.Join{Incarnation: 1024, Seq: 3, Group: "g", Client: "c"}}
	if got := s.cut(c.now()); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	s.settled(3)
	s.rewind()
	if got := s.cut(c.now()); got != nil {
		t.Errorf("after all was accepted: %v", got)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	long := string(make([]byte, 255))
	for i := range 3000 {
		client := fmt.Sprint(i)
		if i >= 2000 {
			client = long[:250-len(client)] + client
		}
		queue(s, "g", client)
	}
	seen := 0
	for batch := s.cut(c.now()); batch != nil; batch = s.cut(c.now()) {
		bytes := state.Encode(state.NewestLevel, state.Entry{Ops: batch})
		if len(batch) > state.MaxOps || len(bytes) > state.MaxBytes+1024 {
			t.Fatalf("a batch of %d operations, %d bytes", len(batch), len(bytes))
		}
		for _, op := range batch {
			if seen++; state.SeqOf(op) != uint64(seen) {
				t.Fatalf("operation %d comes as %d", state.SeqOf(op), seen)
			}
		}
	}
	if seen != 3000 {
		t.Errorf("%d of 3000", seen)
	}
}

func TestJoinsWaitUntilElectionsAreActive(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	s.electing = false
	queue(s, "g", "a")
	if got := s.cut(c.now()); got != nil {
		t.Fatalf("proposed %v", got)
	}
	s.electing = true
	if got := s.cut(c.now()); len(got) != 1 {
		t.Fatalf("proposed %v", got)
	}
}

func TestAnEndComesLast(t *testing.T) {
	var c fakeClock
	s := openSession(&c)
	s.endAsked = true
	s.leave(1, state.ReasonClosed)
	want := []state.Op{state.Leave{Incarnation: 1024, Seq: 1, Join: 1}}
	if got := s.cut(c.now()); !reflect.DeepEqual(got, want) {
		t.Fatalf("batch %v", got)
	}
	if got := s.cut(c.now()); !reflect.DeepEqual(got, []state.Op{state.End{Incarnation: 1024, Seq: 2}}) {
		t.Fatalf("batch %v", got)
	}
	if got := s.cut(c.now()); got != nil {
		t.Fatalf("a second End: %v", got)
	}
}

// While there is no majority clients come and go; what they leave behind is bounded.
func TestTheQueueForgetsClientsThatHaveGone(t *testing.T) {
	s := &session{node: "n1", timing: Normal}
	stays := queue(s, "g", "stays")
	for range 100000 {
		m := queue(s, "g", "x")
		m.state = memberOver
		s.forget()
		if len(s.joins) > 1000 {
			t.Fatalf("%d in the queue", len(s.joins))
		}
	}
	if s.joins[0] != stays {
		t.Error("one who waits was forgotten")
	}
}

func TestExpirer(t *testing.T) {
	const tick = 50 * time.Millisecond
	var c fakeClock
	var x *expirer
	// ticks looks at the stamps every 50 ms for d and gives what was due.
	ticks := func(d time.Duration) (ops []state.Expire) {
		for end := c.at.Later(d); c.at.Boot < end.Boot; {
			c.pass(tick)
			ops = append(ops, x.due(c.now())...)
		}
		return ops
	}
	expect := func(what string, got []state.Expire, want ...state.Expire) {
		t.Helper()
		if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	reset := func() {
		c, x = fakeClock{}, newExpirer(Normal.Renew, false)
		x.opened(1024, Normal.Expiry, c.now())
	}

	reset()
	expect("not the raft leader", ticks(10*time.Second))

	reset()
	x.lead(c.now())
	expect("before S", ticks(Normal.Expiry-tick))
	expect("at S", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 0, Reason: state.ReasonNodeLost})
	expect("while it is under way", ticks(AskAgain-tick))
	expect("if it was lost", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 0, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	ticks(2 * time.Second)
	x.renewed(1024, 5, c.now())
	expect("a renewal counts", ticks(Normal.Expiry-tick))
	expect("and is what the Expire compares", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 5, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	ticks(time.Second)
	x.renewed(512, 9, c.now())
	expect("a renewal of another incarnation does not count", ticks(Normal.Expiry-time.Second), state.Expire{Incarnation: 1024, Renewal: 0, Reason: state.ReasonNodeLost})

	reset()
	c.pass(10 * time.Second)
	x.lead(c.now())
	expect("a new raft leader's grace", ticks(2*Normal.Renew-tick))
	expect("then the stamps that it has", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 0, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	ticks(2 * time.Second)
	c.pass(5 * time.Second) // the loop did not run
	expect("after its own stall, while renewals may wait unread", x.due(c.now()))
	x.renewed(1024, 7, c.now())
	expect("one has been read since", ticks(Normal.Expiry-tick))
	expect("and S counts from when it was", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 7, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	ticks(2 * time.Second)
	c.pass(5 * time.Second)
	expect("after its own stall", x.due(c.now()))
	expect("none has come since", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 0, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	ticks(2 * time.Second)
	x.ended(1024)
	expect("an ended session", ticks(10*time.Second))

	reset()
	s := state.New()
	s.Apply(1, state.Entry{Ops: []state.Op{state.Open{Node: "n3", Counter: 1, Expiry: Quick.Expiry}, state.Renew{Incarnation: 1024, Seq: 1}}}, nil)
	x.lead(c.now())
	ticks(time.Second)
	x.reset(s, c.now())
	expect("a restored state was heard of just now", ticks(Quick.Expiry-tick))
	expect("and then its own S counts", ticks(tick), state.Expire{Incarnation: 1024, Renewal: 1, Reason: state.ReasonNodeLost})

	reset()
	x.lead(c.now())
	for range 100 { // one clock stands: suspended, or slewed
		c.set(c.at.Boot+tick, c.at.Mono, c.at.Raw+tick)
		expect("by the slowest clock it is not time", x.due(c.now()))
	}
}

// A raft leader that always looks late, as it gets little time to run, expires a silent
// node all the same, at most two looks after S.
func TestARaftLeaderThatIsAlwaysLateExpires(t *testing.T) {
	for _, timing := range []Timing{Quick, Normal, Calm} {
		for _, apart := range []time.Duration{101 * time.Millisecond, 110 * time.Millisecond, time.Second} {
			var c fakeClock
			x := newExpirer(timing.Renew, false)
			x.lead(c.now())
			c.pass(time.Hour)
			x.opened(1024, timing.Expiry, c.now())
			var ops []state.Expire
			died := c.now()
			for len(ops) == 0 && c.now().AtMost(died) < time.Minute {
				c.pass(apart)
				ops = x.due(c.now())
			}
			if after := c.now().AtMost(died); len(ops) != 1 || after < timing.Expiry || after > timing.Expiry+2*apart {
				t.Errorf("%s: looks are %v apart: %v after %v, S is %v", timing.Name, apart, ops, after, timing.Expiry)
			}
		}
	}
}

func TestTimings(t *testing.T) {
	for _, timing := range []Timing{Quick, Normal, Calm} {
		if err := timing.Check(); err != nil {
			t.Error(err)
		}
		unsafe := timing
		unsafe.Expiry = timing.Lease + timing.Close
		if unsafe.Check() == nil {
			t.Errorf("%s with S = L + C passes: unequal clocks need more", timing.Name)
		}
		if look := timing.lookEvery(); look > stallLimit/2 {
			t.Errorf("%s: looks are %v apart, and %v is a stall: each would be one", timing.Name, look, stallLimit)
		}
		got, err := TimingNamed(timing.Name)
		if err != nil || got != timing {
			t.Errorf("TimingNamed(%q) = %v, %v", timing.Name, got, err)
		}
	}
	if _, err := TimingNamed("fast"); err == nil {
		t.Error("there is no timing fast")
	}
}

// Whatever a node holds is closed by L + C: by itself, for it begins early enough,
// or by the kernel, for the switch comes early enough. And what is left of the lease
// is enough to renew it over an election.
func TestAllIsClosedInTimeHoweverManyThereAre(t *testing.T) {
	for _, timing := range []Timing{Quick, Normal, Calm} {
		most := timing.MaxMembers()
		for _, members := range []int{0, 1, 1000, most / 2, most} {
			closing := time.Duration(members) * closingPace
			if end := timing.Lease - timing.early(members) + closing; end > timing.Lease {
				t.Errorf("%s: %d members are closed after %v, the lease lasts %v", timing.Name, members, end, timing.Lease)
			}
			killed := timing.KillAfter(members)
			if end := killed + closing; end > timing.Lease+timing.Close {
				t.Errorf("%s: killed with %d members, all is closed after %v, lease and closing time end at %v", timing.Name, members, end, timing.Lease+timing.Close)
			}
			if begins := timing.Lease - timing.early(members); killed <= begins {
				t.Errorf("%s: %d members are killed after %v, before they are closed in order from %v on", timing.Name, members, killed, begins)
			}
			if left := timing.Lease - timing.early(members); left < timing.Renew+timing.Heartbeat*5/4+20*time.Millisecond {
				t.Errorf("%s: with %d members only %v are left to renew in", timing.Name, members, left)
			}
		}
		t.Logf("%s: at most %d members", timing.Name, most)
	}
}
