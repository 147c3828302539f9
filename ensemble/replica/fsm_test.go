package replica

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// foundEntry is an entry of the log that founds a cluster.
func foundEntry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Found{Cluster: "c", TokenBase: 1}}})}
}

// An entry is applied when it is on the disk, and who reads the state does not wait for
// that.
func TestAnEntryIsAppliedWhenItIsOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFSM(nobody{})
		flushed := make(chan error)
		f.awaitFlushed = func(index uint64) error {
			if index != 7 {
				t.Errorf("waits for entry %d", index)
			}
			return <-flushed
		}
		index := func() (i uint64) {
			f.read(func(s *state.State) { i = s.Index() })
			return i
		}
		applied := make(chan any, 1)
		go func() { applied <- f.Apply(foundEntry(7)) }()
		synctest.Wait()
		if len(applied) > 0 || index() != 0 {
			t.Errorf("applied up to %d before it is on the disk", index())
		}
		flushed <- nil
		if r := <-applied; r != nil || index() != 7 {
			t.Errorf("%v, applied up to %d", r, index())
		}
	})
}

// What never came to the disk is not applied, nor is anything after it; of the disk itself
// somebody else has told.
func TestWhatTheDiskLostIsNotApplied(t *testing.T) {
	f := newFSM(nobody{})
	lost := errors.New("the disk is ill")
	f.awaitFlushed = func(uint64) error { return lost }
	if r := f.Apply(foundEntry(7)); r != lost {
		t.Errorf("applied: %v", r)
	}
	f.awaitFlushed = func(uint64) error { return nil }
	if r := f.Apply(foundEntry(8)); r != lost {
		t.Errorf("the next one was applied: %v", r)
	}
	if f.state.Index() != 0 {
		t.Errorf("applied up to %d", f.state.Index())
	}
	if _, err := f.Snapshot(); err != lost {
		t.Errorf("a snapshot: %v", err)
	}
}

// A snapshot is written while entries are applied, and restored from a reader that
// gives it in pieces.
func TestSnapshotBesideApply(t *testing.T) {
	const members = 20_000
	f := newFSM(nobody{})
	c := f.fill(members, 7)
	want := statetest.Bytes(f.state)
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
			c.Index++
			c.Seqs[n%3]++
			leave := state.Leave{Incarnation: c.Incs[n%3], Seq: c.Seqs[n%3], Join: uint64(n%members/3 + 1)}
			f.Apply(&raft.Log{Index: c.Index, Data: state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{leave, c.Join(n, 7)}})})
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
	if sink.largest > 128<<10 {
		t.Errorf("%d of %d bytes were written at once", sink.largest, sink.size)
	}
	restored := newFSM(nobody{})
	if err := restored.Restore(io.NopCloser(iotest.HalfReader(bytes.NewReader(want)))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(statetest.Bytes(restored.state), want) {
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
	want := statetest.Bytes(f.state)
	broken := errors.New("input/output error")
	r := io.MultiReader(bytes.NewReader(want[:len(want)/2]), iotest.ErrReader(broken))
	if err := f.Restore(io.NopCloser(r)); !errors.Is(err, broken) || f.broken != nil {
		t.Errorf("%v, and the state machine stops with %v", err, f.broken)
	}
	if !bytes.Equal(statetest.Bytes(f.state), want) {
		t.Error("the state has changed")
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(want[:len(want)/2]))); !errors.Is(err, state.ErrCorrupt) || f.broken == nil {
		t.Errorf("half a snapshot: %v", err)
	}
}

// watcher is an observer that keeps why the state machine's node has to end.
type watcher struct {
	nobody
	why error
}

func (w *watcher) Failed(err error) { w.why = err }

// A snapshot that a disk does not give ends the node, and so does one that is damaged;
// one that is older than the state changes nothing. The state is what it was.
func TestSnapshotsThatAreNotRestored(t *testing.T) {
	snapshotAt := func(index uint64) []byte {
		s := state.New()
		s.Apply(index, state.Entry{Ops: []state.Op{state.Activate{}}}, nil)
		return statetest.Bytes(s)
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
			f.state.Apply(8, state.Entry{}, nil)
			if err := f.Restore(io.NopCloser(tt.from)); err == nil {
				t.Error("restored")
			}
			if (w.why != nil) != tt.fails {
				t.Errorf("the node ends: %v", w.why)
			}
			if f.state.Index() != 8 || f.state.Active() {
				t.Errorf("the state is of entry %d, active %t", f.state.Index(), f.state.Active())
			}
		})
	}
	f := newFSM(&watcher{})
	f.state.Apply(8, state.Entry{}, nil)
	if err := f.Restore(io.NopCloser(bytes.NewReader(snapshotAt(8)))); err != nil || !f.state.Active() {
		t.Errorf("the same entry's: error %v", err)
	}
}
