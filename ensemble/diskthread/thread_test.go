package diskthread

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// crashEnv makes the test binary crash on a disk thread, after it has asked for crashes
// to be written to the file that it names.
const crashEnv = "DISKTHREAD_TEST_CRASH"

func TestMain(m *testing.M) {
	if name := os.Getenv(crashEnv); name != "" {
		crash(name)
	}
	os.Exit(m.Run())
}

// table gives what the descriptors of a thread are open on; 0: of the main thread.
func table(t *testing.T, thread int) map[int]string {
	t.Helper()
	if thread == 0 {
		thread = os.Getpid()
	}
	dir := fmt.Sprintf("/proc/self/task/%d/fd", thread)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]string{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else it was the folder's own
			all[fd] = to
		}
	}
	return all
}

// holds gives the descriptors of a table that are open on something that begins so.
func holds(table map[int]string, what string) (fds []int) {
	for fd, to := range table {
		if strings.HasPrefix(to, what) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// mustStart starts a thread that has a table of its own.
func mustStart(t *testing.T, keep ...int) *Thread {
	t.Helper()
	th := Start(keep...)
	t.Cleanup(th.Close)
	if err := th.Shared(); err != nil {
		t.Fatal(err)
	}
	return th
}

func mustListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ways are those of getting a table of one's own: that of today, and that of kernels
// before 5.9 and of seccomp filters that do not know the new one.
func ways(t *testing.T, test func(t *testing.T)) {
	t.Run("close_range", test)
	t.Run("unshare", func(t *testing.T) {
		defer func() { closeRange = unix.CloseRange }()
		closeRange = func(first, last, flags uint) error { return unix.EPERM }
		test(t)
	})
}

// A thread has no socket that was opened before or after it was started, and the
// others have no file of its own.
func TestAThreadHoldsNoSocket(t *testing.T) {
	ways(t, func(t *testing.T) {
		mustListen(t)
		th := mustStart(t)
		mustListen(t)
		name := filepath.Join(t.TempDir(), "file")
		var f *os.File
		if err := th.Do(func() (err error) { f, err = os.Create(name); return err }); err != nil {
			t.Fatal(err)
		}
		defer th.Do(func() error { return f.Close() })

		own, others := table(t, th.id), table(t, 0)
		if len(holds(others, "socket:")) < 2 {
			t.Fatalf("the others hold %v", others)
		}
		if fds := holds(own, "socket:"); fds != nil {
			t.Errorf("the thread holds sockets: %v", fds)
		}
		if fds := holds(own, name); !slices.Equal(fds, []int{int(f.Fd())}) {
			t.Errorf("the thread holds its file as %v: %v", fds, own)
		}
		if fds := holds(others, name); fds != nil {
			t.Errorf("the others hold the thread's file as %v", fds)
		}
		for _, e := range must(os.ReadDir("/proc/self/task")) {
			if id, _ := strconv.Atoi(e.Name()); id != th.id && holds(table(t, id), name) != nil {
				t.Errorf("thread %d, of %d, holds the file of %d", id, os.Getpid(), th.id)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What is to be kept stays locked until all that have it are done with it.
func TestAKeptLockIsHeldByAll(t *testing.T) {
	ways(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "lock")
		f := must(os.Create(name))
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		free := func() bool {
			other := must(os.Open(name))
			defer other.Close()
			return unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
		}
		one, two := mustStart(t, int(f.Fd())), mustStart(t, int(f.Fd()))
		for what, end := range map[string]func(){"one": one.Close, "two": two.Close, "the others": func() { f.Close() }} {
			if free() {
				t.Errorf("the lock was free before the end of %s", what)
			}
			end()
		}
		if !free() {
			t.Error("the lock is held after the end of all")
		}
	})
}

// The runtime finds its descriptors on such a thread: it polls where it starts the
// world again, and wakes who polls where a timer is set.
func TestTheRuntimeRunsOnAThread(t *testing.T) {
	th := mustStart(t)
	own := table(t, th.id)
	for _, what := range []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]"} {
		if fds := holds(own, what); len(fds) != 1 || table(t, 0)[fds[0]] != what {
			t.Errorf("%s is %v there, of %v", what, fds, table(t, 0))
		}
	}
	th.Do(func() error {
		for range 20 {
			runtime.GC()
			time.Sleep(time.Microsecond)
			if err := must2(os.Pipe()); err != nil {
				return err
			}
		}
		return nil
	})
}

func must2(r, w *os.File, err error) error {
	if err == nil {
		err = errors.Join(r.Close(), w.Close())
	}
	return err
}

// Threads started while others run have the table of these, whoever starts them.
func TestNoThreadIsStartedFromThere(t *testing.T) {
	th := mustStart(t)
	mustListen(t)
	stop := make(chan struct{})
	defer close(stop)
	var ids []int
	th.Do(func() error {
		for range 20 {
			id := make(chan int)
			go func() {
				runtime.LockOSThread()
				id <- unix.Gettid()
				<-stop
			}()
			ids = append(ids, <-id)
		}
		return nil
	})
	for _, id := range ids {
		if holds(table(t, id), "socket:") == nil {
			t.Errorf("thread %d has another table: %v", id, table(t, id))
		}
	}
}

// The main thread is never one, as /proc/self/fd shows its table: not even where the
// goroutine was begun there.
func TestTheMainThreadIsSpared(t *testing.T) {
	before := table(t, 0)
	for range 50 {
		th := Start()
		if th.id == os.Getpid() {
			t.Error("the main thread")
		}
		th.Close()
	}
	if after := table(t, 0); !slices.Equal(holds(before, "anon_inode"), holds(after, "anon_inode")) && len(after) < 3 {
		t.Errorf("the others had %v, have %v", before, after)
	}
}

func TestDoAfterClose(t *testing.T) {
	th := Start()
	th.Close()
	th.Close()
	if err := th.Do(func() error { return nil }); err != ErrClosed {
		t.Error(err)
	}
	if err := (*Thread)(nil).Do(func() error { return os.ErrExist }); err != os.ErrExist {
		t.Error(err)
	}
}

func TestDoWithinDoesNotWaitForADiskThatHangs(t *testing.T) {
	th := mustStart(t)
	goOn := make(chan struct{})
	if err := th.DoWithin(time.Millisecond, func() error { <-goOn; return nil }); err != ErrHangs {
		t.Error(err)
	}
	close(goOn)
	if err := th.DoWithin(time.Hour, func() error { return os.ErrExist }); err != os.ErrExist {
		t.Error(err)
	}
}

// A crash goes to the file for crashes from a disk thread too, and into no file of
// that thread that has the number which the file for crashes has elsewhere.
func TestACrashOnAThread(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+filepath.Join(dir, "crash"))
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "panic: on a disk thread") {
		t.Fatalf("%v: %s", err, out)
	}
	for _, e := range must(os.ReadDir(dir)) {
		text := string(must(os.ReadFile(filepath.Join(dir, e.Name()))))
		if want := e.Name() == "crash"; strings.Contains(text, "panic: on a disk thread") != want || !want && text != "" {
			t.Errorf("%s has %q", e.Name(), text)
		}
	}
}

func crash(name string) {
	f := must(os.Create(name))
	if err := SetCrashOutput(f); err != nil {
		panic(err)
	}
	f.Close()
	th := Start()
	th.Do(func() error {
		for i := range 20 { // in any case more numbers than the others have
			must(os.Create(fmt.Sprint(name, i)))
		}
		panic("on a disk thread")
	})
}

func BenchmarkDo(b *testing.B) {
	th := Start()
	defer th.Close()
	for b.Loop() {
		th.Do(func() error { return nil })
	}
}

// One function that takes too long is a hang; many that take long together are none, and
// neither is a thread that has nothing to do.
func TestAThreadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 30 * time.Second
		th := mustStart(t)
		done, hangs := make(chan struct{}), make(chan error, 1)
		go func() { hangs <- th.Watch(limit, done) }()
		for range 100 {
			th.Do(func() error { time.Sleep(limit * 9 / 10); return nil })
		}
		time.Sleep(time.Hour)
		select {
		case err := <-hangs:
			t.Fatalf("%v, while there is progress", err)
		default:
		}

		goOn, began := make(chan struct{}), time.Now()
		go th.Do(func() error { <-goOn; return nil })
		if err := <-hangs; err != ErrHangs {
			t.Errorf("it hangs: %v", err)
		}
		if after := time.Since(began); after < limit || after > limit*6/5 {
			t.Errorf("noticed after %v", after)
		}
		close(goOn)

		go func() { hangs <- th.Watch(limit, done) }()
		close(done)
		if err := <-hangs; err != nil {
			t.Errorf("nobody wants to know: %v", err)
		}
	})
}
