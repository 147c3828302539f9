package latch_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

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
