package logstore

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// A disk is under a store and can be broken: writes then fail, since descriptors
// that are open for reading only have taken the place of the right ones.
type disk struct {
	t    *testing.T
	path string
	s    *Store
	db   int         // bbolt's descriptor
	good map[int]int // of a broken descriptor: another one of the same open file
}

// openOnDisk opens a store that counts the calls of OnError.
func openOnDisk(t *testing.T) (s *Store, d *disk, failures *[]error) {
	t.Helper()
	d = &disk{t: t, path: filepath.Join(t.TempDir(), "raft.db"), good: map[int]int{}}
	failures = new([]error)
	d.s = mustOpen(t, d.path, Options{
		OnError: func(err error) { *failures = append(*failures, err) },
		openFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			if err == nil {
				d.db = int(f.Fd())
			}
			return f, err
		},
	})
	return d.s, d, failures
}

func (d *disk) breakDown() {
	d.t.Helper()
	f, err := os.Open(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for _, fd := range []int{d.db, d.s.tail} {
		if fd == noTail {
			continue
		}
		good, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			d.t.Fatal(err)
		}
		d.good[fd] = good
		if err := unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) repair() {
	d.t.Helper()
	for fd, good := range d.good {
		if err := unix.Dup3(good, fd, unix.O_CLOEXEC); err != nil {
			d.t.Fatal(err)
		}
		unix.Close(good)
	}
}

// After a failed fsync the next one reports success, although the pages are
// lost: so the disk is well again here, and the store must not be.
func TestTheFirstFailedWriteIsFinal(t *testing.T) {
	for name, write := range map[string]func(*Store) error{
		"StoreLog":  func(s *Store) error { return s.StoreLog(entry(2001)) },
		"StoreLogs": func(s *Store) error { return s.StoreLogs(entries(2001, 2050)) },
		"Append": func(s *Store) error {
			return cmp.Or(s.Append(entries(2001, 2050)), s.AwaitFlushed(2050))
		},
		"replace by a gap":  func(s *Store) error { return s.StoreLogs(entries(3000, 3001)) },
		"DeleteRange front": func(s *Store) error { return s.DeleteRange(1, 10) },
		"DeleteRange back":  func(s *Store) error { return s.DeleteRange(10, 2000) },
		"DeleteRange all":   func(s *Store) error { return s.DeleteRange(1, 2000) },
		"Set":               func(s *Store) error { return s.Set([]byte("vote"), []byte("other")) },
		"SetUint64":         func(s *Store) error { return s.SetUint64([]byte("term"), 8) },
		"Raise":             func(s *Store) error { return s.Raise(Format) },
	} {
		t.Run(name, func(t *testing.T) {
			s, d, failures := openOnDisk(t)
			mustStore(t, s, 1, 2000)
			if err := errors.Join(s.Set([]byte("vote"), []byte("one")), s.SetUint64([]byte("term"), 7)); err != nil {
				t.Fatal(err)
			}
			d.breakDown()
			first := write(s)
			if first == nil || !strings.HasPrefix(first.Error(), "log store "+d.path+": ") {
				t.Fatalf("error %v", first)
			}
			d.repair()
			for name, err := range everyCall(s) {
				if err != first {
					t.Errorf("then %s: error %v", name, err)
				}
			}
			if len(*failures) != 1 || (*failures)[0] != first {
				t.Errorf("OnError was called with %v", *failures)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}

			s = mustOpen(t, d.path, Options{})
			defer s.Close()
			wantLog(t, s, 1, 2000)
			if v, err := s.Get([]byte("vote")); string(v) != "one" || err != nil {
				t.Errorf("vote %q, error %v", v, err)
			}
			if n, err := s.GetUint64([]byte("term")); n != 7 || err != nil {
				t.Errorf("term %d, error %v", n, err)
			}
		})
	}
}

// Of the writes that wait while one fails, none is tried: on a disk that is well
// again they would succeed.
func TestWaitingWritesFailWithTheFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	calls := 0
	s := mustOpen(t, path, Options{OnError: func(error) { calls++ }})
	mustStore(t, s, 1, 10)
	var begun, writers sync.WaitGroup
	errs := make([]error, 8)
	first := s.write(func() error {
		for i := range errs {
			begun.Add(1)
			writers.Go(func() {
				begun.Done()
				errs[i] = s.StoreLog(entry(11))
			})
		}
		begun.Wait()
		time.Sleep(20 * time.Millisecond) // they are to wait for the lock; if they do not yet, the test is only weaker
		return errors.New("the disk is ill")
	})
	writers.Wait()
	for _, err := range errs {
		if err == nil || err != first {
			t.Errorf("error %v, the first was %v", err, first)
		}
	}
	if calls != 1 {
		t.Errorf("OnError was called %d times", calls)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = mustOpen(t, path, Options{})
	defer s.Close()
	wantLog(t, s, 1, 10)
}

// Reads may fail at the same time; there is one first error nevertheless.
func TestOfFailuresAtOnceOneIsTheFirst(t *testing.T) {
	var calls atomic.Int32
	s := mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{OnError: func(error) { calls.Add(1) }})
	defer s.Close()
	var inside, readers sync.WaitGroup
	errs := make([]error, 8)
	inside.Add(len(errs))
	for i := range errs {
		readers.Go(func() {
			errs[i] = s.run(func() error {
				inside.Done()
				inside.Wait()
				return fmt.Errorf("damage %d", i)
			})
		})
	}
	readers.Wait()
	for _, err := range errs {
		if err == nil || err != errs[0] {
			t.Errorf("error %v, another had %v", err, errs[0])
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("OnError was called %d times", n)
	}
}

func TestOnErrorMayBeNil(t *testing.T) {
	s, d, _ := openOnDisk(t)
	s.onError = nil
	d.breakDown()
	if err := s.StoreLog(entry(1)); err == nil {
		t.Error("no error")
	}
	d.repair()
	s.Close()
}

// What is on the way to the disk when the store is told to fail is not confirmed, though
// the disk takes it.
func TestNothingIsConfirmedAfterFail(t *testing.T) {
	writing, goOn := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() {
		close(writing)
		<-goOn
	})
	armed := new(atomic.Bool)
	var told error
	s := mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{
		OnError: func(err error) { told = err },
		BeforeCommit: func() {
			if armed.Load() {
				once()
			}
		},
	})
	if err := s.StoreLog(&raft.Log{Index: 1}); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := s.Append([]*raft.Log{{Index: 2}}); err != nil {
		t.Fatal(err)
	}
	<-writing
	gone := errors.New("the folder is gone")
	s.Fail(gone)
	close(goOn)
	if err := s.AwaitFlushed(2); !errors.Is(err, gone) {
		t.Errorf("waiting for what was on the way: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 3}); !errors.Is(err, gone) {
		t.Errorf("a later write: %v", err)
	}
	if s.Flushed() >= 2 {
		t.Errorf("entry %d is said to be on disk", s.Flushed())
	}
	if !errors.Is(told, gone) {
		t.Errorf("OnError was told %v", told)
	}
}
