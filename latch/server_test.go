package latch_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// TestShutdown: it refuses what has not joined, leaves the joined to the
// elections, and returns when all have gone.
func TestShutdown(t *testing.T) {
	t.Parallel()
	f := serve(t)
	member := f.join("g", "a", "a")
	silent := f.dial()
	eventually(t, "both are accepted", func() bool { return f.s.Conns() == 2 })
	f.e.Hold()
	asks := f.joinPending("g", "b")

	down := make(chan error, 1)
	go func() { down <- f.s.Shutdown(t.Context()) }()
	silent.wantEnd()
	asks.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	asks.wantEnd()
	asks.TCPConn.Close()
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("a connection is accepted after Shutdown")
	}
	if err := f.s.Serve(silentListener{}); !errors.Is(err, latch.ErrServerClosed) {
		t.Errorf("Serve after Shutdown returned %v, want ErrServerClosed", err)
	}

	member.send("?") // still served
	member.want("ERROR")
	f.e.Push("g", "z")
	member.want("LEADER z")
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v with a member connected", err)
	default:
	}
	f.e.EndAll()
	member.wantEnd()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if n := f.s.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestShutdownGivesUp: the context bounds the wait, and Close ends the rest.
func TestShutdownGivesUp(t *testing.T) {
	t.Parallel()
	f := serve(t)
	member := f.join("g", "a", "a")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v, want the context's error", err)
	}
	member.send("?")
	member.want("ERROR")
	f.s.Close()
	member.wantEnd()
}

// TestJoinWhileStopping: a JOIN in the moment of Shutdown is refused, and the
// elections are not asked.
func TestJoinWhileStopping(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.dial()
	c.send("?")
	c.want("ERROR")
	f.s.BeginStop()
	c.send("JOIN g a")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()
	if m := f.e.Members("g"); len(m) != 0 {
		t.Errorf("the group has members: %v", m)
	}
}

// TestIdleTimeoutIsNotProlonged: lines that are no JOIN do not move it, and it
// ends where the JOIN is asked for.
func TestIdleTimeoutIsNotProlonged(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	f := serve(t, func(cfg *latch.Config) { cfg.IdleTimeout = limit; cfg.JoinTimeout = patience })
	f.e.Hold()
	pending := f.joinPending("g", "a")
	opened := time.Now()
	busy := f.dial()
	for range maxBadLines - 1 {
		if _, err := busy.Write([]byte("?\n")); err != nil {
			break
		}
		time.Sleep(limit / 10)
	}
	got, err := busy.readAll()
	if d := time.Since(opened); err != nil || strings.ReplaceAll(got, "ERROR\n", "") != "" || d < limit {
		t.Errorf("after %v read %q, error %v, want some ERRORs and then the end", d, got, err)
	}
	if strings.Count(got, "ERROR") > 12 {
		t.Errorf("%d lines were answered; the limit was prolonged", strings.Count(got, "ERROR"))
	}
	f.e.Release()
	pending.want("LEADER a")
}

const maxBadLines = 16

func TestLimit(t *testing.T) {
	t.Parallel()
	limit := latch.NewLimit(2, 2)
	const patience = 2 * time.Second
	limit.SetPatience(patience)
	f := serve(t, func(cfg *latch.Config) { cfg.Limit = limit })
	a := f.join("g", "a", "a")
	b := f.join("g", "b", "a")

	// Two more wait for their first line.
	asks, silent := f.dial(), f.dial()
	eventually(t, "two are over the limit", func() bool { return f.s.Conns() == 4 })
	// A further one is closed at once.
	opened := time.Now()
	beyond := f.dial()
	if got, _ := beyond.readAll(); got != "" || time.Since(opened) > patience {
		t.Errorf("one beyond all limits read %q after %v", got, time.Since(opened))
	}
	asks.Write([]byte("JOIN g c\r\nJOIN g c\r\n"))
	asks.want("JOIN_FAILED SERVICE_UNAVAILABLE\r")
	asks.wantEnd()
	silent.wantEnd()
	asks.TCPConn.Close()
	silent.TCPConn.Close()
	eventually(t, "their places are free", func() bool { return f.s.Conns() == 2 })
	bad := f.dial()
	bad.send("?")
	bad.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	bad.wantEnd()

	// The members did not notice, and a place that comes free is taken again.
	b.TCPConn.Close()
	eventually(t, "b has gone", func() bool { return slices.Equal(f.e.Members("g"), []string{"a"}) })
	eventually(t, "its place is free", func() bool { return f.s.Conns() <= 2 })
	f.join("g", "c", "a")
	a.send("?")
	a.want("ERROR")
	if n := len(f.log.lines("connection limit reached")); n == 0 || n > 3 {
		t.Errorf("the limit was logged %d times, want about once a second", n)
	}
}

