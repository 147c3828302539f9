package latch_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// parkAtOnce is set where the tests run with connections that are parked at once.
const parkAtOnce = "LEADER_LATCH_TEST_PARK_AT_ONCE"

// All that the other tests claim holds for parked connections too.
func TestAllOfThisWhileParked(t *testing.T) {
	if os.Getenv(parkAtOnce) != "" {
		t.Skip("this is it")
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=5m")
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), parkAtOnce+"=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// parks waits until so many connections are parked.
func (f *fixture) parks(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprint(n, " connections are parked"), func() bool { return f.s.Parked() == n })
}

// Who waits to be told costs no goroutine of its own, and misses nothing for that.
func TestWhoIsSilentIsParked(t *testing.T) {
	f := serve(t)
	const members = 50
	var all []*client
	for i := range members {
		all = append(all, f.join("g", fmt.Sprint("c", i), "c0"))
	}
	f.parks(members)

	all[1].send("HELLO")
	all[1].want("ERROR")
	f.parks(members)
	if _, err := all[1].Write([]byte("JOIN g ")); err != nil { // it is not done with its line
		t.Fatal(err)
	}
	f.parks(members - 1)
	all[1].send("x")
	all[1].want("ALREADY_JOINED g c1")
	f.parks(members)

	all[0].TCPConn.Close()
	for _, c := range all[1:] {
		c.want("LEADER c1")
	}
	all[1].reset()
	for _, c := range all[2:] {
		c.want("LEADER c2")
	}
	f.parks(members - 2)
	f.e.End("g", "c2")
	all[2].wantEnd()
	all[2].TCPConn.Close()
	for _, c := range all[3:] {
		c.want("LEADER c3")
	}
	eventually(t, "those have left", func() bool { return f.s.Conns() == members-3 })
	f.s.Close()
	for _, c := range all[3:] {
		c.wantEnd()
	}
}

// Who has not joined yet is parked as well, and whatever it says then, in whatever
// pieces, is answered as by a goroutine of its own.
func TestWhatParkedClientsSay(t *testing.T) {
	line := strings.Repeat("x", 127) + "\n" // two of them are as much as is read at a time
	for _, tc := range []struct {
		name, sent, want string
		closes           bool   // its side, with the last byte
		rest, answer     string // sent then, and the answer
	}{
		{name: "a line", sent: "HELLO\n", want: "ERROR\n"},
		{name: "some lines", sent: strings.Repeat("HELLO\n", 3), want: strings.Repeat("ERROR\n", 3)},
		{name: "many lines", sent: strings.Repeat("HELLO\n", 12), want: strings.Repeat("ERROR\n", 12)},
		{name: "as much as is read at a time", sent: line + line, want: "ERROR\nERROR\n"},
		{name: "more than that, in lines", sent: strings.Repeat(line, 12), want: strings.Repeat("ERROR\n", 12)},
		{name: "more than that, in one", sent: strings.Repeat("x", 300) + "\n", want: "ERROR\n"},
		{name: "a part of a line", sent: "HEL", rest: "LO\n", answer: "ERROR"},
		{name: "a line and a part", sent: "HELLO\nJOIN other", want: "ERROR\n", rest: " c\n", answer: "LEADER c"},
		{name: "JOIN and a line", sent: "JOIN other c\nHELLO\n", want: "LEADER c\nERROR\n"},
		{name: "a line and the end", sent: "HELLO\n", want: "ERROR\n", closes: true},
		{name: "only the end", closes: true},
	} {
		for _, joined := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, ", joined ", joined), func(t *testing.T) {
				t.Parallel()
				f := serve(t)
				c := f.dial()
				want, answer := tc.want, tc.answer
				if joined {
					c.send("JOIN g c")
					c.want("LEADER c")
					want = strings.ReplaceAll(want, "LEADER c", "ALREADY_JOINED g c")
					answer = strings.ReplaceAll(answer, "LEADER c", "ALREADY_JOINED g c")
				}
				f.parks(1)
				c.together(func() {
					c.Write([]byte(tc.sent))
					if tc.closes {
						c.CloseWrite()
					}
				})
				for line := range strings.Lines(want) {
					c.want(strings.TrimSuffix(line, "\n"))
				}
				if tc.closes {
					if rest, _ := c.readAll(); rest != "" { // the end may be a reset: what is on its way dies then
						t.Errorf("got %q", rest)
					}
					eventually(t, "it has left", func() bool { return f.s.Conns() == 0 && len(f.e.Members("g")) == 0 })
					return
				}
				if tc.rest != "" {
					f.parks(0)
					c.Write([]byte(tc.rest))
					c.want(answer)
				}
				f.parks(1)
			})
		}
	}
}

