// Package logstore keeps the Raft log in files of its own, which are only appended
// to, and Raft's few other durable values (term, vote) in a bbolt file beside them.
// An entry is on disk after one flush; bbolt alone would take two. Start at [Open].
//
// What is promised:
//
//   - A call that wrote returns after the data are on disk, but for [Store.Append],
//     after which one has to ask. Of entries that a crash has kept from the disk, the
//     beginning may be there.
//   - The first error of the disk, or the first sign of damage, is the last word:
//     every later call returns it too. After a failed fsync the kernel counts the
//     lost pages as written, so trying again would seem to work. Raft itself goes
//     on after such errors as a silent follower; hence [Options].OnError, after
//     which the process should end. A write that hangs is such an error too: Raft
//     would go on as a leader that commits nothing, and nobody would take its place.
//   - Entries have no gaps. Raft leaves one when a snapshot has taken the place
//     of all that a log had; then the entries before the gap go before any is
//     stored. Left there they could be entries that never were committed, and be
//     handed to another node later.
//   - What was interrupted is told from what was damaged: an entry that cannot be
//     read is given up only if nothing that was written later is there.
//   - A term, a vote or a number that was stored is there as it was stored, or
//     there is an error. So it is from format 2 on: one checksum is over all that
//     the bbolt file has, with the number of the transaction that wrote it, and both are
//     looked at whenever something of it is read. What no file can tell is that the
//     page was lost that names the last transaction, and so all of that. From then on
//     it also says how long the last of the log's files is: one that is shorter is
//     damaged, wherever it ends. Where the store itself cuts one off, it says so before.
//
// There are two formats, and both are read. A store writes the first until it is told
// to write the other ([Options].Format, [Store.Raise]); from then on it does for good.
// Which one it is, stands in the bbolt file; the log's files are the same in both.
//
// Which of the files count, and from which entry on, stands in the bbolt file; see
// [extent]. It changes when a file is full, and when entries are deleted. Where it is lost
// no file is deleted: see [Store.checkFirst].
//
// Raft offers to stores without gaps to be a raft.MonotonicLogStore. This one
// is not: raft 1.8.0 then empties the store after each installed snapshot, with
// the entries above the snapshot that this node has already acknowledged
// (https://github.com/hashicorp/raft/issues/697). Nor should a raft.LogCache stand
// before it, which goes on serving what a gap has removed; a read takes 2 us.
//
// Methods may be called from several goroutines at once; writes take turns.
package logstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/durable"
)

// ErrClosed is that of every call after Close.
var ErrClosed = errors.New("the log store is closed")

// errNotFound has the text that raft looks for.
var errNotFound = errors.New("not found")

// A Store is a raft.LogStore and a raft.StableStore.
type Store struct {
	db      *bolt.DB
	thread  *diskthread.Thread
	dir     string // of the segments
	size    int64  // at which a segment is full
	onError func(error)
	failed  atomic.Pointer[error]

	beforeCommit func()
	there        func() error

	began     atomic.Pointer[time.Time] // of the write that is under way; nil: none
	appended  chan struct{}             // there is something to flush; room for one
	closeOnce sync.Once
	closeErr  error
	closed    chan struct{}

	changing lock // held over a change and the note that it failed, so that no other comes between
	disk     lock // held over what is done on the disk, beside which entries are appended; taken after changing
	tail     int  // guarded by disk: the last segment's descriptor for writing, or noTail

	mu       sync.RWMutex // guards what follows, which changes while changing or disk is held too
	segments []*segment   // in the order of their entries
	first    uint64       // entry of the log; if that is empty, the one that the last segment begins with
	fresh    part         // of the last segment, not on disk
	flying   part         // of the same, before fresh: on the way to the disk
	landed   sync.Cond    // with mu for reading: a flush has ended, or the store is of no more use

	flushed atomic.Uint64 // see Flushed; changes under mu
}

// part is a part of a segment that is in memory.
type part struct {
	first  uint64 // entry in it
	offset int64  // in the file
	b      []byte
}

// has reports whether what is at an offset of the file is in the part.
func (p *part) has(offset int64) bool {
	return p.offset <= offset && offset < p.offset+int64(len(p.b))
}

