package ensemble

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// A node that has lost the majority is made a cluster of its own: it knows what
// it knew, waits until nobody of the lost ones can lead, tokens go on rising, and
// the old cluster is a stranger.
func TestRecovery(t *testing.T) {
	shorter := func(_ int, c *Config) { c.Timing.Lease, c.Timing.Expiry = 7*time.Second, 8*time.Second }
	all := foundersWith(t, 3, shorter)
	old := join(t, all[0].Node, "g", "old")
	old.wantTold("old")
	mine := join(t, all[1].Node, "g", "mine")
	mine.wantTold("old")
	token, cluster := old.tokens[0], all[1].dir.id().Cluster
	for _, m := range all {
		kill(m.Node)
	}

	m := all[1]
	open := func() *Dir {
		t.Helper()
		dir, err := OpenDir(t.Context(), m.path)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cfg := Config{Name: m.name, Address: m.address, Logger: testLog(t)}
	dir := open()
	r, err := PlanRecovery(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Lost(), " "); got != all[0].name+" "+all[2].name {
		t.Errorf("lost %s", got)
	}
	// Interrupted, it has to be done once more.
	if err := dir.change(dir.begin(), func(id *identity) { id.Recovery = recoveryBegun }); err != nil {
		t.Fatal(err)
	}
	var p *PermanentError
	if _, err := Start(dir, Config{Name: m.name, Address: m.address, Timing: steady, Key: testKey, Logger: testLog(t)}); !errors.As(err, &p) || !strings.Contains(err.Error(), "recover again") {
		t.Errorf("started with %v", err)
	}
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanRecovery(dir, cfg); !errors.As(err, &p) {
		t.Errorf("a second recovery: %v", err)
	}
	dir.Close()

	start := time.Now()
	m.start()
	if id := m.dir.id(); id.Cluster == cluster || id.Recovery != recoveryWaits {
		t.Errorf("identity %+v", id)
	}
	if _, err := m.cluster.letIn(t.Context(), m.cluster.hello(), nil); err == nil || !strings.Contains(err.Error(), "leases of the lost nodes") {
		t.Errorf("a node is let in at once: %v", err)
	}
	if len(m.Report().Groups("g")) == 1 && m.Report().Groups("g")[0].Leader != "old" {
		t.Errorf("group %v", m.Report().Groups("g"))
	}
	m.ready()
	if d := time.Since(start); d < 8*time.Second { // S of the lost nodes
		t.Errorf("it spoke after %v, when clients of the lost nodes could still lead", d)
	}
	a := join(t, m.Node, "g", "a")
	a.until("a leads", func(told []string, _ bool) bool { return len(told) > 0 && told[len(told)-1] == "a" })
	if last := a.tokens[len(a.tokens)-1]; last <= token {
		t.Errorf("token %d after %d", last, token)
	}
	poll(t, "the recovery is over", func() bool { return m.dir.id().Recovery == recoveryNone })
	all[0].start()
	_, err = all[0].cluster.ask(t.Context(), "leader-latch/admin", m.address, "", askView, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("the old cluster talks to the new one: %v", err)
	}
}

// After a recovery nobody speaks before the longest that a lost node may have promised is over.
// That is S of a session, or the hold of a member that came from a node with a longer S.
func TestHowLongARecoveryWaits(t *testing.T) {
	calm := session.Calm.Expiry
	for _, c := range []struct{ expiry, hold, want time.Duration }{
		{time.Second, 0, calm}, // a session that is in no log that is left may have it
		{calm + time.Second, 0, calm + time.Second},
		{time.Second, calm + 2*time.Second, calm + 2*time.Second},
		{calm + 3*time.Second, calm + 2*time.Second, calm + 3*time.Second},
	} {
		s := state.New()
		s.Apply(1, state.Entry{Ops: []state.Op{state.Raise{Level: 3}, state.Open{Node: "lost", Counter: 1, Boot: "boot", Expiry: c.expiry}}}, nil)
		inc, _, _ := s.Current("lost")
		s.Apply(2, state.Entry{Ops: []state.Op{state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: 1, Group: "g", Client: "c"}, Hold: c.hold}}}, nil)
		check := func(what string) {
			if got := longestSilence(s); got != c.want {
				t.Errorf("S %v, hold %v, %s: %v, want %v", c.expiry, c.hold, what, got, c.want)
			}
		}
		check("a session")
		s.Apply(3, state.Entry{Ops: []state.Op{state.End{Incarnation: inc, Seq: 2}}}, nil)
		check("orphaned")
	}
}

