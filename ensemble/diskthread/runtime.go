package diskthread

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// runtimeFiles are descriptors that Go itself uses on whatever thread it just runs. In a
// table without them it would throw, or write into a file that has their number there.
type runtimeFiles struct {
	poller []int // epoll and the eventfd that wakes it: also used by who starts the world again, or sets a timer
	test   []int // under go test, a list of the files that are opened, written by who opens them
	crash  int   // of debug.SetCrashOutput: used by the thread that crashes, and by each that prints its stack upon SIGQUIT
}

func (r runtimeFiles) all() []int {
	return slices.Concat([]int{0, 1, 2, r.crash}, r.poller, r.test)
}

// ofRuntime finds them out once. From then on they stay the same, so nobody else may
// call debug.SetCrashOutput.
var ofRuntime = sync.OnceValues(func() (r runtimeFiles, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return r, err
	}
	defer null.Close()
	in, out, err := os.Pipe() // the runtime makes its poller for it
	if err != nil {
		return r, err
	}
	defer in.Close()
	defer out.Close()
	if err := debug.SetCrashOutput(out, debug.CrashOptions{}); err != nil { // makes a duplicate
		return r, err
	}
	const open = "/proc/self/fd"
	links, err := os.ReadDir(open)
	if err != nil {
		return r, err
	}
	pipe, err := os.Readlink(filepath.Join(open, fmt.Sprint(out.Fd())))
	if err != nil {
		return r, err
	}
	for _, l := range links {
		fd, _ := strconv.Atoi(l.Name())
		switch to, _ := os.Readlink(filepath.Join(open, l.Name())); {
		case strings.HasPrefix(to, "anon_inode:[event"): // nobody else has made one yet
			r.poller = append(r.poller, fd)
		case slices.Contains(os.Args, "-test.testlogfile="+to):
			r.test = append(r.test, fd)
		case to == pipe && fd != int(in.Fd()) && fd != int(out.Fd()):
			r.crash = fd
		}
	}
	if len(r.poller) < 2 || r.crash == 0 {
		return r, fmt.Errorf("the Go runtime has other descriptors than expected: %v", r)
	}
	return r, unix.Dup3(int(null.Fd()), r.crash, unix.O_CLOEXEC)
})

// SetCrashOutput has the Go runtime write crashes to f too, nil for nowhere, as
// [debug.SetCrashOutput] does, which must not be used beside it. f may be of a
// [Thread] that calls this, and may be closed. On threads that were started before, a
// crash goes where it went then.
func SetCrashOutput(f *os.File) error {
	r, err := ofRuntime()
	if err != nil {
		return err
	}
	name := os.DevNull
	if f != nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread, err := os.Readlink("/proc/thread-self") // as /proc numbers it, which may be another namespace's
		if err != nil {
			return err
		}
		name = fmt.Sprintf("/proc/%s/fd/%d", thread, f.Fd())
	}
	done := make(chan error)
	go func() { // in the table of the others
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Dup3(fd, r.crash, unix.O_CLOEXEC)
			unix.Close(fd)
		}
		done <- err
	}()
	return <-done
}
