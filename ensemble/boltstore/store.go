// Package boltstore keeps the Raft log and Raft's few other durable values
// (term, vote) in one bbolt file. Start at [Open].
//
// What is promised:
//
//   - A call that wrote returns after the data are on disk, all of them or none;
//     [Store.DeleteRange] alone may stop half way, with a log that is still whole.
//   - The first error of the disk, or the first sign of damage, is the last word:
//     every later call returns it too. After a failed fsync the kernel counts the
//     lost pages as written, so trying again would seem to work. Raft itself goes
//     on after such errors as a silent follower; hence [Options].OnError, after
//     which the process should end. A write that hangs is such an error too: Raft
//     would go on as a leader that commits nothing, and nobody would take its place.
//   - Entries have no gaps. Raft leaves one when a snapshot has taken the place
//     of all that a log had; then the entries before the gap go, in the same
//     transaction. Left there they could be entries that never were committed,
//     and be handed to another node later.
//
// Raft offers to stores without gaps to be a raft.MonotonicLogStore. This one
// is not: raft 1.8.0 then empties the store after each installed snapshot, with
// the entries above the snapshot that this node has already acknowledged
// (https://github.com/hashicorp/raft/issues/697). Nor should a raft.LogCache stand
// before it, which goes on serving what a gap has removed; a read takes 2 us.
//
// Methods may be called from several goroutines at once; writes take turns.
package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// deleteChunk is how many entries one transaction of DeleteRange deletes: about
// a millisecond, in which no entry can be stored.
const deleteChunk = 1024

var (
	logBucket    = []byte("log")    // index, 8 bytes big endian -> entry (entry.go)
	stableBucket = []byte("stable") // Raft's key -> value; numbers are 8 bytes big endian
)

// errNotFound has the text that raft looks for.
var errNotFound = errors.New("not found")

// A Store is a raft.LogStore and a raft.StableStore.
type Store struct {
	db      *bolt.DB
	onError func(error)
	writing sync.Mutex // held over a write and the note that it failed, so that no other comes between
	failed  atomic.Pointer[error]

	beforeCommit func()

	began     atomic.Pointer[time.Time] // of the write that is under way; nil: none
	closeOnce sync.Once
	closed    chan struct{}
}

// Close waits for running calls and closes the file. Later calls fail, without OnError.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { close(s.closed) })
	return s.db.Close()
}

// watch fails the store when a write takes longer than limit: the disk hangs.
// The write itself cannot be ended, nor is it known what will come of it.
func (s *Store) watch(limit time.Duration) {
	tick := time.NewTicker(limit / 10)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
		}
		if s.Busy() > limit {
			s.fail(fmt.Errorf("a write has taken over %v: %w", limit, ErrStalled))
			return
		}
	}
}

// fail makes an error the last word, unless there is one.
func (s *Store) fail(err error) {
	err = fmt.Errorf("log store %s: %w", s.db.Path(), err)
	if s.failed.CompareAndSwap(nil, &err) && s.onError != nil {
		s.onError(err)
	}
}

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (s *Store) FirstIndex() (first uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error { first, _ = bounds(tx.Bucket(logBucket)); return nil })
	return first, err
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (s *Store) LastIndex() (last uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error { _, last = bounds(tx.Bucket(logBucket)); return nil })
	return last, err
}

// GetLog fills l with the entry, or returns raft.ErrLogNotFound.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	return s.view(func(tx *bolt.Tx) error { return getLog(tx.Bucket(logBucket), index, l) })
}

// StoreLog appends one entry; see StoreLogs.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, which follow each other. If they do not follow the
// last one stored but leave a gap, they take the place of all. What is to be
// written anew must be deleted before: Raft does so, and if it did not, what it
// remembers would differ from what is here.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	return s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(logBucket)
		_, last := bounds(b)
		next := logs[0].Index
		switch {
		case next <= last:
			return fmt.Errorf("store entry %d: the log ends at %d", next, last)
		case last > 0 && next > last+1:
			var err error
			if b, err = empty(tx); err != nil {
				return err
			}
		}
		b.FillPercent = 0.9 // entries come in order; half full pages, bbolt's default, would stay half full
		for _, l := range logs {
			if l.Index != next {
				return fmt.Errorf("store entry %d where %d should be", l.Index, next)
			}
			if err := b.Put(key(l.Index), encode(l)); err != nil {
				return err
			}
			next++
		}
		return nil
	})
}

