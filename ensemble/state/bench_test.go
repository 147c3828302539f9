package state_test

import (
	"fmt"
	"runtime"
	"testing"

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
