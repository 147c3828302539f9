package logstore

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// Some tests need a process of their own: the test binary, told by the
// environment which of these to be, on which store.
const childEnv, pathEnv = "LOGSTORE_TEST_CHILD", "LOGSTORE_TEST_PATH"

var children = map[string]func(path string) error{"append": appendForever, "disk full": fillDisk}

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childEnv)]; child != nil {
		if err := child(os.Getenv(pathEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func childCommand(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name, pathEnv+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// trailing is how many entries appendForever keeps at least.
const trailing = 3000

// appendForever appends batches, writes the last index to stdout as soon as the
// store has answered that it is on disk, and like Raft it cuts off old entries in
// long ranges and replaces a few new ones.
func appendForever(path string) error {
	s, err := Open(path, Options{SegmentSize: smallSegment})
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		size := uint64(1) << rand.IntN(9)
		if err := s.SetUint64([]byte("CurrentTerm"), last+size); err != nil {
			return err
		}
		next := entries(last+1, last+size)
		last += size
		switch n % 3 {
		case 0:
			err = s.StoreLogs(next)
		case 1:
			err = errors.Join(s.Append(next), s.AwaitFlushed(last))
		case 2:
			err = errors.Join(s.Append(next), s.Set([]byte("LastVoteCand"), nil))
		}
		if err != nil {
			return err
		}
		fmt.Println(last)
		if n == 20 { // the first process, and what it leaves is gone on with
			if err := s.Raise(Format); err != nil {
				return err
			}
		}
		if n%5 == 0 { // entries nobody was told of
			if err := s.StoreLogs(entries(last+1, last+5)); err != nil {
				return err
			}
			if err := s.DeleteRange(last+1, last+5); err != nil {
				return err
			}
		}
		if first, err := s.FirstIndex(); err != nil {
			return err
		} else if last-first > 3*trailing {
			if err := s.DeleteRange(first, last-trailing); err != nil {
				return err
			}
		}
	}
}

// kill -9 at any moment loses nothing that was acknowledged, and what is there
// then has no gap and is as it was written.
func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	var acknowledged uint64
	for round := range 8 {
		cmd := childCommand(t, "append", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var killer *time.Timer
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &acknowledged); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if killer == nil { // once it runs, at any moment
				killer = time.AfterFunc(rand.N(150*time.Millisecond), func() { cmd.Process.Kill() })
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		checkAcknowledged(t, path, acknowledged)
	}
	if acknowledged < 100 {
		t.Errorf("only %d entries in all rounds", acknowledged)
	}
}

// checkAcknowledged opens the store and wants all entries up to index in it.
func checkAcknowledged(t *testing.T, path string, index uint64) {
	t.Helper()
	s := mustOpen(t, path, Options{})
	defer s.Close()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if last < index || first == 0 || first > 1 && last-first+1 < trailing {
		t.Fatalf("entries are %d to %d, acknowledged was %d", first, last, index)
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		wantSame(t, &l, entry(i))
	}
	if term, err := s.GetUint64([]byte("CurrentTerm")); term < index || err != nil {
		t.Errorf("term is %d, error %v, acknowledged was %d", term, err, index)
	}
}

// fillDisk appends until the file may not grow any more, then gets space again.
func fillDisk(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	var first error
	calls := 0
	s, err := Open(path, Options{SegmentSize: 32 << 10, OnError: func(err error) { first = err; calls++ }})
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	full := limit
	full.Cur = 32 << 10 // the size of a file of the log, and of the bbolt file; the last entry does not fit
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		return err
	}
	index := uint64(0)
	for ; err == nil; index++ {
		if index > 100_000 {
			return fmt.Errorf("the disk is never full")
		}
		if err = s.StoreLog(entry(index + 1)); err == nil {
			err = s.SetUint64([]byte("CurrentTerm"), index+1)
		}
		if err == nil {
			fmt.Println(index + 1)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err != first || !strings.Contains(err.Error(), syscall.EFBIG.Error()) {
		return fmt.Errorf("error %v, OnError had %v", err, first)
	}
	for name, err := range everyCall(s) {
		if err != first {
			return fmt.Errorf("with space again, %s: error %v, want %v", name, err, first)
		}
	}
	if calls != 1 {
		return fmt.Errorf("OnError was called %d times", calls)
	}
	return s.Close()
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	out, err := childCommand(t, "disk full", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	var acknowledged uint64
	if _, err := fmt.Sscan(lines[len(lines)-1], &acknowledged); err != nil {
		t.Fatal(err)
	}
	checkAcknowledged(t, path, acknowledged)
	s := mustOpen(t, path, Options{})
	defer s.Close()
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, last+1, last+2000) // there is space for it now
	wantLog(t, s, 1, last+2000)
}