// together has what f sends arrive at once, in one segment.
func (c *client) together(f func()) {
	c.t.Helper()
	c.cork(1)
	f()
	c.cork(0)
}

func (c *client) cork(on int) {
	c.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, on) })
}

func (c *client) control(f func(fd int) error) {
	c.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { err = f(int(fd)) })
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// standstill is elections at which the JOIN to the group "stands" does not return before
// goOn is called, so that whoever reads its client stands still.
type standstill struct {
	*latchtest.Elections
	stands, held chan struct{} // closed when it does, and to have it go on
	goOn         func()
}

func standStill(cfg *latch.Config) (s standstill) {
	s = standstill{Elections: cfg.Elections.(*latchtest.Elections), stands: make(chan struct{}), held: make(chan struct{})}
	s.goOn = sync.OnceFunc(func() { close(s.held) })
	cfg.Elections = s
	return s
}

func (s standstill) Join(group, client string, m latch.Member) (latch.Membership, error) {
	if group == "stands" {
		close(s.stands)
		<-s.held
	}
	return s.Elections.Join(group, client, m)
}

// A read stops at urgent data, and what stands behind that was told of already.
func TestALineBehindUrgentDataIsAnswered(t *testing.T) {
	var e standstill
	f := serve(t, func(cfg *latch.Config) { e = standStill(cfg) })
	defer e.goOn()
	c, other := f.dial(), f.dial()
	f.parks(2)
	other.send("JOIN stands other")
	<-e.stands // and nobody reads what arrives meanwhile
	c.send("ONE")
	c.control(func(fd int) error { return unix.Sendto(fd, []byte{'!'}, unix.MSG_OOB, nil) })
	c.send("TWO")
	eventually(t, "all of it has arrived", c.arrived)
	e.goOn()
	c.want("ERROR")
	c.want("ERROR")
	other.want("LEADER other")
}

// arrived reports whether the server's kernel has all that the client has sent.
func (c *client) arrived() (yes bool) {
	c.control(func(fd int) error {
		n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
		yes = n == 0
		return err
	})
	return yes
}

// Who says much is read by a goroutine of its own, and nobody waits for that.
func TestWhoSaysMuchDelaysNobody(t *testing.T) {
	var e standstill
	f := serve(t, func(cfg *latch.Config) { e = standStill(cfg) })
	defer e.goOn()
	c, other := f.dial(), f.dial()
	f.parks(2)
	c.send(strings.Repeat("HELLO\n", 4) + "JOIN stands c")
	for range 4 {
		c.want("ERROR")
	}
	other.send("HELLO")
	other.want("ERROR")
}

// A line behind a JOIN waits for its answer, and not longer, though nobody waited for the
// connection any more.
func TestALineBehindAJoinIsAnsweredAfterIt(t *testing.T) {
	f := serve(t, func(cfg *latch.Config) { cfg.JoinTimeout = time.Hour })
	f.e.Hold()
	c := f.dial()
	f.parks(1)
	c.send("JOIN g c\nHELLO")
	eventually(t, "it is to be parked, and stays for its line", func() bool { return f.s.Staying() == 1 })
	f.e.Release()
	c.want("LEADER c")
	c.want("ERROR")
	f.parks(1)
}

