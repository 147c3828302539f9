package ensemble

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A snapshot is written and read where no socket is, and leaves no file open there.
func TestSnapshotsAreFilesOfTheFoldersThread(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Shared(); err != nil {
		t.Fatal(err)
	}
	// open counts the descriptors that are open below snapshots/.
	open := func(table string) (n int) {
		links, err := filepath.Glob(table + "/fd/*")
		if err != nil || len(links) == 0 {
			t.Fatal(table, err)
		}
		for _, l := range links {
			if to, _ := os.Readlink(l); strings.HasPrefix(to, dir.Path("snapshots")) {
				n++
			}
		}
		return n
	}
	want := func(when string, there int) {
		t.Helper()
		if n := open("/proc/self"); n != 0 {
			t.Errorf("%s: %d files are open beside the sockets", when, n)
		}
		dir.files.Do(func() error {
			if n := open("/proc/thread-self"); n != there {
				t.Errorf("%s: %d files are open, want %d", when, n, there)
			}
			return nil
		})
	}
	s, err := newSnapshots(dir, raftLogger(testLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	create := func() raft.SnapshotSink {
		t.Helper()
		sink, err := s.Create(1, 10, 3, raft.Configuration{}, 2, transport)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(sink, "state"); err != nil {
			t.Fatal(err)
		}
		want("being written", 1)
		return sink
	}
	if err := create().Cancel(); err != nil {
		t.Fatal(err)
	}
	want("cancelled", 0)
	sink := create()
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	want("written", 0)

	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].ID != sink.ID() {
		t.Fatalf("%v, %v", all, err)
	}
	meta, r, err := s.Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	want("being read", 1)
	if b, err := io.ReadAll(r); err != nil || string(b) != "state" || meta.Index != 10 {
		t.Errorf("read %q, %v, of index %d", b, err, meta.Index)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	want("read", 0)
}

// A snapshot that one which ends later has overtaken does not count, also if both were
// being ended at the same time.
func TestASnapshotThatWasOvertaken(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := newSnapshots(dir, raftLogger(testLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	create := func(index uint64) raft.SnapshotSink {
		t.Helper()
		sink, err := s.Create(1, index, 3, raft.Configuration{}, 2, transport)
		if err != nil {
			t.Fatal(err)
		}
		return sink
	}
	later, earlier := create(100), create(50)
	closed := make([]chan error, 2)
	dir.files.Do(func() error { // has to do
		for i, sink := range []raft.SnapshotSink{later, earlier} {
			closed[i] = make(chan error, 1)
			go func() { closed[i] <- sink.Close() }()
		}
		return nil
	})
	first, second := <-closed[0], <-closed[1]
	if first != nil {
		t.Error(first)
	}
	if second == nil { // it was the first to be ended
		second = create(50).Close()
	}
	if second != errOvertaken || earlier.Close() != errOvertaken {
		t.Errorf("the earlier one: %v", second)
	}
	if end := s.newest.Load(); end == nil || end.Index != 100 {
		t.Errorf("the newest is %+v", end)
	}
	if err := earlier.Cancel(); err != nil {
		t.Error(err)
	}
}
