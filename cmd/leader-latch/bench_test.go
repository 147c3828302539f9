package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The latencies that a client sees, of a real process on a real disk. Beside
// them BenchmarkFlush: what the disk takes for one durable write, of which a
// commit on one node needs two in a row.

// latencies collects durations and reports their median and 99th percentile.
type latencies []time.Duration

func (l latencies) report(b *testing.B) {
	slices.Sort(l)
	at := func(p int) float64 { return float64(l[(len(l)-1)*p/100].Nanoseconds()) / 1e6 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(0, "ns/op") // a mean over set-up and all says nothing
}

// BenchmarkFlush appends 4 KiB to a file and waits until it is on disk.
func BenchmarkFlush(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	var l latencies
	for b.Loop() {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		l = append(l, time.Since(start))
	}
	l.report(b)
}

// BenchmarkJoin is the time from JOIN to LEADER of a client that is connected
// already and alone in a fresh group.
func BenchmarkJoin(b *testing.B) { benchmarkJoin(b, false) }

// BenchmarkConnectAndJoin is the same with the connecting.
func BenchmarkConnectAndJoin(b *testing.B) { benchmarkJoin(b, true) }

func benchmarkJoin(b *testing.B, connecting bool) {
	p := start(b, b.TempDir(), "leader_latch.timing = normal")
	var l latencies
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		c := p.dial()
		if !connecting {
			start = time.Now()
		}
		c.send("JOIN g%d me\n", i)
		c.want("LEADER me")
		l = append(l, time.Since(start))
		c.Close()
	}
	l.report(b)
}

// BenchmarkHandOver is the time from the close of the leader's connection to
// the LEADER line that tells the next member that it leads.
func BenchmarkHandOver(b *testing.B) {
	p := start(b, b.TempDir(), "leader_latch.timing = normal")
	name := func(i int) string { return fmt.Sprintf("m%d", i) }
	leader := p.join("g", name(0), name(0))
	var l latencies
	for i := 1; b.Loop(); i++ {
		next := p.join("g", name(i), name(i-1))
		start := time.Now()
		leader.Close()
		next.want("LEADER " + name(i))
		l = append(l, time.Since(start))
		leader = next
	}
	l.report(b)
}

// Three nodes, each a real process. The raft leader and the others differ in
// how far a commit has to go.

// BenchmarkThreeJoin is BenchmarkConnectAndJoin on a cluster.
func BenchmarkThreeJoin(b *testing.B) {
	leader, others := raftLeader(b, cluster(b, 3))
	for _, at := range []struct {
		name string
		node *member
	}{{"raft-leader", leader}, {"follower", others[0]}} {
		b.Run(at.name, func(b *testing.B) {
			var l latencies
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				c := at.node.dial()
				c.send("JOIN %s-%d-%d me\n", at.name, b.N, i)
				c.want("LEADER me")
				l = append(l, time.Since(start))
				c.Close()
			}
			l.report(b)
		})
	}
}

// BenchmarkThreeHandOver is BenchmarkHandOver on a cluster: from the close of
// the leader's connection at one node to the line at the next member's.
func BenchmarkThreeHandOver(b *testing.B) {
	leader, others := raftLeader(b, cluster(b, 3))
	for _, way := range []struct {
		name     string
		from, to *member
	}{
		{"raft-leader-to-raft-leader", leader, leader},
		{"raft-leader-to-follower", leader, others[0]},
		{"follower-to-raft-leader", others[0], leader},
		{"follower-to-same-follower", others[0], others[0]},
		{"follower-to-other-follower", others[0], others[1]},
	} {
		b.Run(way.name, func(b *testing.B) {
			var l latencies
			for i := 0; b.Loop(); i++ {
				group := fmt.Sprintf("%s-%d-%d", way.name, b.N, i)
				first := way.from.join(group, "a", "a")
				next := way.to.join(group, "b", "a")
				start := time.Now()
				first.Close()
				next.want("LEADER b")
				l = append(l, time.Since(start))
				next.Close()
			}
			l.report(b)
		})
	}
}