// Who has begun a line behind a JOIN may be parked from its answer on, when the line has
// come.
func TestALineBegunBehindAJoin(t *testing.T) {
	f := serve(t, func(cfg *latch.Config) { cfg.JoinTimeout = time.Hour })
	f.e.Hold()
	c := f.dial()
	f.parks(1)
	if _, err := c.Write([]byte("JOIN g c\nHEL")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is to be parked, and stays for its line", func() bool { return f.s.Staying() == 1 })
	f.e.Release()
	c.want("LEADER c")
	if n := f.s.Staying(); n != 0 {
		t.Errorf("%d connections are not to be parked", n)
	}
	c.send("LO")
	c.want("ERROR")
	f.parks(1)
}

// The time to join, and that for an answer, pass for who is parked too.
func TestTimePassesForWhoIsParked(t *testing.T) {
	const limit = 3 * time.Second
	t.Run("to join", func(t *testing.T) {
		t.Parallel()
		began := time.Now()
		f := serve(t, func(cfg *latch.Config) { cfg.IdleTimeout = limit })
		c := f.dial()
		f.parks(1)
		c.wantEnd()
		if took := time.Since(began); took < limit {
			t.Errorf("ended after %v, before %v", took, limit)
		}
	})
	t.Run("for an answer", func(t *testing.T) {
		t.Parallel()
		f := serve(t, func(cfg *latch.Config) { cfg.JoinTimeout = limit })
		f.e.Hold()
		c := f.dial()
		f.parks(1)
		began := time.Now()
		c.send("JOIN g c")
		eventually(t, "the JOIN has been read", func() bool { return f.s.Asked() == 1 })
		f.parks(1)
		c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
		c.wantEnd()
		if took := time.Since(began); took < limit {
			t.Errorf("refused after %v, before %v", took, limit)
		}
	})
	t.Run("not any more when it has joined", func(t *testing.T) {
		t.Parallel()
		f := serve(t, func(cfg *latch.Config) { cfg.IdleTimeout, cfg.JoinTimeout = limit, limit })
		c := f.dial()
		f.parks(1)
		c.send("JOIN g c")
		c.want("LEADER c")
		time.Sleep(limit + limit/4) // what does not come cannot be polled for
		c.send("HELLO")
		c.want("ERROR")
	})
}

// A log that hangs, as its disk does, delays nobody else who is parked.
func TestParkedClientsDoNotWaitForALog(t *testing.T) {
	for name, say := range map[string]func(c *client){
		"JOIN":                 func(c *client) { c.send("JOIN g c") },
		"JOIN and the end":     func(c *client) { c.together(func() { c.send("JOIN g c"); c.CloseWrite() }) },
		"JOIN and a long line": func(c *client) { c.send("JOIN g c\n" + strings.Repeat("x", 300)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hangs := make(chan struct{})
			f := serve(t, func(cfg *latch.Config) {
				cfg.Logger = slog.New(slog.NewTextHandler(hangingLog(hangs), &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			defer close(hangs)
			c, other := f.dial(), f.dial()
			f.parks(2)
			say(c)
			eventually(t, "the JOIN has been read", func() bool { return f.s.Asked() == 1 })
			other.send("HELLO")
			other.want("ERROR")
		})
	}
}

// hangingLog is a log whose writes wait until it is closed.
type hangingLog chan struct{}

func (h hangingLog) Write(p []byte) (int, error) {
	<-h
	return len(p), nil
}

// Where the kernel watches nothing for the server, a goroutine waits for each client.
func TestWithoutParking(t *testing.T) {
	f := serve(t)
	f.s.ParkNone()
	a, b := f.join("g", "a", "a"), f.join("g", "b", "a")
	eventually(t, "both are to be parked, and stay", func() bool { return f.s.Staying() == 2 && f.s.Parked() == 0 })
	eventually(t, "that is told of", func() bool { return len(f.log.lines("cannot be watched")) == 1 })
	b.send("HELLO")
	b.want("ERROR")
	a.TCPConn.Close()
	b.want("LEADER b")
}
