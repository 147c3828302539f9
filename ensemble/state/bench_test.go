package state_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

func filled(members, perGroup int) (*state.State, *statetest.Crowd) {
	s, c := state.New(), &statetest.Crowd{}
	c.Fill(members, perGroup, func(index uint64, entry state.Entry) {
		decoded, err := state.Decode(state.Encode(state.NewestLevel, entry))
		if err != nil {
			panic(err)
		}
		s.Apply(index, decoded, nil)
	})
	return s, c
}

// BenchmarkStateMemory is what a membership takes in the state of every node.
func BenchmarkStateMemory(b *testing.B) {
	const members = 1_000_000
	for _, perGroup := range []int{1, 5, 10_000} {
		b.Run(fmt.Sprintf("groupsOf=%d", perGroup), func(b *testing.B) {
			for b.Loop() {
				before := statetest.Heap()
				s, _ := filled(members, perGroup)
				b.ReportMetric(float64(statetest.Heap()-before)/members, "B/member")
				runtime.KeepAlive(s)
			}
		})
	}
}

// BenchmarkKeyedMemory is what a keyed membership takes there beyond a plain one.
func BenchmarkKeyedMemory(b *testing.B) {
	const members, level = 200_000, 3
	fill := func(key bool) (*state.State, float64) {
		before := statetest.Heap()
		s, c := state.New(), &statetest.Crowd{}
		s.Apply(0, state.Entry{Ops: []state.Op{state.Raise{Level: level}}}, nil)
		c.Fill(members, 5, func(index uint64, entry state.Entry) {
			for i, op := range entry.Ops {
				if j, ok := op.(state.Join); ok && key {
					entry.Ops[i] = state.KeyedJoin{Join: j, Key: state.KeyOf(j.Group, j.Client, "some secret"), Hold: 2 * time.Second}
				}
			}
			s.Apply(index, entry, nil)
		})
		return s, float64(statetest.Heap()-before) / members
	}
	for b.Loop() {
		plain, without := fill(false)
		keyed, with := fill(true)
		b.ReportMetric(without, "B/plain")
		b.ReportMetric(with-without, "B/key")
		runtime.KeepAlive(plain)
		runtime.KeepAlive(keyed)
	}
}

func entryOfJoins() state.Entry {
	c := &statetest.Crowd{}
	entry := state.Entry{At: c.Begin().At}
	for n := range statetest.Batch {
		entry.Ops = append(entry.Ops, c.Join(n, 5))
	}
	return entry
}

func BenchmarkEncodeEntry(b *testing.B) {
	entry := entryOfJoins()
	b.ReportAllocs()
	for b.Loop() {
		state.Encode(state.NewestLevel, entry)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*statetest.Batch), "ns/join")
}

func BenchmarkDecodeEntry(b *testing.B) {
	data := state.Encode(state.NewestLevel, entryOfJoins())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := state.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*statetest.Batch), "ns/join")
}
