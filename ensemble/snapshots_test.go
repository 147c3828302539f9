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
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/replica/replicatest"
	"leaderlatch/ensemble/state"
)

// snapshot has a node take a snapshot.
func snapshot(n *Node) error { return n.replica.Inside().Raft.Snapshot().Error() }

// newestOf is that of a node; nil: it has none.
func newestOf(t *testing.T, n *Node) *raft.SnapshotMeta {
	t.Helper()
	all, err := n.replica.Inside().Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// wantSnapshots checks what lies in snapshots/, and that nothing there is open.
func wantSnapshots(t *testing.T, dir *Dir, when string, want ...string) {
	t.Helper()
	replicatest.Want(t, dir.path, dir.files, when, want...)
}

// on makes files where there is so much room.
func on(room *atomic.Int64) func(string) (replica.StateFile, error) {
	return func(name string) (replica.StateFile, error) { return replicatest.Create(room, name) }
}

// A node whose snapshot does not fit on its disk goes on, tries again, and takes no more
// room each time.
func TestASnapshotThatDoesNotFitGivesItsRoomBack(t *testing.T) {
	var room atomic.Int64
	n := startNode(t, t.TempDir(), func(c *Config) { c.createState = on(&room) })
	join(t, n, "g", "a").wantTold("a")
	for range 3 {
		room.Store(10)
		if err := snapshot(n); err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			t.Errorf("snapshot: %v", err)
		}
		wantSnapshots(t, n.dir, "after a snapshot that does not fit")
	}
	if err := n.Err(); err != nil {
		t.Error(err)
	}
	room.Store(1 << 20)
	if err := snapshot(n); err != nil {
		t.Error(err)
	}
	wantSnapshots(t, n.dir, "with room again", newestOf(t, n).ID)
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
		if err := snapshot(n); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, newestOf(t, n).ID)
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
		m.replica.Inside().Trail(1)
		if err := snapshot(m.Node); err != nil {
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
	poll(t, "it has the snapshot", func() bool { return newestOf(t, f.Node) != nil })
	poll(t, "it has the state", func() bool { return hasJoined(f.Node, "g", 20) })
}

// hasJoined reports whether a node knows so many members of a group.
func hasJoined(n *Node, name string, members int) (ok bool) {
	n.replica.Read(func(s *state.State) {
		g, _ := s.Group(name)
		ok = len(g.Members) == members
	})
	return ok
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
		if err := snapshot(n); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			join(t, n, "g", fmt.Sprint(i)).wantTold("a")
		}
		if !whole {
			n.replica.Inside().Trail(1)
		}
		if err := snapshot(n); err != nil {
			t.Fatal(err)
		}
		newest := newestOf(t, n)
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
				n.replica.Read(func(s *state.State) {
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
		m.replica.Inside().Trail(1)
		poll(t, "a snapshot", func() bool { return snapshot(m.Node) == nil })
		newest := newestOf(t, m.Node).ID
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
	if sent := newestOf(t, fresh.Node); sent == nil || damaged[sent.ID] {
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
