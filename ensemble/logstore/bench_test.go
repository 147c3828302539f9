package logstore

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

func BenchmarkStoreLogs(b *testing.B) {
	for _, n := range []uint64{1, 64, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := openLarge(b)
			data := make([]byte, 256)
			logs := make([]*raft.Log, n)
			index := uint64(0)
			for b.Loop() {
				for i := range logs {
					index++
					logs[i] = &raft.Log{Index: index, Term: 1, Data: data}
				}
				if err := s.StoreLogs(logs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGetLog(b *testing.B) {
	s := openLarge(b)
	const n = 20_000
	if err := s.StoreLogs(entries(1, n)); err != nil {
		b.Fatal(err)
	}
	var l raft.Log
	for i := uint64(0); b.Loop(); i++ {
		if err := s.GetLog(i%n+1, &l); err != nil {
			b.Fatal(err)
		}
	}
}

// What Raft deletes after a snapshot: all but the last 16,384 entries; and all.
func BenchmarkDeleteRange(b *testing.B) {
	for name, to := range map[string]uint64{"8192-of-24576": 8192, "24576-of-24576": 24_576} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := openLarge(b)
				if err := s.StoreLogs(entries(1, 24_576)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := s.DeleteRange(1, to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "raft.db")
	s, err := Open(path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.StoreLogs(entries(1, 24_576)); err != nil {
		b.Fatal(err)
	}
	s.Close()
	for b.Loop() {
		s, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// openLarge opens a store as the product does, with the default map.
func openLarge(b *testing.B) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "raft.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}
