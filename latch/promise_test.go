package latch_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch/latchtest"
)

// tcpClosed is the state of a connection that was reset, in tcp_info.
const tcpClosed = 7

// wasReset reports whether the client's kernel has got a reset.
func (c *client) wasReset() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	state := uint8(0)
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state == tcpClosed
}

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
		{"the node closes, and it does too", func(f *fixture, c *client) { f.e.End("g", "a"); c.wantEnd(); c.TCPConn.Close() }, 1},
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

// TestAResetIsNoFINForWhoReadsBehindAWrite: the kernel tells a reset once, and a write that
// waits for the client may be told before the reader, which then reads an end.
func TestAResetIsNoFINForWhoReadsBehindAWrite(t *testing.T) {
	t.Parallel()
	for range 20 {
		f := serve(t)
		c := f.dialSmall()
		c.send("JOIN g a")
		c.want("LEADER a")
		lines := strings.Repeat("JOIN g a\n", 100)
		eventually(t, "a write waits for the client", func() bool {
			c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			c.Write([]byte(lines))
			_, draining, _ := f.s.Kept()
			return draining > 0
		})
		c.reset()
		eventually(t, "the connection is over", func() bool { return f.s.Conns() == 0 })
		if f.e.Stops() > 0 {
			t.Fatal("a reset was taken for the client's FIN")
		}
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

// TestWhoStaysAtAFINIsReset: some clients neither end nor tell anybody at a FIN, and do at
// a reset. What they have to read they still read.
func TestWhoStaysAtAFINIsReset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(f *fixture, c *client)
		rest string
	}{
		{"a member", func(f *fixture, c *client) { f.e.End("g", "a") }, ""},
		{"a member that was promised something", func(f *fixture, c *client) {
			c.send("JOIN g a")
			eventually(f.t, "it was answered", func() bool { return c.unread() > 0 })
			f.e.End("g", "a")
		}, "ALREADY_JOINED g a\n"},
		{"a line too long", func(f *fixture, c *client) { c.Write(make([]byte, 2000)) }, "ERROR\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			cl := f.join("g", "a", "a")
			began := time.Now()
			c.end(f, cl)
			eventually(t, "it is reset", cl.wasReset)
			if c.rest != "" && c.rest != "ERROR\n" && time.Since(began) < latchtest.Bound {
				t.Error("it was reset before its own FIN could not matter any more")
			}
			if got, err := io.ReadAll(cl.r); string(got) != c.rest || err != nil {
				t.Errorf("the client read %q, error %v; want %q and the end", got, err, c.rest)
			}
		})
	}
}

// TestAStopWaitsForNobodyAtAFIN: who stays there is reset at once.
func TestAStopWaitsForNobodyAtAFIN(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.s.SetCloseGrace(time.Hour)
	c := f.join("g", "a", "a")
	f.s.Refuse()
	f.e.EndAll()
	if err := f.s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is reset", c.wasReset)
	c.wantEnd()
}

// unread returns how many bytes the client's kernel has for it.
func (c *client) unread() (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
