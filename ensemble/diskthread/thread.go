// Package diskthread runs what may hang in a disk on threads of its own, which hold
// no socket. Start at [Start].
//
// Linux closes the descriptors of a process when the last thread that shares their
// table has ended. A thread that waits for a disk may be unable to end, whatever kills
// the process: writing, flushing, looking up a name, even opening a file and asking for
// free space wait uninterruptibly. In the table of all other threads it would keep
// the connections of clients open, for as long as the disk hangs. So it gets a table
// of its own (CLONE_FILES of clone(2)), before it opens anything.
//
// What follows from that:
//
//   - A descriptor is a number in one table. What a function of [Thread.Do] opens is
//     used and closed by such functions of the same thread alone, and it must be closed:
//     the finalizer of an [os.File] runs on another thread, and would close what has
//     that number there. For what cannot be closed there is [Keep].
//   - Maps of files belong to the process, and can be read from all threads: waiting
//     for a page can be interrupted by a kill.
//   - A few descriptors have to be in every table, under one number: those that the Go
//     runtime uses on whatever thread it just is (runtime.go), 0 to 2, and what the
//     caller of Start wants.
//   - The Go runtime starts no threads from a locked one (newm in its proc.go, with a
//     "template thread"), so no other gets this table.
package diskthread

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Thread calls functions, one at a time. A nil *Thread calls them where it is asked to.
type Thread struct {
	id     int // the kernel's
	shared error
	calls  chan call
	doing  atomic.Uint64 // odd while a function is being called, and another number for each
	close  func()
	closed chan struct{}
	ended  chan struct{}
}

type call struct {
	f    func() error
	done chan<- error
}

// Start starts a thread. Beside what every table has, its table has the descriptors
// that are in keep, under the same numbers: what they are open on stays open until it
// is closed there and in the caller's table, or until both are gone.
func Start(keep ...int) *Thread {
	t := &Thread{calls: make(chan call), closed: make(chan struct{}), ended: make(chan struct{})}
	t.close = sync.OnceFunc(func() { close(t.closed) })
	started := make(chan struct{})
	go t.run(keep, started)
	<-started
	return t
}

func (t *Thread) run(keep []int, started chan<- struct{}) {
	runtime.LockOSThread() // for good: the thread ends with this goroutine
	if t.id = unix.Gettid(); t.id == unix.Getpid() {
		// The table of the main thread is the one that /proc/self/fd shows.
		// Another goroutine gets another thread while this one has it.
		next := make(chan struct{})
		go t.run(keep, next)
		<-next
		runtime.UnlockOSThread()
		close(started)
		return
	}
	defer close(t.ended)
	if t.shared = leave(keep); t.shared == nil {
		defer func() { // not when the kernel comes to it
			for _, fd := range keep {
				unix.Close(fd)
			}
		}()
	}
	close(started)
	for {
		select {
		case c := <-t.calls:
			t.doing.Add(1)
			err := c.f()
			t.doing.Add(1)
			c.done <- err
		case <-t.closed:
			return
		}
	}
}

// ErrClosed is what [Thread.Do] returns after Close.
var ErrClosed = errors.New("the thread for the disk has ended")

// Do calls f on the thread and gives what it returns. It waits for f, and for all that
// was asked before. It may be called from all goroutines, but not by f.
func (t *Thread) Do(f func() error) error {
	if t == nil {
		return f()
	}
	done := make(chan error, 1)
	select {
	case t.calls <- call{f, done}:
		return <-done
	case <-t.ended:
		return ErrClosed
	}
}

// ErrHangs is what [Thread.DoWithin] returns when it has waited for long enough.
var ErrHangs = errors.New("the disk hangs")

// DoWithin is Do, but waits only so long; what was asked may be done yet.
func (t *Thread) DoWithin(limit time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- t.Do(f) }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return ErrHangs
	}
}

// Watch returns [ErrHangs] when one function has been under way on the thread for longer
// than limit, and nil when done is closed. It counts moments at which it looks, not the
// time: after the whole process has stood still, a function gets its time all the same.
func (t *Thread) Watch(limit time.Duration, done <-chan struct{}) error {
	const looks = 10
	tick := time.NewTicker(limit / looks)
	defer tick.Stop()
	var seen uint64
	times := 0
	for times <= looks {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		doing := t.doing.Load()
		if doing != seen || doing%2 == 0 {
			seen, times = doing, 0
		}
		times++
	}
	return ErrHangs
}

// Close ends the thread when it has done what it is doing, and returns then.
func (t *Thread) Close() {
	if t != nil {
		t.close()
		<-t.ended
	}
}

// Shared is why the thread has the table of all others after all, so that a kill
// closes no connection while it hangs; nil if it has its own.
func (t *Thread) Shared() error { return t.shared }

// leave gives the calling thread a table of its own: with the descriptors of every
// table and these. If it cannot, nothing has changed.
func leave(keep []int) error {
	everywhere, err := ofRuntime()
	if err != nil {
		return err
	}
	keep = slices.Concat(everywhere.all(), keep)
	last := slices.Max(keep)
	// Copies the table up to there only. Linux 5.9 or newer; a seccomp filter that is
	// older than that answers that it is not permitted.
	if closeRange(uint(last+1), math.MaxUint32, unix.CLOSE_RANGE_UNSHARE) != nil {
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			return fmt.Errorf("neither close_range nor unshare of the table of descriptors is permitted: %w", err)
		}
		open, err := os.ReadDir("/proc/thread-self/fd")
		if err != nil {
			panic("diskthread: " + err.Error()) // it was there just now
		}
		for _, e := range open {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd > last {
				unix.Close(fd)
			}
		}
	}
	for fd := range last {
		if !slices.Contains(keep, fd) {
			unix.Close(fd)
		}
	}
	return nil
}

var closeRange = unix.CloseRange // as tests of older kernels have it

var (
	keptMu sync.Mutex
	kept   []any
)

// Keep keeps v from being collected for as long as the process lives: a file of a
// thread that somebody else has failed to close (see the package comment).
func Keep(v any) {
	keptMu.Lock()
	defer keptMu.Unlock()
	kept = append(kept, v)
}
