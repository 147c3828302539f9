package ensemble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/hashicorp/raft"
)

// snapshotOf gives the bytes of a snapshot of a state that does not change.
func snapshotOf(s *State) []byte {
	var b bytes.Buffer
	p := s.snapshot()
	defer p.end()
	if err := p.write(&b, &changing{}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func restoreBytes(b []byte) (*State, error) { return restoreState(bytes.NewReader(b)) }

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
		s := NewState()
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
			p := s.snapshot()
			if s.snapshot() != nil {
				t.Fatal("two snapshots of a state at a time")
			}
			p.burst = 1 + r.IntN(3)
			var got bytes.Buffer
			err := p.write(&got, &changing{do: func() {
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
			p.end()
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

// A snapshot is written while entries are applied, and restored from a reader that
// gives it in pieces.
func TestSnapshotBesideApply(t *testing.T) {
	const members = 20_000
	f := newFSM(nobody{})
	c := f.fill(members, 7)
	want := snapshotOf(f.state)
	snapshot, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Snapshot(); err == nil {
		t.Error("a second snapshot was begun beside the first")
	}
	sink := &bytesSink{}
	done := make(chan error, 1)
	go func() { done <- snapshot.Persist(sink) }()
	for n := members; ; n++ {
		select {
		case err = <-done:
		default:
			c.index++
			c.seqs[n%3]++
			leave := Leave{c.incs[n%3], c.seqs[n%3], uint64(n%members/3 + 1)}
			f.Apply(&raft.Log{Index: c.index, Data: encodeEntry(NewestLevel, Entry{Ops: []Op{leave, c.join(n, 7)}})})
			continue
		}
		break
	}
	snapshot.Release()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.b, want) {
		t.Error("the snapshot is not of the state that it was taken of")
	}
	if sink.largest > 2*snapshotPage {
		t.Errorf("%d of %d bytes were written at once", sink.largest, sink.size)
	}
	restored := newFSM(nobody{})
	if err := restored.Restore(io.NopCloser(iotest.HalfReader(bytes.NewReader(want)))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshotOf(restored.state), want) {
		t.Error("the restored state has another snapshot")
	}
	if again, err := f.Snapshot(); err != nil {
		t.Errorf("after a snapshot was written: %v", err)
	} else {
		again.Release()
	}
}

// What is wrong with the disk is not taken for what is wrong with the snapshot.
func TestRestoreOfASnapshotThatCannotBeRead(t *testing.T) {
	f := newFSM(nobody{})
	f.fill(3000, 3)
	want := snapshotOf(f.state)
	broken := errors.New("input/output error")
	r := io.MultiReader(bytes.NewReader(want[:len(want)/2]), iotest.ErrReader(broken))
	if err := f.Restore(io.NopCloser(r)); !errors.Is(err, broken) || f.broken != nil {
		t.Errorf("%v, and the state machine stops with %v", err, f.broken)
	}
	if !bytes.Equal(snapshotOf(f.state), want) {
		t.Error("the state has changed")
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(want[:len(want)/2]))); !errors.Is(err, errCorrupt) || f.broken == nil {
		t.Errorf("half a snapshot: %v", err)
	}
}

// watcher is an observer that keeps why the state machine's node has to end.
type watcher struct {
	nobody
	why error
}

func (w *watcher) failed(err error) { w.why = err }

// A snapshot that a disk does not give ends the node, and so does one that is damaged;
// one that is older than the state changes nothing. The state is what it was.
func TestSnapshotsThatAreNotRestored(t *testing.T) {
	snapshotAt := func(index uint64) []byte {
		s := NewState()
		s.Apply(index, Entry{Ops: []Op{Activate{}}}, nil)
		return snapshotOf(s)
	}
	for _, tt := range []struct {
		name  string
		from  io.Reader
		fails bool
	}{
		{"a disk that fails", iotest.ErrReader(errors.New("the disk has failed")), true},
		{"a disk that fails in the middle", io.MultiReader(bytes.NewReader(snapshotAt(9)[:3]), iotest.ErrReader(errors.New("the disk has failed"))), true},
		{"damage", bytes.NewReader(append(snapshotAt(9), 0)), true},
		{"an older one", bytes.NewReader(snapshotAt(7)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &watcher{}
			f := newFSM(w)
			f.state.Apply(8, Entry{}, nil)
			if err := f.Restore(io.NopCloser(tt.from)); err == nil {
				t.Error("restored")
			}
			if (w.why != nil) != tt.fails {
				t.Errorf("the node ends: %v", w.why)
			}
			if f.state.index != 8 || f.state.active {
				t.Errorf("the state is of entry %d, active %t", f.state.index, f.state.active)
			}
		})
	}
	f := newFSM(&watcher{})
	f.state.Apply(8, Entry{}, nil)
	if err := f.Restore(io.NopCloser(bytes.NewReader(snapshotAt(8)))); err != nil || !f.state.active {
		t.Errorf("the same entry's: error %v", err)
	}
}
