package ensemble

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// crowd drives a state machine on which three nodes have sessions.
type crowd struct {
	index uint64
	incs  []Incarnation
	seqs  [3]uint64
}

// begin gives the first entry, in which the three sessions are opened.
func (c *crowd) begin() Entry {
	entry := Entry{At: time.UnixMilli(1444000000123), Ops: []Op{Found{"0123456789abcdef", 1444000000123456}, Activate{}}}
	c.index = 1
	for i := range 3 {
		c.incs = append(c.incs, Incarnation(positionOf(1, len(entry.Ops))))
		id := fmt.Sprintf("0123456789abcde%d", i)
		entry.Ops = append(entry.Ops, Open{NodeID(id), 1, "boot", 2 * time.Second, 2400 * time.Millisecond, "riak@10.0.0." + id, "10.0.0.1:5324", 1})
	}
	return entry
}

// join is the Join of the nth client, at one of the nodes.
func (c *crowd) join(n, perGroup int) Join {
	at := n % 3
	c.seqs[at]++
	return Join{c.incs[at], c.seqs[at], groupOf(n, perGroup), clientOf(n)}
}

func (c *crowd) leave(n int, join Join) Leave {
	at := n % 3
	c.seqs[at]++
	return Leave{c.incs[at], c.seqs[at], join.Seq}
}

func groupOf(n, perGroup int) string { return fmt.Sprintf("group-%d", n/perGroup) }
func clientOf(n int) string          { return fmt.Sprintf("worker-%d.example.com:7077", n) }

// batch is how many operations of a crowd share an entry.
const batch = 100

// fill makes members join.
func (c *crowd) fill(members, perGroup int, apply func(index uint64, entry Entry)) {
	apply(1, c.begin())
	for n := 0; n < members; {
		entry := Entry{At: time.UnixMilli(1444000000123)}
		for ; n < members && len(entry.Ops) < batch; n++ {
			entry.Ops = append(entry.Ops, c.join(n, perGroup))
		}
		c.index++
		apply(c.index, entry)
	}
}

func filled(members, perGroup int) (*State, *crowd) {
	s, c := NewState(), &crowd{}
	c.fill(members, perGroup, func(index uint64, entry Entry) {
		decoded, err := decodeEntry(encodeEntry(NewestLevel, entry))
		if err != nil {
			panic(err)
		}
		s.Apply(index, decoded, nil)
	})
	return s, c
}

var sizes = []int{1_000, 10_000, 100_000, 1_000_000}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkStateMemory is what a membership takes in the state of every node.
func BenchmarkStateMemory(b *testing.B) {
	const members = 1_000_000
	for _, perGroup := range []int{1, 5, 10_000} {
		b.Run(fmt.Sprintf("groupsOf=%d", perGroup), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				s, _ := filled(members, perGroup)
				b.ReportMetric(float64(heap()-before)/members, "B/member")
				runtime.KeepAlive(s)
			}
		})
	}
}

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
					var joins []Join
					b.StopTimer()
					entry := Entry{At: time.UnixMilli(1444000000123)}
					for n := members; len(entry.Ops) < batch; n++ {
						joins = append(joins, c.join(n, perGroup))
						entry.Ops = append(entry.Ops, joins[n-members])
					}
					leaves := Entry{At: entry.At}
					for n, j := range joins {
						leaves.Ops = append(leaves.Ops, c.leave(members+n, j))
					}
					joined, left := encodeEntry(NewestLevel, entry), encodeEntry(NewestLevel, leaves)
					b.StartTimer()
					for _, data := range [][]byte{joined, left} {
						c.index++
						log.Index, log.Data = c.index, data
						if err := f.Apply(log); err != nil {
							b.Fatal(err)
						}
					}
					done += batch
				}
			})
		}
	}
}

func (f *fsm) fill(members, perGroup int) *crowd {
	c := &crowd{}
	c.fill(members, perGroup, func(index uint64, entry Entry) {
		f.Apply(&raft.Log{Index: index, Data: encodeEntry(NewestLevel, entry)})
	})
	return c
}

func entryOfJoins() Entry {
	c := &crowd{}
	entry := Entry{At: c.begin().At}
	for n := range batch {
		entry.Ops = append(entry.Ops, c.join(n, 5))
	}
	return entry
}

