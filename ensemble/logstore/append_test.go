package logstore

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// appending is a store that appends: for the table of what Raft expects.
type appending struct{ *Store }

func (a appending) StoreLog(l *raft.Log) error       { return a.Append([]*raft.Log{l}) }
func (a appending) StoreLogs(logs []*raft.Log) error { return a.Append(logs) }

// gate is a disk whose flushes wait until they are let through, one by one.
type gate struct {
	flushes atomic.Int32
	shut    atomic.Bool
	through chan struct{}
}

func newGate() *gate { return &gate{through: make(chan struct{})} }

func (g *gate) commit() {
	g.flushes.Add(1)
	if g.shut.Load() {
		<-g.through
	}
}

// openGated opens a store on such a disk, which lets all through as yet.
func openGated(t *testing.T) (*Store, *gate) {
	t.Helper()
	g := newGate()
	return mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{SegmentSize: 1 << 20, BeforeCommit: g.commit}), g
}

func (g *gate) open() {
	g.shut.Store(false)
	close(g.through)
}

func mustAppend(t *testing.T, s *Store, first, last uint64) {
	t.Helper()
	if err := s.Append(entries(first, last)); err != nil {
		t.Fatal(err)
	}
}

// awaits starts to wait for an entry.
func awaits(s *Store, index uint64) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.AwaitFlushed(index) }()
	return done
}

// wantWaits wants that who waits waits still, and that all else waits too.
func wantWaits(t *testing.T, waiting <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-waiting:
		t.Errorf("it waits no more: error %v", err)
	default:
	}
}

// What is appended while the disk has to do is there at once, waits for nobody, and
// comes to the disk in one flush.
func TestAppendedWhileTheDiskHasToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := openGated(t)
		defer s.Close()
		mustStore(t, s, 1, 10)
		if n := s.Flushed(); n != math.MaxUint64 {
			t.Errorf("flushed up to %d", n)
		}
		g.shut.Store(true)
		g.flushes.Store(0)
		mustAppend(t, s, 11, 12)
		synctest.Wait() // their flush is under way
		for i := uint64(13); i <= 40; i++ {
			mustAppend(t, s, i, i)
		}
		wantLog(t, s, 1, 40)
		if n := s.Flushed(); n != 10 {
			t.Errorf("flushed up to %d", n)
		}
		if err := s.AwaitFlushed(10); err != nil {
			t.Error(err)
		}
		first, second := awaits(s, 12), awaits(s, 13)
		wantWaits(t, first)
		wantWaits(t, second)

		g.through <- struct{}{}
		if err := <-first; err != nil {
			t.Error(err)
		}
		wantWaits(t, second)
		if n := s.Flushed(); n != 12 {
			t.Errorf("flushed up to %d", n)
		}
		mustAppend(t, s, 41, 41) // beside what is on the way
		wantLog(t, s, 1, 41)

		g.through <- struct{}{}
		if err := errors.Join(<-second, s.AwaitFlushed(40)); err != nil {
			t.Error(err)
		}
		last := awaits(s, 41)
		wantWaits(t, last)
		g.through <- struct{}{}
		if err := <-last; err != nil {
			t.Error(err)
		}
		if n := g.flushes.Load(); n != 3 {
			t.Errorf("%d flushes", n)
		}
		if n := s.Flushed(); n != math.MaxUint64 {
			t.Errorf("flushed up to %d", n)
		}
		g.shut.Store(false)
	})
}

