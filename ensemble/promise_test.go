package ensemble

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/logstore"
)

// promised has the node promise something to a client, and gives a time before that.
func (c *client) promised() time.Time {
	c.t.Helper()
	for {
		before := time.Now()
		now, later := c.membership.Promise()
		switch {
		case now:
			return before
		case !later:
			c.t.Fatalf("client %s: the node promises nothing", c.name)
		}
		select {
		case <-c.changed:
		case <-time.After(20 * time.Second):
			c.t.Fatalf("client %s: the promise does not come", c.name)
		}
	}
}

// wantKept fails the test if the promise is over that was made after a time.
func wantKept(t *testing.T, since time.Time) {
	t.Helper()
	if d := time.Since(since); d < steady.promise() {
		t.Errorf("the next one leads after %v, the promise lasts %v", d, steady.promise())
	}
}

// What a FIN costs does not grow with the promises that there are.
func TestOneOfManyPromisesIsReleasedAtOnce(t *testing.T) {
	n := newBookkeeper()
	var all []*Membership
	for i := range 100 {
		all = append(all, n.roster.Join("g", fmt.Sprint("c", i), deaf{new(atomic.Int64)}))
	}
	n.run()
	for i, m := range all {
		said := n.clock.later(time.Duration(i) * time.Millisecond)
		m.said.Store(&said)
		m.Closed(true)
	}
	reads := 0
	clock := n.roster.now
	n.roster.now = func() reading { reads++; return clock() }
	for i, m := range all {
		if i%3 == 0 {
			m.Stopped()
		}
	}
	if reads > 0 {
		t.Errorf("the clocks were read %d times", reads)
	}
	n.clock = n.clock.later(Normal.promise() + 50*time.Millisecond)
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
		node := float64(timing.promise()) / (1 + Rho/2)
		if node < client {
			t.Errorf("%s: the client believes for %v, the node is bound for %v", timing.Name, time.Duration(client), time.Duration(node))
		}
	}
}

func TestTheLeaveWaitsForAPromise(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a, b := join(t, n, "g", "a"), join(t, n, "g", "b")
	b.wantTold("a")
	since := a.promised()
	if bound := a.membership.Closed(true); bound <= 0 || bound > steady.promise() { // by a reset, say
		t.Errorf("bound for %v", bound)
	}
	b.wantTold("a", "b")
	wantKept(t, since)
}

func TestTheLeaveWaitsForNoPromiseToOneThatHasStopped(t *testing.T) {
	for name, end := range map[string]func(*Membership){
		"its FIN comes first":  func(m *Membership) { m.Stopped(); m.Closed(true) },
		"its FIN comes behind": func(m *Membership) { m.Closed(true); m.Stopped() },
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, t.TempDir(), func(c *Config) { c.Timing.Lease, c.Timing.Expiry = 20*time.Second, time.Hour })
			a, b := join(t, n, "g", "a"), join(t, n, "g", "b")
			b.wantTold("a")
			a.promised()
			end(a.membership)
			b.wantTold("a", "b") // within 20 s, where the promise lasts for an hour
		})
	}
}

// The End of a node that stops waits for promises, and others lead after that.
func TestTheEndWaitsForAPromise(t *testing.T) {
	all := foundersWith(t, 3, func(_ int, c *Config) { c.Timing = steady })
	a := join(t, all[0].Node, "g", "a")
	a.wantTold("a")
	b := join(t, all[1].Node, "g", "b")
	b.wantTold("a")
	since := a.promised()
	stop(t, all[0].Node)
	b.wantTold("a", "b")
	wantKept(t, since)
}

// A process that takes over the folder opens its first session when the promises of the
// one before are over; where none was made, at once.
func TestAStartWaitsForPromises(t *testing.T) {
	path := t.TempDir()
	hour := func(c *Config) { c.Timing.Lease, c.Timing.Expiry = 20*time.Second, time.Hour }
	n := startNode(t, path, hour)
	join(t, n, "g", "a").wantTold("a")
	kill(n)

	n = startNode(t, path, nil) // though a promise would have lasted for an hour
	a := join(t, n, "g", "a")
	a.wantTold("a")
	since := a.promised()
	kill(n)

	n = startNode(t, path, nil)
	join(t, n, "g", "b").wantTold("b")
	wantKept(t, since)
}

// A node that has ended its session in order has waited for promises before, and leaves
// none to wait for.
func TestAStopLeavesNoPromises(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	a.promised()
	stop(t, n)
	n.dir.Close()
	store, err := logstore.Open(filepath.Join(path, "raft.db"), logstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if counter, bound, err := boundBy(store); counter == 0 || bound != 0 || err != nil {
		t.Errorf("counter %d, bound for %v, error %v", counter, bound, err)
	}
}

// What a folder says of promises holds for the session that was opened last.
func TestBoundBy(t *testing.T) {
	open := func(s *logstore.Store) uint64 {
		n, err := nextCounter(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	note := func(s *logstore.Store, counter uint64) {
		if err := notePromise(s, counter, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		do    func(s *logstore.Store)
		bound time.Duration
	}{
		{"a new folder", func(s *logstore.Store) {}, 0},
		{"a session without a promise", func(s *logstore.Store) { open(s) }, 0},
		{"a session with promises", func(s *logstore.Store) { note(s, open(s)) }, time.Second},
		{"one without, after one with", func(s *logstore.Store) { note(s, open(s)); open(s) }, 0},
		{"one of an older program", func(s *logstore.Store) { s.SetUint64(counterKey, 1) }, Calm.promise()},
		{"one of an older program, after one without", func(s *logstore.Store) { open(s); s.SetUint64(counterKey, 2) }, Calm.promise()},
		{"one whose note came late", func(s *logstore.Store) { n := open(s); open(s); note(s, n) }, Calm.promise()},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			for range 2 { // after a start, too
				s, err := logstore.Open(path, logstore.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if c.do != nil {
					c.do(s)
				}
				c.do = nil
				_, bound, err := boundBy(s)
				if err != nil || bound != c.bound {
					t.Errorf("bound for %v, error %v; want %v", bound, err, c.bound)
				}
				s.Close()
			}
		})
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
	n.clock = n.clock.later(Normal.Lease)
	if what, _ := n.roster.Step(n.clock); what != needClose {
		t.Fatalf("when the lease is over: %v", what)
	}
	last := n.clock
	m.said.Store(&last) // in the last moment of the lease
	m.Closed(true)
	for n.clock.atLeast(last) < Normal.promise() {
		if what, _ := n.roster.Step(n.clock); what != needNothing {
			t.Fatalf("%v after a promise: %v", n.clock.atLeast(last), what)
		}
		if left := n.roster.next; left <= 0 || left > Normal.promise()-n.clock.atLeast(last) {
			t.Fatalf("%v after a promise it looks again in %v", n.clock.atLeast(last), left)
		}
		n.clock = n.clock.later(n.roster.next)
	}
	if what, _ := n.roster.Step(n.clock); what != needOpen {
		t.Errorf("when the promise is over: %v", what)
	}
}
