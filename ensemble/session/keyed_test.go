package session

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// newKeyedBookkeeper gives one whose level has keyed members.
func newKeyedBookkeeper() *bookkeeper {
	n := newBookkeeper()
	n.commit([]state.Op{state.Raise{Level: 2}, state.Raise{Level: state.KeyedLevel}})
	n.run()
	return n
}

// comes has a client with a key join.
func (n *bookkeeper) comes(t *testing.T, client, key string, hold time.Duration) (*Membership, *listener) {
	t.Helper()
	l := &listener{}
	m, ok := n.roster.JoinKeyed("g", client, state.KeyOf("g", client, key), hold, l)
	if !ok {
		t.Fatal("no keyed members are taken")
	}
	n.run()
	return m, l
}

// ends gives after how long, in steps of 10 ms and at most 20 s, the member is gone, and the
// Leave with which it went; renewals go on meanwhile.
func (n *bookkeeper) ends(client string) (after time.Duration, with state.Leave) {
	const tick = 10 * time.Millisecond
	for after < 20*time.Second {
		n.roster.Step(n.clock)
		for ops := n.roster.Batch(n.clock); len(ops) > 0; ops = n.roster.Batch(n.clock) {
			for _, op := range ops {
				if l, ok := op.(state.Leave); ok {
					with = l
				}
			}
			n.commit(ops)
			n.deliver()
		}
		if n.state.Holder("g", client) == "" {
			return after, with
		}
		n.clock = n.clock.Later(tick)
		after += tick
	}
	return 0, with
}

// HOLDS.md, rule 12: how long a member stays whose connection has ended, and the reason with
// which it goes.
func TestAKeyedMemberStaysForItsHold(t *testing.T) {
	const hold = 1500 * time.Millisecond
	for _, c := range []struct {
		what    string
		hold    time.Duration
		why     string
		stopped bool // the client has said so
		stays   time.Duration
		reason  state.Reason
	}{
		{"reset", hold, "reset", false, hold, state.ReasonHoldOver},
		{"FIN without fin=end", hold, "closed", false, hold, state.ReasonHoldOver},
		{"its host is gone", hold, "silent", false, hold, state.ReasonHoldOver},
		{"it takes nothing", hold, "stuck", false, Normal.Expiry, state.ReasonStuck},
		{"the node ends it", hold, "", false, Normal.Expiry, state.ReasonHoldOver},
		{"FIN with fin=end", hold, "closed", true, 0, state.ReasonClosed},
		{"LEAVE", hold, "left", true, 0, state.ReasonLeft},
		{"a hold below 3R", time.Millisecond, "reset", false, 3 * Normal.Renew, state.ReasonHoldOver},
		{"a hold above S", time.Hour, "reset", false, Normal.Expiry, state.ReasonHoldOver},
		{"no hold, FIN", 0, "closed", false, 0, state.ReasonClosed},
		{"no hold, reset", 0, "reset", false, 0, state.ReasonReset},
		{"no hold, the node ends it", 0, "", false, Normal.Expiry, state.ReasonHoldOver},
	} {
		t.Run(c.what, func(t *testing.T) {
			n := newKeyedBookkeeper()
			m, _ := n.comes(t, "worker", "secret", c.hold)
			n.clock = n.clock.Later(200 * time.Millisecond)
			if c.stopped {
				m.Stopped()
			}
			if bound := m.Closed(c.why, true); bound != 0 {
				t.Errorf("a later FIN would count for %v", bound)
			}
			after, with := n.ends("worker")
			if after < c.stays || after > c.stays+20*time.Millisecond {
				t.Errorf("gone after %v, want %v", after, c.stays)
			}
			if with.Reason != c.reason {
				t.Errorf("reason %q, want %q", with.Reason, c.reason)
			}
			if n.roster.Away() != 0 || len(n.roster.keyed) != 0 {
				t.Errorf("%d away, %d known", n.roster.Away(), len(n.roster.keyed))
			}
		})
	}
}

