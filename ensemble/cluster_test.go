package ensemble

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"leaderlatch/ensemble/clusterport"
)

// machine is a place for a node: its folder and its address, which outlive the
// node's lives.
type machine struct {
	t       *testing.T
	name    string
	path    string
	address string
	change  func(*Config)
	*Node
}

func newMachine(t *testing.T, name string, change func(*Config)) *machine {
	return &machine{t: t, name: name, path: t.TempDir(), address: "127.0.0.1:0", change: change}
}

// start starts a node there, or the next one after [ErrAnew].
func (m *machine) start() *machine {
	m.t.Helper()
	l, err := clusterport.Listen(m.t.Context(), m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address = l.Addr().String()
	m.Node = startNodeUnready(m.t, m.path, func(c *Config) {
		c.Name, c.Address, c.Listener, c.MinimumNodes = m.name, m.address, l, 3
		c.Timing = Timing{"test", 250 * time.Millisecond, 100 * time.Millisecond, 20 * time.Second, 300 * time.Millisecond, 21 * time.Second}
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
	return m
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
	m.dir.Close()
	m.start()
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
func founders(t *testing.T, n int) []*machine {
	var all []*machine
	var list []Place
	for i := range n {
		m := newMachine(t, fmt.Sprintf("riak%d@127.0.0.1", i+1), nil)
		l, err := clusterport.Listen(t.Context(), m.address)
		if err != nil {
			t.Fatal(err)
		}
		m.address = l.Addr().String()
		l.Close()
		all = append(all, m)
		list = append(list, m.place())
	}
	for _, m := range all {
		m.change = func(c *Config) { c.Join = list }
		m.start()
	}
	for _, m := range all {
		m.ready()
	}
	return all
}

func raftLeaderOf(t *testing.T, all []*machine) (leader *machine, others []*machine) {
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
	poll(t, "a cluster of its own", func() bool { return a.entered() && b.entered() })
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
	poll(t, "two members", func() bool { return a.size() == 2 && b.size() == 2 && b.dir.id().Join == "" })
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
	poll(t, "alone again", func() bool { return b.entered() && len(b.servers()) == 1 && len(a.servers()) == 1 })
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
	if all := others[1].servers(); len(all) != 1 || all[0].id != others[1].self {
		t.Errorf("left are %v", all)
	}
}
