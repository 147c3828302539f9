//go:build faults

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

// What happens when the network or a disk fails, one thing at a time, with its
// bound. Clients sit beside their nodes, if a test does not say otherwise.

// site is a cluster on a network of its own.
type site struct {
	*network
	all   []*member
	hosts []*host // of the nodes
}

// newSite starts a cluster of three, and further hosts without a node.
func newSite(t *testing.T, further int, disks bool, lines ...string) *site {
	t.Helper()
	nw := newNetwork(t, 3+further)
	s := &site{network: nw, hosts: nw.hosts[:3]}
	if disks {
		for _, h := range s.hosts {
			h.mountDisk()
		}
	}
	s.all = onHosts(s.hosts, clusterTiming.Name, lines...)
	for _, m := range s.all {
		s.run(m)
	}
	wantWhole(s.all)
	return s
}

// run starts a node's process, on its host if it has one.
func (s *site) run(m *member) {
	m.t.Helper()
	if s.network == nil {
		m.run()
		return
	}
	h := s.host(m)
	h.do(func() { m.run() })
	m.connect = h.connect
}

func (s *site) host(m *member) *host { return s.hosts[slices.Index(s.all, m)] }

// load has clients join and leave at nodes, each at one of them and in a group of its
// own, until the end is asked for, which waits for them. A client whose node cannot be
// reached comes no more.
func load(clients int, at ...*member) (end func()) {
	return joinAndLeave(clients, func(i int, group string) (net.Conn, bool) {
		nc, err := at[i%len(at)].open()
		if err != nil {
			return nil, false
		}
		joinOn(nc, group, "a")
		return nc, true
	})
}

// joinAndLeave has clients join and leave, each in a group of its own, until the end is
// asked for, which waits for them. join gives the connection of one that has joined, nil if
// that has failed, and whether the client is to come again.
func joinAndLeave(clients int, join func(client int, group string) (nc net.Conn, again bool)) (end func()) {
	var running sync.WaitGroup
	over := make(chan struct{})
	for i := range clients {
		running.Go(func() {
			for again := true; again; {
				select {
				case <-over:
					return
				default:
				}
				var nc net.Conn
				if nc, again = join(i, fmt.Sprint("load-", i)); nc != nil {
					nc.(*net.TCPConn).SetLinger(0) // its port is free at once: there are not enough for a minute
					nc.Close()
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(over); running.Wait() })
}

// joinOn has a client join on a connection, and waits for the answer.
func joinOn(nc net.Conn, group, client string) error {
	fmt.Fprintf(nc, "JOIN %s %s\n", group, client)
	nc.SetReadDeadline(time.Now().Add(patience))
	_, err := nc.Read(make([]byte, 1024))
	return err
}

// connect dials with patience.
func (h *host) connect(addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.dial(ctx, addr)
}

// joinFrom is join from another host than the node's own.
func (h *host) joinFrom(m *member, group, client, leader string) *conn {
	h.t.Helper()
	nc, err := h.connect(m.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	c := &conn{h.t, nc, bufio.NewReader(nc)}
	c.send("JOIN %s %s\n", group, client)
	c.want("LEADER " + leader)
	return c
}

// wantClosed expects that connections end, and logs when against the bound.
func wantClosed(what string, since time.Time, bound time.Duration, all ...*conn) {
	for _, c := range all {
		c.t.Helper()
		c.wantGone()
		took(c.t, what+": a member was closed", time.Since(since), bound)
	}
}

var roles = []string{"a follower", "the raft leader"}

// A node that is cut off from the others closes its members, and only then others
// are told of the next; and so it is where only one of the two directions is cut.
// When it is back it serves as before.
func TestFaultANodeIsCutOffFromTheMajority(t *testing.T) {
	for _, shape := range []string{"cut off", "deaf", "mute"} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0, false)
			for _, role := range roles {
				sc := newScene(t, s.all, role == "the raft leader")
				h := s.host(sc.victim)
				arrows := slices.DeleteFunc(both([]*host{h}, s.hosts), func(a arrow) bool {
					return shape == "deaf" && a.from == h || shape == "mute" && a.to == h
				})
				if shape == "deaf" {
					sc.bound += 2 * clusterTiming.Renew
				}
				what := shape + ", " + role
				began := time.Now()
				heal := s.cut(arrows)
				wantClosed(what, began, clusterTiming.Lease+clusterTiming.Close, sc.lead, sc.guest)
				sc.wantReplaced(what, began, sc.lead, sc.guest)
				sc.victim.wantNoService()
				heal()
				wantWhole(s.all)
				sc.victim.join(sc.other, "guest", "own")
			}
		})
	}
}