// The hold counts from the acceptance of the Join, if the connection has ended before.
func TestAHoldCountsFromTheAcceptance(t *testing.T) {
	n := newKeyedBookkeeper()
	m, _ := n.roster.JoinKeyed("g", "worker", state.KeyOf("g", "worker", "secret"), time.Minute, &listener{})
	ops := n.roster.Batch(n.clock) // under way
	m.Closed("reset", true)
	n.clock = n.clock.Later(Normal.Renew)
	n.roster.Step(n.clock)
	n.commit(ops)
	if after, _ := n.ends("worker"); after < Normal.Expiry {
		t.Errorf("gone %v after its Join was accepted", after)
	}
}

// A client that comes back with its key has its place, and what is left of the connection before
// ends nothing.
func TestAMoveLeavesNothingBehind(t *testing.T) {
	for _, closed := range []bool{false, true} {
		n := newKeyedBookkeeper()
		before, old := n.comes(t, "worker", "secret", time.Minute)
		n.comes(t, "next", "another", time.Minute)
		if closed {
			before.Closed("reset", true)
		}
		_, l := n.comes(t, "worker", "secret", time.Minute)
		if told := l.all(); !slices.Equal(told, []string{"worker"}) {
			t.Errorf("told %v", told)
		}
		_, closing := n.roster.Step(n.clock)
		if want := []Connection{old}; !closed && !reflect.DeepEqual(closing, want) {
			t.Errorf("closes %v", closing)
		}
		if !closed {
			before.Closed("", true)
		}
		if after, with := n.ends("worker"); after != 0 {
			t.Errorf("gone after %v, by %v", after, with)
		}
		if n.roster.Away() != 0 || len(n.roster.keyed) != 2 {
			t.Errorf("%d away, %d known", n.roster.Away(), len(n.roster.keyed))
		}
	}
}

// HOLDS.md, rule 14: the client of a member without a hold that has moved here may have been promised
// something by ALREADY_JOINED at the node before, and may have a connection there that stands, if
// this Join was an old one.
func TestAMemberWithoutAHoldStaysAfterAMove(t *testing.T) {
	const since = 100 * time.Millisecond
	for _, c := range []struct {
		what     string
		orphaned bool
		why      string
		stopped  bool
		stays    time.Duration
	}{
		{"reset", false, "reset", false, Normal.Expiry},
		{"FIN", false, "closed", false, Normal.Expiry},
		{"FIN with fin=end", false, "closed", true, since},
		{"LEAVE", false, "left", true, since},
		{"reset, its node before has stopped", true, "reset", false, longestPromise},
		{"FIN, its node before has stopped", true, "closed", false, longestPromise},
	} {
		t.Run(c.what, func(t *testing.T) {
			n := newKeyedBookkeeper()
			n.commit([]state.Op{state.Open{Node: "n2", Counter: 1, Boot: "other", Lease: Normal.Lease, Expiry: Normal.Expiry, Reads: state.KeyedLevel}})
			inc, _, _ := n.state.Current("n2")
			n.commit([]state.Op{state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "worker"}, Key: state.KeyOf("g", "worker", "secret")}})
			if c.orphaned {
				n.commit([]state.Op{state.End{Incarnation: inc, Seq: 2}})
			}
			m, _ := n.comes(t, "worker", "secret", 0)
			n.clock = n.clock.Later(since)
			if c.stopped {
				m.Stopped()
			}
			m.Closed(c.why, true)
			if after, _ := n.ends("worker"); since+after < c.stays || since+after > c.stays+20*time.Millisecond {
				t.Errorf("gone %v after the Move, want %v", since+after, c.stays)
			}
		})
	}
}

// What becomes of a Join whose client has gone is seen first: it may be a Move.
func TestAMemberWithoutAHoldStaysUntilItsJoinIsSeen(t *testing.T) {
	n := newKeyedBookkeeper()
	m, _ := n.roster.JoinKeyed("g", "worker", state.KeyOf("g", "worker", "secret"), 0, &listener{})
	ops := n.roster.Batch(n.clock) // under way
	m.Closed("closed", true)
	n.roster.Step(n.clock)
	if more := n.roster.Batch(n.clock); len(more) > 0 {
		t.Fatalf("proposes %v", more)
	}
	n.commit(ops)
	if !n.roster.Due() {
		t.Error("nobody looks at it")
	}
	if after, with := n.ends("worker"); after != 0 || with.Reason != state.ReasonClosed {
		t.Errorf("gone %v after it was seen, %v", after, with.Reason)
	}
}