// memberOfThree makes the folder of a member of three nodes, on which no node runs. Its
// snapshot ends with an entry of a term; its log is of term 2, and each of its entries
// opens a session of a node of that number.
func memberOfThree(t *testing.T, end, term, last uint64) *Dir {
	t.Helper()
	dir := openDir(t, t.TempDir())
	if err := dir.change(dir.begin(), func(id *identity) { id.found(0); id.Settled = true }); err != nil {
		t.Fatal(err)
	}
	of := state.New()
	of.Apply(end, state.Entry{Ops: []state.Op{state.Found{Cluster: dir.id().Cluster, TokenBase: dir.id().TokenBase}}}, nil)
	inFolder(t, dir, func(in replica.Inside) error {
		address := func(name, at string) raft.ServerAddress { return raft.ServerAddress(Place{name, at}.text()) }
		_, transport := raft.NewInmemTransport("")
		sink, err := in.Snapshots.Create(raft.SnapshotVersionMax, end, term, raft.Configuration{Servers: []raft.Server{
			{ID: raft.ServerID(dir.id().Node), Address: address("n1", "127.0.0.1:1")},
			{ID: "second", Address: address("n2", "127.0.0.1:2")},
			{ID: "third", Address: address("n3", "127.0.0.1:3")},
		}}, 1, transport)
		if err != nil {
			return err
		}
		_, err = sink.Write(statetest.Bytes(of))
		return errors.Join(err, sink.Close())
	})
	log, err := logstore.Open(dir.raftPath(), logstore.Options{Thread: dir.log})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var entries []*raft.Log
	for i := uint64(1); i <= last; i++ {
		open := state.Open{Node: state.NodeID(fmt.Sprint(i)), Counter: 1, Boot: "b", Lease: time.Second, Expiry: 2 * time.Second}
		entries = append(entries, &raft.Log{Index: i, Term: 2, Type: raft.LogCommand, Data: state.Encode(state.FirstLevel, state.Entry{Ops: []state.Op{open}})})
	}
	if err := errors.Join(log.StoreLogs(entries), log.SetUint64([]byte("CurrentTerm"), 3)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inFolder calls f with what a recovery opens.
func inFolder(t *testing.T, dir *Dir, f func(replica.Inside) error) {
	t.Helper()
	err := (&Recovery{dir: dir, cfg: theFirst(t)}).withReplica(func(of *replica.Replica) error { return f(of.Inside()) })
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, path string) *Dir {
	t.Helper()
	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// theFirst is what a recovery of such a folder needs to know.
func theFirst(t *testing.T) Config {
	return Config{Name: "n1", Address: "127.0.0.1:1", Timing: steady, Key: testKey, Logger: testLog(t)}
}

// recovered gives the state in the folder's newest snapshot, and with which entry that ends.
func recovered(t *testing.T, dir *Dir) (s *state.State, end uint64) {
	t.Helper()
	inFolder(t, dir, func(in replica.Inside) error {
		list, err := in.Snapshots.List()
		if err != nil || len(list) == 0 {
			return fmt.Errorf("%d snapshots, error %v", len(list), err)
		}
		_, content, err := in.Snapshots.Open(list[0].ID)
		if err != nil {
			return err
		}
		defer content.Close()
		s, err = state.Restore(content)
		end = list[0].Index
		return err
	})
	return s, end
}

func knows(s *state.State, id state.NodeID) bool {
	_, ok := s.Node(id)
	return ok
}

// A follower that was killed when a snapshot had come may have entries in its log that
// were never committed, as they follow another entry than the snapshot's last. They do not
// become part of the recovered state.
func TestARecoveryTakesNothingThatIsAtOddsWithTheSnapshot(t *testing.T) {
	for term, want := range map[uint64]bool{1: false, 2: true, 3: false} { // of the snapshot
		dir := memberOfThree(t, 7, term, 9)
		was := dir.id()
		r, err := PlanRecovery(dir, theFirst(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Do(); err != nil {
			t.Fatal(err)
		}
		s, _ := recovered(t, dir)
		if s.Cluster() == was.Cluster || s.Cluster() != dir.id().Cluster {
			t.Errorf("the snapshot is of term %d, and the newest state is not the recovered one", term)
		}
		if knows(s, "8") != want || knows(s, "9") != want || knows(s, "7") {
			t.Errorf("the snapshot is of term %d, and the recovered state has %v", term, slices.Collect(s.Nodes()))
		}
	}
}

// A node that had got into the cluster, and was killed before it noted that, may have the
// last copy of its state. One that only was about to get in has none.
func TestANodeThatHasJustGotInMayBeRecovered(t *testing.T) {
	for _, in := range []bool{true, false} {
		dir := memberOfThree(t, 7, 2, 9)
		err := dir.change(dir.begin(), func(id *identity) {
			id.Join = Place{"n2", "127.0.0.1:2"}.text()
			if !in {
				id.Node = "fourth"
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := PlanRecovery(dir, theFirst(t))
		if !in {
			if _, ok := errors.AsType[*PermanentError](err); !ok || !strings.Contains(err.Error(), "in no cluster yet") {
				t.Errorf("one that is not in may be recovered: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Do(); err != nil {
			t.Fatal(err)
		}
		s, _ := recovered(t, dir)
		if id := dir.id(); id.Join != "" || s.Cluster() != id.Cluster || !knows(s, "9") {
			t.Errorf("the identity is %+v, the state of cluster %s, with %v", id, s.Cluster(), slices.Collect(s.Nodes()))
		}
	}
}

// A recovery that is interrupted at any moment can be finished, also if it is interrupted
// again in the same way. Until then the node does not start. Its tokens are above all that
// the cluster before has given.
func TestAnInterruptedRecoveryIsFinished(t *testing.T) {
	dir := memberOfThree(t, 7, 2, 9)
	cfg := theFirst(t)
	was := dir.id()
	before := t.TempDir()
	clone(t, before, dir.path)
	if err := mustPlan(t, dir, cfg).Do(); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	done := dir.path
	snapshots, err := filepath.Glob(filepath.Join(done, "snapshots", "2-10-*"))
	if err != nil || len(snapshots) != 1 {
		t.Fatal(snapshots, err)
	}
	made := filepath.Base(snapshots[0])
	given := was.TokenBase + uint64(state.PositionOf(10, 0))

	for _, at := range []struct {
		name string
		die  func(t *testing.T, path string) // puts the folder into the state that a death leaves
	}{
		{"after it is noted", func(t *testing.T, path string) {
			clone(t, path, before)
			note(t, path, was)
		}},
		{"after the log is longer", func(t *testing.T, path string) {
			clone(t, path, before)
			note(t, path, was)
			lengthened(t, path)
		}},
		{"while the snapshot is written", func(t *testing.T, path string) {
			clone(t, path, before)
			note(t, path, was)
			lengthened(t, path)
			clone(t, filepath.Join(path, "snapshots", made+".tmp"), filepath.Join(done, "snapshots", made))
		}},
		{"before the log is emptied", func(t *testing.T, path string) {
			clone(t, path, before)
			note(t, path, was)
			lengthened(t, path)
			clone(t, filepath.Join(path, "snapshots", made), filepath.Join(done, "snapshots", made))
		}},
		{"after Raft's part", func(t *testing.T, path string) {
			clone(t, path, done)
			note(t, path, was)
		}},
		{"while the last note is written", func(t *testing.T, path string) {
			clone(t, path, done)
			clone(t, filepath.Join(path, "node.json.new"), filepath.Join(done, "node.json"))
			note(t, path, was)
		}},
	} {
		t.Run(at.name, func(t *testing.T) {
			path := t.TempDir()
			at.die(t, path)
			dir := openDir(t, path)
			_, err := Start(dir, cfg)
			if p, ok := errors.AsType[*PermanentError](err); !ok || !strings.Contains(err.Error(), "recover again") {
				t.Errorf("started with %v", p)
			}
			var base, end uint64
			for range 2 {
				if err := mustPlan(t, dir, cfg).Do(); err != nil {
					t.Fatal(err)
				}
				s, last := recovered(t, dir)
				if id := dir.id(); s.Cluster() == was.Cluster || s.Cluster() != id.Cluster || s.TokenBase() != id.TokenBase || id.Recovery != recoveryWaits {
					t.Errorf("the state is of cluster %s with tokens from %d, the identity is %+v", s.Cluster(), s.TokenBase(), id)
				}
				if !knows(s, "8") || !knows(s, "9") || s.TokenBase() <= max(base, given) || last <= end {
					t.Errorf("%v, tokens from %d after %d and %d, up to entry %d after %d", slices.Collect(s.Nodes()), s.TokenBase(), base, given, last, end)
				}
				base, end = s.TokenBase(), last
				note(t, path, was) // once more, it dies before the last note
				dir.Close()
				dir = openDir(t, path)
			}
			if err := mustPlan(t, dir, cfg).Do(); err != nil {
				t.Fatal(err)
			}
			if _, err := PlanRecovery(dir, cfg); err == nil {
				t.Error("it can be recovered though it is alone and whole")
			}
			n, err := Start(dir, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer kill(n)
			poll(t, "the node has the state", func() bool { return n.seen.founded.Load() && n.replica.IsRaftLeader() })
			if all := n.replica.Servers(); n.Err() != nil || len(all) != 1 || all[0].ID != n.self {
				t.Errorf("members %v, error %v", all, n.Err())
			}
		})
	}
}

func mustPlan(t *testing.T, dir *Dir, cfg Config) *Recovery {
	t.Helper()
	r, err := PlanRecovery(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// note has node.json say what it does from the beginning of a recovery to its end.
func note(t *testing.T, path string, was identity) {
	t.Helper()
	was.Recovery = recoveryBegun
	if err := (&Dir{path: path}).writeIdentity(was); err != nil {
		t.Fatal(err)
	}
}

// lengthened has the log what a recovery adds to it before it dies.
func lengthened(t *testing.T, path string) {
	t.Helper()
	dir := openDir(t, path)
	defer dir.Close()
	defer func() {
		if p := recover(); p != "dead" {
			t.Errorf("it went on: %v", p)
		}
	}()
	(&Recovery{dir: dir, cfg: theFirst(t)}).withReplica(func(of *replica.Replica) error {
		return of.Recover("n1", "127.0.0.1:1", func(*state.State) { panic("dead") })
	})
}

// clone copies a file or a folder.
func clone(t *testing.T, to, from string) {
	t.Helper()
	if out, err := exec.Command("cp", "-rT", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Older programs left in the log what stood behind the end of a snapshot that it was at odds
// with. It is of an earlier term than the snapshot, and no recovery takes it, nor is the
// new cluster's snapshot hidden by the old one's.
func TestARecoveryTakesNothingThatAnOlderProgramLeft(t *testing.T) {
	dir := memberOfThree(t, 7, 3, 9)
	log, err := logstore.Open(dir.raftPath(), logstore.Options{Thread: dir.log})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.DeleteRange(1, 7), log.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := PlanRecovery(dir, theFirst(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	s, end := recovered(t, dir)
	if s.Cluster() != dir.id().Cluster || knows(s, "8") || end <= 7 {
		t.Errorf("the newest snapshot ends with entry %d and is of cluster %s, node.json says %s; what was left is in it: %v",
			end, s.Cluster(), dir.id().Cluster, knows(s, "8"))
	}
}