// What any other call has written is on disk after all that was appended before it.
func TestWhatFollowsIsOnDiskAfterWhatWasAppended(t *testing.T) {
	for name, write := range map[string]func(*Store) error{
		"StoreLogs":         func(s *Store) error { return s.StoreLogs(entries(13, 14)) },
		"replace by a gap":  func(s *Store) error { return s.StoreLogs(entries(30, 31)) },
		"append with a gap": func(s *Store) error { return s.Append(entries(30, 31)) },
		"DeleteRange front": func(s *Store) error { return s.DeleteRange(1, 5) },
		"DeleteRange back":  func(s *Store) error { return s.DeleteRange(11, 12) },
		"DeleteRange all":   func(s *Store) error { return s.DeleteRange(1, 12) },
		"SetUint64":         func(s *Store) error { return s.SetUint64([]byte("term"), 7) },
		"Raise":             func(s *Store) error { return s.Raise(Format) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, g := openGated(t)
				defer s.Close()
				mustStore(t, s, 1, 10)
				g.shut.Store(true)
				mustAppend(t, s, 11, 11)
				synctest.Wait()
				mustAppend(t, s, 12, 12)
				written := make(chan error, 1)
				go func() { written <- write(s) }()
				g.through <- struct{}{}
				wantWaits(t, written)
				if n := s.Flushed(); n != 11 {
					t.Errorf("flushed up to %d", n)
				}
				g.open()
				if err := <-written; err != nil {
					t.Error(err)
				}
				if n := s.Flushed(); n != math.MaxUint64 {
					t.Errorf("flushed up to %d", n)
				}
			})
		})
	}
}

// The first entry of a log and of a file is on disk at once: there is nothing to which
// it could be appended.
func TestAppendBeginsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := mustOpen(t, path, Options{})
	for i := uint64(1); i <= 400; i++ {
		files := len(s.segments)
		mustAppend(t, s, i, i)
		if begun := len(s.segments) > files; begun && s.Flushed() != math.MaxUint64 {
			t.Errorf("entry %d is in a new file, and not on disk", i)
		}
	}
	if len(s.segments) < 3 {
		t.Errorf("only %d files", len(s.segments))
	}
	wantLog(t, s, 1, 400)
	check(t, s.AwaitFlushed(400))
	check(t, s.Close())
	s = mustOpen(t, path, Options{})
	defer s.Close()
	wantLog(t, s, 1, 400)
}

// A store that is closed has what was said to be on disk, and a beginning of the rest:
// what is on the way.
func TestCloseFlushesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		path := filepath.Join(t.TempDir(), "raft.db")
		s := mustOpen(t, path, Options{BeforeCommit: g.commit})
		mustStore(t, s, 1, 10)
		g.shut.Store(true)
		mustAppend(t, s, 11, 12)
		synctest.Wait()
		mustAppend(t, s, 13, 20)
		waits := awaits(s, 20)
		wantWaits(t, waits)
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		if err := <-waits; err != ErrClosed {
			t.Errorf("error %v", err)
		}
		g.open()
		check(t, <-closed)
		if err := s.Append(entries(21, 21)); err != ErrClosed {
			t.Errorf("error %v", err)
		}
		s = mustOpen(t, path, Options{})
		defer s.Close()
		wantLog(t, s, 1, 12)
	})
}

// A flush that fails, or hangs, is told to all who wait for it, and to whoever comes.
func TestAFailedFlushIsToldToAll(t *testing.T) {
	for name, tt := range map[string]struct {
		fail func()
		is   error
	}{
		"fails": {func() { panic("the disk is ill") }, ErrDamaged},
		"hangs": {func() { time.Sleep(time.Minute) }, ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failures []error
				var broken atomic.Bool
				path := filepath.Join(t.TempDir(), "raft.db")
				s := mustOpen(t, path, Options{
					OnError: func(err error) { failures = append(failures, err) },
					BeforeCommit: func() {
						if broken.Load() {
							time.Sleep(time.Second)
							tt.fail()
						}
					},
				})
				mustStore(t, s, 1, 10)
				broken.Store(true)
				mustAppend(t, s, 11, 11)
				synctest.Wait()
				mustAppend(t, s, 12, 12)
				first, second := awaits(s, 11), awaits(s, 12)
				wantWaits(t, first)
				err := <-first
				if !errors.Is(err, tt.is) {
					t.Errorf("error %v", err)
				}
				if err2 := <-second; err2 != err {
					t.Errorf("error %v, another had %v", err2, err)
				}
				broken.Store(false)
				for name, again := range everyCall(s) {
					if again != err {
						t.Errorf("then %s: error %v", name, again)
					}
				}
				check(t, s.AwaitFlushed(10))
				time.Sleep(2 * time.Minute)
				if err2 := s.AwaitFlushed(12); err2 != err {
					t.Errorf("error %v, want %v", err2, err)
				}
				if len(failures) != 1 || failures[0] != err {
					t.Errorf("OnError was called with %v", failures)
				}
				check(t, s.Close())
			})
		})
	}
}