const noTail = -1

// keptBuffer is how much memory is kept from one part to the next.
const keptBuffer = 256 << 10

// lock is a mutex, for which tests can wait in virtual time.
type lock chan struct{}

func newLock() lock    { return make(lock, 1) }
func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// Close waits for running calls and closes the files. Later calls fail with
// [ErrClosed], without OnError. Of what was appended it waits for no more than is on the
// way to the disk.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.wakeWaiters()
		s.changing.Lock()
		defer s.changing.Unlock()
		s.disk.Lock()
		defer s.disk.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closeErr = errors.Join(closeSegments(s.segments), s.closeTail(), s.onDisk(s.db.Close))
		s.segments = nil
	})
	return s.closeErr
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

// Fail has all later calls fail with an error, as if the disk had: what is on the way to
// it is not confirmed any more.
func (s *Store) Fail(err error) { s.fail(err) }

// fail makes an error the last word, unless there is one.
func (s *Store) fail(err error) {
	err = fmt.Errorf("log store %s: %w", s.db.Path(), err)
	if !s.failed.CompareAndSwap(nil, &err) {
		return
	}
	if s.onError != nil {
		s.onError(err)
	}
	s.wakeWaiters()
}

// wakeWaiters has those who wait for the disk look again.
func (s *Store) wakeWaiters() {
	s.mu.Lock() // whoever has looked before waits by now
	defer s.mu.Unlock()
	s.landed.Broadcast()
}

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (s *Store) FirstIndex() (first uint64, err error) {
	err = s.run(func() error { first, _ = s.bounds(); return nil })
	return first, err
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (s *Store) LastIndex() (last uint64, err error) {
	err = s.run(func() error { _, last = s.bounds(); return nil })
	return last, err
}

// bounds gives the indexes of the first and the last entry, 0 and 0 if there is none.
func (s *Store) bounds() (first, last uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.segments) == 0 || s.segments[len(s.segments)-1].next() == s.first {
		return 0, 0
	}
	return s.first, s.segments[len(s.segments)-1].next() - 1
}

// GetLog fills l with the entry, or returns raft.ErrLogNotFound.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	return s.run(func() error {
		s.mu.RLock()
		defer s.mu.RUnlock()
		for i := len(s.segments) - 1; i >= 0 && index >= s.first; i-- {
			if g := s.segments[i]; index >= g.next() {
				break
			} else if index >= g.base {
				b, err := s.record(g, index)
				if err != nil {
					return err
				}
				return g.parse(b, index, l)
			}
		}
		return cmp.Or(s.over(), raft.ErrLogNotFound)
	})
}

// record gives the bytes of an entry, which are the caller's. s.mu is held.
func (s *Store) record(g *segment, index uint64) ([]byte, error) {
	from, to := g.place(index)
	if g == s.segments[len(s.segments)-1] {
		for _, p := range []*part{&s.fresh, &s.flying} {
			if p.has(from) {
				return bytes.Clone(p.b[from-p.offset : to-p.offset]), nil
			}
		}
	}
	return g.read(from, to)
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
	return s.write(func() error { return s.storeNow(logs) })
}

// Append is StoreLogs, but returns before the entries are on disk, where they come in
// their order and without being asked for: see [Store.Flushed]. Until then a crash may
// take them. Whatever any other call writes is on disk after them.
func (s *Store) Append(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if !s.hasRoom(logs[0].Index) {
		return s.afterFlush(func() error { return s.storeNow(logs) })
	}
	err := s.run(func() error { return s.add(logs) })
	select {
	case s.appended <- struct{}{}:
	default:
	}
	return err
}

// hasRoom reports whether an entry can be added to the last segment as it is.
func (s *Store) hasRoom(index uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := len(s.segments)
	return n > 0 && s.segments[n-1].next() == index && s.segments[n-1].end < s.size
}

// storeNow puts entries on disk. s.changing and s.disk are held.
func (s *Store) storeNow(logs []*raft.Log) error {
	if err := s.provide(logs[0].Index); err != nil {
		return err
	}
	if err := s.add(logs); err != nil {
		return err
	}
	return s.flush()
}

