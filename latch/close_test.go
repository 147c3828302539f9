package latch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// TestEveryEndGivesBackOnce goes through all ways in which a connection that has
// asked to join can end: the membership is given back exactly once, with the reason, and as
// acknowledged only where the client's side is known to know.
func TestEveryEndGivesBackOnce(t *testing.T) {
	closed := func(t *testing.T, c *client) { c.wantEnd() }
	refused := func(t *testing.T, c *client) { c.want("JOIN_FAILED SERVICE_UNAVAILABLE"); c.wantEnd() }
	reset := func(t *testing.T, c *client) {
		if _, err := c.readAll(); err == nil {
			t.Error("the client read the end of the connection, want a reset")
		}
	}
	gone := func(t *testing.T, c *client) {}

	for _, c := range []struct {
		name    string
		pending bool
		stuck   bool // has bytes in its send queue
		end     func(f *fixture, c *client)
		client  func(t *testing.T, c *client) // what the client sees
		acked   bool
		why     string
	}{
		{name: "client closes", acked: true, why: "closed", client: gone,
			end: func(f *fixture, c *client) { c.TCPConn.Close() }},
		{name: "client half closes", acked: true, why: "closed", client: closed,
			end: func(f *fixture, c *client) { c.CloseWrite() }},
		{name: "client half closes and does not read", stuck: true, acked: true, why: "closed", client: reset,
			end: func(f *fixture, c *client) { c.CloseWrite() }},
		{name: "client resets", acked: true, why: "reset", client: gone,
			end: func(f *fixture, c *client) { c.reset() }},
		{name: "client resets and has not read", stuck: true, acked: true, why: "reset", client: gone,
			end: func(f *fixture, c *client) { c.reset() }},
		{name: "elections close", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.e.End("g", "a") }},
		{name: "elections close twice", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.e.End("g", "a"); f.e.End("g", "a"); f.e.EndAll() }},
		{name: "elections close with bytes queued", stuck: true, acked: false, client: reset,
			end: func(f *fixture, c *client) { f.e.End("g", "a") }},
		{name: "lease lost", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.e.Kill() }},
		{name: "lease lapsed before the next leader", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.e.Lapse(); f.e.Push("g", "z") }},
		{name: "lease lapsed before a further JOIN", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.e.Lapse(); c.send("JOIN g b") }},
		{name: "line too long", acked: true,
			end:    func(f *fixture, c *client) { c.send(strings.Repeat("x", 2000)) },
			client: func(t *testing.T, c *client) { c.want("ERROR"); c.wantEnd() }},
		{name: "reader stuck", stuck: true, acked: false, why: "stuck", client: reset,
			end: func(f *fixture, c *client) {
				eventually(f.t, "the server ends it", func() bool {
					f.pushMany("g") // or all that waits is with the kernel
					return len(f.e.Closings()) > 0
				})
			}},
		{name: "server closes", acked: true, client: closed,
			end: func(f *fixture, c *client) { f.s.Close() }},
		{name: "server closes with bytes queued", stuck: true, acked: false, client: reset,
			end: func(f *fixture, c *client) { f.s.Close() }},

		{name: "client closes while pending", pending: true, acked: true, why: "closed", client: gone,
			end: func(f *fixture, c *client) { c.TCPConn.Close() }},
		{name: "client half closes while pending", pending: true, acked: true, why: "closed", client: closed,
			end: func(f *fixture, c *client) { c.CloseWrite() }},
		{name: "client resets while pending", pending: true, acked: true, why: "reset", client: gone,
			end: func(f *fixture, c *client) { c.reset() }},
		{name: "elections close while pending", pending: true, acked: true, client: refused,
			end: func(f *fixture, c *client) { f.e.EndAll() }},
		{name: "lease lapsed before the answer", pending: true, acked: true, client: refused,
			end: func(f *fixture, c *client) { f.e.Lapse(); f.e.Release() }},
		{name: "no answer in time", pending: true, acked: true, client: refused,
			end: func(f *fixture, c *client) {}},
		{name: "server shuts down while pending", pending: true, acked: true, client: refused,
			end: func(f *fixture, c *client) { go f.s.Shutdown(f.t.Context()) }},
		{name: "server closes while pending", pending: true, acked: true, client: closed,
			end: func(f *fixture, c *client) { f.s.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, func(cfg *latch.Config) {
				// Only the cases that are about a time limit meet it.
				if c.name == "no answer in time" {
					cfg.JoinTimeout = 100 * time.Millisecond
				} else {
					cfg.JoinTimeout = time.Minute
				}
				if c.name == "reader stuck" {
					cfg.StuckTimeout = time.Second
				}
			})
			var cl *client
			switch {
			case c.pending:
				f.e.Hold()
				cl = f.joinPending("g", "a")
			case c.stuck:
				cl = f.dialSmall()
				cl.send("JOIN g a")
				cl.want("LEADER a")
				f.jam("g")
			default:
				cl = f.join("g", "a", "a")
			}
			if !c.stuck { // what was sent has arrived
				eventually(t, "nothing is queued", func() bool { return f.s.Queued() == 0 })
			}
			givenBack := func() bool { return len(f.e.Closings()) > 0 }
			c.end(f, cl)
			if c.stuck { // the client must not read before, or it is stuck no longer
				eventually(t, "the membership is given back", givenBack)
				cl.readsAgain()
			}
			c.client(t, cl)
			eventually(t, "the membership is given back", givenBack)
			want := []latchtest.Closing{{Group: "g", Client: "a", Why: c.why, Acknowledged: c.acked}}
			f.s.Close()
			f.e.Sync()
			if got := f.e.Closings(); !slices.Equal(got, want) {
				t.Errorf("given back %v, want %v", got, want)
			}
		})
	}
}

