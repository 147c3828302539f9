package state

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// snapshotOf gives the bytes of a snapshot of a state that does not change.
func snapshotOf(s *State) []byte {
	var b bytes.Buffer
	p := s.Snapshot()
	defer p.End()
	if err := p.Write(&b, &changing{}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func restoreBytes(b []byte) (*State, error) { return Restore(bytes.NewReader(b)) }

// changing is the lock of a state on which something is done whenever a snapshot
// lets go of it.
type changing struct{ do func() }

func (*changing) Lock() {}
func (c *changing) Unlock() {
	if c.do != nil {
		c.do()
	}
}

// However much a state changes while a snapshot of it is written, that has the
// bytes of one written at once.
func TestASnapshotIsOfTheStateThatItWasTakenOf(t *testing.T) {
	changed, vanished, founded := 0, 0, 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := New()
		index := uint64(0)
		apply := func() {
			index++
			s.Apply(index, randomEntry(r, s, index), nil)
			if r.IntN(3) == 0 { // groups that come, and go as soon as their only member does
				index++
				e := Entry{}
				for _, inc := range slices.Sorted(maps.Keys(s.sessions)) {
					e.Ops = append(e.Ops, Join{inc, s.sessions[inc].seq + 1, fmt.Sprintf("of-%d", r.IntN(30)), fmt.Sprintf("c%d", r.IntN(3))})
				}
				s.Apply(index, e, nil)
			}
		}
		for range 100 {
			apply()
		}
		for range 3 {
			want := snapshotOf(s)
			groups := make(map[string]*group)
			for name, g := range s.groups {
				groups[name] = g
			}
			p := s.Snapshot()
			if s.Snapshot() != nil {
				t.Fatal("two snapshots of a state at a time")
			}
			p.burst = 1 + r.IntN(3)
			var got bytes.Buffer
			err := p.Write(&got, &changing{do: func() {
				for range r.IntN(4) {
					apply()
				}
			}})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("seed %d: the snapshot of entry %d differs when written bit by bit", seed, index)
			}
			p.End()
			if !bytes.Equal(want, snapshotOf(s)) {
				changed++
			}
			for name, g := range groups {
				if s.groups[name] != g {
					vanished++
				}
			}
			for name := range s.groups {
				if groups[name] == nil {
					founded++
				}
			}
		}
	}
	if changed < 300 || vanished < 100 || founded < 100 {
		t.Errorf("%d of 600 states changed, %d groups vanished and %d came meanwhile: too few to prove much", changed, vanished, founded)
	}
}