// DeleteRange deletes the entries from min to max, both included, as far as
// there are any. They must be at one end of the log or be all of it. Longer
// ranges go in several transactions, outermost entries first: a crash between
// them leaves no gap.
func (s *Store) DeleteRange(min, max uint64) error {
	for done := false; !done; {
		err := s.update(func(tx *bolt.Tx) (err error) {
			done, err = deleteSome(tx, min, max)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func deleteSome(tx *bolt.Tx, from, to uint64) (done bool, err error) {
	b := tx.Bucket(logBucket)
	first, last := bounds(b)
	from, to = max(from, first), min(to, last)
	switch {
	case first == 0 || from > to:
		return true, nil
	case from == first && to == last:
		_, err := empty(tx)
		return true, err
	case from != first && to != last:
		return false, fmt.Errorf("delete entries %d to %d: that leaves a gap in %d to %d", from, to, first, last)
	}
	if done = to-from < deleteChunk; !done {
		if from == first {
			to = from + deleteChunk - 1
		} else {
			from = to - deleteChunk + 1
		}
	}
	for i := from; i <= to; i++ {
		if err := b.Delete(key(i)); err != nil {
			return false, err
		}
	}
	return done, nil
}

// Set stores a value of Raft's.
func (s *Store) Set(k, v []byte) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(stableBucket).Put(k, v) })
}

// Get returns the value of k, or an error with the text "not found".
func (s *Store) Get(k []byte) (v []byte, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		v = bytes.Clone(tx.Bucket(stableBucket).Get(k))
		if v == nil {
			return errNotFound
		}
		return nil
	})
	return v, err
}

// SetUint64 stores a number of Raft's.
func (s *Store) SetUint64(k []byte, v uint64) error { return s.Set(k, key(v)) }

// GetUint64 returns the number at k, 0 if there is none.
func (s *Store) GetUint64(k []byte) (n uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(stableBucket).Get(k)
		if v == nil {
			return nil
		}
		n, err = parseKey(v)
		return err
	})
	return n, err
}

func (s *Store) view(f func(*bolt.Tx) error) error { return s.run(s.db.View, f) }

func (s *Store) update(f func(*bolt.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	return s.run(s.db.Update, func(tx *bolt.Tx) error {
		err := f(tx)
		if err == nil && s.beforeCommit != nil {
			s.beforeCommit()
		}
		return err
	})
}

// Busy is for how long the write that is under way has lasted; 0 if there is
// none. It never waits.
func (s *Store) Busy() time.Duration {
	if began := s.began.Load(); began != nil {
		return time.Since(*began)
	}
	return 0
}

func (s *Store) run(transaction func(func(*bolt.Tx) error) error, f func(*bolt.Tx) error) error {
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	err := guard(func() error { return transaction(f) })
	if err == nil || err == raft.ErrLogNotFound || err == errNotFound || err == bolterrors.ErrDatabaseNotOpen {
		return err
	}
	s.fail(err)
	return *s.failed.Load()
}

// empty replaces the log by an empty one. bbolt frees the pages of a whole
// bucket without reading the entries.
func empty(tx *bolt.Tx) (*bolt.Bucket, error) {
	if err := tx.DeleteBucket(logBucket); err != nil {
		return nil, err
	}
	return tx.CreateBucket(logBucket)
}

// bounds returns the indexes of the first and the last entry, 0 and 0 if there is none.
func bounds(b *bolt.Bucket) (first, last uint64) {
	c := b.Cursor()
	k, _ := c.First()
	if k == nil {
		return 0, 0
	}
	first = binary.BigEndian.Uint64(k)
	k, _ = c.Last()
	return first, binary.BigEndian.Uint64(k)
}

func getLog(b *bolt.Bucket, index uint64, l *raft.Log) error {
	v := b.Get(key(index))
	if v == nil {
		return raft.ErrLogNotFound
	}
	if err := decode(v, l); err != nil {
		return err
	}
	if l.Index != index {
		return fmt.Errorf("entry %d is at the place of %d: %w", l.Index, index, ErrDamaged)
	}
	return nil
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func parseKey(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("number of %d bytes instead of 8: %w", len(b), ErrDamaged)
	}
	return binary.BigEndian.Uint64(b), nil
}
