package latch_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// benchServer starts a server that logs nothing.
func benchServer(b *testing.B) (*latch.Server, *latchtest.Elections, string) {
	l, err := latch.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	e := latchtest.NewElections()
	s := latch.NewServer(latch.Config{Elections: e})
	go s.Serve(l)
	b.Cleanup(func() { s.Close(); e.Close() })
	return s, e, l.Addr().String()
}

// BenchmarkJoin opens a connection, joins, is answered and leaves; the client's
// side is measured too.
func BenchmarkJoin(b *testing.B) {
	_, _, addr := benchServer(b)
	want := []byte("LEADER worker-17.example.com:7077\n")
	buf := make([]byte, len(want))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(c, "JOIN group-%d worker-17.example.com:7077\n", n)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkPush tells 1,000 connections of a new leader. Their clients read along,
// on the same processors.
func BenchmarkPush(b *testing.B) {
	const members = 1000
	_, e, addr := benchServer(b)
	var reading sync.WaitGroup
	var conns []net.Conn
	for i := range members {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(c, "JOIN g member-%d\n", i)
		conns = append(conns, c)
		reading.Go(func() { io.Copy(io.Discard, struct{ io.Reader }{c}) })
	}
	eventually(b, "all have joined", func() bool { return len(e.Members("g")) == members })
	e.Sync()
	names := [...]string{"worker-1.example.com:7077", "worker-2.example.com:7077"}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		e.Push("g", names[n%2])
		e.Sync()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members), "ns/line")
	b.StopTimer()
	for _, c := range conns {
		c.Close()
	}
	reading.Wait()
}

// BenchmarkEndAll is the closing of 1,000 joined connections in a row, as at the
// loss of a lease.
func BenchmarkEndAll(b *testing.B) {
	const members = 1000
	var conns [members]net.Conn
	for b.Loop() {
		b.StopTimer()
		s, e, addr := benchServer(b)
		for i := range conns {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			fmt.Fprintf(c, "JOIN g member-%d\n", i)
			conns[i] = c
		}
		eventually(b, "all have joined", func() bool { return len(e.Members("g")) == members })
		e.Sync()
		b.StartTimer()
		e.EndAll()
		e.Sync()
		b.StopTimer()
		for _, c := range conns {
			c.Close()
		}
		s.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members), "ns/close")
}

// idleClients, in the environment, has the process of the test be that many clients
// of the address in idleAddress: theirs must not be in the figures.
const idleClients, idleAddress = "LATCH_IDLE_CLIENTS", "LATCH_IDLE_ADDRESS"

func TestIdleClients(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(idleClients))
	if err != nil {
		t.Skip("is a part of BenchmarkIdle")
	}
	for i := range n {
		c, err := net.Dial("tcp", os.Getenv(idleAddress))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "JOIN group-%d worker-%d.example.com:7077\n", i/5, i)
	}
	io.Copy(io.Discard, os.Stdin) // until its parent is done
}

// BenchmarkIdle is what a connection that has joined takes while nothing happens,
// without what the kernel has for it: memory of the process, of the heap and of
// stacks. As many as descriptors allow, 10,000 at most, are measured at once.
func BenchmarkIdle(b *testing.B) {
	members := 10_000
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		b.Fatal(err)
	}
	members = min(members, int(files.Cur)-100)
	for b.Loop() {
		e := &leaderless{joins: make(chan latch.Member, members)}
		l, err := latch.Listen(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := latch.NewServer(latch.Config{Elections: e})
		go s.Serve(l)
		rss, heap, stacks := memory(b)
		clients := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestIdleClients$")
		clients.Env = append(os.Environ(), fmt.Sprint(idleClients, "=", members), idleAddress+"="+l.Addr().String())
		hold, err := clients.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := clients.Start(); err != nil {
			b.Fatal(err)
		}
		for range members {
			(<-e.joins).Leader("worker-17.example.com:7077", 1)
		}
		rss2, heap2, stacks2 := memory(b)
		b.ReportMetric(float64(rss2-rss)/float64(members), "B-rss/member")
		b.ReportMetric(float64(heap2-heap)/float64(members), "B-heap/member")
		b.ReportMetric(float64(stacks2-stacks)/float64(members), "B-stack/member")
		hold.Close()
		clients.Wait()
		s.Close()
	}
}

// leaderless is an Elections that keeps nothing: whoever has it answers.
type leaderless struct{ joins chan latch.Member }

func (e *leaderless) Join(_, _ string, m latch.Member) (latch.Membership, error) {
	e.joins <- m
	return e, nil
}
func (e *leaderless) JoinKeyed(group, client string, _ latch.Keyed, m latch.Member) (latch.Membership, error) {
	return e.Join(group, client, m)
}
func (*leaderless) Alive() bool { return true }
func (*leaderless) Observe(string, latch.Observer) (latch.Observation, error) {
	return nil, latch.ErrUnavailable
}
func (*leaderless) Missing() error                    { return nil }
func (*leaderless) Live() bool                        { return true }
func (*leaderless) Promise() (now, later bool)        { return true, false }
func (*leaderless) Stopped()                          {}
func (*leaderless) Closed(string, bool) time.Duration { return 0 }

func memory(b *testing.B) (rss, heap, stacks uint64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages uint64
	fmt.Sscan(string(text), &size, &pages)
	return pages * uint64(os.Getpagesize()), m.HeapAlloc, m.StackInuse
}
