package latch_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

const key = "8d0c5b7e41f29a36"

// extended is a change of serve's server.
func extended(cfg *latch.Config) { cfg.Extensions = true }

// forGood is a hold that is not over while a test runs.
const forGood = "3600000"

// keyed sends a keyed JOIN on a connection.
func (c *client) keyed(group, name, words string) {
	c.t.Helper()
	c.send("JOIN " + group + " " + name + " key=" + key + " " + words)
}

// joinKeyed opens a connection and joins as a keyed member.
func (f *fixture) joinKeyed(group, name, words, leader string) *client {
	f.t.Helper()
	c := f.dial()
	c.keyed(group, name, words)
	c.want("LEADER " + leader)
	return c
}

// TestEveryEndOfAKeyedMember: the elections are told why its connection ended, and that the
// client has stopped only where it has said so.
func TestEveryEndOfAKeyedMember(t *testing.T) {
	t.Parallel()
	const hold, none = "hold=" + forGood, "hold=0"
	const fin = hold + " fin=end"
	closes := func(f *fixture, c *client) { c.TCPConn.Close() }
	halfCloses := func(f *fixture, c *client) { c.CloseWrite() }
	resets := func(f *fixture, c *client) { c.reset() }
	leaves := func(f *fixture, c *client) { c.send("LEAVE"); c.wantEnd() }
	nodeAnd := func(then func(f *fixture, c *client)) func(f *fixture, c *client) {
		return func(f *fixture, c *client) { f.e.End("g", "a"); c.wantEnd(); then(f, c) }
	}
	for _, c := range []struct {
		name, words string // words empty: a plain member
		end         func(f *fixture, c *client)
		why         string
		stops, left int // how often it has said that it has stopped; how many members there are then
	}{
		{"closes", hold, closes, "closed", 0, 1},
		{"half closes", hold, halfCloses, "closed", 0, 1},
		{"resets", hold, resets, "reset", 0, 1},
		{"leaves", hold, leaves, "left", 1, 0},
		{"leaves, and closes at once", hold, func(f *fixture, c *client) { c.send("LEAVE"); c.TCPConn.Close() }, "left", 1, 0},
		{"leaves, and resets", hold, func(f *fixture, c *client) { leaves(f, c); c.reset() }, "left", 1, 0},
		{"is closed by the node", hold, nodeAnd(closes), "", 0, 1},
		{"closes", fin, closes, "closed", 1, 0},
		{"half closes", fin, halfCloses, "closed", 1, 0},
		{"resets", fin, resets, "reset", 0, 1},
		{"leaves", fin, leaves, "left", 1, 0},
		{"closes when the node has", fin, nodeAnd(closes), "", 0, 1},
		{"half closes when the node has", fin, nodeAnd(halfCloses), "", 0, 1},
		{"has sent a line too long, and closes", fin, func(f *fixture, c *client) { c.send(strings.Repeat("x", 2000)); c.want("ERROR"); c.TCPConn.Close() }, "", 0, 1},
		{"closes", none, closes, "closed", 0, 0},
		{"resets", none, resets, "reset", 0, 0},
		{"leaves", none, leaves, "left", 1, 0},
		{"closes when the node has", none, nodeAnd(closes), "", 0, 1},
		{"closes", none + " fin=end", closes, "closed", 1, 0},
		{"closes when the node has", none + " fin=end", nodeAnd(closes), "", 0, 1},
		{"closes", "", closes, "closed", 1, 0},
		{"leaves", "", leaves, "left", 1, 0},
	} {
		t.Run(strings.TrimPrefix(c.words+" "+c.name, " "), func(t *testing.T) {
			t.Parallel()
			f := serve(t, extended)
			cl := f.dial()
			if c.words != "" {
				cl.keyed("g", "a", c.words)
			} else {
				cl.send("JOIN g a")
			}
			cl.want("LEADER a 1")
			eventually(t, "nothing is queued", func() bool { return f.s.Queued() == 0 })
			c.end(f, cl)
			eventually(t, "the connection is over", func() bool { return f.s.Conns() == 0 })
			if got, want := f.e.Closings(), []latchtest.Closing{{Group: "g", Client: "a", Why: c.why, Acknowledged: true}}; !slices.Equal(got, want) {
				t.Errorf("given back %v, want %v", got, want)
			}
			if n := f.e.Stops(); n != c.stops {
				t.Errorf("told %d times that the client has stopped, want %d", n, c.stops)
			}
			if m := f.e.Members("g"); len(m) != c.left {
				t.Errorf("the group has the members %q, want %d", m, c.left)
			}
		})
	}
	t.Run("closes while its JOIN waits", func(t *testing.T) {
		t.Parallel()
		for words, stops := range map[string]int{hold: 0, fin: 1, none: 0} {
			f := serve(t, extended)
			f.e.Hold()
			c := f.dial()
			c.keyed("g", "a", words)
			eventually(t, "the JOIN is pending", func() bool { return f.e.Pending() == 1 })
			c.TCPConn.Close()
			eventually(t, "the connection is over", func() bool { return f.s.Conns() == 0 })
			if n := f.e.Stops(); n != stops {
				t.Errorf("%s: told %d times that the client has stopped, want %d", words, n, stops)
			}
		}
	})
}

