package session

import (
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// attached is a connection that keeps what it is told.
type attached struct {
	leader string
	alive  []time.Duration
	m      *Membership
	stops  bool // it closes its own side when the node has
}

func (a *attached) Leader(name string, _ uint64) { a.leader = name }
func (a *attached) Waits(string)                 {}
func (a *attached) Promised()                    {}
func (a *attached) Alive(lasts time.Duration)    { a.alive = append(a.alive, lasts) }
func (a *attached) Close()                       {}

// goOn lets time pass in small steps, in which the node does what is due and renews its session.
func (n *bookkeeper) goOn(d time.Duration) {
	for ; d > 0; d -= 50 * time.Millisecond {
		n.clock = n.clock.Later(min(d, 50*time.Millisecond))
		n.roster.Step(n.clock)
		n.run()
	}
}

// keyedBookkeeper is one whose cluster has keyed members.
func keyedBookkeeper() *bookkeeper {
	n := newBookkeeper()
	n.commit([]state.Op{state.Raise{Level: 2}, state.Raise{Level: state.KeyedLevel}})
	return n
}

func (n *bookkeeper) plainMember(group, client string) *attached {
	a := &attached{}
	a.m = n.roster.Join(group, client, a)
	n.run()
	return a
}

func (n *bookkeeper) keyedMember(group, client string, hold time.Duration) *attached {
	a := &attached{}
	a.m, _ = n.roster.JoinKeyed(group, client, state.KeyOf(group, client, "secret"), hold, a)
	n.run()
	return a
}

// leads gives who leads a group, and how to name that.
func (n *bookkeeper) leads(group string) (leader string, id state.MemberID, token uint64) {
	g, ok := n.state.Group(group)
	if !ok {
		return "", id, 0
	}
	return g.Leader, g.Members[0].ID, g.Token
}

// pings gives what a PING is answered.
func (n *bookkeeper) pings(t *testing.T, a *attached) time.Duration {
	t.Helper()
	if !a.m.Alive() {
		t.Fatal("the node may not speak for it")
	}
	n.deliver()
	return a.alive[len(a.alive)-1]
}

// HOLDS.md, rule 16: a leader with a hold that steps down is promised nothing until that is done, and
// it is done when all that it was promised is over, and not before. Then it is promised its new
// place.
func TestALeaderWithAHoldStepsDownWhenItsPromisesAreOver(t *testing.T) {
	for _, hold := range []time.Duration{3 * Normal.Renew, Normal.Expiry} {
		n := keyedBookkeeper()
		a, b := n.keyedMember("g", "a", hold), n.plainMember("g", "b")
		promised := n.clock.Boot + n.pings(t, a)
		if promised == n.clock.Boot {
			t.Fatal("a leader was promised nothing")
		}
		_, id, token := n.leads("g")
		for again := range 2 {
			if closing, here, begins := n.roster.StepDown(id, token); closing != nil || !here || begins != (again == 0) {
				t.Fatalf("hold %v: closing %v, here %v, begins %v", hold, closing, here, begins)
			}
		}
		began := n.clock
		for leader, _, _ := n.leads("g"); leader == "a"; leader, _, _ = n.leads("g") {
			if lasts := n.pings(t, a); lasts != 0 {
				t.Fatalf("hold %v: %v after the beginning it was promised %v", hold, n.clock.AtMost(began), lasts)
			}
			if n.goOn(50 * time.Millisecond); n.clock.AtMost(began) > 2*Normal.Expiry {
				t.Fatalf("hold %v: it leads still", hold)
			}
		}
		if n.clock.Boot < promised || n.clock.AtMost(began) < max(hold, Normal.Expiry) {
			t.Errorf("hold %v: it has stepped down after %v, and was promised %v", hold, n.clock.AtMost(began), promised-began.Boot)
		}
		if a.leader != "b" || b.leader != "b" {
			t.Errorf("told %s and %s", a.leader, b.leader)
		}
		if lasts := n.pings(t, a); lasts == 0 {
			t.Error("its new place is not promised to it")
		}
		if g, _ := n.state.Group("g"); len(g.Members) != 2 || g.Members[1].Client != "a" {
			t.Errorf("members %+v", g.Members)
		}
		if c := n.state.Changes("g"); c[len(c)-1].Reason != state.ReasonSteppedDown {
			t.Errorf("the reason is %v", c[len(c)-1].Reason)
		}
	}
}

// Where everybody else has gone by then nobody follows, and it goes on with promises.
func TestALeaderThatNobodyFollowsGoesOn(t *testing.T) {
	n := keyedBookkeeper()
	a, b := n.keyedMember("g", "a", Normal.Expiry), n.plainMember("g", "b")
	_, id, token := n.leads("g")
	n.roster.StepDown(id, token)
	n.goOn(time.Second)
	b.m.Closed("closed", true)
	n.goOn(2 * Normal.Expiry)
	if leader, _, is := n.leads("g"); leader != "a" || is != token || n.pings(t, a) == 0 {
		t.Errorf("%s leads with %d, was %d", leader, is, token)
	}
}

// HOLDS.md, rule 4: who has moved meanwhile does not step down by the order that was about its
// place before, and is promised something again.
func TestALeaderThatHasMovedIsAskedAnew(t *testing.T) {
	n := keyedBookkeeper()
	a := n.keyedMember("g", "a", Normal.Expiry)
	n.plainMember("g", "b")
	_, id, token := n.leads("g")
	n.roster.StepDown(id, token)
	n.goOn(time.Second)
	a.m.Closed("reset", true)
	again := n.keyedMember("g", "a", Normal.Expiry)
	if n.pings(t, again) == 0 {
		t.Error("nothing was promised")
	}
	n.goOn(2 * Normal.Expiry)
	if leader, _, is := n.leads("g"); leader != "a" || is != token {
		t.Errorf("%s leads with %d, was %d", leader, is, token)
	}
	if _, here, _ := n.roster.StepDown(id, token); here {
		t.Error("its place before is taken for the one that it has")
	}
}

// HOLDS.md, rule 17: a leader without a hold leaves when its connection is closed. Who has closed it
// first is no matter of the operator's.
func TestALeaderWithoutAHoldLeavesByItsConnection(t *testing.T) {
	plain := func(n *bookkeeper) *attached { return n.plainMember("g", "a") }
	keyed := func(n *bookkeeper) *attached { return n.keyedMember("g", "a", 0) }
	for _, c := range []struct {
		what   string
		joins  func(*bookkeeper) *attached
		why    string
		reason state.Reason
	}{
		{"plain, closed by the node", plain, "", state.ReasonSteppedDown},
		{"plain, closed by the node, and then by the client", func(n *bookkeeper) *attached { a := plain(n); a.stops = true; return a }, "", state.ReasonSteppedDown},
		{"plain, by the client", plain, "closed", state.ReasonClosed},
		{"keyed, closed by the node", keyed, "", state.ReasonSteppedDown},
		{"keyed, by the client", keyed, "closed", state.ReasonClosed},
	} {
		n := keyedBookkeeper()
		a := c.joins(n)
		n.plainMember("g", "b")
		_, id, token := n.leads("g")
		closing, here, _ := n.roster.StepDown(id, token)
		if closing != Connection(a) || !here {
			t.Fatalf("%s: closing %v, here %v", c.what, closing, here)
		}
		n.run()
		if leader, _, _ := n.leads("g"); leader != "a" {
			t.Errorf("%s: it has left before its connection was closed", c.what)
		}
		if a.stops {
			a.m.Stopped()
		}
		a.m.Closed(c.why, true)
		n.run()
		if leader, _, _ := n.leads("g"); leader != "b" {
			t.Errorf("%s: %s leads", c.what, leader)
		}
		if all := n.state.Changes("g"); all[len(all)-1].Reason != c.reason {
			t.Errorf("%s: the reason is %v, want %v", c.what, all[len(all)-1].Reason, c.reason)
		}
	}
}

// A leader without a hold that has just moved goes on until its node may let it leave: else its client
// would only move once more.
func TestALeaderWithoutAHoldThatHasJustMovedGoesOn(t *testing.T) {
	n := keyedBookkeeper()
	a := n.keyedMember("g", "a", 0)
	n.plainMember("g", "b")
	a.m.Closed("", true)
	again := n.keyedMember("g", "a", 0)
	_, id, token := n.leads("g")
	moved := n.clock
	closing, here, begins := n.roster.StepDown(id, token)
	for ; here && !begins; closing, here, begins = n.roster.StepDown(id, token) {
		n.goOn(10 * time.Millisecond)
	}
	if is := n.clock.AtLeast(moved); is < Normal.Expiry || is > 2*Normal.Expiry || closing != Connection(again) {
		t.Errorf("it steps down %v after its Move; closing %v", is, closing)
	}
	again.m.Closed("", true)
	n.run()
	if leader, _, _ := n.leads("g"); leader != "b" {
		t.Errorf("%s leads", leader)
	}
}

// An ALREADY_JOINED binds the node to a leader with a hold as well, also one that was answered while it steps down.
func TestAStepDownWaitsForAnALREADY_JOINED(t *testing.T) {
	n := keyedBookkeeper()
	a := n.keyedMember("g", "a", Normal.Expiry)
	n.plainMember("g", "b")
	n.roster.session.lease.noted.Store(true)
	_, id, token := n.leads("g")
	n.roster.StepDown(id, token)
	n.goOn(Normal.Expiry - 50*time.Millisecond)
	if now, _ := a.m.Promise(); !now {
		t.Fatal("nothing was promised")
	}
	n.wantNextAfterPromise(t, n.clock)
}

// An ALREADY_JOINED binds the node here too (DESIGN.md, rule 10).
func TestAStepDownWaitsForWhatAPlainLeaderWasPromised(t *testing.T) {
	n := keyedBookkeeper()
	a := n.plainMember("g", "a")
	n.plainMember("g", "b")
	n.roster.session.lease.noted.Store(true)
	if now, _ := a.m.Promise(); !now {
		t.Fatal("nothing was promised")
	}
	promised := n.clock
	_, id, token := n.leads("g")
	n.roster.StepDown(id, token)
	a.m.Closed("", true)
	n.wantNextAfterPromise(t, promised)
}

// wantNextAfterPromise expects that another one than a leads when an ALREADY_JOINED of then is over, and soon after.
func (n *bookkeeper) wantNextAfterPromise(t *testing.T, promised Reading) {
	t.Helper()
	for leader, _, _ := n.leads("g"); leader == "a"; leader, _, _ = n.leads("g") {
		n.goOn(10 * time.Millisecond)
	}
	if is := n.clock.AtLeast(promised); is < Normal.Promise() || is > 2*Normal.Promise() {
		t.Errorf("the next leads after %v, of %v that were promised", is, Normal.Promise())
	}
}

// A node has no say about members of others, and none of those that are gone.
func TestOnlyTheNodeOfALeaderHasItStepDown(t *testing.T) {
	n := keyedBookkeeper()
	a := n.plainMember("g", "a")
	n.plainMember("g", "b")
	_, id, token := n.leads("g")
	other := id
	other.Incarnation++
	if _, here, _ := n.roster.StepDown(other, token); here {
		t.Error("a member of another node")
	}
	a.m.Closed("closed", true)
	if _, here, _ := n.roster.StepDown(id, token); here {
		t.Error("one that has gone")
	}
	n.run()
	_, id, token = n.leads("g")
	n.roster.Stop()
	if _, here, _ := n.roster.StepDown(id, token); here {
		t.Error("a node that stops")
	}
}
