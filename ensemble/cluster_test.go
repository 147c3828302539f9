package ensemble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// machine is a place for a node: its folder and its address, which outlive the
// node's lives.
type machine struct {
	t       testing.TB
	name    string
	path    string
	address string
	change  func(*Config)
	*Node
}

// newMachine gives a machine an address that no other one has, here or in another
// process.
func newMachine(t testing.TB, name string, change func(*Config)) *machine {
	return &machine{t: t, name: name, path: t.TempDir(), address: anAddress(), change: change}
}

var addresses atomic.Int32

func anAddress() string {
	n := addresses.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:5324", 121+os.Getpid()%120, 1+n/250, 1+n%250)
}

// start starts a node there.
func (m *machine) start() *machine {
	m.t.Helper()
	dir, err := OpenDir(m.t.Context(), m.path)
	if err != nil {
		m.t.Fatal(err)
	}
	m.startOn(dir)
	return m
}

func (m *machine) startOn(dir *Dir) {
	m.t.Helper()
	l, err := clusterport.Listen(m.t.Context(), m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Node = startNodeOn(m.t, dir, func(c *Config) {
		c.Name, c.Address, c.Listener, c.MinimumNodes = m.name, m.address, l, 3
		c.Timing = session.Timing{Name: "test", Heartbeat: 250 * time.Millisecond, Renew: 100 * time.Millisecond, Lease: 20 * time.Second, Close: 300 * time.Millisecond, Expiry: 21 * time.Second}
		if m.change != nil {
			m.change(c)
		}
	})
	n := m.Node
	m.t.Cleanup(func() { // a graceful stop waits for a majority, and who stops last has none
		if n.life.Err() == nil {
			kill(n)
		}
	})
}

func (m *machine) place() Place { return Place{m.name, m.address} }

// again stops a node that begins anew, and starts the next.
func (m *machine) again() {
	m.t.Helper()
	select {
	case <-m.Failed():
	case <-time.After(20 * time.Second):
		m.t.Fatalf("%s goes on as it was", m.name)
	}
	if err := m.Err(); err != ErrAnew {
		m.t.Fatalf("%s failed: %v", m.name, err)
	}
	stop(m.t, m.Node)
	m.startOn(m.dir) // as a process does
}

func (m *machine) ready() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// founders starts n nodes that find each other by one list.
func founders(t testing.TB, n int) []*machine {
	t.Helper()
	return foundersWith(t, n, func(int, *Config) {})
}

func foundersWith(t testing.TB, n int, change func(i int, c *Config)) []*machine {
	t.Helper()
	var all []*machine
	var list []Place
	for i := range n {
		m := newMachine(t, fmt.Sprintf("riak%d@127.0.0.1", i+1), nil)
		all = append(all, m)
		list = append(list, m.place())
	}
	for i, m := range all {
		m.change = func(c *Config) {
			c.Join = list
			change(i, c)
		}
		m.start()
	}
	for _, m := range all {
		m.ready()
	}
	return all
}

func raftLeaderOf(t testing.TB, all []*machine) (leader *machine, others []*machine) {
	t.Helper()
	poll(t, "a raft leader", func() bool {
		leader, others = nil, nil
		for _, m := range all {
			if m.serving() {
				leader = m
			} else {
				others = append(others, m)
			}
		}
		return leader != nil
	})
	return leader, others
}

// With the same list on all of them, in whatever order they start, three nodes
// are one cluster.
func TestNodesOfOneListFormOneCluster(t *testing.T) {
	all := founders(t, 3)
	for _, m := range all {
		if m.dir.id().Cluster != all[0].dir.id().Cluster {
			t.Errorf("%s is in cluster %s, %s in %s", m.name, m.dir.id().Cluster, all[0].name, all[0].dir.id().Cluster)
		}
		poll(t, "all vote", func() bool {
			c := m.Cluster(t.Context())
			return c.Active && c.Majority && len(c.Members) == 3 && !slices.ContainsFunc(c.Members, func(c ClusterMember) bool { return !c.Voter || !c.Up })
		})
	}
	a := join(t, all[0].Node, "g", "a")
	a.wantTold("a")
	b := join(t, all[1].Node, "g", "b")
	b.wantTold("a")
	c := join(t, all[2].Node, "g", "c")
	c.wantTold("a")
	a.close(true)
	b.wantTold("a", "b")
	c.wantTold("a", "b")
	if !slices.Equal(b.tokens, c.tokens) {
		t.Errorf("tokens %d and %d", b.tokens, c.tokens)
	}
}

func TestANodeJoinsAndLeaves(t *testing.T) {
	a := newMachine(t, "riak1@127.0.0.1", nil).start()
	b := newMachine(t, "riak2@127.0.0.1", nil).start()
	poll(t, "a cluster of its own", func() bool { return a.hasEntered() && b.hasEntered() })
	if _, err := b.Join("g", "x", &client{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("JOIN at a node that was never joined: %v", err)
	}
	if err := b.JoinCluster(t.Context(), b.place()); err == nil {
		t.Error("a node joined itself")
	}
	first := b.self
	if err := b.JoinCluster(t.Context(), a.place()); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "two members", func() bool { return a.cluster.size() == 2 && b.cluster.size() == 2 && b.dir.id().Join == "" })
	if b.self == first {
		t.Error("the id of a node that knew nothing of the cluster was used again in it")
	}
	if err := b.JoinCluster(t.Context(), a.place()); err == nil {
		t.Error("a member of a cluster joined another")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Leave(ctx, ""); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "alone again", func() bool { return b.hasEntered() && len(b.replica.Servers()) == 1 && len(a.replica.Servers()) == 1 })
	if b.dir.id().Cluster == a.dir.id().Cluster {
		t.Error("a node that left is of the same cluster still")
	}
}

func TestARemovedNodeStopsForGood(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	gone := others[0]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := leader.ForceRemove(ctx, gone.name); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone.Failed():
	case <-ctx.Done():
		t.Fatal("it goes on")
	}
	var p *PermanentError
	if err := gone.Err(); !errors.As(err, &p) {
		t.Errorf("failed with %v", err)
	}
	if err := others[1].ForceRemove(ctx, leader.name); err != nil {
		t.Fatalf("remove the raft leader: %v", err)
	}
	if all := others[1].replica.Servers(); len(all) != 1 || all[0].ID != others[1].self {
		t.Errorf("left are %v", all)
	}
}