// TestTwoJOINsWithOneKey at once: one of them has the membership in the end, and the other
// connection is closed.
func TestTwoJOINsWithOneKey(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	f.e.Hold()
	a, b := f.dial(), f.dial()
	a.keyed("g", "a", "hold="+forGood)
	b.keyed("g", "a", "hold="+forGood)
	eventually(t, "both are pending", func() bool { return f.e.Pending() == 2 })
	f.e.Release()
	a.want("LEADER a 1")
	b.want("LEADER a 1")
	eventually(t, "one is over", func() bool { return len(f.e.Closings()) == 1 })
	got := ""
	for _, c := range []*client{a, b} {
		c.Write([]byte("PING\nLEAVE\n")) // or it is closed
		text, _ := c.readAll()
		got += text
	}
	if got != "ALIVE 2400\n" {
		t.Errorf("the two read %q, want one answer", got)
	}
	eventually(t, "who has the membership has left", func() bool { return len(f.e.Members("g")) == 0 })
}

// TestAPINGWaitsForItsAnswer: what comes behind it too, and news do not.
func TestAPINGWaitsForItsAnswer(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	c := f.joinKeyed("g", "a", "hold=2000", "a 1")
	f.e.HoldPings()
	for parked := range 2 {
		if parked > 0 { // and its line is read by another goroutine
			f.parks(1)
		}
		c.send("PING\n?\nPING")
		eventually(t, "it is asked for", func() bool { return f.e.Pings() == 1 })
		f.e.Push("g", "z")
		c.want(fmt.Sprint("LEADER z ", 2+parked))
		f.e.ReleasePings()
		c.want("ALIVE 2000")
		c.want("ERROR")
		c.want("ALIVE 2000")
		f.e.HoldPings()
	}
}

// TestALIVEAnswersAPING, once, and promises no less than nothing.
func TestALIVEAnswersAPING(t *testing.T) {
	t.Parallel()
	members := make(chan latch.Member, 1)
	f := serve(t, extended, func(cfg *latch.Config) { cfg.Elections = oneMember{members, make(chan bool, 1)} })
	c := f.dial()
	c.keyed("g", "a", "hold=2000")
	m := <-members
	m.Alive(time.Second)
	m.Leader("a", 1)
	c.want("LEADER a 1")
	m.Alive(time.Second)
	c.send("PING\n?")
	eventually(t, "it is asked for", func() bool { return f.s.Pinged() == 1 })
	m.Leader("b", 2)
	c.want("LEADER b 2")
	for range 2 {
		m.Alive(-time.Second)
	}
	c.want("ALIVE 0")
	c.want("ERROR")
	c.send("?")
	c.want("ERROR")
}

// TestAPINGWithoutAnAnswer ends with its connection, and one that ends asks for nothing.
func TestAPINGWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fixture, c *client){
		"the lease lapses before the answer": func(f *fixture, c *client) { f.e.Lapse(); f.e.ReleasePings() },
		"the node ends it":                   func(f *fixture, c *client) { f.e.End("g", "a"); f.e.ReleasePings() },
		"the server does":                    func(f *fixture, c *client) { go func() { f.s.Close(); f.e.ReleasePings() }() },
		"the client closes its half":         func(f *fixture, c *client) { c.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, extended)
			c := f.joinKeyed("g", "a", "hold=2000", "a 1")
			f.e.HoldPings()
			c.send("PING")
			eventually(t, "it is asked for", func() bool { return f.e.Pings() == 1 })
			end(f, c)
			if got, err := c.readAll(); got != "" || err != nil {
				t.Errorf("the client read %q, error %v, want the end", got, err)
			}
			f.e.ReleasePings() // nobody hears of it any more
			f.e.Sync()
		})
	}
}