// wantNoService expects that a JOIN is refused, in time.
func (m *member) wantNoService() {
	m.t.Helper()
	sent := time.Now()
	c := m.dial()
	c.send("JOIN g late\n")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()
	if took := time.Since(sent); took > joinTimeout()+slack(took) {
		m.t.Errorf("refused only after %v", took)
	}
}

// Where no node sees a majority, each closes its members, names nobody, and refuses
// JOINs.
func TestFaultTheMajorityIsLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, false)
	sc := newScene(t, s.all, true)
	began := time.Now()
	heal := s.cut(all(both(s.hosts, s.hosts)))
	wantClosed("majority lost", began, clusterTiming.Lease+clusterTiming.Close, sc.lead, sc.next, sc.third, sc.own, sc.watcher, sc.guest)
	for _, m := range s.all {
		m.wantNoService()
	}
	heal()
	healed := time.Now()
	wantWhole(s.all)
	took(t, "majority lost: all serve again, after its end", time.Since(healed), replaced(clusterTiming))
	for _, m := range s.all {
		m.until("the old members are gone", func() bool { return len(m.group(sc.other).Members) == 0 })
	}
	s.all[0].join(sc.other, "guest", "guest")
}

// The host of clients vanishes without a word: they are given up after 8 to 12 s
// without a sign of life, and by then know it themselves if they have looked as
// they should.
func TestFaultAClientsHostVanishes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, false)
	away := s.network.hosts[3]
	const groups = 10
	var gone, next []*conn
	for i := range groups {
		g := unique("vanish")
		gone = append(gone, away.joinFrom(s.all[i%3], g, "gone", "gone"))
		next = append(next, s.all[(i+1)%3].join(g, "next", "gone"))
	}
	for _, c := range gone {
		c.wantSilence() // so all have just been heard of
	}
	began := time.Now()
	heal := s.cut(both([]*host{away}, s.network.hosts))
	type end struct {
		who  string
		took time.Duration
	}
	ends := make(chan end)
	for i := range groups {
		for who, c := range map[string]*conn{"gone": gone[i], "next": next[i]} {
			go func() {
				c.SetReadDeadline(began.Add(patience))
				line, err := c.r.ReadString('\n')
				if took := time.Since(began); who == "next" && line == "LEADER next\n" || who == "gone" && err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					ends <- end{who, took}
					return
				}
				t.Errorf("%s read %q, %v", who, line, err)
				ends <- end{}
			}()
		}
	}
	times := map[string][]time.Duration{}
	for range 2 * groups {
		e := <-ends
		times[e.who] = append(times[e.who], e.took)
	}
	heal()
	if t.Failed() {
		return
	}
	for i := range groups {
		took(t, "a client's host vanished: the client knew", times["gone"][i], clientGivesUp)
		took(t, "a client's host vanished: the next leader was told", times["next"][i], 12*time.Second)
	}
	if first := slices.Min(times["next"]); first < 8*time.Second {
		t.Errorf("given up after %v, before 8 s", first)
	}
	if last, first := slices.Max(times["gone"]), slices.Min(times["next"]); last > first {
		t.Errorf("a client knew after %v, and the next leader was told after %v", last, first)
	}
}

// A node whose disk is full closes its members and ends: in order while there is
// some space left, and else when it cannot write. The others go on.
func TestFaultTheDiskIsFull(t *testing.T) {
	for name, space := range map[string]struct {
		reserve string
		free    int64
		bound   time.Duration
	}{
		"to its reserve":    {"64MB", 32 << 20, 200 * time.Millisecond},
		"to its last block": {"0", 0, clusterTiming.Expiry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0, true, "leader_latch.minimum_free_space = "+space.reserve)
			for _, role := range roles {
				what := "disk full " + name + ", " + role
				sc := newScene(t, s.all, role == "the raft leader")
				began, long := time.Now(), strings.Repeat("x", 240)
				heal, err := s.host(sc.victim).fillDisk(space.free)
				if err != nil {
					t.Fatal(err)
				}
				running := func() bool {
					select {
					case <-sc.victim.gone:
						return false
					default:
						return true
					}
				}
				for i := 0; running(); i++ { // until it sees that, or the log needs another block
					if time.Since(began) > patience {
						t.Fatal("the node goes on with a full disk")
					}
					sc.rest[0].joinWithin(patience, fmt.Sprint(long, i)).Close()
				}
				ended := time.Now()
				t.Logf("%s: the node ended after %v", what, ended.Sub(began).Round(time.Millisecond))
				sc.victim.wantExit(exitFailed)
				sc.lead.wantGone()
				sc.guest.wantGone()
				sc.next.want("LEADER next")
				sc.third.want("LEADER next")
				took(t, what+": the next leader was told, after the node's end", time.Since(ended), space.bound)
				for _, c := range []*conn{sc.next, sc.third, sc.own, sc.watcher} {
					c.wantSilence()
				}
				heal()
				s.run(sc.victim)
				wantWhole(s.all)
			}
		})
	}
}