// TestAQueuedLeaderDiesBehindAHalfClose: the server hangs up behind an ERROR while
// a leader waits in the send queue; the client, which reads nothing, half closes.
// The membership is given back, so that leader must not be read any more.
func TestAQueuedLeaderDiesBehindAHalfClose(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.dialSmall()
	c.send("JOIN g a")
	c.want("LEADER a")
	waits := func() bool {
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if f.s.Queued() == 0 {
				return false
			}
		}
		return true
	}
	for n := 0; !waits(); n++ {
		f.e.Push("g", fmt.Sprintf("%s-%d", strings.Repeat("n", 200), n))
		f.e.Sync()
	}
	if _, draining, _ := f.s.Kept(); draining != 0 {
		t.Fatal("the server cannot write: it would not answer the line either")
	}
	c.Write(bytes.Repeat([]byte("x"), 2000))
	c.CloseWrite()
	eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) == 1 })
	c.readsAgain()
	if _, err := c.readAll(); err == nil {
		t.Error("the client read on to the end of the connection, want a reset")
	}
}

// jam pushes leaders to a group until a member that does not read takes nothing
// more: not only until its kernel's delayed acknowledgement, some 40 ms later.
func (f *fixture) jam(group string) {
	f.t.Helper()
	eventually(f.t, "the reader is stuck", func() bool {
		f.pushMany(group)
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, draining, _ := f.s.Kept(); draining == 0 {
				return false
			}
		}
		return true
	})
}

// pushMany pushes leaders with long names. The kernel takes some 64 KB into the
// last segment of a send queue, whatever the size of its buffer.
func (f *fixture) pushMany(group string) {
	for range 1000 {
		f.pushed++
		f.e.Push(group, fmt.Sprintf("%s-%d", strings.Repeat("n", 200), f.pushed))
	}
	f.e.Sync()
}

// TestQueuedLeadersDie: what is queued when the elections close does not arrive any
// more, not even if the client reads on at once.
func TestQueuedLeadersDie(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	c := f.dialSmall()
	c.send("JOIN g a")
	c.want("LEADER a")
	f.jam("g")
	queued := f.s.Queued()
	f.e.End("g", "a")
	f.e.Sync()
	c.readsAgain()
	if got, err := c.readAll(); err == nil || len(got) >= queued {
		t.Errorf("read %d bytes, error %v; want a reset before the %d bytes that were queued", len(got), err, queued)
	}
}