// The lists of nodes that found a cluster have to be the same, and the first of
// them has to be there: nobody founds a second cluster meanwhile.
func TestNobodyFoundsBesideTheFirst(t *testing.T) {
	a, b, c := newMachine(t, "a@127.0.0.1", nil), newMachine(t, "b@127.0.0.1", nil), newMachine(t, "c@127.0.0.1", nil)
	list := func(all ...*machine) func(*Config) {
		var places []Place
		for _, m := range all {
			places = append(places, m.place())
		}
		return func(c *Config) { c.Join = places }
	}
	b.change, c.change = list(a, b, c), list(a, b, c)
	b.start()
	c.start()
	for _, m := range []*machine{b, c} {
		if err := m.cluster.seekCluster(); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: %v", m.name, err)
		}
		if _, err := m.Join("g", "x", &client{}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "in no cluster yet") {
			t.Errorf("JOIN at a node without a cluster: %v", err)
		}
	}
	a.change = list(a, c)
	a.start()
	if err := a.cluster.seekCluster(); err == nil || !strings.Contains(err.Error(), "another leader_latch.join") {
		t.Errorf("with another list: %v", err)
	}
	if id := a.dir.id(); id.Cluster != "" {
		t.Fatalf("it founded a cluster: %+v", id)
	}
	kill(a.Node)
	a.change = list(a, b, c)
	a.start()
	for _, m := range []*machine{a, b, c} {
		m.ready()
	}
	// A list is for the first start: a node with a cluster ignores it.
	kill(b.Node)
	b.change = list(b)
	b.start().ready()
	if b.dir.id().Cluster != a.dir.id().Cluster {
		t.Error("a node with a cluster has founded another")
	}
}