func BenchmarkEncodeEntry(b *testing.B) {
	entry := entryOfJoins()
	b.ReportAllocs()
	for b.Loop() {
		encodeEntry(NewestLevel, entry)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/join")
}

func BenchmarkDecodeEntry(b *testing.B) {
	data := encodeEntry(NewestLevel, entryOfJoins())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeEntry(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/join")
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
				c.seqs[n%3]++
				data := encodeEntry(NewestLevel, Entry{Ops: []Op{Leave{c.incs[n%3], c.seqs[n%3], uint64(n/3 + 1)}, c.join(n, perGroup)}})
				c.index++
				log := &raft.Log{Index: c.index, Data: data}
				began := threadTime()
				f.Apply(log)
				return threadTime() - began
			}
			var taking, reading, applying, alone, writing time.Duration
			for b.Loop() {
				for range 100_000 {
					alone = max(alone, apply())
				}
				began := threadTime()
				snapshot, err := f.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				taking = max(taking, threadTime()-began)
				done := make(chan error, 1)
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					began := threadTime()
					lock := &timedLock{Locker: f.mu.RLocker()}
					done <- writeSnapshot(snapshot, &sizeSink{}, lock)
					reading, writing = max(reading, lock.held), max(writing, threadTime()-began)
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

// threadTime is the time that the processor has spent on this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// timedLock notes for how long it was held at most, by threadTime.
type timedLock struct {
	sync.Locker
	began, held time.Duration
}

func (l *timedLock) Lock() {
	l.Locker.Lock()
	l.began = threadTime()
}

func (l *timedLock) Unlock() {
	l.held = max(l.held, threadTime()-l.began)
	l.Locker.Unlock()
}

func writeSnapshot(s raft.FSMSnapshot, w io.Writer, lock sync.Locker) error {
	return s.(*fsmSnapshot).snapshot.write(w, lock)
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

// bookkeeper is what a node does for its clients, without Raft, disk and network:
// it proposes, and its own log has it the next moment.
type bookkeeper struct {
	roster   *roster
	dispatch *dispatcher
	fsm      *fsm
	index    uint64
	clock    reading
}

func newBookkeeper() *bookkeeper {
	n := &bookkeeper{dispatch: newDispatcher()}
	n.roster = newRoster(session{node: "n1", boot: "boot", name: "riak@10.0.0.1", address: "10.0.0.1:5324", timing: Normal}, &changing{},
		func() reading { return n.clock }, n.dispatch.add, slog.New(slog.DiscardHandler))
	n.fsm = newFSM(n)
	n.commit([]Op{Found{"c", 1000}, Activate{}})
	n.roster.Begin(1, n.clock)
	n.run()
	return n
}

func (n *bookkeeper) applied(s *State, effects []Effect, _ uint64) { n.roster.Applied(s, effects) }
func (n *bookkeeper) restored(s *State)                            { n.roster.Restored(s) }
func (n *bookkeeper) snapshotted(uint64)                           {}
func (n *bookkeeper) failed(err error)                             { panic(err) }

func (n *bookkeeper) commit(ops []Op) {
	n.index++
	n.fsm.Apply(&raft.Log{Index: n.index, Data: encodeEntry(NewestLevel, Entry{At: time.UnixMilli(1444000000123), Ops: ops})})
}

// run proposes and delivers all that there is.
func (n *bookkeeper) run() {
	for ops := n.roster.Batch(n.clock); len(ops) > 0; ops = n.roster.Batch(n.clock) {
		n.commit(ops)
		n.deliver()
	}
}

func (n *bookkeeper) deliver() {
	for _, v := range n.dispatch.queue {
		n.dispatch.deliver(v, nil)
	}
	n.dispatch.queue = n.dispatch.queue[:0]
	for len(n.dispatch.telling) > 0 {
		n.dispatch.tellSome()
	}
}

// deaf is a client that counts what it is told.
type deaf struct{ told *atomic.Int64 }

func (c deaf) Leader(string, uint64) { c.told.Add(1) }
func (deaf) Waits(string)            {}
func (c deaf) Promised()             {}
func (deaf) Close()                  {}

// join has clients join, and gives their memberships.
func (n *bookkeeper) join(b *testing.B, members, perGroup int, told *atomic.Int64) []*Membership {
	all := make([]*Membership, members)
	for i := range all {
		all[i] = n.roster.Join(groupOf(i, perGroup), clientOf(i), deaf{told})
		if i%batch == batch-1 {
			n.run()
		}
	}
	n.run()
	if told.Load() < int64(members) {
		b.Fatalf("%d of %d were told", told.Load(), members)
	}
	return all
}

// BenchmarkNodeMemory is what a client of the node takes beside its connection, its
// record in the state included.
func BenchmarkNodeMemory(b *testing.B) {
	const members = 40_000
	for _, perGroup := range []int{1, 5, 10_000} {
		b.Run(fmt.Sprintf("groupsOf=%d", perGroup), func(b *testing.B) {
			for b.Loop() {
				var told atomic.Int64
				n := newBookkeeper()
				before := heap()
				all := n.join(b, members, perGroup, &told)
				clear(all)
				b.ReportMetric(float64(heap()-before)/members, "B/member")
				runtime.KeepAlive(n)
			}
		})
	}
}

// BenchmarkOneGroup has 10,000 clients of one node join one group, then the first
// leave, which tells the others.
func BenchmarkOneGroup(b *testing.B) {
	const members = 10_000
	var joining, telling time.Duration
	for b.Loop() {
		var told atomic.Int64
		n := newBookkeeper()
		began := time.Now()
		all := n.join(b, members, members, &told)
		joining += time.Since(began)
		told.Store(0)
		began = time.Now()
		all[0].Closed(true)
		n.run()
		telling += time.Since(began)
		if told.Load() != members { // one has left, and the new leader is told before the others and among them
			b.Fatalf("%d were told of the new leader", told.Load())
		}
	}
	b.ReportMetric(float64(joining.Nanoseconds())/float64(b.N*members), "ns/join")
	b.ReportMetric(float64(telling.Nanoseconds())/float64(b.N*members), "ns/told")
}

// BenchmarkChurn is a client that joins, is told, and leaves, through all of the
// node's bookkeeping, in batches.
func BenchmarkChurn(b *testing.B) {
	var told atomic.Int64
	n := newBookkeeper()
	n.join(b, 10_000, 5, &told)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		all := make([]*Membership, batch)
		for i := range all {
			all[i] = n.roster.Join(groups[i], "worker-17.example.com:7077", deaf{&told})
		}
		n.run()
		for _, m := range all {
			m.Closed(true)
		}
		n.run()
	}
}

var groups = func() (names [batch]string) {
	for i := range names {
		names[i] = fmt.Sprintf("churn-%d", i)
	}
	return names
}()

// BenchmarkLive is what is asked before every line that speaks of leadership.
func BenchmarkLive(b *testing.B) {
	l := newLease(1, time.Hour, readClocks(), readClocks)
	b.ReportAllocs()
	for b.Loop() {
		if !l.live() {
			b.Fatal("over")
		}
	}
}