// add appends entries to the last segment, in memory. s.changing is held.
func (s *Store) add(logs []*raft.Log) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, p := s.segments[len(s.segments)-1], &s.fresh
	if len(p.b) == 0 {
		p.first, p.offset = g.next(), g.end
		if len(s.flying.b) == 0 {
			s.flushed.Store(p.first - 1)
		}
	}
	size := 0
	for _, l := range logs {
		size += padded(recordHeader + len(l.Extensions) + len(l.Data))
	}
	p.b = slices.Grow(p.b, size)
	for _, l := range logs {
		if want := g.next(); l.Index != want {
			return fmt.Errorf("store entry %d where %d should be", l.Index, want)
		}
		if g.end > math.MaxUint32 {
			return fmt.Errorf("store entry %d: too much at once", l.Index)
		}
		if p.b, err = appendRecord(p.b, g.salt, p.first, l); err != nil {
			return err
		}
		g.offsets = append(g.offsets, uint32(g.end))
		g.end = p.offset + int64(len(p.b))
	}
	return nil
}

// flush puts on disk what is not. s.disk is held.
func (s *Store) flush() error {
	s.mu.Lock()
	s.flying, s.fresh = s.fresh, part{b: s.flying.b[:0]}
	p := s.flying
	s.mu.Unlock()
	if len(p.b) == 0 {
		return nil
	}
	err := s.onDisk(func() error {
		if s.beforeCommit != nil {
			s.beforeCommit()
		}
		if err := writeAt(s.tail, p.b, p.offset); err != nil {
			return err
		}
		return flush(s.tail)
	})
	if err != nil {
		return err
	}
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying.b = p.b[:0]; cap(p.b) > keptBuffer {
		s.flying.b = nil
	}
	if len(s.fresh.b) == 0 {
		s.flushed.Store(math.MaxUint64)
	} else {
		s.flushed.Store(s.fresh.first - 1)
	}
	s.landed.Broadcast()
	return nil
}

// flushAppended flushes what Append leaves, for as long as the store is open.
func (s *Store) flushAppended() {
	for {
		select {
		case <-s.closed:
			return
		case <-s.appended:
		}
		// The thread for the disk takes over the processor on which it is asked, with
		// all that is ready there, and holds it until the disk has answered: among it
		// may be those who send to others what is to be flushed.
		runtime.Gosched()
		s.alone(s.flush)
	}
}

// Flushed is up to which entry all are on disk: the largest uint64 where nothing that
// was appended is on the way. It never waits.
func (s *Store) Flushed() uint64 { return s.flushed.Load() }

