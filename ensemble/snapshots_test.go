package ensemble

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/state"
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
	want := func(when string, there int) {
		t.Helper()
		if n := openSnapshots(t, dir, "/proc/self"); n != 0 {
			t.Errorf("%s: %d files are open beside the sockets", when, n)
		}
		dir.files.Do(func() error {
			if n := openSnapshots(t, dir, "/proc/thread-self"); n != there {
				t.Errorf("%s: %d files are open, want %d", when, n, there)
			}
			return nil
		})
	}
	s, err := newSnapshots(dir, raft.NewInmemStore(), raftLogger(testLog(t), func(state.NodeID) string { return "" }))
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

// openSnapshots counts the descriptors in a table that are open below snapshots/.
func openSnapshots(t *testing.T, dir *Dir, table string) (n int) {
	links, err := filepath.Glob(table + "/fd/*")
	if err != nil || len(links) == 0 {
		t.Error(table, err)
	}
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.HasPrefix(to, dir.Path("snapshots")) {
			n++
		}
	}
	return n
}

// A snapshot that one which ends later has overtaken does not count, also if both were
// being ended at the same time.
func TestASnapshotThatWasOvertaken(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := newSnapshots(dir, raft.NewInmemStore(), raftLogger(testLog(t), func(state.NodeID) string { return "" }))
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

// The later one of two snapshots of an entry counts, as recover makes it, also if the wall
// clock was set back between them.
func TestTheLaterSnapshotOfAnEntryCounts(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	log := raft.NewInmemStore()
	open := func() *snapshots {
		t.Helper()
		s, err := newSnapshots(dir, log, raftLogger(testLog(t), func(state.NodeID) string { return "" }))
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

// fullDisk has room for so many bytes of a snapshot's state.
type fullDisk struct {
	*os.File
	room *atomic.Int64
}

func (f *fullDisk) Write(b []byte) (int, error) {
	left := max(0, min(f.room.Load(), int64(len(b))))
	n, err := f.File.Write(b[:left])
	f.room.Add(-int64(n))
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	return n, err
}

// A file of which nothing fits is what is flushed too late.
func (f *fullDisk) Sync() error {
	if f.room.Load() <= 0 {
		return syscall.ENOSPC
	}
	return f.File.Sync()
}

// on makes files where there is so much room.
func on(room *atomic.Int64) func(string) (stateFile, error) {
	return func(name string) (stateFile, error) {
		f, err := os.Create(name)
		return &fullDisk{f, room}, err
	}
}

// wantSnapshots checks what lies in snapshots/, and that nothing there is open.
func wantSnapshots(t *testing.T, dir *Dir, when string, want ...string) {
	t.Helper()
	var names []string
	var open int
	dir.files.Do(func() error {
		all, err := os.ReadDir(dir.Path("snapshots"))
		if err != nil {
			t.Error(err)
		}
		for _, e := range all {
			names = append(names, e.Name())
		}
		open = openSnapshots(t, dir, "/proc/thread-self")
		return nil
	})
	if strings.Join(names, " ") != strings.Join(want, " ") || open != 0 {
		t.Errorf("%s: there are %q, want %q; %d files are open", when, names, want, open)
	}
}

// Of a snapshot that fails nothing stays on the disk or open, wherever it fails.
func TestAFailedSnapshotLeavesNothing(t *testing.T) {
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := newSnapshots(dir, raft.NewInmemStore(), raftLogger(testLog(t), func(state.NodeID) string { return "" }))
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
	wantSnapshots(t, dir, "cancelled on a full disk")
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
	wantSnapshots(t, dir, "not flushed")

	sink = create(100)
	meta := filepath.Join(dir.Path("snapshots"), sink.ID()+".tmp", "meta.json")
	if err := os.Mkdir(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it is complete without meta.json")
	}
	wantSnapshots(t, dir, "without meta.json")

	sink = create(100)
	if err := os.WriteFile(dir.Path("snapshots/"+sink.ID()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it is complete though not in its place")
	}
	wantSnapshots(t, dir, "without its place", sink.ID()) // the file of that name

	if s.newest.Load() != nil {
		t.Error("one that failed counts")
	}
}

// A node whose snapshot does not fit on its disk goes on, tries again, and takes no more
// room each time.
func TestASnapshotThatDoesNotFitGivesItsRoomBack(t *testing.T) {
	var room atomic.Int64
	n := startNode(t, t.TempDir(), func(c *Config) { c.createState = on(&room) })
	join(t, n, "g", "a").wantTold("a")
	for range 3 {
		room.Store(10)
		if err := n.replica.raft.Snapshot().Error(); err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			t.Errorf("snapshot: %v", err)
		}
		wantSnapshots(t, n.dir, "after a snapshot that does not fit")
	}
	if err := n.Err(); err != nil {
		t.Error(err)
	}
	room.Store(1 << 20)
	if err := n.replica.raft.Snapshot().Error(); err != nil {
		t.Error(err)
	}
	wantSnapshots(t, n.dir, "with room again", n.replica.snapshots.newest.Load().ID)
}

// What crashes have left of snapshots, unfinished or half removed, does not stay: the
// newest two are there, and no more.
func TestWhatIsLeftOfSnapshotsIsRemoved(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	kill(n)
	leave := func(name string) {
		t.Helper()
		name = filepath.Join(path, "snapshots", name)
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(name, "state.bin"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leave("1-1-1") // without meta.json, which had been removed first
	leave("2-100-7.tmp")
	leave("2-101-7.tmp")

	n = startNode(t, path, nil)
	wantSnapshots(t, n.dir, "after the start", "1-1-1")
	var taken []string
	for range 3 {
		c := join(t, n, "g", "a")
		c.wantTold("a")
		c.close(true)
		if err := n.replica.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, n.replica.snapshots.newest.Load().ID)
	}
	slices.Sort(taken[1:])
	wantSnapshots(t, n.dir, "after further snapshots", taken[1:]...)
}

// A follower that has no room for the snapshot it is sent ends and says so; with room again
// it is brought up to date.
func TestAFollowerWithoutRoomForASnapshotEnds(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	f := others[0]
	kill(f.Node)
	for i := range 20 {
		join(t, leader.Node, "g", fmt.Sprint(i)).wantTold("0")
	}
	for _, m := range []*machine{leader, others[1]} { // either may become the raft leader
		poll(t, "all have joined", func() bool { return hasJoined(m.Node, "g", 20) })
		m.replica.reloadRaft(func(c *raft.ReloadableConfig) { c.TrailingLogs = 1 })
		if err := m.replica.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}

	var room atomic.Int64
	f.change = func(c *Config) { c.createState = on(&room) }
	f.start()
	select {
	case <-f.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if err := f.Err(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("failed with %v", err)
	}
	poll(t, "the attempt is over", func() bool { // Raft ends it a moment later
		names, _ := filepath.Glob(filepath.Join(f.path, "snapshots", "*"))
		return len(names) == 0
	})
	wantSnapshots(t, f.dir, "without room")
	stop(t, f.Node)
	f.dir.Close()

	room.Store(1 << 20)
	f.start()
	poll(t, "it has the snapshot", func() bool { return f.replica.snapshots.newest.Load() != nil })
	poll(t, "it has the state", func() bool { return hasJoined(f.Node, "g", 20) })
}

// hasJoined reports whether a node knows so many members of a group.
func hasJoined(n *Node, name string, members int) (ok bool) {
	n.replica.read(func(s *state.State) {
		g, _ := s.Group(name)
		ok = len(g.Members) == members
	})
	return ok
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
			dir, err := OpenDir(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			log := raft.NewInmemStore()
			open := func() (*snapshots, error) {
				return newSnapshots(dir, log, raftLogger(testLog(t), func(state.NodeID) string { return "" }))
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
				folders = append([]string{dir.Path("snapshots/" + sink.ID())}, folders...)
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
	dir, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	logger := raftLogger(testLog(t), func(state.NodeID) string { return "" })
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "riak@127.0.0.1:1"}}}
	_, transport := raft.NewInmemTransport("")
	older, err := raft.NewFileSnapshotStoreWithLogger(dir.Path(""), 2, logger)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := newSnapshots(dir, raft.NewInmemStore(), logger)
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
	if newer, err = newSnapshots(dir, raft.NewInmemStore(), logger); err != nil {
		t.Fatal(err)
	}
	read(newer, 20)

	write(newer, 30)
	id, _ := parseSnapshotID(newer.newest.Load().ID)
	name := dir.Path("snapshots/" + id.String() + "/meta.json")
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

// wantRefused checks that neither a node starts on a folder nor a recovery begins, and that
// it is said what helps.
func wantRefused(t *testing.T, path, why string) {
	t.Helper()
	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cfg := Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: steady, MinimumNodes: 1, Key: testKey, Logger: testLog(t)}
	_, recovery := PlanRecovery(dir, cfg)
	_, start := Start(dir, cfg)
	for _, err := range []error{start, recovery} {
		if p, ok := errors.AsType[*PermanentError](err); !ok || !strings.Contains(p.Error(), why) || !strings.Contains(p.Error(), permanent.CureFolder) {
			t.Errorf("refused with %v", err)
		}
	}
}

// A node whose newest snapshot is damaged or lost does not start with what was before, nor
// is it recovered to that, unless its log has the rest.
func TestANodeWithoutItsNewestSnapshot(t *testing.T) {
	for _, whole := range []bool{false, true} { // the log
		path := t.TempDir()
		n := startNode(t, path, nil)
		join(t, n, "g", "a").wantTold("a")
		if err := n.replica.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			join(t, n, "g", fmt.Sprint(i)).wantTold("a")
		}
		if !whole {
			n.replica.reloadRaft(func(c *raft.ReloadableConfig) { c.TrailingLogs = 1 })
		}
		if err := n.replica.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		newest := n.replica.snapshots.newest.Load()
		kill(n)
		for what, damage := range map[string]func(folder string) error{
			"bit": func(folder string) error {
				name := filepath.Join(folder, "state.bin")
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				b[len(b)/2] ^= 1
				return os.WriteFile(name, b, 0o600)
			},
			"state.bin": func(folder string) error { return os.Remove(filepath.Join(folder, "state.bin")) },
			"meta.json": func(folder string) error { return os.Truncate(filepath.Join(folder, "meta.json"), 20) },
			"folder":    os.RemoveAll,
		} {
			t.Run(fmt.Sprintf("%s, whole log %t", what, whole), func(t *testing.T) {
				copied := filepath.Join(t.TempDir(), "data")
				if err := os.CopyFS(copied, os.DirFS(path)); err != nil {
					t.Fatal(err)
				}
				if err := damage(filepath.Join(copied, "snapshots", newest.ID)); err != nil {
					t.Fatal(err)
				}
				if !whole {
					wantRefused(t, copied, "the newest snapshot")
					return
				}
				n := startNode(t, copied, nil)
				n.replica.read(func(s *state.State) {
					if s.Index() < newest.Index {
						t.Errorf("its state is of entry %d, and was of %d", s.Index(), newest.Index)
					}
				})
			})
		}
	}
}

// Where Raft panics at its start, the node says what helps.
func TestALogThatRaftPanicsAbout(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	kill(n)
	log, err := logstore.Open(filepath.Join(path, "raft.db"), logstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(&raft.Log{Index: last + 1, Term: 100, Type: raft.LogConfiguration, Data: []byte("none")}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, path, "failed to decode")
}

// The remains of snapshots are found by their names, whatever the folder's path is.
func TestRemainsGoFromAnyPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a[b *?")
	if err := os.Mkdir(path, 0o750); err != nil {
		t.Fatal(err)
	}
	dir := openDir(t, path)
	left := filepath.Join(path, "snapshots", "1-2-3"+unfinished)
	if err := os.MkdirAll(left, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := newSnapshots(dir, raft.NewInmemStore(), raftLogger(testLog(t), func(state.NodeID) string { return "" })); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an interrupted snapshot has left: %v", err)
	}
}

// A raft leader whose newest snapshot is damaged while it runs takes another one, and the
// node that needs it gets that. It says once what is wrong.
func TestARaftLeaderTakesAnotherSnapshotForOneThatItCannotRead(t *testing.T) {
	var said lines
	all := foundersWith(t, 3, func(_ int, c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&said, t.Output()), nil))
	})
	leader, others := raftLeaderOf(t, all)
	join(t, leader.Node, "g", "a").wantTold("a")
	damaged := map[string]bool{}
	for _, m := range []*machine{leader, others[0], others[1]} { // each may become the raft leader
		poll(t, "it has joined", func() bool { return hasJoined(m.Node, "g", 1) })
		m.replica.reloadRaft(func(c *raft.ReloadableConfig) { c.TrailingLogs = 1 })
		poll(t, "a snapshot", func() bool { return m.replica.raft.Snapshot().Error() == nil })
		newest := m.replica.snapshots.newest.Load().ID
		damaged[newest] = true
		name := m.dir.Path("snapshots/" + newest + "/state.bin")
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	fresh := newMachine(t, "riak4@127.0.0.1", func(c *Config) { c.Join = []Place{leader.place()} }).start()
	fresh.ready()
	poll(t, "it has the state", func() bool { return hasJoined(fresh.Node, "g", 1) })
	if sent := fresh.replica.snapshots.newest.Load(); sent == nil || damaged[sent.ID] {
		t.Errorf("it was sent %+v", sent)
	}
	// Once, unless others lead meanwhile, and not by Raft with each attempt.
	if n := said.count("is not what was written"); n < 1 || n > len(damaged) {
		t.Errorf("said %d times:\n%s", n, said.text())
	}
}

// lines are what was logged.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *lines) count(what string) int { return strings.Count(l.text(), what) }