// HOLDS.md, rules 10 and 11: what a PING is answered.
func TestAlive(t *testing.T) {
	n := newKeyedBookkeeper()
	m, l := n.comes(t, "worker", "secret", 2*time.Second)
	asks := func(m *Membership) string {
		t.Helper()
		before := len(l.all())
		if !m.Alive() {
			return "no"
		}
		n.deliver()
		told := l.all()[before:]
		if len(told) != 1 {
			t.Fatalf("told %v", told)
		}
		return told[0]
	}
	if got := asks(m); got != "alive 1996" { // 2000 (1 - rho) / (1 + rho)
		t.Error("just renewed:", got)
	}
	n.clock = n.clock.Later(300 * time.Millisecond)
	if got := asks(m); got != "alive 1696" {
		t.Error("300 ms after the sending of the last renewal:", got)
	}
	n.clock = n.clock.Later(Normal.Lease)
	if got := asks(m); got != "no" {
		t.Error("without a lease:", got)
	}

	n = newKeyedBookkeeper()
	if m, l = n.comes(t, "worker", "secret", 0); asks(m) != "alive 0" {
		t.Error("a promise without a hold")
	}
}

// A member is told of all changes before its PING is answered, in a large group too, and whatever
// the queue has forgotten.
func TestAnAnswerComesBehindTheChanges(t *testing.T) {
	m, l := &Membership{group: "g", client: "worker", keyed: &keyed{}}, &listener{}
	m.member = l
	d := NewDispatcher()
	d.tellers = 1
	all := func() (uint64, []Delivery) { return 9, []Delivery{{member: m, leader: "newest"}} }
	deliver := func() {
		for _, v := range d.queue {
			d.deliver(v, all)
		}
		d.queue = nil
		for len(d.telling) > 0 {
			d.tellSome()
		}
	}
	m.roster = &Roster{now: func() Reading { return Reading{} }}
	for i := range 2 * tellAtOnce {
		d.add(Delivery{what: deliverJoined, index: 1, member: &Membership{member: &listener{}, group: "g", client: fmt.Sprint(i)}, leader: "first"})
	}
	d.add(Delivery{what: deliverJoined, index: 1, member: m, leader: "first"})
	d.add(Delivery{what: deliverLed, index: 2, group: "g", leader: "second"})
	m.keyed.asked.Store(int64(5*time.Millisecond) + 1)
	d.add(Delivery{what: deliverAlive, member: m})
	d.add(Delivery{what: deliverLed, index: 3, group: "g", leader: "third"})
	deliver()
	if told, want := l.all(), []string{"first", "second", "alive 5", "third"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}

	m.keyed.asked.Store(int64(7*time.Millisecond) + 1)
	d.add(Delivery{what: deliverAlive, member: m})
	for range maxQueue { // it is forgotten
		d.add(Delivery{what: deliverLed, index: 4, group: "other", leader: "x"})
	}
	l.told = nil
	deliver()
	if told, want := l.all(), []string{"newest", "alive 7"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}

	d.add(Delivery{what: deliverGone, member: m})
	m.keyed.asked.Store(int64(9*time.Millisecond) + 1)
	d.add(Delivery{what: deliverAlive, member: m})
	l.told = nil
	if deliver(); len(l.all()) > 0 {
		t.Errorf("one that has gone is told %v", l.all())
	}
}