// TestFINIsAcknowledgedFirst: Closed(true) comes after the client's kernel has
// acknowledged the FIN, which an idle client's does after some 40 ms only.
// The kernel's own table says what state the server's socket is in by then.
func TestFINIsAcknowledgedFirst(t *testing.T) {
	t.Parallel()
	states := make(chan string, 1)
	var local, remote string
	w := &watchedElections{Elections: latchtest.NewElections(), closed: func(acked bool) {
		states <- fmt.Sprintf("acknowledged %v, state %s", acked, tcpState(t, local, remote))
	}}
	defer w.Elections.(*latchtest.Elections).Close()
	f := serve(t, func(cfg *latch.Config) { cfg.Elections = w; cfg.CloseGrace = patience })
	c := f.join("g", "a", "a")
	local, remote = hexPort(f.addr), hexPort(c.LocalAddr().String())

	w.Elections.(*latchtest.Elections).EndAll()
	const finWait1 = "04"
	got := <-states
	if strings.HasSuffix(got, "state "+finWait1) || !strings.HasPrefix(got, "acknowledged true") {
		t.Errorf("given back with %s, want acknowledged and not FIN_WAIT1 (%s)", got, finWait1)
	}
	c.wantEnd()
}

// watchedElections calls closed before it passes on Membership.Closed.
type watchedElections struct {
	latch.Elections
	closed func(acknowledged bool)
}

type watchedMembership struct {
	latch.Membership
	closed func(acknowledged bool)
}

func (w *watchedElections) Join(group, client string, m latch.Member) (latch.Membership, error) {
	ms, err := w.Elections.Join(group, client, m)
	return watchedMembership{ms, w.closed}, err
}

func (w watchedMembership) Closed(why string, acknowledged bool) time.Duration {
	w.closed(acknowledged)
	return w.Membership.Closed(why, acknowledged)
}

// hexPort returns the port of an address as /proc/net/tcp writes it.
func hexPort(addr string) string {
	var port int
	fmt.Sscanf(addr[strings.LastIndex(addr, ":")+1:], "%d", &port)
	return fmt.Sprintf(":%04X", port)
}

// tcpState returns the state of the socket with these ports, from the kernel's
// table; empty if there is none.
func tcpState(t *testing.T, local, remote string) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], local) && strings.HasSuffix(f[2], remote) {
			return f[3]
		}
	}
	return ""
}

// TestSilentAfterTheEnd: whatever is still told to a connection that has ended,
// no byte of it is written.
func TestSilentAfterTheEnd(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.join("g", "a", "a")
	f.e.End("g", "a")
	f.e.Push("g", "b")
	f.e.Sync()
	c.wantEnd()
}

// TestNothingIsToldAfterTheClientLeft: the Elections may still have a leader for
// a connection whose end they do not know yet. A client that has only half closed
// could read it, and does not get it.
func TestNothingIsToldAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	members, ended := make(chan latch.Member, 1), make(chan bool, 1)
	f := serve(t, func(cfg *latch.Config) { cfg.Elections = oneMember{members, ended} })
	c := f.dial()
	c.Write([]byte("JOIN g a\n"))
	m := <-members
	m.Leader("a", 1)
	c.want("LEADER a")
	c.CloseWrite()
	if !<-ended {
		t.Error("the client closed, and is not taken to know")
	}
	m.Leader("b", 2)
	m.Close()
	c.wantEnd()
}

// oneMember is an Elections that hands out the member it is given.
type oneMember struct {
	members chan latch.Member
	ended   chan bool
}

func (o oneMember) Join(_, _ string, m latch.Member) (latch.Membership, error) {
	o.members <- m
	return o, nil
}
func (o oneMember) JoinKeyed(_, _ string, _ latch.Keyed, m latch.Member) (latch.Membership, error) {
	return o.Join("", "", m)
}
func (oneMember) Alive() bool { return true }
func (oneMember) Observe(string, latch.Observer) (latch.Observation, error) {
	return nil, latch.ErrUnavailable
}
func (oneMember) Missing() error             { return nil }
func (oneMember) Live() bool                 { return true }
func (oneMember) Promise() (now, later bool) { return true, false }
func (oneMember) Stopped()                   {}
func (o oneMember) Closed(_ string, acknowledged bool) time.Duration {
	o.ended <- acknowledged
	return 0
}

