package state

import (
	"bytes"
	"errors"
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

func restoreBytes(b []byte) (*State, error) { return restore(bytes.NewReader(b), built) }

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

// What no state can have no snapshot may bring in.
func TestSnapshotsOfNoStateAreRefused(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(*State)
	}{
		{"nothing", func(*State) {}},
		{"an orphaned session without members", func(s *State) {
			s.sessions[99] = &nodeSession{node: s.nodes["n1"], incarnation: 99}
		}},
		{"a plain member in an orphaned session", func(s *State) {
			delete(s.orphaned()[1].keyed, 1) // another one of its group is keyed still
		}},
		{"two nodes of one number", func(s *State) { s.nodes["n1"].number = s.nodes["n2"].number }},
		{"a node without a number", func(s *State) { s.nodes["n1"].number = 0 }},
		{"a node with a number beyond all", func(s *State) { s.nodes["n1"].number = 3 }},
		{"a group with keys, and no keyed member", func(s *State) { s.groups["plain"].keyed = 1 }},
		{"too many changes", func(s *State) {
			for len(s.recent) <= MaxRecent {
				s.recent = append(s.recent, s.recent[0])
			}
		}},
		{"a change that no node has seen", func(s *State) { s.recent[0].node = &node{number: 3} }},
		{"too many former leaders", func(s *State) {
			p := &past{}
			for range MaxPast + 1 {
				p = &past{records: append(p.records, (*past)(nil).and(leadership{node: 1}).records...), count: p.count + 1}
			}
			s.groups["plain"].past = p
		}},
		{"a past without leaders", func(s *State) { s.groups["plain"].past = &past{} }},
		{"a former leader who was nowhere", func(s *State) { s.groups["plain"].past = (*past)(nil).and(leadership{}) }},
		{"a former leader who was at no node", func(s *State) { s.groups["plain"].past = (*past)(nil).and(leadership{node: 3}) }},
		{"a reason that no node has seen", func(s *State) { s.groups["plain"].past = (*past)(nil).and(leadership{node: 1, seen: 3}) }},
	} {
		s := stateOf(t, keptEntries)
		inc, _, _ := s.Current("n2")
		s.Apply(s.Index()+1, Entry{Ops: []Op{Join{inc, 1, "plain", "a"}}}, nil)
		c.spoil(s)
		if _, err := restoreBytes(snapshotOf(s)); errors.Is(err, ErrCorrupt) != (c.what != "nothing") || c.what == "nothing" && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