// A node whose disk hangs closes its members by the end of its lease, and all its
// sockets when the disk has hung for five seconds, though its process does not come to
// its end before the disk answers. If it is the raft leader, the others elect another then.
func TestFaultTheDiskHangs(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, true)
	const hang = 25 * time.Second
	for _, role := range roles {
		sc := newScene(t, s.all, role == "the raft leader")
		what := "disk hangs, " + role
		began := time.Now()
		heal, err := s.host(sc.victim).stallDisk(hang)
		if err != nil {
			t.Fatal(err)
		}
		wantClosed(what, began, clusterTiming.Lease+clusterTiming.Close, sc.lead, sc.guest)
		if role == "a follower" {
			sc.bound += 2 * clusterTiming.Renew // its proposals go on
			sc.wantReplaced(what, began, sc.lead, sc.guest)
		}
		c := sc.rest[0].joinWithin(patience, unique("after"))
		if role == "the raft leader" {
			took(t, what+": a JOIN at another node succeeds", time.Since(began), replaced(clusterTiming))
		}
		c.Close()
		sc.victim.logs("a write has taken over")
		t.Logf("%s: the node gave up %v after it", what, time.Since(began).Round(time.Millisecond))
		heal()
		select {
		case <-sc.victim.gone:
			if code := sc.victim.cmd.ProcessState.ExitCode(); code != exitFailed {
				t.Errorf("%s: exit code %d, %v", what, code, sc.victim.err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: the node goes on", what)
		}
		s.run(sc.victim)
		wantWhole(s.all)
	}
}

// A node that is told to stop ends in order and in time, whatever part of the network
// has failed.
func TestFaultANodeIsStoppedWhileTheNetworkFails(t *testing.T) {
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0, false)
			for name, choose := range map[string]func(a, b, c *host) []arrow{
				"cut off":                     func(a, b, c *host) []arrow { return both([]*host{a}, s.hosts) },
				"cut off from one":            func(a, b, c *host) []arrow { return both([]*host{a}, []*host{b}) },
				"one hears nothing of it":     func(a, b, c *host) []arrow { return []arrow{{a, b}} },
				"it hears nothing of one":     func(a, b, c *host) []arrow { return []arrow{{b, a}} },
				"the others are cut in two":   func(a, b, c *host) []arrow { return both([]*host{b}, []*host{c}) },
				"nobody sees anybody":         func(a, b, c *host) []arrow { return all(both(s.hosts, s.hosts)) },
				"it and one cut off from one": func(a, b, c *host) []arrow { return append(both([]*host{a}, []*host{b}), arrow{c, b}) },
			} {
				victim, rest := raftLeader(t, s.all)
				if role == "a follower" {
					victim, rest[0] = rest[0], victim
				}
				c := victim.joinWithin(patience, unique("g")) // TCP may still wait for a link that is back: a session ends
				heal := s.cut(choose(s.host(victim), s.host(rest[0]), s.host(rest[1])))
				time.Sleep(rand.N(clusterTiming.Lease)) // the cut is new, or it is known
				began := time.Now()
				victim.signal(syscall.SIGTERM)
				c.wantGone()
				closed := time.Since(began)
				victim.wantExit(exitOK)
				t.Logf("%s, %s: closed %v and ended %v after the signal", role, name, closed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
				heal()
				s.run(victim)
				wantWhole(s.all)
			}
		})
	}
}

// A link that fails under load costs the node behind it its session, and no more: when
// the link is back, the raft leader sends it the log again, and stops in time when it
// is told to.
func TestFaultALinkOfTheRaftLeaderComesAndGoes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, false)
	leader, rest := raftLeader(t, s.all)
	defer load(20, leader)()
	for range 6 {
		heal := s.cut(both([]*host{s.host(leader)}, []*host{s.host(rest[0])}))
		rest[0].until("its session is lost", func() bool { return !sessionOf(leader.cluster(), rest[0].name) })
		heal()
		healed := time.Now()
		rest[0].ready()
		took(t, "a link is back: a JOIN would succeed", time.Since(healed), clusterTiming.Expiry)
		if now, _ := raftLeader(t, s.all); now != leader {
			leader, rest = raftLeader(t, s.all)
		}
	}
	began := time.Now()
	leader.signal(syscall.SIGTERM)
	leader.wantExit(exitOK)
	t.Logf("the raft leader ended %v after the signal", time.Since(began).Round(time.Millisecond))
}

func sessionOf(c ensemble.Cluster, name string) bool {
	return slices.ContainsFunc(c.Members, func(m ensemble.ClusterMember) bool { return m.Name == name && m.Session })
}