// TestLeftBeforeTheAnswer: the Join of a client that has gone commits later; its
// connection is closed without an answer and given back.
func TestLeftBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.e.Hold()
	c := f.joinPending("g", "a")
	c.Write([]byte("JOIN g a\n" + strings.Repeat("?\n", 3000))) // more than is read ahead
	c.CloseWrite()
	eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) == 1 })
	f.e.Release()
	f.e.Sync()
	if got, _ := c.readAll(); got != "" {
		t.Errorf("the client read %q, want nothing", got)
	}
	if m := f.e.Members("g"); len(m) > 0 {
		t.Errorf("the group has members: %v", m)
	}
}

// TestRefusalArrives: a client that goes on sending while it is refused reads the
// refusal, and no reset before it.
func TestRefusalArrives(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.e.SetAvailable(false)
	c := f.dial()
	c.send("JOIN g a")
	for range 50 {
		if _, err := c.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // spread over the time in which the server closes
	}
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("then got error %v, want the end of the connection", err)
	}
	c.TCPConn.Close()
	eventually(t, "the connection is gone", func() bool { return f.s.Conns() == 0 })
	eventually(t, "the refusal is logged", func() bool { return len(f.log.lines("JOIN refused")) > 0 })
	if got := f.log.lines("JOIN refused"); len(got) != 1 || !strings.Contains(got[0], "count=1 group=g client=a remote=127.0.0.1:") {
		t.Errorf("logged %q, want one refusal with group and client", got)
	}
}

// TestCloseDoesNotLinger: refused clients that do not close do not hold up Close.
func TestCloseDoesNotLinger(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.e.SetAvailable(false)
	c := f.dial()
	c.send("JOIN g a")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	start := time.Now()
	f.s.Close()
	if d := time.Since(start); d > time.Second {
		t.Errorf("Close took %v", d)
	}
}

// TestLastLineWaitsForRoom: where the kernel has no room for a last line, the line
// goes out when there is some, and then the connection ends. There is none as soon
// as about ten answers are not acknowledged; which of them finds none is tried out.
func TestLastLineWaitsForRoom(t *testing.T) {
	t.Parallel()
	const lines = 16 // the last of them ends the connection
	f := serve(t)
	for first := range lines {
		c := f.dial()
		c.delayAcks()
		for range first {
			c.send("?")
			c.want("ERROR")
		}
		rest := lines - first
		c.Write([]byte(strings.Repeat("?\n", rest)))
		got, err := c.readAll()
		if want := strings.Repeat("ERROR\n", rest); got != want || err != nil {
			t.Errorf("%d lines after %d: got %d ERRORs, error %v, want all and the end",
				rest, first, strings.Count(got, "ERROR\n"), err)
		}
		c.TCPConn.Close()
	}
}

// TestAnEndRightBehindALine: a client that has read its LEADER keeps the
// acknowledgement back for a while. That is no reason to reset its connection, and to
// take it for one that may not know of its end.
func TestAnEndRightBehindALine(t *testing.T) {
	f := serve(t, func(cfg *latch.Config) { cfg.CloseGrace = 20 * time.Second })
	c := f.join("g", "a", "a")
	for i := 0; f.s.Queued() == 0; i++ {
		if i == 1000 {
			t.Skip("this kernel acknowledges everything at once")
		}
		f.e.Push("g", fmt.Sprint("x", i))
		c.send("?")
		c.line() // these two in any order
		c.line()
		c.delayAcks()
		f.e.Push("g", fmt.Sprint("y", i))
		c.want(fmt.Sprint("LEADER y", i))
	}
	f.e.End("g", "a")
	c.wantEnd()
	eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) > 0 })
	if got, want := f.e.Closings(), []latchtest.Closing{{Group: "g", Client: "a", Acknowledged: true}}; !slices.Equal(got, want) {
		t.Errorf("given back %v, want %v", got, want)
	}
}