// Of entries that were appended one by one, and came to the disk together, a crash of
// the machine may leave any sectors: none of them was said to be there.
func TestWhatACrashLeavesOfAppendedEntriesIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	g := newGate()
	s := mustOpen(t, path, Options{SegmentSize: 1 << 20, BeforeCommit: g.commit})
	mustStore(t, s, 1, 39)
	g.shut.Store(true)
	mustAppend(t, s, 40, 40)
	for g.flushes.Load() < 3 { // the file, the first entries, and this
		time.Sleep(time.Millisecond)
	}
	for i := uint64(41); i <= 60; i++ {
		mustAppend(t, s, i, i)
	}
	g.open()
	check(t, s.AwaitFlushed(60))
	from, _ := s.segments[0].place(41)
	to, name := s.segments[0].end, s.segments[0].path
	check(t, s.Close())
	good, err := os.ReadFile(name)
	check(t, err)
	whatSectorsLeave(t, path, name, good, from, to)
}

// A process that is killed before or after any flush leaves a good log, with all that was
// said to be on disk.
func TestEveryFlushLeavesAGoodLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	var s *Store
	look := func(want uint64) {
		copied := filepath.Join(t.TempDir(), "raft.db")
		if err := os.CopyFS(filepath.Dir(copied), os.DirFS(filepath.Dir(path))); err != nil {
			t.Error(err)
			return
		}
		c, err := Open(copied, Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		first, last := c.bounds()
		if last < want {
			t.Errorf("the log ends at %d, and %d was on disk", last, want)
		}
		for i := max(first, 1); i <= last; i++ {
			if err := c.GetLog(i, new(raft.Log)); err != nil {
				t.Errorf("entry %d: %v", i, err)
			}
		}
	}
	var looks atomic.Bool
	s = mustOpen(t, path, Options{BeforeCommit: func() {
		if looks.Load() {
			_, last := s.bounds()
			look(min(last, s.Flushed()))
		}
	}})
	defer s.Close()
	mustStore(t, s, 1, 5)
	looks.Store(true)
	for i := uint64(6); i < 150; i += 3 {
		mustAppend(t, s, i, i+1)
		if i%7 == 0 {
			check(t, s.StoreLogs(entries(i+2, i+2)))
			look(i + 2)
		} else {
			mustAppend(t, s, i+2, i+2)
		}
		if i%4 == 0 {
			check(t, s.AwaitFlushed(i+1))
			look(i + 1)
		}
	}
}

// Entries of an Append are read as they are from memory too, and are the reader's.
func TestWhatIsReadBeforeItIsOnDiskIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := openGated(t)
		defer s.Close()
		mustStore(t, s, 1, 1)
		g.shut.Store(true)
		mustAppend(t, s, 2, 2)
		synctest.Wait()
		mustAppend(t, s, 3, 3)
		for _, i := range []uint64{2, 3} { // on the way, and not yet
			var l raft.Log
			check(t, s.GetLog(i, &l))
			want := bytes.Clone(l.Data)
			clear(l.Data)
			check(t, s.GetLog(i, &l))
			if !bytes.Equal(l.Data, want) || !bytes.Equal(want, entry(i).Data) {
				t.Errorf("entry %d has the data %q, then %q", i, want, l.Data)
			}
		}
		g.open()
	})
}