// TestALIVEFollowsTheNewestLeader: also where the client has not read what came before.
func TestALIVEFollowsTheNewestLeader(t *testing.T) {
	t.Parallel()
	f := serve(t, extended, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	c := f.dialSmall()
	c.keyed("g", "a", "hold=2000")
	c.want("LEADER a 1")
	f.e.HoldPings()
	c.send("PING")
	eventually(t, "it is asked for", func() bool { return f.e.Pings() == 1 })
	f.jam("g")
	f.e.Push("g", "end")
	f.e.ReleasePings()
	f.e.Sync()
	c.readsAgain()
	before := ""
	for {
		line, err := c.line()
		if err != nil {
			t.Fatal(err)
		}
		if line == "ALIVE 2000\n" {
			break
		}
		before = line
	}
	if !strings.HasPrefix(before, "LEADER end ") {
		t.Errorf("the promise came behind %q, want the newest leader", before)
	}
}

// TestAnALIVEMayArriveLate: it promises from when it was asked for. So it is no reason for a
// reset that it is still under way when the node must say nothing of leaders any more.
func TestAnALIVEMayArriveLate(t *testing.T) {
	t.Parallel()
	got, closing, err := underWayAtTheEnd(t, func(f *fixture, c *client) { c.send("PING") })
	if got != "ALIVE 2000\n" || err != nil {
		t.Errorf("read %q, error %v, want the promise and the end", got, err)
	}
	if !closing.Acknowledged {
		t.Errorf("given back %v, want acknowledged", closing)
	}
}

// TestALeaderBehindAnALIVEDies, short as it is, and however many promises came before it.
func TestALeaderBehindAnALIVEDies(t *testing.T) {
	t.Parallel()
	_, closing, err := underWayAtTheEnd(t, func(f *fixture, c *client) { f.e.Push("g", "b") })
	if err == nil {
		t.Error("read the end of the connection, want a reset")
	}
	if closing.Acknowledged {
		t.Errorf("given back %v, want not acknowledged", closing)
	}
}

// underWayAtTheEnd gives what a client reads that has been promised something, and has not
// acknowledged a further line when its node loses its lease; and how it is given back. Whether
// a line is acknowledged soon is up to the kernel, and is tried out.
func underWayAtTheEnd(t *testing.T, line func(f *fixture, c *client)) (string, latchtest.Closing, error) {
	t.Helper()
	for range 100 {
		f := serve(t, extended)
		c := f.joinKeyed("g", "a", "hold=2000", "a 1")
		for range 10 { // from some lines on its kernel delays what it acknowledges
			c.send("PING")
			c.want("ALIVE 2000")
		}
		eventually(t, "nothing is queued", func() bool { return f.s.Queued() == 0 })
		c.delayAcks()
		sent := time.Now()
		line(f, c)
		eventually(t, "it has arrived", func() bool { return c.unread() > 0 })
		f.e.Lapse()
		queued := f.s.Queued() > 0
		f.e.EndAll()
		f.e.Sync()
		queued = queued && time.Since(sent) < 35*time.Millisecond // a delay is of 40 ms at least
		got, err := c.readAll()
		eventually(t, "it is given back", func() bool { return len(f.e.Closings()) == 1 })
		if queued {
			return got, f.e.Closings()[0], err
		}
	}
	t.Fatal("every line was acknowledged at once")
	panic("not reached")
}

// TestLEAVEWaitsForNobody: the membership is given back though nothing that is queued, nor
// the FIN, has arrived.
func TestLEAVEWaitsForNobody(t *testing.T) {
	t.Parallel()
	for _, words := range []string{"", " key=" + key + " hold=" + forGood} {
		f := serve(t, extended, func(cfg *latch.Config) { cfg.CloseGrace = time.Hour })
		f.s.SetCloseGrace(patience)
		c := f.dialSmall()
		c.send("JOIN g a" + words)
		c.want("LEADER a 1")
		waits := func() bool {
			for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if f.s.Queued() == 0 {
					return false
				}
			}
			return true
		}
		last := ""
		for n := 0; !waits(); n++ {
			last = fmt.Sprintf("%s-%d", strings.Repeat("n", 200), n)
			f.e.Push("g", last)
			f.e.Sync()
		}
		if _, draining, _ := f.s.Kept(); draining != 0 {
			t.Fatal("the server cannot write: it would not read the line either")
		}
		c.send("LEAVE")
		eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) == 1 })
		if f.s.Queued() == 0 {
			t.Error("all has arrived; the test tests nothing")
		}
		c.readsAgain()
		if got, err := c.readAll(); err != nil || !strings.Contains(got, last) {
			t.Errorf("the client read %d bytes, error %v; want all that was queued, and a FIN behind it", len(got), err)
		}
		c.TCPConn.Close()
	}
}

