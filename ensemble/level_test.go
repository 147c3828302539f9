package ensemble

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
)

// The newest level has the version that the log store writes.
func TestTheNewestLevelIsTheLogStoresToo(t *testing.T) {
	if is := state.LogstoreVersion(state.NewestLevel); is != logstore.Format {
		t.Errorf("logstore writes version %d, level %d says %d", logstore.Format, state.NewestLevel, is)
	}
}

// levelIs waits until a node's state, folder and log store have a level.
func levelIs(t *testing.T, n *Node, level uint64) {
	t.Helper()
	poll(t, fmt.Sprintf("%s has level %d", n.cfg.Name, level), func() bool {
		return n.seen.level.Load() == level && n.dir.id().Format == int(level) && storeFormat(t, n) == state.LogstoreVersion(level)
	})
}

// storeFormat is the version that a node's log store writes.
func storeFormat(t *testing.T, n *Node) int {
	t.Helper()
	format, err := n.store.Format()
	if err != nil {
		t.Fatal(err)
	}
	return format
}

// entriesOf gives the entries in a node's log, as bytes.
func entriesOf(t *testing.T, n *Node) (all [][]byte) {
	t.Helper()
	first, err := n.store.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i <= n.replica.Inside().Raft.AppliedIndex(); i++ {
		var l raft.Log
		if err := n.store.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if l.Type == raft.LogCommand {
			all = append(all, l.Data)
		}
	}
	return all
}

// newestSnapshot takes a snapshot, and gives its bytes.
func newestSnapshot(t *testing.T, n *Node) []byte {
	t.Helper()
	if err := snapshot(n); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(n.dir.path, "snapshots", "*", "state.bin"))
	if len(names) == 0 {
		t.Fatal("no snapshot")
	}
	b, err := os.ReadFile(slices.Max(names))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// As long as one member holds it, nodes write what the first program wrote. Then the level
// rises, on all of them, with the first entry that only the new one reads.
func TestTheLevelRisesWhenNoMemberHoldsIt(t *testing.T) {
	all := foundersWith(t, 3, func(_ int, c *Config) { c.FormatLevel = 1 })
	holding := func(want ...*machine) {
		t.Helper()
		var names []string
		for _, m := range want {
			names = append(names, m.name)
		}
		poll(t, fmt.Sprintf("%q hold it", names), func() bool { return slices.Equal(all[0].Cluster(t.Context()).Holding, names) })
	}
	allow := func(m *machine) {
		t.Helper()
		kill(m.Node)
		m.change = func(*Config) {}
		m.start().ready()
	}
	holding(all...)
	allow(all[1])
	allow(all[2])
	holding(all[0])
	join(t, all[0].Node, "g", "a").wantTold("a")
	for _, m := range all {
		levelIs(t, m.Node, 1)
		if c := m.Cluster(t.Context()); c.Level != 1 || c.Newest != state.NewestLevel {
			t.Errorf("%s says level %d of %d", m.name, c.Level, c.Newest)
		}
		for _, e := range entriesOf(t, m.Node) {
			if e[0] != 1 {
				t.Errorf("%s has an entry of version %d", m.name, e[0])
			}
		}
		if s := newestSnapshot(t, m.Node); s[0] != 1 {
			t.Errorf("%s wrote a snapshot of version %d", m.name, s[0])
		}
	}

	allow(all[0])
	for _, m := range all {
		levelIs(t, m.Node, state.NewestLevel)
	}
	holding()
	b := join(t, all[1].Node, "h", "b")
	b.wantTold("b")
	for _, m := range all {
		if s := newestSnapshot(t, m.Node); s[0] != state.NewestLevel {
			t.Errorf("%s wrote a snapshot of version %d", m.name, s[0])
		}
	}
	// It rose by one at a time, and each rise is the first entry of its version.
	level := uint64(1)
	for _, bytes := range entriesOf(t, all[1].Node) {
		e, err := state.Decode(bytes)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(bytes[0]) <= level {
			continue
		}
		level++
		if uint64(bytes[0]) != level || len(e.Ops) != 1 || e.Ops[0] != (state.Raise{Level: level}) {
			t.Errorf("the first entry after level %d has version %d: %v", level-1, bytes[0], e)
		}
	}
	if level != state.NewestLevel {
		t.Errorf("the entries end with version %d", level)
	}

	// Whoever wants to hold it now comes too late, and goes on.
	kill(all[0].Node)
	all[0].change = func(c *Config) { c.FormatLevel = 1 }
	all[0].start().ready()
	levelIs(t, all[0].Node, state.NewestLevel)
}

