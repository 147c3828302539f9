package latch_test

import (
	"testing"
	"time"

	"leaderlatch/latch/latchtest"
)

// promised is a client that has joined, and was answered ALREADY_JOINED to a JOIN that it
// sent after the time that is returned.
func (f *fixture) promised(group, name string) (*client, time.Time) {
	f.t.Helper()
	c := f.join(group, name, name)
	began := time.Now()
	c.send("JOIN " + group + " " + name)
	c.want("ALREADY_JOINED " + group + " " + name)
	return c, began
}

// TestOnlyAFINSaysThatTheClientHasStopped: a reset may come from a firewall, in the
// client's name.
func TestOnlyAFINSaysThatTheClientHasStopped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		end   func(f *fixture, c *client)
		stops int
	}{
		{"it closes", func(f *fixture, c *client) { c.TCPConn.Close() }, 1},
		{"it half closes", func(f *fixture, c *client) { c.CloseWrite() }, 1},
		{"it resets", func(f *fixture, c *client) { c.reset() }, 0},
		{"it resets, and a write finds out", func(f *fixture, c *client) { c.reset(); f.e.Push("g", "z"); f.e.Push("g", "y") }, 0},
		{"the node closes, and it resets", func(f *fixture, c *client) { f.e.End("g", "a"); c.wantEnd(); c.reset() }, 0},
		{"the node closes, and it does not", func(f *fixture, c *client) { f.e.End("g", "a"); c.wantEnd() }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			cl := f.join("g", "a", "a")
			eventually(t, "nothing is queued", func() bool { return f.s.Queued() == 0 })
			c.end(f, cl)
			eventually(t, "the connection is over", func() bool { return f.s.Conns() == 0 })
			if n := f.e.Stops(); n != c.stops {
				t.Errorf("told %d times that the client has stopped, want %d", n, c.stops)
			}
		})
	}
}

// TestAPromiseOutlivesItsConnection: who was answered ALREADY_JOINED leads on by its clock
// unless it says that it has stopped.
func TestAPromiseOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fixture, c *client){
		"reset":       func(f *fixture, c *client) { c.reset() },
		"node's end":  func(f *fixture, c *client) { f.e.End("g", "a") },
		"lost lease":  func(f *fixture, c *client) { f.e.Kill() },
		"end of node": func(f *fixture, c *client) { go f.s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			c, began := f.promised("g", "a")
			end(f, c)
			eventually(t, "its membership is over", func() bool { return len(f.e.Members("g")) == 0 })
			if kept := time.Since(began); kept < latchtest.Bound {
				t.Errorf("the membership was over %v after the JOIN, want %v at least", kept, latchtest.Bound)
			}
		})
	}
}

// TestAFINEndsAPromise: also one that comes after the node's own, and after the membership
// was given back. The node waits for it as long as the promise lasts.
func TestAFINEndsAPromise(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c, _ := f.promised("g", "a")
	f.e.End("g", "a")
	c.wantEnd()
	eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) == 1 })
	c.TCPConn.Close()
	eventually(t, "the node is told that the client has stopped", func() bool { return f.e.Stops() == 1 })
	if left := f.e.Members("g"); len(left) > 0 {
		t.Errorf("still members: %v", left)
	}
}

// TestAJOINWaitsForItsPromise: what comes behind it too, and news do not.
func TestAJOINWaitsForItsPromise(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.join("g", "a", "a")
	f.e.HoldPromises()
	c.send("JOIN g a")
	c.send("?")
	eventually(t, "it is asked for", func() bool { return f.e.Asking() == 1 })
	f.e.Push("g", "z")
	c.want("LEADER z")
	f.e.ReleasePromises()
	c.want("ALREADY_JOINED g a")
	c.want("ERROR")
	c.send("JOIN h b")
	c.want("ALREADY_JOINED g a")
}

// TestAJOINThatWaitsForItsPromiseEnds with its connection, without an answer.
func TestAJOINThatWaitsForItsPromiseEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fixture, c *client){
		"the lease lapses": func(f *fixture, c *client) { f.e.Lapse(); f.e.ReleasePromises() },
		"the node ends it": func(f *fixture, c *client) { f.e.End("g", "a") },
		"the server does":  func(f *fixture, c *client) { go f.s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			c := f.join("g", "a", "a")
			f.e.HoldPromises()
			c.send("JOIN g a")
			eventually(t, "it is asked for", func() bool { return f.e.Asking() == 1 })
			end(f, c)
			if got, _ := c.readAll(); got != "" {
				t.Errorf("the client read %q, want nothing", got)
			}
		})
	}
}