// TestALineIsCutOffWhenTheLeaseIsOver: the end went behind a LEADER while the node could
// speak for the membership. When it cannot any more, the line must not arrive either.
func TestALineIsCutOffWhenTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.CloseGrace = 5 * time.Second })
	c := f.dialSmall()
	c.send("JOIN g a")
	c.want("LEADER a")
	full := func() bool { // the client has room for no more, and the server for some
		for range 100 {
			if _, draining, _ := f.s.Kept(); draining > 0 || f.s.Queued() == 0 {
				return false
			}
			time.Sleep(time.Millisecond)
		}
		return true
	}
	for i := 0; !full(); i++ {
		if _, draining, _ := f.s.Kept(); draining > 0 {
			t.Skip("this kernel has no room left as soon as the client has none")
		}
		f.e.Push("g", fmt.Sprintf("%s-%d", strings.Repeat("n", 200), i))
		f.e.Sync()
	}
	f.e.End("g", "a")
	eventually(t, "the connection is closed", func() bool { return f.s.Ended() == 1 })
	if f.s.Queued() == 0 {
		t.Fatal("the line was cut off at once")
	}
	f.e.Lapse()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client's kernel is told of a reset", func() (closed bool) {
		raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			closed = err == nil && info.State == unix.BPF_TCP_CLOSE
		})
		return closed
	})
	if _, err := c.readAll(); err == nil {
		t.Error("the client read the end of the connection, want a reset")
	}
	if n := len(f.e.Closings()); n > 0 {
		t.Error("it was given back at once")
	}
	eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) > 0 })
	if got, want := f.e.Closings(), []latchtest.Closing{{Group: "g", Client: "a"}}; !slices.Equal(got, want) {
		t.Errorf("given back %v, want %v", got, want)
	}
}

// A JOIN without an answer in time is refused for what the elections lack, where that is known.
func TestARefusalSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		missing error
		reason  string
	}{
		{nil, "no answer in time: no majority of the nodes has taken it"},
		{errors.New("it is just starting"), "no answer in time: it is just starting"},
	} {
		f := serve(t, func(cfg *latch.Config) { cfg.JoinTimeout = 50 * time.Millisecond })
		f.e.SetMissing(c.missing)
		f.e.Hold()
		client := f.dial()
		client.send("JOIN g a")
		client.want("JOIN_FAILED SERVICE_UNAVAILABLE")
		eventually(t, "the refusal is logged", func() bool { return len(f.log.lines("JOIN refused")) > 0 })
		if line := f.log.lines("JOIN refused")[0]; !strings.Contains(line, fmt.Sprintf("reason=%q", c.reason)) {
			t.Errorf("logged %q, want the reason %q", line, c.reason)
		}
	}
}

// A JOIN that is refused has one reason, which is the known one, and soon; of many there
// are few lines.
func TestRefusalsSayTheKnownReason(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.JoinTimeout = 50 * time.Millisecond })
	f.join("g", "a", "a")
	const clients = 50
	for range clients {
		c := f.dial()
		c.send("JOIN g a")
		c.want("JOIN_FAILED SERVICE_UNAVAILABLE") // and does not close
	}
	eventually(t, "the first refusal is logged", func() bool { return len(f.log.lines("JOIN refused")) > 0 })
	f.s.Close()
	for message, most := range map[string]int{"JOIN waits": 2, "JOIN refused": 2} {
		lines := f.log.lines(message)
		if len(lines) < 1 || len(lines) > most {
			t.Errorf("%s: %d lines, want %d at most", message, len(lines), most)
		}
		sum := 0
		for _, line := range lines {
			var n int
			if _, after, ok := strings.Cut(line, " count="); ok {
				fmt.Sscan(after, &n)
			}
			sum += n
			if !strings.Contains(line, `reason="another member has the name, through the only node"`) || !strings.Contains(line, "group=g client=a remote=127.0.0.1:") {
				t.Errorf("logged %q", line)
			}
		}
		if sum != clients {
			t.Errorf("%s: the lines count %d, want %d", message, sum, clients)
		}
	}
}
