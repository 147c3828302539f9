package ensemble

import (
	"runtime"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// raftStore is the store as Raft has it. Where Raft cannot save its term, or read an
// entry that is committed, it panics, and the process would die in the middle of closing
// its connections and dump all its goroutines, on what is only a disk that failed.
// Who is to know of the disk knows (logstore.Options.OnError) and stops the node;
// Raft's goroutine, which has no way to go on, ends here.
//
// And it knows the term of the entry with which the newest snapshot ends, where the log
// has that one no more. A follower's log may begin behind it, with entries that were
// never committed; raft 1.8.0 then looks for the entry before the ones of a new raft
// leader in the log alone, and refuses them for ever.
type raftStore struct {
	store
	snapshots *snapshots
	running   atomic.Bool // Raft has started: from now on only its own goroutines call
}

// endOfSnapshot is the type of what stands for an entry of which only the term is known.
// It must not be sent: see [transport.AppendEntries].
const endOfSnapshot raft.LogType = 255

type store interface {
	raft.LogStore
	raft.StableStore
}

func (s *raftStore) SetUint64(key []byte, value uint64) error {
	return s.survive(s.store.SetUint64(key, value))
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