// HOLDS.md, rule 15: a leader that was told so, and asks for no promises.
func TestAHungLeaderIsLetGo(t *testing.T) {
	const hold = 2400 * time.Millisecond
	n := newKeyedBookkeeper()
	leads, l := n.comes(t, "worker", "secret", hold)
	_, other := n.comes(t, "other", "another", hold)
	_, none := n.roster.JoinKeyed("h", "without", state.KeyOf("h", "without", "a third"), 0, &listener{})
	if !none {
		t.Fatal("refused")
	}
	passes := func(d time.Duration) (closing []Connection) {
		for range int(d / (50 * time.Millisecond)) {
			n.clock = n.clock.Later(50 * time.Millisecond)
			_, more := n.roster.Step(n.clock)
			closing = append(closing, more...)
			n.run()
		}
		return closing
	}
	passes(4 * time.Second)
	leads.Alive()
	if closing := passes(hungAfter(hold) - 100*time.Millisecond); len(closing) > 0 {
		t.Errorf("closed %v within 3 holds of its PING", closing)
	}
	if closing := passes(time.Second); !reflect.DeepEqual(closing, []Connection{l}) {
		t.Errorf("closed %v, want the leader alone, once", closing)
	}
	leads.Closed("", true)
	after, with := n.ends("worker")
	if after < hold || with.Reason != state.ReasonStuck {
		t.Errorf("gone after %v, %q", after, with.Reason)
	}
	if told := other.all(); !slices.Equal(told, []string{"worker", "other"}) {
		t.Errorf("the next one was told %v", told)
	}
}

// DESIGN.md, Keyed members: the end of a node ends those only that have said that they have
// stopped.
func TestAStopKeepsKeyedMembers(t *testing.T) {
	n := newKeyedBookkeeper()
	stays, _ := n.comes(t, "stays", "secret", time.Minute)
	without, _ := n.comes(t, "without", "secret", 0)
	leaves, _ := n.comes(t, "leaves", "secret", time.Minute)
	n.roster.Join("g", "plain", &listener{})
	n.run()
	away, _ := n.comes(t, "away", "secret", time.Minute)
	away.Closed("reset", true)
	closing := n.roster.Stop()
	if len(closing) != 4 {
		t.Fatalf("%d connections to close", len(closing))
	}
	leaves.Stopped()
	leaves.Closed("left", true)
	for _, m := range slices.Clone(n.roster.members) {
		m.Closed("", true)
	}
	_, _ = stays, without
	n.roster.Step(n.clock)
	if !n.roster.Empty() {
		t.Fatal("the stop waits for holds")
	}
	n.roster.AskEnd(state.ReasonNodeStopped)
	n.run()
	g, _ := n.state.Group("g")
	var left []string
	for _, m := range g.Members {
		left = append(left, m.Client)
		if !m.Away {
			t.Errorf("%s is not away", m.Client)
		}
	}
	if want := []string{"stays", "without", "away"}; !slices.Equal(left, want) {
		t.Errorf("%v are left, want %v", left, want)
	}
	if !n.roster.Over() {
		t.Error("the session is not over")
	}
}

// HOLDS.md, rules 9 and 21: below the level nobody is promised what older programs cannot keep.
func TestNoKeyedMembersBelowTheLevel(t *testing.T) {
	n := newBookkeeper()
	if _, ok := n.roster.JoinKeyed("g", "worker", state.Key{}, time.Minute, &listener{}); ok {
		t.Error("one was taken in")
	}

	n = newBookkeeper()
	n.roster.known = false // its state is not known to be up to date
	l := &listener{}
	if _, ok := n.roster.JoinKeyed("g", "worker", state.Key{}, time.Minute, l); !ok {
		t.Error("refused before the level is known")
	}
	n.roster.entered()
	for _, op := range n.roster.Batch(n.clock) {
		if k, ok := op.(state.KeyedJoin); ok {
			t.Errorf("proposes %v, which an older program cannot read", k)
		}
	}
	if _, closing := n.roster.Step(n.clock); !reflect.DeepEqual(closing, []Connection{l}) {
		t.Errorf("closed %v, want who had come before the level was known", closing)
	}
	m := n.roster.Join("g", "plain", &listener{})
	n.run()
	m.Closed("reset", true)
	for _, op := range n.roster.Batch(n.clock) {
		if l, ok := op.(state.Leave); ok && l.Reason != 0 {
			t.Errorf("a reason below the level: %v", l.Reason)
		}
	}
}

