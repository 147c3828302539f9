// Package statetest helps to test what is built on a state.
package statetest

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/state"
)

// Crowd drives a state machine on which three nodes have sessions.
type Crowd struct {
	Index uint64
	Incs  []state.Incarnation
	Seqs  [3]uint64
}

// Begin gives the first entry, in which the three sessions are opened.
func (c *Crowd) Begin() state.Entry {
	entry := state.Entry{At: time.UnixMilli(1444000000123), Ops: []state.Op{state.Found{Cluster: "0123456789abcdef", TokenBase: 1444000000123456}, state.Activate{}}}
	c.Index = 1
	for i := range 3 {
		c.Incs = append(c.Incs, state.Incarnation(state.PositionOf(1, len(entry.Ops))))
		id := fmt.Sprintf("0123456789abcde%d", i)
		entry.Ops = append(entry.Ops, state.Open{Node: state.NodeID(id), Counter: 1, Boot: "boot", Lease: 2 * time.Second, Expiry: 2400 * time.Millisecond, Name: "riak@10.0.0." + id, Address: "10.0.0.1:5324", Reads: 1})
	}
	return entry
}

// Join is the Join of the nth client, at one of the nodes.
func (c *Crowd) Join(n, perGroup int) state.Join {
	at := n % 3
	c.Seqs[at]++
	return state.Join{Incarnation: c.Incs[at], Seq: c.Seqs[at], Group: GroupOf(n, perGroup), Client: ClientOf(n)}
}

func (c *Crowd) Leave(n int, join state.Join) state.Leave {
	at := n % 3
	c.Seqs[at]++
	return state.Leave{Incarnation: c.Incs[at], Seq: c.Seqs[at], Join: join.Seq}
}

func GroupOf(n, perGroup int) string { return fmt.Sprintf("group-%d", n/perGroup) }
func ClientOf(n int) string          { return fmt.Sprintf("worker-%d.example.com:7077", n) }

// Batch is how many operations of a crowd share an entry.
const Batch = 100

// Fill makes members join.
func (c *Crowd) Fill(members, perGroup int, apply func(index uint64, entry state.Entry)) {
	apply(1, c.Begin())
	for n := 0; n < members; {
		entry := state.Entry{At: time.UnixMilli(1444000000123)}
		for ; n < members && len(entry.Ops) < Batch; n++ {
			entry.Ops = append(entry.Ops, c.Join(n, perGroup))
		}
		c.Index++
		apply(c.Index, entry)
	}
}

// Bytes gives the bytes of a snapshot of a state, which does not change meanwhile.
func Bytes(s *state.State) []byte {
	var b bytes.Buffer
	p := s.Snapshot()
	defer p.End()
	if err := p.Write(&b, new(sync.Mutex)); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// FromBytes gives the state of a snapshot.
func FromBytes(b []byte) (*state.State, error) { return state.Restore(bytes.NewReader(b)) }

// AnyCounter gives an entry as a state machine would take it that accepts an Open whatever
// its counter is.
func AnyCounter(s *state.State, e state.Entry) state.Entry {
	e.Ops = slices.Clone(e.Ops)
	for i, op := range e.Ops {
		if op, ok := op.(state.Open); ok {
			known, _ := s.Node(op.Node)
			op.Counter = max(op.Counter, known.Counter+1)
			e.Ops[i] = op
		}
	}
	return e
}

// NoCompare gives an entry as one would take it that expires a session whatever renewal is
// its last.
func NoCompare(s *state.State, e state.Entry) state.Entry {
	e.Ops = slices.Clone(e.Ops)
	for i, op := range e.Ops {
		if x, ok := op.(state.Expire); ok {
			if ses, ok := s.Session(x.Incarnation); ok {
				x.Renewal = ses.Sign
				e.Ops[i] = x
			}
		}
	}
	return e
}

// NoDedup gives an entry as one would take it that accepts operations whatever their numbers.
func NoDedup(s *state.State, e state.Entry) state.Entry {
	if len(e.Ops) == 0 || state.SeqOf(e.Ops[0]) == 0 {
		return e
	}
	e.Ops = slices.Clone(e.Ops)
	next := map[state.Incarnation]uint64{}
	any := func(inc state.Incarnation) uint64 {
		if next[inc] == 0 {
			next[inc], _, _ = s.Accepted(inc)
		}
		next[inc]++
		return next[inc]
	}
	for i, op := range e.Ops {
		switch op := op.(type) {
		case state.Renew:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		case state.Join:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		case state.KeyedJoin:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		case state.Leave:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		case state.StepDown:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		case state.End:
			op.Seq = any(op.Incarnation)
			e.Ops[i] = op
		}
	}
	return e
}

// Heap is how many bytes of memory are in use.
func Heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// ThreadTime is the time that the processor has spent on this thread.
func ThreadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
