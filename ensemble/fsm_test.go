package ensemble

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// foundEntry is an entry of the log that founds a cluster.
func foundEntry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: encodeEntry(NewestLevel, Entry{Ops: []Op{Found{"c", 1}}})}
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
			f.read(func(s *State) { i = s.Index() })
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
