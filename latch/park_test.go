package latch_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"leaderlatch/latch"
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
	long := strings.Repeat("x", 300) // more than is read at a time
	for _, tc := range []struct {
		name, sent, want string
		closes           bool // its side, with the last byte
		parks            bool // afterwards
	}{
		{name: "a line", sent: "HELLO\n", want: "ERROR\n", parks: true},
		{name: "some lines", sent: strings.Repeat("HELLO\n", 10), want: strings.Repeat("ERROR\n", 10), parks: true},
		{name: "as much as is read at a time", sent: strings.Repeat("x", 255) + "\n", want: "ERROR\n", parks: true},
		{name: "more than that, in lines", sent: strings.Repeat(strings.Repeat("x", 127)+"\n", 12), want: strings.Repeat("ERROR\n", 12), parks: true},
		{name: "more than that, in one", sent: long + "\n", want: "ERROR\n", parks: true},
		{name: "a part of a line", sent: "HEL"},
		{name: "a line and a part", sent: "HELLO\nJOIN g", want: "ERROR\n"},
		{name: "JOIN and a line", sent: "JOIN other c\nHELLO\n", want: "LEADER c\nERROR\n", parks: true},
		{name: "a line and the end", sent: "HELLO\n", want: "ERROR\n", closes: true},
		{name: "only the end", closes: true},
	} {
		for _, joined := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, ", joined ", joined), func(t *testing.T) {
				t.Parallel()
				f := serve(t)
				c := f.dial()
				want := tc.want
				if joined {
					c.send("JOIN g c")
					c.want("LEADER c")
					want = strings.ReplaceAll(want, "LEADER c", "ALREADY_JOINED g c")
				}
				f.parks(1)
				if _, err := c.Write([]byte(tc.sent)); err != nil {
					t.Fatal(err)
				}
				if tc.closes {
					c.CloseWrite()
				}
				for line := range strings.Lines(want) {
					c.want(strings.TrimSuffix(line, "\n"))
				}
				switch {
				case tc.closes:
					if rest, _ := c.readAll(); rest != "" { // the end may be a reset: what is on its way dies then
						t.Errorf("got %q", rest)
					}
					eventually(t, "it has left", func() bool { return f.s.Conns() == 0 && len(f.e.Members("g")) == 0 })
				case tc.parks:
					f.parks(1)
				default:
					f.parks(0)
				}
			})
		}
	}
}

// The time to join, and that for an answer, pass for who is parked too.
func TestTimePassesForWhoIsParked(t *testing.T) {
	const limit = 300 * time.Millisecond
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
		time.Sleep(2 * limit) // what does not come cannot be polled for
		c.send("HELLO")
		c.want("ERROR")
	})
}

// A log that hangs, as its disk does, delays nobody who is parked.
func TestParkedClientsDoNotWaitForALog(t *testing.T) {
	hangs := make(chan struct{})
	f := serve(t, func(cfg *latch.Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(hangingLog(hangs), &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	defer close(hangs)
	all := []*client{f.dial(), f.dial(), f.dial()}
	f.parks(len(all))
	for i, c := range all {
		c.send(fmt.Sprint("JOIN g c", i))
		c.want("LEADER c0")
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