// Wherever the way into a cluster was cut off, the next start goes on there,
// with the id under which others may know the node already.
func TestJoiningIsTakenUpWhereItStopped(t *testing.T) {
	a := newMachine(t, "a@127.0.0.1", nil).start()
	poll(t, "a cluster", a.seen.founded.Load)
	in, _, err := a.cluster.inquire(t.Context(), a.place())
	if err != nil || in.Cluster != a.dir.id().Cluster || in.TokenBase == 0 {
		t.Fatalf("invited to %+v, %v", in, err)
	}
	for i, c := range []struct {
		name string
		cut  func(id *identity, b *machine)
	}{
		{"before the other node was asked", func(id *identity, b *machine) { id.Join = a.place().text() }},
		{"before it was added", func(id *identity, b *machine) {
			id.Join, id.Cluster, id.TokenBase, id.Settled = a.place().text(), in.Cluster, in.TokenBase, true
		}},
		{"after it was added", func(id *identity, b *machine) {
			id.Join, id.Cluster, id.TokenBase, id.Settled = a.place().text(), in.Cluster, in.TokenBase, true
			if err := a.cluster.add(t.Context(), applicant{id.Node, b.name, b.address, state.NewestLevel}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newMachine(t, fmt.Sprintf("b%d@127.0.0.1", i), nil)
			b.start() // a cluster of its own, which it gives up
			poll(t, "a cluster of its own", b.hasEntered)
			kill(b.Node)
			dir, err := OpenDir(t.Context(), b.path)
			if err != nil {
				t.Fatal(err)
			}
			life := dir.begin()
			if err := dir.beginAnew(life, "x x", 0); err != nil {
				t.Fatal(err)
			}
			err = dir.change(life, func(id *identity) { c.cut(id, b) })
			if err == nil && dir.id().Settled {
				err = dir.clear(life) // as the start did that wrote so
				b.touch("raft.db")
			}
			if err != nil {
				t.Fatal(err)
			}
			id := dir.id().Node
			dir.Close()
			b.start()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := b.WaitMember(ctx); err != nil {
				t.Fatal(err)
			}
			if got := b.dir.id(); got.Node != id || got.Cluster != in.Cluster || got.Join != "" || !got.Settled {
				t.Errorf("identity %+v", got)
			}
			if _, err := os.Stat(b.dir.Path("aside/raft.db")); err != nil {
				t.Errorf("the state of the life before was not set aside: %v", err)
			}
			if err := b.Leave(ctx, ""); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (m *machine) touch(name string) {
	store, err := logstore.Open(filepath.Join(m.path, name), logstore.Options{})
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// A node that is not let in says what it waits for and how that is given up; and so it is.
func TestANodeThatIsNotLetInSaysWhatItWaitsFor(t *testing.T) {
	b := newMachine(t, "b@127.0.0.1", nil).start()
	poll(t, "a cluster of its own", b.hasEntered)
	nobody := newMachine(t, "nobody@127.0.0.1", nil)
	if _, err := b.cluster.beginAnew(nobody.place().text()); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "it knows why", func() bool { return b.Cluster(t.Context()).Waits != "" })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := b.WaitMember(ctx)
	for _, want := range []string{"goes on asking (leader-latch cluster leave gives that up)", nobody.name, "connection refused"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := b.Leave(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "alone", b.hasEntered)
	if c := b.Cluster(t.Context()); c.Waits != "" || c.Joining != "" {
		t.Errorf("it waits still: %+v", c)
	}
}

// Two machines cannot be one node: a name is taken while its session lives, and
// free for a new machine afterwards.
func TestAWipedNodeReplacesItself(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	old := others[0]
	err := leader.cluster.add(t.Context(), applicant{"another", old.name, "127.0.0.1:1", state.NewestLevel})
	if _, again := errors.AsType[laterError](err); !again || !strings.Contains(err.Error(), old.name) {
		t.Fatalf("a second node of a living name: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := old.retire(ctx); err != nil { // its session has ended
		t.Fatal(err)
	}
	kill(old.Node)
	was := old.self
	if err := os.RemoveAll(old.path); err != nil {
		t.Fatal(err)
	}
	old.start().ready()
	if old.self == was {
		t.Error("the id was used again")
	}
	names := 0
	for _, s := range leader.replica.Servers() {
		if s.ID == was {
			t.Error("the old id is a member still")
		}
		if s.Name == old.name {
			names++
		}
	}
	if names != 1 {
		t.Errorf("%d nodes of the name", names)
	}
	poll(t, "an id that was removed is refused", func() bool {
		leader, _ := raftLeaderOf(t, all)
		err := leader.cluster.add(t.Context(), applicant{was, old.name, old.address, state.NewestLevel})
		return err != nil && strings.Contains(err.Error(), "was removed")
	})
}

// withoutRaftsOwnRace leaves a test out under the race detector: raft 1.8.0 reads a
// peer's id without its lock while it takes over the peer's new address. The id is
// the same before and after.
func withoutRaftsOwnRace(t *testing.T) {
	if raceEnabled {
		t.Skip("raft itself has a race where an address changes")
	}
}

// A node that comes up at another address, under another name, announces both,
// though the raft leader looks for it where it was.
func TestANodeMayMoveAndBeRenamed(t *testing.T) {
	withoutRaftsOwnRace(t)
	all := founders(t, 3)
	_, others := raftLeaderOf(t, all)
	moved := others[0]
	kill(moved.Node)
	moved.name, moved.address = "renamed@127.0.0.1", anAddress()
	moved.start().ready()
	for _, m := range all {
		poll(t, "all know", func() bool {
			s, ok := m.replica.Server(moved.self)
			return ok && s.Name == moved.name && s.Address == moved.address && s.Voter
		})
	}
}

// Strangers with the right cookie are refused, each with the reason; and a node
// without a raft leader lets in who may be one.
func TestWhoIsAdmitted(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	stranger := leader.cluster.hello()
	stranger.Node = "stranger"
	for _, p := range []clusterport.Purpose{clusterport.Raft, clusterport.Forward, clusterport.Admin} {
		if err := others[0].cluster.admit(stranger, p); !errors.Is(err, clusterport.ErrUnknownNode) {
			t.Errorf("%s by a stranger: %v", p, err)
		}
		if err := others[0].cluster.admit(leader.cluster.hello(), p); err != nil {
			t.Errorf("%s by a member: %v", p, err)
		}
	}
	if err := others[0].cluster.admit(stranger, clusterport.Join); err != nil {
		t.Errorf("a stranger may ask to join: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	gone := others[1].cluster.hello()
	if err := leader.ForceRemove(ctx, gone.Name); err != nil {
		t.Fatal(err)
	}
	poll(t, "it is refused as removed", func() bool {
		return errors.Is(others[0].cluster.admit(gone, clusterport.Raft), clusterport.ErrRemoved)
	})
	kill(leader.Node)
	poll(t, "nobody leads", func() bool { return others[0].replica.RaftLeader() == "" })
	if err := others[0].cluster.admit(stranger, clusterport.Raft); err != nil {
		t.Errorf("a node that may be the raft leader: %v", err)
	}
	if err := others[0].cluster.admit(gone, clusterport.Raft); !errors.Is(err, clusterport.ErrRemoved) {
		t.Errorf("a removed node: %v", err)
	}
}

// A raft leader whose disk hangs makes room for another before the leases of the
// others end, and follows it when the disk is back.
func TestARaftLeaderWhoseDiskHangsStepsAside(t *testing.T) {
	var hangs atomic.Pointer[chan struct{}]
	all := foundersWith(t, 3, func(i int, c *Config) {
		c.Timing.Lease = 3 * time.Second // it looks after a third of that
		c.stallLimit = time.Minute       // and is not ended meanwhile
		if i == 0 {
			c.beforeCommit = func() {
				if goOn := hangs.Load(); goOn != nil {
					<-*goOn
				}
			}
		}
	})
	slow, others := all[0], all[1:]
	poll(t, "the one whose disk will hang leads", func() bool {
		for _, m := range others {
			if m.serving() {
				m.cluster.handOver()
			}
		}
		return slow.serving()
	})
	goOn := make(chan struct{})
	comesBack := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(comesBack) // before its store is closed
	hangs.Store(&goOn)
	poll(t, "another one leads", func() bool { return others[0].serving() || others[1].serving() })
	hangs.Store(nil)
	a := join(t, others[0].Node, "g", "a")
	a.wantTold("a")
	comesBack()
	poll(t, "it follows", func() bool {
		id := slow.replica.RaftLeader()
		return id != "" && id != slow.self && !slow.serving()
	})
	if err := slow.Err(); err != nil {
		t.Error(err)
	}
}

// However many refusals say at once that a node which leaves was removed, it
// begins anew, once; and a wish to leave that came to nothing is forgotten.
func TestLeavingAndBeingRemoved(t *testing.T) {
	all := founders(t, 3)
	_, others := raftLeaderOf(t, all)
	m := others[0]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := m.Node.cluster.change(func(id *identity) { id.Leaving = true }); err != nil {
		t.Fatal(err)
	}
	kill(m.Node) // while it was leaving
	m.start()
	poll(t, "the wish is forgotten", func() bool { return !m.dir.id().Leaving })

	if err := m.Node.cluster.change(func(id *identity) { id.Leaving = true }); err != nil {
		t.Fatal(err)
	}
	was := m.self
	var told sync.WaitGroup
	for range 20 {
		told.Go(func() { m.cluster.removed("somebody") })
	}
	told.Wait()
	if err := m.Err(); err != ErrAnew {
		t.Errorf("failed with %v", err)
	}
	id := m.dir.id()
	if id.Node == was || !id.Left || id.Join != "" {
		t.Errorf("identity %+v", id)
	}
	old := m.Node
	m.again()
	old.cluster.removed("a late one") // of a life that is over
	if err := old.cluster.change(func(id *identity) { id.Node = "x" }); !errors.Is(err, errFormerLife) {
		t.Errorf("a former life changed the folder: %v", err)
	}
	if m.dir.id().Node != id.Node || m.Err() != nil {
		t.Errorf("identity %+v, failed %v", m.dir.id(), m.Err())
	}
	if err := stopTwice(ctx, old); err != nil {
		t.Error(err)
	}

	// It left: it is alone, and no cluster for those who look for one.
	poll(t, "alone", m.seen.founded.Load)
	in, _, err := m.cluster.inquire(t.Context(), m.place()) // asks with its list
	if err != nil || !in.Left || in.Cluster != "" {
		t.Errorf("invited to %+v, %v", in, err)
	}
}

func stopTwice(ctx context.Context, n *Node) error {
	first := n.Stop(ctx)
	return errors.Join(first, n.Stop(ctx))
}

// A folder that was restored from a copy has forgotten what its node promised.
func TestARestoredCopyIsRefused(t *testing.T) {
	all := founders(t, 3)
	_, others := raftLeaderOf(t, all)
	m := others[0]
	kill(m.Node)
	copied := filepath.Join(t.TempDir(), "copy")
	cp := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cp(m.path, copied)
	m.start().ready() // a session more than the copy knows
	kill(m.Node)
	if err := os.RemoveAll(m.path); err != nil {
		t.Fatal(err)
	}
	cp(copied, m.path)
	m.start()
	select {
	case <-m.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	var p *PermanentError
	if err := m.Err(); !errors.As(err, &p) || !strings.Contains(err.Error(), "restored from a copy") {
		t.Errorf("failed with %v", err)
	}
}

// So has one that was copied while its node ran, the way machines are, and put back: its
// session is the last that the cluster has seen, but the log ends too early.
func TestACopyOfARunningNodeIsRefused(t *testing.T) {
	var copying sync.RWMutex
	all := foundersWith(t, 3, func(_ int, c *Config) {
		c.Timing.Heartbeat = time.Second // one raft leader for the whole test, as it alone knows
		c.stallLimit = time.Minute
		c.beforeCommit = func() {
			copying.RLock()
			defer copying.RUnlock()
		}
	})
	leader, others := raftLeaderOf(t, all)
	m := others[0]
	poll(t, "it has a session", func() bool { return m.opens.vetted.Load() })
	copied := filepath.Join(t.TempDir(), "copy")
	cp := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copying.Lock() // what is on disk stays as it is
	end := m.replica.Inside().Raft.LastIndex()
	cp(m.path, copied)
	copying.Unlock()
	for i := range 10 {
		name := fmt.Sprint(i)
		join(t, leader.Node, name, name).wantTold(name)
	}
	poll(t, "it has said that it has more", func() bool {
		return leader.replica.Inside().Stored(m.self) > end+5
	})
	kill(m.Node)
	if err := os.RemoveAll(m.path); err != nil {
		t.Fatal(err)
	}
	cp(copied, m.path)
	m.start()
	select {
	case <-m.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	var p *PermanentError
	if err := m.Err(); !errors.As(err, &p) || !strings.Contains(err.Error(), "had stored the log up to") || !strings.Contains(err.Error(), "restored from a copy") {
		t.Errorf("failed with %v", err)
	}
}

// What would leave no majority is refused before anything has happened.
func TestLeavingIsRefusedWhereNoMajorityWouldBeLeft(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	kill(others[1].Node)
	ctx := t.Context()
	refused := func(what string, ask func() error) { // should the raft leader change, nobody knows for a while
		t.Helper()
		poll(t, what+" is refused because of the dead one", func() bool {
			err := ask()
			if err == nil {
				t.Fatalf("%s: not refused", what)
			}
			return strings.Contains(err.Error(), others[1].name)
		})
	}
	for _, m := range []*machine{leader, others[0]} {
		a := join(t, m.Node, "g", m.name)
		refused("leave", func() error { return m.Leave(ctx, "") })
		if !a.membership.Live() || a.closed {
			t.Error("its clients were closed")
		}
	}
	refused("force-remove", func() error { return leader.ForceRemove(ctx, others[0].name) })
	poll(t, "the dead one is removed", func() bool { return leader.ForceRemove(ctx, others[1].name) == nil })
	poll(t, "another one leaves", func() bool { return others[0].Leave(ctx, "") == nil })
}

// Where all nodes have moved at once, nobody is where the others look for it. The
// new places in leader_latch.join bring them together.
func TestAllNodesMayMoveAtOnce(t *testing.T) {
	withoutRaftsOwnRace(t)
	all := founders(t, 3)
	for _, m := range all {
		kill(m.Node)
	}
	var list []Place
	for _, m := range all {
		m.address = anAddress()
		list = append(list, m.place())
	}
	for _, m := range all {
		m.change = func(c *Config) { c.Join = list }
		m.start()
	}
	for _, m := range all {
		m.ready()
	}
	for _, m := range all {
		poll(t, "the new addresses are in the configuration", func() bool {
			for _, other := range all {
				if s, ok := m.replica.Server(other.self); !ok || s.Address != other.address {
					return false
				}
			}
			return true
		})
	}
}

// An operator changes the timing node by node: while it differs each session goes
// by its own, and if it stays so, he is told.
func TestTimingsMayDifferForAWhile(t *testing.T) {
	longer := func(i int, c *Config) {
		if i == 0 {
			c.Timing.Lease, c.Timing.Expiry = 30*time.Second, 31*time.Second
		}
	}
	all := foundersWith(t, 3, longer)
	for i, m := range all {
		join(t, m.Node, "g", fmt.Sprint(i)).wantTold("0")
	}
	leader, _ := raftLeaderOf(t, all)
	leader.replica.Read(func(s *state.State) {
		inc, _, _ := s.Current(all[0].self)
		if ses, _ := s.Session(inc); ses.Lease != 30*time.Second || ses.Expiry != 31*time.Second {
			t.Errorf("its session has %v and %v", ses.Lease, ses.Expiry)
		}
	})
	leader.cluster.changing.Lock()
	defer leader.cluster.changing.Unlock()
	now := leader.now()
	leader.cluster.differ, leader.cluster.toldDiffer = nil, false
	for after, want := range []bool{false, false, true, false} { // once
		who := leader.cluster.timingsDiffer(now.Later(time.Duration(after) * awayTime / 2))
		if (who != "") != want || want && !strings.Contains(who, all[0].name+" (replaced after 31s)") {
			t.Errorf("after %d halves of the time: %q", after, who)
		}
	}
}
