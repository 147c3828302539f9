package session

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// bookkeeper is what a node does for its clients, without Raft, disk and network:
// it proposes, and its own log has it the next moment.
type bookkeeper struct {
	roster   *Roster
	dispatch *Dispatcher
	state    *state.State
	effects  []state.Effect // scratch
	index    uint64
	clock    Reading
}

func newBookkeeper() *bookkeeper {
	n := &bookkeeper{dispatch: NewDispatcher()}
	n.roster = New(Config{
		Node: "n1", Boot: "boot", Name: "riak@10.0.0.1", Address: "10.0.0.1:5324", Timing: Normal, Reads: state.NewestLevel,
		Guard: new(sync.Mutex), Now: func() Reading { return n.clock }, Dispatch: n.dispatch, Logger: slog.New(slog.DiscardHandler),
		Note: func(uint64) {}, Alive: func(time.Duration) {},
	})
	n.state = state.New()
	n.commit([]state.Op{state.Found{Cluster: "c", TokenBase: 1000}, state.Activate{}})
	n.roster.Begin(1, n.clock)
	n.run()
	return n
}

func (n *bookkeeper) commit(ops []state.Op) {
	n.index++
	entry, err := state.Decode(state.Encode(state.NewestLevel, state.Entry{At: time.UnixMilli(1444000000123), Ops: ops}))
	if err != nil {
		panic(err)
	}
	n.effects = n.state.Apply(n.index, entry, n.effects[:0])
	n.roster.Applied(n.state, n.effects)
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
func (deaf) Alive(time.Duration)     {}
func (deaf) Close()                  {}

// join has clients join, and gives their memberships.
func (n *bookkeeper) join(b *testing.B, members, perGroup int, told *atomic.Int64) []*Membership {
	all := make([]*Membership, members)
	for i := range all {
		all[i] = n.roster.Join(statetest.GroupOf(i, perGroup), statetest.ClientOf(i), deaf{told})
		if i%statetest.Batch == statetest.Batch-1 {
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
				before := statetest.Heap()
				all := n.join(b, members, perGroup, &told)
				clear(all)
				b.ReportMetric(float64(statetest.Heap()-before)/members, "B/member")
				runtime.KeepAlive(n)
			}
		})
	}
}

// BenchmarkKeyedNodeMemory is the same of clients with keys.
func BenchmarkKeyedNodeMemory(b *testing.B) {
	const members = 40_000
	for b.Loop() {
		var told atomic.Int64
		n := newKeyedBookkeeper()
		before := statetest.Heap()
		for i := range members {
			group, client := statetest.GroupOf(i, 1), statetest.ClientOf(i)
			m, _ := n.roster.JoinKeyed(group, client, state.KeyOf(group, client, "secret"), time.Minute, deaf{&told})
			if i%statetest.Batch == statetest.Batch-1 {
				n.run()
				m.Alive()
			}
		}
		n.run()
		b.ReportMetric(float64(statetest.Heap()-before)/members, "B/member")
		runtime.KeepAlive(n)
	}
}

// BenchmarkMoves has all keyed members of one node come back to another one, as the roster of a third
// one sees it: each costs the same, however many there are.
func BenchmarkMoves(b *testing.B) {
	for _, members := range []int{500, 8000} {
		for _, hold := range []time.Duration{0, Calm.Expiry} {
			b.Run(fmt.Sprintf("members=%d,hold=%v", members, hold), func(b *testing.B) {
				var moving time.Duration
				for b.Loop() {
					n := newKeyedBookkeeper()
					inc := n.second()
					n.commit([]state.Op{state.Open{Node: "n3", Counter: 1, Boot: "third", Lease: Normal.Lease, Expiry: Normal.Expiry, Reads: state.KeyedLevel}})
					third, _, _ := n.state.Current("n3")
					for _, to := range []state.Incarnation{inc, third} {
						moving = 0
						for i := range members {
							c := fmt.Sprint("c", i)
							began := time.Now()
							n.commit([]state.Op{state.KeyedJoin{Join: state.Join{Incarnation: to, Seq: uint64(i + 1), Group: c, Client: c}, Key: state.KeyOf(c, c, "k"), Hold: hold}})
							moving += time.Since(began)
						}
					}
				}
				b.ReportMetric(float64(moving.Nanoseconds())/float64(members), "ns/move")
			})
		}
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
		all[0].Closed("closed", true)
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
	for done := 0; done < b.N; done += statetest.Batch {
		all := make([]*Membership, statetest.Batch)
		for i := range all {
			all[i] = n.roster.Join(groups[i], "worker-17.example.com:7077", deaf{&told})
		}
		n.run()
		for _, m := range all {
			m.Closed("closed", true)
		}
		n.run()
	}
}

var groups = func() (names [statetest.Batch]string) {
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