// AwaitFlushed returns when an entry and all before it are on disk. An error says that
// it is not, and that nobody knows whether it ever will be.
func (s *Store) AwaitFlushed(index uint64) error {
	if index <= s.Flushed() {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for index > s.Flushed() {
		if failed := s.failed.Load(); failed != nil {
			return *failed
		}
		if err := s.over(); err != nil {
			return err
		}
		s.landed.Wait()
	}
	return nil
}

// provide has the last segment be the one that the entry next is to be written to.
// s.changing and s.disk are held.
func (s *Store) provide(next uint64) error {
	first, last := s.bounds()
	if next <= last {
		return fmt.Errorf("store entry %d: the log ends at %d", next, last)
	}
	if n := len(s.segments); n > 0 {
		g := s.segments[n-1]
		switch {
		case g.next() != next:
			if err := s.empty(); err != nil {
				return err
			}
			first = 0
		case g.end < s.size:
			return nil
		}
	}
	if first == 0 {
		first = next
	}
	g := newSegment(s.dir, next)
	if err := s.closeTail(); err != nil {
		return err
	}
	err := s.byPath(func() (err error) {
		s.tail, err = g.create(s.size)
		return err
	})
	if err == nil {
		err = g.open()
	}
	if err == nil {
		err = s.setExtent(extent{first, next, uint64(g.length)})
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments, s.first = append(s.segments, g), first
	return nil
}

// DeleteRange deletes the entries from one to another, both included, as far as
// there are any. They must be at one end of the log or be all of it.
func (s *Store) DeleteRange(from, to uint64) error {
	return s.write(func() error {
		first, last := s.bounds()
		from, to = max(from, first), min(to, last)
		switch {
		case first == 0 || from > to:
			return nil
		case from == first && to == last:
			return s.empty()
		case from == first:
			return s.deleteFront(to + 1)
		case to == last:
			return s.deleteBack(from)
		}
		return fmt.Errorf("delete entries %d to %d: that leaves a gap in %d to %d", from, to, first, last)
	})
}

// empty deletes all entries. s.changing and s.disk are held, as in the next two.
func (s *Store) empty() error {
	gone := s.take(0, len(s.segments), 0)
	if err := s.setExtent(extent{}); err != nil {
		return err
	}
	return errors.Join(s.closeTail(), s.remove(gone))
}

// deleteFront deletes the entries before first.
func (s *Store) deleteFront(first uint64) error {
	n := 0
	for n+1 < len(s.segments) && s.segments[n+1].base <= first {
		n++
	}
	gone := s.take(0, n, first)
	last := s.segments[len(s.segments)-1]
	if err := s.setExtent(extent{first, last.base, uint64(last.length)}); err != nil || n == 0 {
		return err
	}
	return s.remove(gone)
}

// deleteBack deletes the entries from next on.
func (s *Store) deleteBack(next uint64) error {
	n := len(s.segments)
	for s.segments[n-1].base >= next {
		n--
	}
	if n < len(s.segments) {
		gone := s.take(n, len(s.segments), s.first)
		last := s.segments[n-1]
		if err := s.setExtent(extent{s.first, last.base, uint64(last.length)}); err != nil {
			return err
		}
		if err := errors.Join(s.closeTail(), s.remove(gone)); err != nil {
			return err
		}
		if err := s.openTail(); err != nil {
			return err
		}
	}
	g := s.segments[n-1]
	if next == g.next() {
		return nil
	}
	s.mu.Lock()
	g.end = int64(g.offsets[next-g.base])
	g.offsets = g.offsets[:next-g.base]
	s.mu.Unlock()
	return s.cutTail()
}

// cutTail has nothing behind the last record in the last segment's file. The length that is
// noted is never more than a crash may leave of the file: before the cut it is noted what
// the cut leaves, and after it what the file has again. s.disk is held.
func (s *Store) cutTail() error {
	g := s.segments[len(s.segments)-1]
	g.length = max(g.length, g.end, s.size)
	if err := s.noteLength(g.end); err != nil {
		return err
	}
	if err := s.onDisk(func() error { return cut(s.tail, g.end, g.length) }); err != nil {
		return err
	}
	return s.noteLength(g.length)
}

// take takes the segments from i to j out of the log, for those who read it, and
// sets its first entry.
func (s *Store) take(i, j int, first uint64) []*segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := slices.Clone(s.segments[i:j])
	s.segments, s.first = slices.Delete(s.segments, i, j), first
	return gone
}

// remove deletes the files of segments that count no more.
func (s *Store) remove(gone []*segment) error {
	err := closeSegments(gone)
	return errors.Join(err, s.byPath(func() (err error) {
		for _, g := range gone {
			err = errors.Join(err, os.Remove(g.path))
		}
		return errors.Join(err, durable.SyncDir(s.dir))
	}))
}

func closeSegments(all []*segment) (err error) {
	for _, g := range all {
		err = errors.Join(err, g.close())
	}
	return err
}

func (s *Store) openTail() error {
	return s.byPath(func() (err error) {
		s.tail, err = openForWriting(s.segments[len(s.segments)-1].path, 0)
		return err
	})
}

func (s *Store) closeTail() error {
	fd := s.tail
	if s.tail = noTail; fd == noTail {
		return nil
	}
	return s.onDisk(func() error { return unix.Close(fd) })
}

// Set stores a value of Raft's.
func (s *Store) Set(k, v []byte) error {
	return s.write(func() error { return s.put(pair{k, v}) })
}

// Get returns the value of k, or an error with the text "not found".
func (s *Store) Get(k []byte) (v []byte, err error) {
	err = s.run(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			if v, err = readValue(tx, k); err == nil && v == nil {
				err = errNotFound
			}
			return err
		})
	})
	return v, err
}

