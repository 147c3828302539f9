package replica

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
)

// fsm is the state machine as Raft drives it. It applies an entry and hands what
// changed to its observer, under one lock. So whoever reads the state sees it as of
// an entry whose effects have been observed. The fsm never blocks while it holds
// that lock.
//
// An entry that the fsm cannot read stops it for good: a node that skipped an entry
// would have another state than the others.
type fsm struct {
	observer    Observer
	alter       func(*state.State, state.Entry) state.Entry // a seam of tests: what an entry is taken for; nil: for itself
	changed     func(index, term uint64)                    // is told that an entry was applied which has changed something
	snapshotted func(trailing uint64)                       // is told that a snapshot is written: so many entries are to stay in the log behind it
	full        chan struct{}                               // a snapshot may be due: the log has become too large in bytes, or the newest one cannot be read; room for one

	awaitFlushed func(index uint64) error // returns when an entry is on this node's disk

	mu      sync.RWMutex // guards what follows; taken before the node's mutex
	state   *state.State
	effects []state.Effect // scratch
	log     logSize
	broken  error
}

func newFSM(o Observer) *fsm {
	return &fsm{
		observer:     o,
		full:         make(chan struct{}, 1),
		awaitFlushed: func(uint64) error { return nil },
		changed:      func(uint64, uint64) {},
		snapshotted:  func(uint64) {},
		state:        state.New(),
		log:          logSize{most: snapshotBytes, keep: trailingBytes},
	}
}

// Apply implements [raft.FSM]. It waits for the disk, on which the entry may not be yet;
// if it never is, whoever looks after the disk says so, and nothing is applied any more.
func (f *fsm) Apply(l *raft.Log) any {
	unstored := f.awaitFlushed(l.Index)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = unstored
	}
	if f.broken != nil {
		return f.broken
	}
	entry, err := state.Decode(l.Data)
	if err != nil {
		return f.halt("log entry %d: %w", l.Index, err)
	}
	if f.alter != nil {
		entry = f.alter(f.state, entry)
	}
	f.log.add(l.Index, len(l.Data))
	if f.log.full() {
		signal(f.full)
	}
	f.effects = f.state.Apply(l.Index, entry, f.effects[:0])
	if len(f.effects) > 0 {
		f.changed(l.Index, l.Term)
	}
	f.observer.Applied(f.state, f.effects)
	clear(f.effects)
	return nil
}

// Snapshot implements [raft.FSM]. It only marks the state; what was in it is read
// while the snapshot is written, beside further entries.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	s := f.state.Snapshot()
	if s == nil {
		return nil, errors.New("a snapshot is being written")
	}
	return &fsmSnapshot{f, s, f.log.fresh, f.log.trailing()}, nil
}

// Restore implements [raft.FSM].
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	restored, err := state.Restore(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, state.ErrFormat), errors.Is(err, state.ErrCorrupt):
		return f.halt("%w", err)
	case err != nil:
		// Raft goes on as if it had the state, whose snapshot is there.
		f.observer.Failed(fmt.Errorf("restore a snapshot: %w", err))
		return err
	case restored.Index() < f.state.Index():
		return fmt.Errorf("a snapshot of entry %d is older than the state, of %d", restored.Index(), f.state.Index())
	}
	f.state = restored
	f.log.fresh, f.log.marks = 0, nil
	f.observer.Restored(restored)
	return nil
}

func (f *fsm) halt(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	cure := permanent.CureFolder
	if errors.Is(err, state.ErrFormat) {
		cure = "install that version again"
	}
	err = permanent.Errorf("%w; %s", err, cure)
	f.broken = err
	f.observer.Failed(err)
	return err
}

// read calls fn with the state as of the last entry applied.
func (f *fsm) read(fn func(*state.State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.state)
}

// fsmSnapshot is a snapshot of the state machine's state. Should that be replaced
// by another one meanwhile, this one is still of the state that it was taken of.
type fsmSnapshot struct {
	fsm      *fsm
	snapshot *state.Snapshot
	covers   int    // bytes of the log since the one before
	trailing uint64 // entries that are to stay
}

// Persist implements [raft.FSMSnapshot].
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.snapshot.Write(sink, s.fsm.mu.RLocker()); err != nil {
		sink.Cancel()
		return err
	}
	if err := sink.Close(); err != nil {
		return err
	}
	s.fsm.mu.Lock()
	s.fsm.log.fresh = max(0, s.fsm.log.fresh-s.covers)
	s.fsm.mu.Unlock()
	s.fsm.snapshotted(s.trailing)
	return nil
}

// Release implements [raft.FSMSnapshot].
func (s *fsmSnapshot) Release() {
	s.fsm.mu.Lock()
	defer s.fsm.mu.Unlock()
	s.snapshot.End()
}
