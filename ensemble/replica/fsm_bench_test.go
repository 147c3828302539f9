package replica

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

var sizes = []int{1_000, 10_000, 100_000, 1_000_000}

// BenchmarkApply is a Join and a Leave of a state that has members already,
// through the encoding of their entries and the state machine as Raft drives it.
func BenchmarkApply(b *testing.B) {
	for _, perGroup := range []int{5, 10_000} {
		for _, members := range sizes {
			b.Run(fmt.Sprintf("groupsOf=%d/members=%d", perGroup, members), func(b *testing.B) {
				f := newFSM(nobody{})
				c := f.fill(members, perGroup)
				log := &raft.Log{}
				b.ReportAllocs()
				b.ResetTimer()
				for done := 0; done < b.N; {
					var joins []state.Join
					b.StopTimer()
					entry := state.Entry{At: time.UnixMilli(1444000000123)}
					for n := members; len(entry.Ops) < statetest.Batch; n++ {
						joins = append(joins, c.Join(n, perGroup))
						entry.Ops = append(entry.Ops, joins[n-members])
					}
					leaves := state.Entry{At: entry.At}
					for n, j := range joins {
						leaves.Ops = append(leaves.Ops, c.Leave(members+n, j))
					}
					joined, left := state.Encode(state.NewestLevel, entry), state.Encode(state.NewestLevel, leaves)
					b.StartTimer()
					for _, data := range [][]byte{joined, left} {
						c.Index++
						log.Index, log.Data = c.Index, data
						if err := f.Apply(log); err != nil {
							b.Fatal(err)
						}
					}
					done += statetest.Batch
				}
			})
		}
	}
}

func (f *fsm) fill(members, perGroup int) *statetest.Crowd {
	c := &statetest.Crowd{}
	c.Fill(members, perGroup, func(index uint64, entry state.Entry) {
		f.Apply(&raft.Log{Index: index, Data: state.Encode(state.NewestLevel, entry)})
	})
	return c
}

// BenchmarkSnapshot takes a snapshot of a million members while one entry after
// the other is applied, and reports for how long the state machine was held at
// most, by the taking itself, by the reading or by an Apply beside that: in time of
// the processor, for other processes are no part of it.
func BenchmarkSnapshot(b *testing.B) {
	const members = 1_000_000
	for _, perGroup := range []int{1, 5, 10_000} {
		b.Run(fmt.Sprintf("groupsOf=%d", perGroup), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			f := newFSM(nobody{})
			c := f.fill(members, perGroup)
			applied := 0
			apply := func() time.Duration {
				n := (applied * 7919) % members // one of the crowd leaves, and comes back as the last
				applied++
				c.Seqs[n%3]++
				data := state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Leave{Incarnation: c.Incs[n%3], Seq: c.Seqs[n%3], Join: uint64(n/3 + 1)}, c.Join(n, perGroup)}})
				c.Index++
				log := &raft.Log{Index: c.Index, Data: data}
				began := statetest.ThreadTime()
				f.Apply(log)
				return statetest.ThreadTime() - began
			}
			var taking, reading, applying, alone, writing time.Duration
			for b.Loop() {
				for range 100_000 {
					alone = max(alone, apply())
				}
				began := statetest.ThreadTime()
				snapshot, err := f.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				taking = max(taking, statetest.ThreadTime()-began)
				done := make(chan error, 1)
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					began := statetest.ThreadTime()
					lock := &timedLock{Locker: f.mu.RLocker()}
					done <- writeSnapshot(snapshot, &sizeSink{}, lock)
					reading, writing = max(reading, lock.held), max(writing, statetest.ThreadTime()-began)
				}()
				for running := true; running; {
					select {
					case err := <-done:
						if err != nil {
							b.Fatal(err)
						}
						running = false
					default:
						applying = max(applying, apply())
					}
				}
				snapshot.Release()
			}
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(taking), "ms/taking")
			b.ReportMetric(ms(reading), "ms/reading")
			b.ReportMetric(ms(applying), "ms/apply")
			b.ReportMetric(ms(alone), "ms/apply-alone")
			b.ReportMetric(ms(writing), "ms/writing")
		})
	}
}

// timedLock notes for how long it was held at most, by threadTime.
type timedLock struct {
	sync.Locker
	began, held time.Duration
}

func (l *timedLock) Lock() {
	l.Locker.Lock()
	l.began = statetest.ThreadTime()
}

func (l *timedLock) Unlock() {
	l.held = max(l.held, statetest.ThreadTime()-l.began)
	l.Locker.Unlock()
}

func writeSnapshot(s raft.FSMSnapshot, w io.Writer, lock sync.Locker) error {
	return s.(*fsmSnapshot).snapshot.Write(w, lock)
}

// sizeSink takes a snapshot and keeps its size alone.
type sizeSink struct{ size, largest int }

func (s *sizeSink) Write(b []byte) (int, error) {
	s.size += len(b)
	s.largest = max(s.largest, len(b))
	return len(b), nil
}
func (s *sizeSink) Close() error  { return nil }
func (s *sizeSink) ID() string    { return "" }
func (s *sizeSink) Cancel() error { return nil }

// BenchmarkRestore reads the snapshot of a million members, as a node does that
// starts.
func BenchmarkRestore(b *testing.B) {
	const members = 1_000_000
	for _, perGroup := range []int{1, 5, 10_000} {
		b.Run(fmt.Sprintf("groupsOf=%d", perGroup), func(b *testing.B) {
			f := newFSM(nobody{})
			f.fill(members, perGroup)
			snapshot, err := f.Snapshot()
			if err != nil {
				b.Fatal(err)
			}
			pipe := &bytesSink{}
			if err := snapshot.Persist(pipe); err != nil {
				b.Fatal(err)
			}
			f = nil
			b.ReportAllocs()
			for b.Loop() {
				f := newFSM(nobody{})
				if err := f.Restore(io.NopCloser(pipe.reader())); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(pipe.b)), "B/snapshot")
		})
	}
}

// bytesSink keeps a snapshot.
type bytesSink struct {
	sizeSink
	b []byte
}

func (s *bytesSink) Write(b []byte) (int, error) {
	s.b = append(s.b, b...)
	return s.sizeSink.Write(b)
}

func (s *bytesSink) reader() io.Reader { return bytes.NewReader(s.b) }
