package ensemble

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkDisk is what a cluster of three does on disks that take longer for each
// write of the log: one JOIN after the other at each place, then 512 at a time. The
// nodes are in one process, and their clients are no connections.
func BenchmarkDisk(b *testing.B) {
	for _, more := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
		b.Run(fmt.Sprintf("each write %v longer", more), func(b *testing.B) {
			all := foundersWith(b, 3, func(_ int, c *Config) {
				c.Logger = slog.New(slog.DiscardHandler)
				c.beforeCommit = func() {
					if more > 0 {
						time.Sleep(more)
					}
				}
			})
			leader, others := raftLeaderOf(b, all)
			b.Run("JOIN at the raft leader", func(b *testing.B) { benchmarkJoins(b, leader.Node) })
			b.Run("JOIN at a follower", func(b *testing.B) { benchmarkJoins(b, others[0].Node) })
			b.Run("512 at a time at all three", func(b *testing.B) {
				var next atomic.Int64
				b.SetParallelism(max(1, 512/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					n := all[next.Add(1)%3].Node
					for pb.Next() {
						joinAndLeave(b, n)
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
				b.ReportMetric(0, "ns/op")
			})
		})
	}
}

func benchmarkJoins(b *testing.B, n *Node) {
	var times []time.Duration
	for b.Loop() {
		times = append(times, joinAndLeave(b, n))
	}
	slices.Sort(times)
	at := func(p int) float64 { return float64(times[(len(times)-1)*p/100].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(0, "ns/op") // the leaving is in it
}

// passer is a Member that joins, is told, and leaves.
type passer struct {
	once sync.Once
	told chan struct{}
}

func (p *passer) Leader(string, uint64) { p.once.Do(func() { close(p.told) }) }
func (*passer) Waits(string)            {}
func (p *passer) Promised()             {}
func (*passer) Alive(time.Duration)     {}
func (p *passer) Close()                {}

var passers atomic.Int64

// joinAndLeave joins a group of its own, and gives the time until it is told.
func joinAndLeave(b *testing.B, n *Node) time.Duration {
	p := &passer{told: make(chan struct{})}
	group := fmt.Sprint("g", passers.Add(1))
	began := time.Now()
	m, err := n.Join(group, "a", p)
	if err != nil {
		b.Error(err)
		return 0
	}
	<-p.told
	took := time.Since(began)
	m.Closed("closed", true)
	return took
}