// A member that has no session holds the level: its program may be about to be replaced by
// an older one.
func TestAMemberThatIsDownHoldsTheLevel(t *testing.T) {
	all := foundersWith(t, 3, func(i int, c *Config) {
		if i == 0 {
			c.FormatLevel = 1
		}
	})
	down := all[1]
	stop(t, down.Node)
	down.dir.Close()
	kill(all[0].Node)
	all[0].change = func(*Config) {}
	all[0].start().ready()
	poll(t, "it holds it", func() bool { return slices.Equal(all[0].Cluster(t.Context()).Holding, []string{down.name}) })
	leader, _ := raftLeaderOf(t, []*machine{all[0], all[2]})
	leader.cluster.upkeep(leader.now())
	levelIs(t, leader.Node, 1)
	down.start().ready()
	for _, m := range all {
		levelIs(t, m.Node, state.NewestLevel)
	}
}

// A crash between the first entry of a level and the folder's note of it is made good by
// the next start, whether that finds the entry in the log or a snapshot.
func TestTheFolderTakesOverTheLevelOfTheState(t *testing.T) {
	path := t.TempDir()
	for _, c := range []struct {
		in    string
		crash func(*Node)
	}{
		{"the log", func(*Node) {}},
		{"a snapshot", func(n *Node) {
			n.replica.Inside().Trail(1)
			newestSnapshot(t, n)
		}},
	} {
		n := startNode(t, path, nil)
		levelIs(t, n, state.NewestLevel)
		c.crash(n)
		id := n.dir.id()
		kill(n)
		id.Format = 1
		if err := (&Dir{path: path}).writeIdentity(id); err != nil {
			t.Fatal(err)
		}
		n = startNode(t, path, nil)
		levelIs(t, n, state.NewestLevel)
		if b := contents(t, path, "node.json"); !strings.Contains(b, fmt.Sprintf(`"format": %d,`, state.NewestLevel)) {
			t.Errorf("with the level in %s, node.json is %s", c.in, b)
		}
		kill(n)
	}
}

// A crash between the folder's note of a level and the store's is made good by the next
// start, and nothing that is in the store is lost.
func TestTheStoreTakesOverTheLevelOfTheFolder(t *testing.T) {
	path := t.TempDir()
	held := func(c *Config) { c.FormatLevel = 1 }
	n := startNode(t, path, held)
	levelIs(t, n, 1)
	poll(t, "a session", func() bool { return n.opens.last.Load() > 0 })
	id, counter, entries := n.dir.id(), n.opens.last.Load(), entriesOf(t, n)
	kill(n)
	id.Format = 2
	if err := (&Dir{path: path}).writeIdentity(id); err != nil {
		t.Fatal(err)
	}
	n = startNode(t, path, held)
	if is := storeFormat(t, n); is != 2 {
		t.Errorf("the store writes version %d", is)
	}
	poll(t, "the next session", func() bool { return n.opens.last.Load() > counter })
	if is := n.opens.last.Load(); is != counter+1 {
		t.Errorf("open counter %d after %d", is, counter)
	}
	for i, e := range entriesOf(t, n)[:len(entries)] {
		if !slices.Equal(e, entries[i]) {
			t.Errorf("entry %d is another", i)
		}
	}
}

// Nobody is added who could not read what is written, and the refusal says what to do.
func TestANodeThatDoesNotReadTheLevelIsNotAdded(t *testing.T) {
	n := startNode(t, t.TempDir(), func(c *Config) { c.Version = "0.9.0 (0123456)" })
	levelIs(t, n, state.NewestLevel)
	err := n.cluster.add(t.Context(), applicant{Node: "old", Name: "riak@10.0.0.9", Address: "10.0.0.9:5324"}) // as the first program asks
	if want := "riak@10.0.0.9 reads formats up to level 1, and this cluster writes level 3; install the release there that runs here, 0.9.0 (0123456)"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, again := err.(laterError); again {
		t.Error("it is to ask again")
	}
	if len(n.replica.Servers()) != 1 {
		t.Errorf("members %v", n.replica.Servers())
	}
}

// A node that begins anew begins at the first level: whom it joins may have that one.
func TestANodeThatJoinsBeginsAtTheFirstLevel(t *testing.T) {
	a := newMachine(t, "riak1@127.0.0.1", func(c *Config) { c.FormatLevel = 1 }).start()
	b := newMachine(t, "riak2@127.0.0.1", nil).start()
	poll(t, "a cluster of its own", func() bool { return a.hasEntered() && b.hasEntered() })
	levelIs(t, b.Node, state.NewestLevel)
	if err := b.JoinCluster(t.Context(), a.place()); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "two members", func() bool { return a.cluster.size() == 2 && b.cluster.size() == 2 && b.dir.id().Join == "" })
	levelIs(t, a.Node, 1)
	levelIs(t, b.Node, 1)
}
