package replica

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// raftStore is the store as Raft sees it. It repairs four things in raft 1.8.0 and adds
// one, the fourth.
//
//  1. A failed disk ends Raft's goroutine and not the process ([raftStore.survive]). Raft
//     panics where it cannot save its term or read a committed entry. A panic would end the
//     process while it closes its connections, and print all goroutines. The node hears of
//     the disk from the log store (logstore.Options.OnError), and stops.
//  2. It knows the term of the newest snapshot's last entry, also when the log has dropped
//     that entry ([raftStore.GetLog]). A follower's log may begin behind a snapshot, with
//     entries that were never committed. A new raft leader sends entries that follow on the
//     snapshot. Raft looks for the entry before them in the log alone, and would refuse them
//     for ever.
//  3. It has the log and the snapshot agree ([raftStore.agree]). Raft installs a snapshot
//     without a look at whether the log has the same entries.
//  4. The raft leader sends an entry while its own disk writes it ([raftStore.StoreLogs];
//     Raft's thesis, 10.2.1). See below.
//  5. A term never goes back ([raftStore.SetUint64]). Raft handles a heartbeat beside its
//     main goroutine, and may save the older term last.
//
// Raft counts an entry of 4 as stored before it is on this disk. That is safe:
//
//  1. Raft commits an entry of its term when a majority counts it as stored. Each other node
//     counts it when it is on its disk.
//  2. What follows from a commit waits for this disk too. [fsm.Apply] waits, and with it
//     clients, leases and hints. [transport.AppendEntries] names no commit beyond this disk.
//     So a majority has on disk what anybody acts upon.
//  3. The first entry of a term and configuration entries are never sent ahead of the disk.
//     The first commits the entries of older terms. The others take effect when they are
//     appended.
//  4. Raft saves a newer term before it votes or follows in it. All that was stored before
//     is on the disk then.
type raftStore struct {
	store
	snapshots *snapshots
	append    func([]*raft.Log) error // stores entries, which will be on the disk; nil: see StoreLogs
	leads     func() bool             // this node is the raft leader: what is stored is its own
	restart   func(error)             // ends the process, so that another one is started
	terms     chan struct{}           // full while one is being set
	running   atomic.Bool             // Raft has started: from now on only its own goroutines call
}

// endOfSnapshot is the type of what stands for an entry of which only the term is known.
// It must not be sent: see [transport.AppendEntries].
const endOfSnapshot raft.LogType = 255

type store interface {
	raft.LogStore
	raft.StableStore
}

// newRaftStore has a log and snapshots agree, now and whenever there is a new snapshot.
func newRaftStore(log store, snapshots *snapshots) (*raftStore, error) {
	s := &raftStore{store: log, snapshots: snapshots, terms: make(chan struct{}, 1)}
	snapshots.completed = s.agree
	if end := snapshots.newest.Load(); end != nil {
		return s, s.agree(end)
	}
	return s, nil
}

// agree empties the log if it ends before a snapshot does, or has another entry where that
// ends: then those before it may be others too, and those behind it follow it. None of them
// was ever committed, and nobody may have them from here: neither from a raft leader nor
// from a recovery, which takes all that the log has. Where Raft runs it remembers how far
// the log went, and would refuse the next entries of the raft leader, until it is started
// again.
func (s *raftStore) agree(end *raft.SnapshotMeta) error {
	last, err := s.store.LastIndex()
	if err != nil {
		return err
	}
	if last >= end.Index {
		if agrees, err := s.agrees(end); agrees || err != nil {
			return err
		}
	}
	if err := s.store.DeleteRange(0, max(last, end.Index)); err != nil {
		return err
	}
	if last >= end.Index && s.running.Load() {
		s.restart(errors.New("this node's log was at odds with the raft leader's; it has that one's state now, and goes on after a restart"))
	}
	return nil
}

// agrees reports whether a log that goes on behind a snapshot has the entry with which
// that ends, as far as one can tell.
func (s *raftStore) agrees(end *raft.SnapshotMeta) (bool, error) {
	var l raft.Log
	err := s.store.GetLog(end.Index, &l)
	if err != raft.ErrLogNotFound {
		return l.Term == end.Term, err
	}
	// The log begins behind it. Terms do not fall in a log, so that what is of an earlier
	// one does not follow the snapshot. (Older programs left that.)
	first, err := s.store.FirstIndex()
	if err == nil {
		err = s.store.GetLog(first, &l)
	}
	return l.Term >= end.Term, err
}

// lengthen stores an entry that changes nothing, of the newest term that there is. A snapshot that
// ends with it is the newest one, whatever the clock shows by which Raft tells apart those
// with one end.
func (s *raftStore) lengthen() error {
	last, err := s.store.LastIndex()
	if err != nil {
		return err
	}
	if end := s.snapshots.newest.Load(); end != nil {
		last = max(last, end.Index)
	}
	var l raft.Log
	if err := s.GetLog(last, &l); err != nil {
		return err
	}
	if end := s.snapshots.newest.Load(); end != nil {
		l.Term = max(l.Term, end.Term)
	}
	return s.store.StoreLog(&raft.Log{Index: last + 1, Term: l.Term, Type: raft.LogNoop})
}

// StoreLogs implements [raft.LogStore].
func (s *raftStore) StoreLogs(logs []*raft.Log) error {
	if s.append == nil || !s.running.Load() || !s.leads() || slices.ContainsFunc(logs, func(l *raft.Log) bool { return l.Type != raft.LogCommand }) {
		return s.store.StoreLogs(logs)
	}
	return s.append(logs)
}

// SetUint64 implements [raft.StableStore]. It keeps a term from going back: what Raft does
// for a heartbeat, beside its main goroutine, may be late.
func (s *raftStore) SetUint64(key []byte, value uint64) error {
	if string(key) != "CurrentTerm" {
		return s.survive(s.store.SetUint64(key, value))
	}
	s.terms <- struct{}{}
	defer func() { <-s.terms }()
	before, err := s.store.GetUint64(key)
	switch {
	case err != nil, value == before: // which is on the disk: Raft sets it anew at each start, and when it steps down
	case value < before:
		err = fmt.Errorf("term %d after %d", value, before)
	default:
		err = s.store.SetUint64(key, value)
	}
	return s.survive(err)
}

func (s *raftStore) GetLog(index uint64, l *raft.Log) error {
	err := s.store.GetLog(index, l)
	if err == raft.ErrLogNotFound {
		if end := s.snapshots.newest.Load(); end != nil && end.Index == index {
			*l = raft.Log{Index: index, Term: end.Term, Type: endOfSnapshot}
			return nil
		}
		return err
	}
	return s.survive(err)
}

// survive returns the error of a call that Raft takes for impossible, or does not
// return.
func (s *raftStore) survive(err error) error {
	if err != nil && s.running.Load() {
		runtime.Goexit()
	}
	return err
}
