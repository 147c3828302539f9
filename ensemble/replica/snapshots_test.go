package replica

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/replica/replicatest"
)

// A snapshot is written and read where no socket is, and leaves no file open there.
func TestSnapshotsAreFilesOfTheFoldersThread(t *testing.T) {
	folder := testFolder(t)
	if err := folder.Thread.Shared(); err != nil {
		t.Fatal(err)
	}
	want := func(when string, there int) {
		t.Helper()
		if n := replicatest.Open(t, folder.Path, "/proc/self"); n != 0 {
			t.Errorf("%s: %d files are open beside the sockets", when, n)
		}
		folder.Thread.Do(func() error {
			if n := replicatest.Open(t, folder.Path, "/proc/thread-self"); n != there {
				t.Errorf("%s: %d files are open, want %d", when, n, there)
			}
			return nil
		})
	}
	s, err := newSnapshots(folder, raft.NewInmemStore(), testRaftLog(t))
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
	folder := testFolder(t)
	s, err := newSnapshots(folder, raft.NewInmemStore(), testRaftLog(t))
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
	folder.Thread.Do(func() error { // has to do
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

// The later one of two snapshots of an entry counts, as recover makes it, also if the wall
// clock was set back between them.
func TestTheLaterSnapshotOfAnEntryCounts(t *testing.T) {
	folder := testFolder(t)
	log := raft.NewInmemStore()
	open := func() *snapshots {
		t.Helper()
		s, err := newSnapshots(folder, log, testRaftLog(t))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for _, at := range []uint64{1, 2, 3} {
		sink, err := s.Create(1, 10, 3, raft.Configuration{}, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if at == 1 { // an hour ahead
			now := sink.(*snapshotSink).unfinished()
			sink.(*snapshotSink).meta.ID = snapshotID{3, 10, time.Now().Add(time.Hour).UnixMilli()}.String()
			if err := os.Rename(now, sink.(*snapshotSink).unfinished()); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
		if newest := s.newest.Load(); newest.ConfigurationIndex != at {
			t.Errorf("the newest is %+v, want that of %d", newest, at)
		}
	}
}

// Of a snapshot that fails nothing stays on the disk or open, wherever it fails.
func TestAFailedSnapshotLeavesNothing(t *testing.T) {
	folder := testFolder(t)
	s, err := newSnapshots(folder, raft.NewInmemStore(), testRaftLog(t))
	if err != nil {
		t.Fatal(err)
	}
	var room atomic.Int64
	s.create = on(&room)
	_, transport := raft.NewInmemTransport("")
	create := func(space int64) raft.SnapshotSink {
		t.Helper()
		room.Store(space)
		sink, err := s.Create(1, 10, 3, raft.Configuration{}, 2, transport)
		if err != nil {
			t.Fatal(err)
		}
		return sink
	}

	sink := create(1 << 20)
	if n, err := sink.Write(make([]byte, 2<<20)); n != 1<<20 || err != syscall.ENOSPC {
		t.Errorf("written %d, %v", n, err)
	}
	if err := sink.Cancel(); err != nil {
		t.Error(err)
	}
	replicatest.Want(t, folder.Path, folder.Thread, "cancelled on a full disk")
	if sink.Close() == nil || sink.Cancel() != nil {
		t.Error("one that was cancelled can be completed, or cannot be cancelled again")
	}

	sink = create(5)
	if _, err := io.WriteString(sink, "state"); err != nil {
		t.Error(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it is complete without having been flushed")
	}
	replicatest.Want(t, folder.Path, folder.Thread, "not flushed")

	sink = create(100)
	meta := filepath.Join(folder.Path, "snapshots", sink.ID()+".tmp", "meta.json")
	if err := os.Mkdir(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it is complete without meta.json")
	}
	replicatest.Want(t, folder.Path, folder.Thread, "without meta.json")

	sink = create(100)
	if err := os.WriteFile(filepath.Join(folder.Path, "snapshots", sink.ID()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it is complete though not in its place")
	}
	replicatest.Want(t, folder.Path, folder.Thread, "without its place", sink.ID()) // the file of that name

	if s.newest.Load() != nil {
		t.Error("one that failed counts")
	}
}

// Raft goes on from an older snapshot than the newest, or from none, only where the log
// has all that came since, up to the end of the newest.
func TestWhichSnapshotTheNodeGoesOnFrom(t *testing.T) {
	const refused = -1
	states := func(path string) error { return os.WriteFile(filepath.Join(path, "state.bin"), []byte("stat?"), 0o600) }
	meta := func(path string) error {
		return os.WriteFile(filepath.Join(path, "meta.json"), []byte(`{"Version":1}`), 0o600)
	}
	for _, tt := range []struct {
		what        string
		first, last uint64                    // of the log
		term        uint64                    // of its entries
		damage      []func(path string) error // to the newest snapshot, of entry 48 of term 2, and to that of entry 28
		want        int
	}{
		{"all there, no log", 0, 0, 0, nil, 48},
		{"all there, log behind the newest", 49, 60, 2, nil, 48},
		{"all there, and a gap", 50, 60, 2, nil, refused},
		{"no log", 0, 0, 0, []func(string) error{states}, refused},
		{"no log, folder lost", 0, 0, 0, []func(string) error{os.RemoveAll}, refused},
		{"no log, all folders lost", 0, 0, 0, []func(string) error{os.RemoveAll, os.RemoveAll}, refused},
		{"log behind the newest", 49, 60, 2, []func(string) error{states}, refused},
		{"log behind the newest, folder lost", 49, 60, 2, []func(string) error{os.RemoveAll}, refused},
		{"log with a gap", 30, 60, 2, []func(string) error{states}, refused},
		{"log that ends too early", 29, 47, 2, []func(string) error{states}, refused},
		{"log of another term", 29, 60, 1, []func(string) error{states}, refused},
		{"log that suffices", 29, 48, 2, []func(string) error{states}, 28},
		{"log that suffices, meta.json damaged", 29, 60, 2, []func(string) error{meta}, 28},
		{"log that suffices, folder lost", 29, 60, 2, []func(string) error{os.RemoveAll}, 28},
		{"whole log", 1, 60, 2, []func(string) error{states, meta}, 0},
		{"not the whole log", 2, 60, 2, []func(string) error{states, meta}, refused},
	} {
		t.Run(tt.what, func(t *testing.T) {
			folder := testFolder(t)
			log := raft.NewInmemStore()
			open := func() (*snapshots, error) {
				return newSnapshots(folder, log, testRaftLog(t))
			}
			s, err := open()
			if err != nil {
				t.Fatal(err)
			}
			var folders []string // the newest first
			for _, index := range []uint64{28, 48} {
				sink, err := s.Create(1, index, 2, raft.Configuration{}, 2, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(sink, "state"); err != nil {
					t.Fatal(err)
				}
				if err := sink.Close(); err != nil {
					t.Fatal(err)
				}
				folders = append([]string{filepath.Join(folder.Path, "snapshots", sink.ID())}, folders...)
			}
			for i := tt.first; i <= tt.last && i > 0; i++ {
				if err := log.StoreLog(&raft.Log{Index: i, Term: tt.term}); err != nil {
					t.Fatal(err)
				}
			}
			for i, damage := range tt.damage {
				if err := damage(folders[i]); err != nil {
					t.Fatal(err)
				}
			}

			s, err = open()
			if tt.want == refused {
				if err == nil || !strings.Contains(err.Error(), permanent.CureFolder) {
					t.Errorf("opened with %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			all, err := s.List()
			if tt.want == 0 {
				if len(all) != 0 || err != nil {
					t.Errorf("Raft is given %v, %v", all, err)
				}
				return
			}
			if err != nil || len(all) != 1 || all[0].Index != uint64(tt.want) {
				t.Fatalf("Raft is given %v, %v", all, err)
			}
			_, r, err := s.Open(all[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); string(b) != "state" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			r.Close()
		})
	}
}

// Raft's own store, with which older programs read and write the same files, reads a
// snapshot, and what it writes is read. What is wrong in meta.json is noticed.
func TestTheFilesOfASnapshot(t *testing.T) {
	folder := testFolder(t)
	logger := testRaftLog(t)
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "riak@127.0.0.1:1"}}}
	_, transport := raft.NewInmemTransport("")
	older, err := raft.NewFileSnapshotStoreWithLogger(folder.Path, 2, logger)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := newSnapshots(folder, raft.NewInmemStore(), logger)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s raft.SnapshotStore, index uint64) {
		t.Helper()
		sink, err := s.Create(1, index, 3, servers, 2, transport)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(sink, "state"); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(s raft.SnapshotStore, index uint64) {
		t.Helper()
		all, err := s.List()
		if err != nil || len(all) == 0 {
			t.Fatal(all, err)
		}
		meta, r, err := s.Open(all[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if b, err := io.ReadAll(r); string(b) != "state" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		if meta.Index != index || meta.Term != 3 || meta.Size != 5 || meta.ConfigurationIndex != 2 || !slices.Equal(meta.Configuration.Servers, servers.Servers) {
			t.Errorf("read %+v", meta)
		}
	}
	write(newer, 10)
	read(newer, 10)
	read(older, 10)
	write(older, 20)
	read(older, 20)
	if newer, err = newSnapshots(folder, raft.NewInmemStore(), logger); err != nil {
		t.Fatal(err)
	}
	read(newer, 20)

	write(newer, 30)
	id, _ := parseSnapshotID(newer.newest.Load().ID)
	name := filepath.Join(folder.Path, "snapshots", id.String(), "meta.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bit := byte(1) << (i % 8)
		b[i] ^= bit
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newer.read(id); err == nil {
			t.Errorf("byte %d, wrong by %#x, goes unnoticed", i, bit)
		}
		b[i] ^= bit
	}
}

// The remains of snapshots are found by their names, whatever the folder's path is.
func TestRemainsGoFromAnyPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a[b *?")
	if err := os.Mkdir(path, 0o750); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(path, "snapshots", "1-2-3"+unfinished)
	if err := os.MkdirAll(left, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := newSnapshots(folderAt(t, path), raft.NewInmemStore(), testRaftLog(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an interrupted snapshot has left: %v", err)
	}
}