// SetUint64 stores a number of Raft's.
func (s *Store) SetUint64(k []byte, v uint64) error { return s.Set(k, number(v)) }

// Number is a number and its key.
type Number struct {
	Key []byte
	N   uint64
}

// SetUint64s stores numbers, all of them or, if a crash comes first, none.
func (s *Store) SetUint64s(numbers ...Number) error {
	var pairs []pair
	for _, n := range numbers {
		pairs = append(pairs, pair{n.Key, number(n.N)})
	}
	return s.write(func() error { return s.put(pairs...) })
}

// GetUint64 returns the number at k, 0 if there is none.
func (s *Store) GetUint64(k []byte) (n uint64, err error) {
	v, err := s.Get(k)
	if err == errNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	err = s.run(func() error {
		n, err = parseNumber(v)
		return err
	})
	return n, err
}

// pair is a key of Raft's with its value.
type pair struct{ k, v []byte }

// notedExtent gives the extent that is noted, if there is one.
func (s *Store) notedExtent() (e extent, noted bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) (err error) {
		e, noted, err = readExtent(tx)
		return err
	})
	return e, noted, err
}

// put stores values of Raft's. s.disk is held, as in the next three.
func (s *Store) put(values ...pair) error {
	return s.update(func(tx *bolt.Tx) error { return writeNotes(tx, nil, values) })
}

// noteLength notes a length of the last segment's file, unless the format has none.
func (s *Store) noteLength(length int64) error {
	e, _, err := s.notedExtent()
	if err != nil || e.length == 0 {
		return err
	}
	e.length = uint64(length)
	return s.setExtent(e)
}

func (s *Store) setExtent(e extent) error {
	return s.update(func(tx *bolt.Tx) error { return writeNotes(tx, &e, nil) })
}

// update changes the bbolt file, in one transaction, which writes the notes where there are
// any: see [putNotes].
func (s *Store) update(f func(*bolt.Tx) error) error {
	return s.onDisk(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			err := f(tx)
			if err == nil && s.beforeCommit != nil {
				s.beforeCommit()
			}
			return err
		})
	})
}

// onDisk does what may hang in the disk: all but reading.
func (s *Store) onDisk(f func() error) error {
	return s.thread.Do(func() error { return guard(f) })
}

// byPath does something on the disk with files that it finds by their paths.
func (s *Store) byPath(f func() error) error {
	return s.onDisk(func() error {
		if err := s.there(); err != nil {
			return err
		}
		return f()
	})
}

// write does something that writes to the disk.
func (s *Store) write(f func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.afterFlush(f)
}

// afterFlush does something alone after what was appended is on disk. s.changing is held.
func (s *Store) afterFlush(f func() error) error {
	return s.alone(func() error {
		if err := s.flush(); err != nil {
			return err
		}
		return f()
	})
}

// alone does something on the disk, beside which nothing else is done there.
func (s *Store) alone(f func() error) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	return s.run(f)
}

// Busy is for how long the write that is under way has lasted; 0 if there is
// none. It never waits.
func (s *Store) Busy() time.Duration {
	if began := s.began.Load(); began != nil {
		return time.Since(*began)
	}
	return 0
}

// run does something with the files. What goes wrong is the last word.
func (s *Store) run(f func() error) error {
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	if err := s.over(); err != nil {
		return err
	}
	err := guard(f)
	failed := s.failed.Load()
	switch {
	case failed != nil: // meanwhile, so nobody may count on it
		return *failed
	case err == nil, err == raft.ErrLogNotFound, err == errNotFound, err == ErrClosed, errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return err
	}
	s.fail(err)
	return *s.failed.Load()
}

// over is [ErrClosed] after Close.
func (s *Store) over() error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
		return nil
	}
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func parseNumber(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("number of %d bytes instead of 8: %w", len(b), ErrDamaged)
	}
	return binary.BigEndian.Uint64(b), nil
}
