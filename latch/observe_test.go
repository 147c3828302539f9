package latch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"leaderlatch/latch"
)

// observe opens a connection that observes a group.
func (f *fixture) observe(group, first string) *client {
	f.t.Helper()
	c := f.dial()
	c.send("OBSERVE " + group)
	c.want(first)
	return c
}

// Observers count for nobody: when they come, go and are closed, no member notices.
func TestAnObserverIsNoMember(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	o := f.observe("g", "NO_LEADER 1")
	a := f.join("g", "a", "a 2")
	o.want("LEADER a 2")
	if got := f.e.Members("g"); len(got) != 1 {
		t.Errorf("members %q", got)
	}
	f.observe("g", "LEADER a 2").TCPConn.Close()
	o.send("LEAVE")
	o.wantEnd()
	eventually(t, "no observer is left", func() bool { return f.e.Observers("g") == 0 })
	if n := len(f.e.Closings()); n != 0 {
		t.Errorf("%d memberships were given back", n)
	}
	a.send("?")
	a.want("ERROR")
}

// An observer that is silent is parked, and is told of changes all the same.
func TestAParkedObserver(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	o := f.observe("g", "NO_LEADER 1")
	f.parks(1)
	a := f.join("g", "a", "a 2")
	o.want("LEADER a 2")
	a.TCPConn.Close()
	o.want("NO_LEADER 3")
	o.CloseWrite()
	o.wantEnd()
	eventually(t, "it is forgotten", func() bool { return f.e.Observers("g") == 0 && f.s.Conns() == 0 })
}

// Once the node may not speak, it tells observers nothing either.
func TestObserversAreGated(t *testing.T) {
	t.Parallel()
	f := serve(t, extended)
	f.join("g", "a", "a 1")
	o := f.observe("g", "LEADER a 1")
	f.e.Lapse()
	o.send("?") // speaks of nothing, and is answered
	o.want("ERROR")
	f.e.Push("g", "b")
	if got, _ := o.readAll(); got != "" {
		t.Errorf("the observer read %q, want nothing", got)
	}
	f.e.Kill()
	eventually(t, "all are closed", func() bool { return f.s.Conns() == 0 })
}

// An OBSERVE that cannot be answered is refused like a JOIN.
func TestAnObserveIsRefused(t *testing.T) {
	t.Parallel()
	const refusal = "JOIN_FAILED SERVICE_UNAVAILABLE\n"
	for _, c := range []struct {
		name   string
		before func(f *fixture)
		after  func(f *fixture)
	}{
		{"elections are unavailable", func(f *fixture) { f.e.SetAvailable(false) }, func(*fixture) {}},
		{"there is no answer in time", func(f *fixture) { f.e.Hold() }, func(*fixture) {}},
		{"the node may not speak when there is one", func(f *fixture) { f.e.Hold() }, func(f *fixture) {
			eventually(t, "it waits", func() bool { return f.e.Observers("g") == 1 })
			f.e.Lapse()
			f.e.Release()
		}},
		{"the server stops", func(f *fixture) { f.e.Hold() }, func(f *fixture) {
			eventually(t, "it waits", func() bool { return f.e.Observers("g") == 1 })
			f.s.Refuse()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, extended, func(cfg *latch.Config) { cfg.JoinTimeout = 500 * time.Millisecond })
			c.before(f)
			o := f.dial()
			o.send("OBSERVE g")
			c.after(f)
			if got, err := o.readAll(); got != refusal || err != nil {
				t.Errorf("read %q, error %v, want the refusal and the end", got, err)
			}
			eventually(t, "it is forgotten", func() bool { return f.e.Observers("g") == 0 })
			eventually(t, "the log says so", func() bool { return len(f.log.lines("OBSERVE refused")) == 1 })
			if line := f.log.lines("OBSERVE refused")[0]; strings.Contains(line, "client=") {
				t.Errorf("the log says %q", line)
			}
		})
	}
}

// A slow observer misses leaders in between, and never the last one.
func TestASlowObserverIsToldTheLastLeader(t *testing.T) {
	t.Parallel()
	f := serve(t, extended, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	f.join("g", "a", "a 1")
	o := f.dialSmall()
	o.send("OBSERVE g")
	o.want("LEADER a 1")
	for pushed := 0; !f.stuckFor(200*time.Millisecond, 1); {
		for range 500 {
			pushed++
			f.e.Push("g", fmt.Sprintf("%s-%d", strings.Repeat("n", 200), pushed))
		}
		if f.e.Sync(); pushed > 300_000 {
			t.Fatal("the observer does not get stuck; the test tests nothing")
		}
	}
	f.e.Push("g", "end")
	f.e.Sync()
	o.readsAgain()
	read := 0
	for last := ""; !strings.HasPrefix(last, "LEADER end "); read++ {
		var err error
		if last, err = o.line(); err != nil {
			t.Fatalf("after %d lines: %v", read, err)
		}
	}
}