// TestLimitIsShared: servers with the same Limit count together.
func TestLimitIsShared(t *testing.T) {
	t.Parallel()
	limit := latch.NewLimit(1, 1)
	f := serve(t, func(cfg *latch.Config) { cfg.Limit = limit })
	g := serve(t, func(cfg *latch.Config) { cfg.Limit = limit })
	f.join("g", "a", "a")
	c := g.dial()
	c.send("JOIN g b")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()
}

func TestFencing(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.Fencing = true })
	a := f.join("g", "a", "a 1")
	b := f.join("g", "b", "a 1")
	b.send("JOIN g b")
	b.want("ALREADY_JOINED g b")
	a.TCPConn.Close()
	b.want("LEADER b 2")
	f.e.Push("g", "b") // the same name with another token is news
	b.want("LEADER b 3")
}

// silentListener never accepts anything.
type silentListener struct{}

func (silentListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (silentListener) Close() error              { return nil }
func (silentListener) Addr() net.Addr            { return new(net.TCPAddr) }

// brokenListener fails as often as it has errors.
type brokenListener struct {
	silentListener
	errs   []error
	times  []time.Time
	closed chan struct{}
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.times = append(l.times, time.Now())
	if len(l.errs) == 0 {
		<-l.closed
		return nil, net.ErrClosed
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
}

func (l *brokenListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// TestAcceptBacksOff: without descriptors Serve waits 5 ms, then twice as long,
// up to 250 ms.
func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := latchtest.NewElections()
		defer e.Close()
		s := latch.NewServer(latch.Config{Elections: e})
		l := &brokenListener{errs: slices.Repeat([]error{syscall.EMFILE}, 9), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		time.Sleep(time.Minute)
		s.Close()
		if err := <-served; !errors.Is(err, latch.ErrServerClosed) {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
		var pauses []time.Duration
		for i := 1; i < len(l.times); i++ {
			pauses = append(pauses, l.times[i].Sub(l.times[i-1])/time.Millisecond)
		}
		if want := []time.Duration{5, 10, 20, 40, 80, 160, 250, 250, 250}; !slices.Equal(pauses, want) {
			t.Errorf("paused %d ms, want %d", pauses, want)
		}
	})
}

// TestCloseEndsBackOff: Close does not wait for the end of a pause.
func TestCloseEndsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := latchtest.NewElections()
		defer e.Close()
		s := latch.NewServer(latch.Config{Elections: e})
		l := &brokenListener{errs: slices.Repeat([]error{syscall.ENFILE}, 1000), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		time.Sleep(10*time.Second + time.Millisecond)
		start := time.Now()
		s.Close()
		if err := <-served; !errors.Is(err, latch.ErrServerClosed) || time.Since(start) > 0 {
			t.Errorf("Serve returned %v after %v, want ErrServerClosed at once", err, time.Since(start))
		}
	})
}

// TestServeReturnsOtherErrors: an error that will not pass ends Serve.
func TestServeReturnsOtherErrors(t *testing.T) {
	e := latchtest.NewElections()
	defer e.Close()
	s := latch.NewServer(latch.Config{Elections: e})
	l := &brokenListener{errs: []error{syscall.EBADF}, closed: make(chan struct{})}
	if err := s.Serve(l); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Serve returned %v, want EBADF", err)
	}
}

// TestCloseLeavesNothing: Close waits for connections of every state.
func TestCloseLeavesNothing(t *testing.T) {
	f := serve(t)
	f.join("g", "a", "a")
	f.join("g", "b", "a")
	f.dial()
	f.e.Hold()
	f.joinPending("g", "c")
	f.s.Close()
	if n := f.s.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	// TestMain looks for goroutines.
}
