package session

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// What a FIN costs does not grow with the promises that there are.
func TestOneOfManyPromisesIsReleasedAtOnce(t *testing.T) {
	n := newBookkeeper()
	var all []*Membership
	for i := range 100 {
		all = append(all, n.roster.Join("g", fmt.Sprint("c", i), deaf{new(atomic.Int64)}))
	}
	n.run()
	for i, m := range all {
		said := n.clock.Later(time.Duration(i) * time.Millisecond)
		m.said.Store(&said)
		m.Closed("closed", true)
	}
	reads := 0
	clock := n.roster.now
	n.roster.now = func() Reading { reads++; return clock() }
	for i, m := range all {
		if i%3 == 0 {
			m.Stopped()
		}
	}
	if reads > 0 {
		t.Errorf("the clocks were read %d times", reads)
	}
	n.clock = n.clock.Later(Normal.Promise() + 50*time.Millisecond)
	n.roster.Step(n.clock)
	for i, m := range all {
		want := memberOver
		if i%3 != 0 && i > 50 {
			want = memberBound
		}
		if m.state != want {
			t.Errorf("member %d is in state %d, want %d", i, m.state, want)
		}
	}
	if n.roster.session.bound != len(n.roster.bound) || n.roster.next != 2*time.Millisecond {
		t.Errorf("bound to %d and %d, the next is released in %v", n.roster.session.bound, len(n.roster.bound), n.roster.next)
	}
}

// A promise lasts longer than the client relies on it, whichever clocks run fast and slow.
func TestAPromiseOutlastsTheClientsClock(t *testing.T) {
	for _, timing := range []Timing{Quick, Normal, Calm} {
		client := float64(timing.Expiry-timing.Lease) / (1 - Rho/2) // its clock is slow, by as much as kernels slew
		node := float64(timing.Promise()) / (1 + Rho/2)
		if node < client {
			t.Errorf("%s: the client believes for %v, the node is bound for %v", timing.Name, time.Duration(client), time.Duration(node))
		}
	}
}

// A node that has lost its session opens the next when no promise of the old one lasts,
// though every client knows that its connection has ended.
func TestALostSessionWaitsForPromises(t *testing.T) {
	n := newBookkeeper()
	m := n.roster.Join("g", "c", deaf{new(atomic.Int64)})
	n.run()
	said := n.clock
	m.said.Store(&said)
	n.clock = n.clock.Later(Normal.Lease)
	if what, _ := n.roster.Step(n.clock); what != NeedClose {
		t.Fatalf("when the lease is over: %v", what)
	}
	last := n.clock
	m.said.Store(&last) // in the last moment of the lease
	m.Closed("closed", true)
	for n.clock.AtLeast(last) < Normal.Promise() {
		if what, _ := n.roster.Step(n.clock); what != NeedNothing {
			t.Fatalf("%v after a promise: %v", n.clock.AtLeast(last), what)
		}
		if left := n.roster.next; left <= 0 || left > Normal.Promise()-n.clock.AtLeast(last) {
			t.Fatalf("%v after a promise it looks again in %v", n.clock.AtLeast(last), left)
		}
		n.clock = n.clock.Later(n.roster.next)
	}
	if what, _ := n.roster.Step(n.clock); what != NeedOpen {
		t.Errorf("when the promise is over: %v", what)
	}
}