// An orphaned session, and one with longer holds, are expired after their silence and with
// what the log says of it.
func TestSilenceOfKeyedMembers(t *testing.T) {
	const long = 7 * time.Second
	n := newKeyedBookkeeper()
	commit := func(ops ...state.Op) { n.commit(ops) }
	commit(state.Open{Node: "n2", Counter: 1, Boot: "other", Lease: Calm.Lease, Expiry: Normal.Expiry, Reads: state.KeyedLevel})
	inc, _, _ := n.state.Current("n2")
	join := state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 1, Group: "h", Client: "c"}, Key: state.KeyOf("h", "c", "k"), Hold: long}
	commit(join)
	n.roster.Lead(n.clock)
	expires := func() (ops []state.Op, after time.Duration) {
		for after < 20*time.Second {
			n.roster.Step(n.clock)
			n.run()
			if ops = n.roster.Expiries(n.clock); len(ops) > 0 {
				return ops, after
			}
			n.clock = n.clock.Later(50 * time.Millisecond)
			after += 50 * time.Millisecond
		}
		return nil, 0
	}
	ops, after := expires()
	want := []state.Op{state.Expire{Incarnation: inc, Renewal: 0, Reason: state.ReasonNodeLost, By: "n1"}}
	if !reflect.DeepEqual(ops, want) || after < long || after > long+100*time.Millisecond {
		t.Errorf("%v after %v, want %v after its longest hold", ops, after, want)
	}
	commit(state.End{Incarnation: inc, Seq: 2})
	n.clock = n.clock.Later(AskAgain)
	if ops, _ = expires(); !reflect.DeepEqual(ops, []state.Op{state.Expire{Incarnation: inc, Renewal: 0, Reason: state.ReasonHoldOver, By: "n1"}}) {
		t.Errorf("orphaned: %v", ops)
	}
	commit(ops...)
	if ops, _ = expires(); len(ops) > 0 {
		t.Errorf("one that is gone: %v", ops)
	}
}

// second opens the session of another node.
func (n *bookkeeper) second() state.Incarnation {
	n.commit([]state.Op{state.Open{Node: "n2", Counter: 1, Boot: "other", Lease: Normal.Lease, Expiry: Normal.Expiry, Reads: state.KeyedLevel}})
	inc, _, _ := n.state.Current("n2")
	return inc
}

// silently has the state apply entries of which the roster is told by a snapshot alone.
func (n *bookkeeper) silently(entries ...[]state.Op) {
	for _, ops := range entries {
		n.index++
		n.state.Apply(n.index, state.Entry{Ops: ops}, nil)
	}
}

// A Join that was refused, and is proposed again when the name is free, is a new one: what becomes
// of it is seen before its member leaves. It may be a Move.
func TestAJoinThatIsProposedAgainIsSeenFirst(t *testing.T) {
	for _, hold := range []time.Duration{0, 1500 * time.Millisecond} {
		n := newKeyedBookkeeper()
		inc := n.second()
		n.commit([]state.Op{
			state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "worker"}, // has the name
			state.Join{Incarnation: inc, Seq: 2, Group: "g", Client: "next"},
		})
		m, _ := n.comes(t, "worker", "secret", hold)
		passes := func(d time.Duration) {
			for range int(d / (100 * time.Millisecond)) {
				n.clock = n.clock.Later(100 * time.Millisecond)
				now := n.clock
				n.roster.session.lease.sent.Store(&now)
				n.roster.Step(n.clock)
			}
		}
		passes(5 * time.Second)
		n.commit([]state.Op{state.Leave{Incarnation: inc, Seq: 3, Join: 1}})
		again := n.roster.Batch(n.clock) // under way, while the client joins at the other node
		n.commit([]state.Op{
			state.Leave{Incarnation: inc, Seq: 4, Join: 2},
			state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 5, Group: "g", Client: "worker"}, Key: state.KeyOf("g", "worker", "secret"), Hold: hold},
			state.Join{Incarnation: inc, Seq: 6, Group: "g", Client: "next"},
		})
		m.Closed("closed", true)
		passes(2 * time.Second) // the commit takes long
		more := n.roster.Batch(n.clock)
		n.commit(again)
		n.commit(more)
		if leader, _ := n.state.Leader("g"); leader != "worker" {
			t.Errorf("hold %v: %s leads at once after the Move, by %v", hold, leader, more)
		}
	}
}

