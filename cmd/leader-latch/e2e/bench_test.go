package e2e

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
// them BenchmarkFlush: what the disk takes for one durable write, as a commit on one
// node is. Clusters are measured by "make bench" (measure_test.go).

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
		l = append(l, flush(b, f, block))
	}
	l.report(b)
}

// flush is the time of one durable append.
func flush(t testing.TB, f *os.File, block []byte) time.Duration {
	start := time.Now()
	if _, err := f.Write(block); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
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
