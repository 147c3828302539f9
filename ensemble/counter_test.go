package ensemble

import (
	"path/filepath"
	"testing"
	"time"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/session"
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
	if d := time.Since(since); d < steady.Promise() {
		t.Errorf("the next one leads after %v, the promise lasts %v", d, steady.Promise())
	}
}

func TestTheLeaveWaitsForAPromise(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	a, b := join(t, n, "g", "a"), join(t, n, "g", "b")
	b.wantTold("a")
	since := a.promised()
	if bound := a.membership.Closed("closed", true); bound <= 0 || bound > steady.Promise() { // by a reset, say
		t.Errorf("bound for %v", bound)
	}
	b.wantTold("a", "b")
	wantKept(t, since)
}

func TestTheLeaveWaitsForNoPromiseToOneThatHasStopped(t *testing.T) {
	for name, end := range map[string]func(*session.Membership){
		"its FIN comes first":  func(m *session.Membership) { m.Stopped(); m.Closed("closed", true) },
		"its FIN comes behind": func(m *session.Membership) { m.Closed("closed", true); m.Stopped() },
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
		{"one of an older program", func(s *logstore.Store) { s.SetUint64(counterKey, 1) }, session.Calm.Promise()},
		{"one of an older program, after one without", func(s *logstore.Store) { open(s); s.SetUint64(counterKey, 2) }, session.Calm.Promise()},
		{"one whose note came late", func(s *logstore.Store) { n := open(s); open(s); note(s, n) }, session.Calm.Promise()},
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