// A Join that was refused, and of which a snapshot says so, leaves nothing behind.
func TestRefusedJoinsLeaveNothingBehind(t *testing.T) {
	n := newKeyedBookkeeper()
	m, _ := n.roster.JoinKeyed("g", "worker", state.KeyOf("g", "worker", "secret"), time.Second, &listener{})
	inc := n.second()
	n.commit([]state.Op{state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "worker"}})
	for seq := uint64(2); seq < 8; seq += 2 {
		n.silently(n.roster.Batch(n.clock), []state.Op{state.Leave{Incarnation: inc, Seq: seq, Join: seq - 1}})
		n.roster.Restored(n.state)
		n.silently([]state.Op{state.Join{Incarnation: inc, Seq: seq + 1, Group: "g", Client: "worker"}})
	}
	m.Closed("closed", true)
	if n.roster.Step(n.clock); len(n.roster.keyed) != 0 || len(n.roster.members) != 0 {
		t.Errorf("%d are known, of %d members", len(n.roster.keyed), len(n.roster.members))
	}
}

// A member that has moved on is told nothing more where it was, though its node has a lease, and
// the switch kills a process that does not close its connection in time.
func TestOneThatHasMovedOnIsToldNothing(t *testing.T) {
	n := newKeyedBookkeeper()
	m, _ := n.comes(t, "worker", "secret", 0)
	n.roster.session.lease.noted.Store(true)
	inc := n.second()
	var killAt time.Duration
	n.roster.alive = func(at time.Duration) { killAt = at }
	n.commit([]state.Op{state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "worker"}, Key: state.KeyOf("g", "worker", "secret")}})
	moved := n.clock
	n.clock = n.clock.Later(2 * Normal.Renew)
	n.commit(n.roster.Batch(n.clock)) // a renewal
	if now, later := m.Promise(); now || later || m.Live() || m.Alive() {
		t.Error("it is spoken to")
	}
	if killAt == 0 || killAt > moved.Boot+Normal.Expiry {
		t.Errorf("its connection may stand until %v after the Move; its new node counts %v", killAt-moved.Boot, Normal.Expiry)
	}
	n.roster.Step(n.clock) // gives the connection
	n.roster.Step(n.clock) // and it is closed
	if want := n.roster.KillAt(); killAt != want {
		t.Errorf("the switch is set to %v then, want %v", killAt, want)
	}
}

// A snapshot that has a Move and a renewal behind it: no PING is answered by the renewal before
// the Move is known.
func TestAPingWhileASnapshotIsTakenOver(t *testing.T) {
	n := newKeyedBookkeeper()
	m, l := n.comes(t, "worker", "secret", 2*time.Second)
	inc := n.second()
	n.clock = n.clock.Later(Normal.Renew)
	renewal := n.roster.Batch(n.clock)
	n.silently([]state.Op{state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "worker"}, Key: state.KeyOf("g", "worker", "secret"), Hold: 2 * time.Second}}, renewal)
	before, asked := len(l.all()), false
	n.roster.alive = func(time.Duration) { // amid it, on other goroutines
		asked = true
		m.Alive()
		for _, v := range n.dispatch.queue {
			n.dispatch.deliver(v, func() (uint64, []Delivery) { return n.roster.Joined(n.state) })
		}
		n.dispatch.queue = nil
	}
	n.roster.Restored(n.state)
	if told := l.all()[before:]; len(told) > 0 || !asked {
		t.Errorf("told %v", told)
	}
}

// A stop lets held members go at once.
func TestAStopIsDue(t *testing.T) {
	n := newKeyedBookkeeper()
	m, _ := n.comes(t, "worker", "secret", time.Minute)
	m.Closed("reset", true)
	n.roster.Step(n.clock)
	n.roster.Changed()
	if n.roster.Stop(); !n.roster.Due() {
		t.Error("nobody looks")
	}
}