// TestLEAVEClosesBehindTheAnswers: what was answered before arrives, and what comes behind
// is no reason for a reset.
func TestLEAVEClosesBehindTheAnswers(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	c := f.joinKeyed("g", "a", "hold="+forGood, "a 1")
	c.send("?\nPING\nLEAVE\nPING\nJOIN g a")
	c.want("ERROR")
	c.want("ALIVE 2400")
	c.Write([]byte("?\n"))
	c.wantEnd()
	if _, err := io.ReadAll(c.r); err != nil {
		t.Errorf("then: %v", err)
	}
}

// TestPINGsAreSpaced: a client that asks too often waits, and costs next to nothing while it
// does.
func TestPINGsAreSpaced(t *testing.T) {
	t.Parallel()
	const perSecond, pings = 10, 6
	e := latchtest.NewElections()
	s := latch.NewServer(latch.Config{Elections: e, Extensions: true, MaxPings: perSecond})
	l, err := latch.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := &countingListener{Listener: l}
	go s.Serve(counted)
	defer func() { s.Close(); e.Close() }()
	f := &fixture{t: t, e: e, s: s, addr: l.Addr().String()}
	c := f.joinKeyed("g", "a", "hold=2000", "a 1")
	f.parks(1)
	began := time.Now()
	c.send(strings.Repeat("PING\n", pings) + "?")
	for i := range pings {
		c.want("ALIVE 2000")
		if took, want := time.Since(began), time.Duration(i)*time.Second/perSecond; took < want {
			t.Errorf("PING %d was answered after %v, want %v at least", i+1, took, want)
		}
	}
	c.want("ERROR")
	if n := counted.deadlines.Load(); n > 20*pings {
		t.Errorf("the connection was looked at %d times for %d PINGs", n, pings)
	}
	f.parks(1)
}

// countingListener counts how often a time limit is set for reads of its connections.
type countingListener struct {
	net.Listener
	deadlines atomic.Int64
}

type countingConn struct {
	*net.TCPConn
	deadlines *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), &l.deadlines}, nil
}

func (c countingConn) SetReadDeadline(t time.Time) error {
	c.deadlines.Add(1)
	return c.TCPConn.SetReadDeadline(t)
}

// TestNoKeyIsLogged: at no level, whatever becomes of the line that has it.
func TestNoKeyIsLogged(t *testing.T) {
	t.Parallel()
	limit := latch.NewLimit(4, 4)
	f := serve(t, extended, func(cfg *latch.Config) { cfg.JoinTimeout = 50 * time.Millisecond; cfg.Limit = limit })
	line := "JOIN g a key=" + key + " hold=2000"
	ends := func(c *client, want string) {
		c.t.Helper()
		if got, _ := c.readAll(); !strings.HasSuffix(got, want) {
			t.Errorf("read %q, want %q", got, want)
		}
		c.TCPConn.Close()
	}
	a := f.joinKeyed("g", "a", "hold=2000", "a 1")
	a.send(line + "\n" + line + " now")
	a.want("ALREADY_JOINED g a")
	a.want("ERROR")
	other := f.dial() // the name is in use
	other.send("JOIN g a key=" + strings.ToUpper(key) + " hold=0")
	ends(other, "JOIN_FAILED SERVICE_UNAVAILABLE\n")
	f.e.SetAvailable(false)
	refused := f.dial()
	refused.send(line)
	ends(refused, "JOIN_FAILED SERVICE_UNAVAILABLE\n")
	f.e.SetAvailable(true)
	odd := f.dial()
	odd.send("PROXY TCP4 192.0.2.1 " + line + " HTTP/1.1\n" + strings.Repeat(line+" now\n", 16))
	ends(odd, "ERROR\n")
	long := f.dial()
	long.send(line + strings.Repeat(" ", 2000))
	ends(long, "ERROR\n")
	b := f.joinKeyed("g", "b", "hold=0 fin=end", "a 1")
	b.send("LEAVE")
	ends(b, "")
	eventually(t, "they have gone", func() bool { return f.s.Conns() == 1 })
	for range 3 {
		f.dial()
	}
	eventually(t, "there are as many as are allowed", func() bool { return f.s.Conns() == 4 })
	over := f.dial()
	over.send(line)
	ends(over, "JOIN_FAILED SERVICE_UNAVAILABLE\n")
	f.s.Close()
	if lines := f.log.lines("connection ended"); len(lines) < 8 {
		t.Errorf("only %d ends are logged", len(lines))
	}
	for _, secret := range []string{key, strings.ToUpper(key)} {
		if lines := f.log.lines(secret); len(lines) > 0 {
			t.Errorf("logged: %q", lines)
		}
	}
}
