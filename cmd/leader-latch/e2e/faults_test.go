//go:build faults

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
	"leaderlatch/latch/latchtest"
)

// The attack on real processes: nodes and clients on hosts of a network of the test's
// own, with faults of all kinds in a random order, and everything that a client was
// told held against the promise. It needs root; see FAULTS.md.
var (
	faultsTime   = flag.Duration("faults", 2*time.Minute, "how long the random faults last, against 3 and 5 nodes side by side")
	faultsSeed   = flag.Uint64("faults-seed", 0, "the order of faults to play again; 0: a new one")
	faultsGroups = flag.Int("faults-groups", 100, "how many groups there are")
	faultsTiming = flag.String("faults-timing", session.Normal.Name, "the timing of the nodes")
	faultsKinds  = flag.String("faults-kinds", "", "only these kinds of faults, with commas between; empty: all")
)

// settleTime is within how long after the last fault every group has to have its
// one leader. It is no bound of the service, which is logged, but of the machine.
const settleTime = 60 * time.Second

func TestFaultsInRandomOrder(t *testing.T) {
	var mu sync.Mutex
	count := map[string]map[int]int{}        // by kind and number of nodes
	leaderless := map[string]time.Duration{} // the longest time, by kind
	t.Cleanup(func() {
		var table strings.Builder
		for _, kind := range slices.Sorted(maps.Keys(count)) {
			bound := ""
			if b, ok := bounds[kind]; ok {
				bound = b.String()
			}
			fmt.Fprintf(&table, "| %-36s | %4d | %4d | %5d | %10v | %-6s |\n", kind, count[kind][3], count[kind][5], count[kind][3]+count[kind][5], leaderless[kind].Round(time.Millisecond), bound)
		}
		t.Logf("faults in %v, with the longest time without a leader of a group that began while one lasted, and the bound of that where nothing else is played:\n| kind | 3 nodes | 5 nodes | both | no leader | bound |\n|---|---|---|---|---|---|\n%s", *faultsTime, &table)
	})
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			t.Parallel()
			tm, err := session.TimingNamed(*faultsTiming)
			if err != nil {
				t.Fatal(err)
			}
			a := newAttacker(t, nodes, *faultsGroups, tm)
			t.Cleanup(func() {
				mu.Lock()
				defer mu.Unlock()
				for kind, n := range a.count {
					if count[kind] == nil {
						count[kind] = map[int]int{}
					}
					count[kind][nodes] = n
				}
				for kind, d := range a.leaderless() {
					leaderless[kind] = max(leaderless[kind], d)
				}
			})
			a.nothingLeft("before")
			end := time.Now().Add(*faultsTime)
			var both sync.WaitGroup
			both.Go(func() { a.play(a.rnd, a.nodeFaults(), end, true) })
			both.Go(func() { a.play(a.victims, a.clientFaults(), end, false) })
			both.Wait()
			for _, what := range a.judge().Violations {
				t.Error(what)
			}
			a.nothingLeft("after")
			if bound, ok := bounds[*faultsKinds]; ok && tm == session.Normal {
				took(t, *faultsKinds+": the longest time without a leader", a.leaderless()[*faultsKinds], bound)
			}
		})
	}
}

// The attack itself is tried on nodes that lack a guard: without the dead-man's switch
// the connections of a paused node stay open, and it has to find two leaders.
func TestFaultsAreFound(t *testing.T) {
	a := newAttacker(t, 3, 20, session.Normal, "leader_latch.dead_man_switch = off")
	for _, n := range a.nodes {
		n.signal(syscall.SIGSTOP)
		time.Sleep(session.Normal.Expiry + time.Second)
		n.signal(syscall.SIGCONT)
	}
	if v := a.judge(); len(v.Violations) == 0 {
		t.Error("nothing was found")
	} else {
		t.Logf("found: %s", v.Violations[0])
	}
}

// Nor do members with a hold outlive their connections here: clients whose lines break go on
// leading by what they were promised, and others lead too.
func TestFaultsOfKeyedClientsAreFound(t *testing.T) {
	t.Setenv("LEADER_LATCH_WITHOUT", "hold")
	a := newAttacker(t, 3, 20, session.Normal)
	found := func() []string { return latchtest.Check(a.crowd.views()).Violations }
	for round := 0; len(found()) == 0; round++ {
		if round == 100 {
			t.Fatal("nothing was found")
		}
		for _, s := range a.crowd.keyed {
			if k := s.present(); k != nil {
				k.breakOff()
			}
		}
		time.Sleep(100 * time.Millisecond) // for those that come after them to be told
	}
	t.Logf("found: %s", found()[0])
}

// attacker plays faults against a cluster.
type attacker struct {
	*network
	rnd     *rand.Rand // of the order of faults
	timing  session.Timing
	nodes   []*node
	hosts   []*host // of the nodes
	crowd   *crowd
	victims *rand.Rand // of the faults of clients

	mu    sync.Mutex
	count map[string]int
	plays []play

	changing sync.Mutex // held while the cluster's members change: one at a time
}

// fault is a kind of fault. begin makes one, as the source of chance says, and gives
// how to end it and what it was.
type fault struct {
	name  string
	begin func(r *rand.Rand) (end func(), what string)
	hold  time.Duration // how long it lasts at most
}

// play is a fault that was played, with when it began and ended.
type play struct {
	kind     string
	from, to time.Duration
}

// bounds is within which time a group has its next leader, by kind, where only that kind is
// played, with the timing normal.
var bounds = map[string]time.Duration{
	"damaged file":                 replaced(session.Normal), // as a node that is killed
	"vanished folder":              5 * time.Second,
	"starved raft leader":          4 * time.Second,
	"slow disk at the raft leader": 4 * time.Second,
	"stalled transfer":             5*time.Second + replaced(session.Normal), // the pause, an election, and no session that is alive
	"full disk in a snapshot":      replaced(session.Normal),
}

// newAttacker starts nodes and clients, and waits until all groups have leaders.
func newAttacker(t *testing.T, nodes, groups int, tm session.Timing, lines ...string) *attacker {
	seed := *faultsSeed
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	t.Logf("seed %d: -faults-seed=%[1]d plays these faults again", seed)
	rnd := rand.New(rand.NewPCG(seed, uint64(nodes)))

	nw := newNetwork(t, nodes+2) // the last two have clients only
	a := &attacker{network: nw, rnd: rnd, timing: tm, hosts: nw.hosts[:nodes], victims: rand.New(rand.NewPCG(seed, 1)), count: map[string]int{}}
	for _, h := range a.hosts {
		h.mountSlowableDisk()
	}
	for i, m := range onHosts(a.hosts, tm.Name, append(lines, withKeys)...) {
		if i%2 == 0 { // it goes on until a write fails
			m.lines = append(m.lines, "leader_latch.minimum_free_space = 0")
		}
		n := supervise(m, a.hosts[i], fmt.Sprint("LEADER_LATCH_SNAPSHOT_ENTRIES=", snapshotEntries))
		a.nodes = append(a.nodes, n)
		t.Cleanup(n.stop)
	}
	for _, n := range a.nodes {
		if out, err := n.command("wait", "--timeout", "60s"); err != nil {
			t.Fatalf("wait: %v: %s\n%s", err, out, n.tail())
		}
	}
	a.crowd = newCrowd(nw, a.hosts, groups, rnd)
	a.crowd.addProcesses(5, rnd)
	a.crowd.addBounded(10, windows[tm.Name], rnd)
	a.crowd.addKeyed(10, rnd)
	a.crowd.addObservers(rnd)
	t.Cleanup(a.crowd.stop) // before the nodes, whose ends are not of interest
	a.settle("before the first fault")
	return a
}

// snapshotEntries is after how many entries nodes take a snapshot: a few seconds' worth.
const snapshotEntries = 128

// costly is what takes the cluster long to come back from, or needs it to be whole. One
// round of four begins with one of these, and one with a fault by the clock.
var costly = []string{"rolling restart", "replace", "leave and join", "force-remove", "full disk", "stalled disk", "freeze the host",
	"starved raft leader", "slow disk at the raft leader", "damaged file", "vanished folder", "interrupted recover", "stalled transfer", "full disk in a snapshot"}

// choose takes one of two, the one that has been rarer.
func (a *attacker) choose(r *rand.Rand, faults []fault) fault {
	f, g := faults[r.IntN(len(faults))], faults[r.IntN(len(faults))]
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count[g.name] < a.count[f.name] {
		return g
	}
	return f
}

// tally counts what has happened, by its kind.
func (a *attacker) tally(kind string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[kind]++
}

// play plays up to five faults at once, and the next ones when these have ended, until
// the time is over.
func (a *attacker) play(r *rand.Rand, faults []fault, until time.Time, tell bool) {
	if *faultsKinds != "" {
		faults = slices.DeleteFunc(faults, func(f fault) bool { return !slices.Contains(strings.Split(*faultsKinds, ","), f.name) })
	}
	var cheap, dear, clock []fault
	for _, f := range faults {
		switch {
		case slices.Contains(costly, f.name):
			dear = append(dear, f)
		case strings.HasPrefix(f.name, byTheClock):
			clock = append(clock, f)
		default:
			cheap = append(cheap, f)
		}
	}
	for len(faults) > 0 && time.Now().Before(until) && !a.t.Failed() {
		var lasting sync.WaitGroup
		times := 3 + r.IntN(3)
		if len(faults) == 1 {
			times = 1 // its bound is for one
		}
		for i := range times {
			of, wait := cheap, len(faults) == 1
			switch first := r.IntN(4); {
			case i > 0:
			case len(dear) > 0 && (first == 0 || len(cheap)+len(clock) == 0):
				of, wait = dear, true
			case len(clock) > 0 && (first == 1 || len(cheap) == 0):
				of, wait = clock, true
			}
			if wait {
				a.awaitOne(10 * time.Second)
			}
			if len(of) == 0 {
				break
			}
			f := a.choose(r, of)
			hold := time.Duration(math.Pow(r.Float64(), 3) * float64(f.hold)) // rather short ones
			begun := a.now()
			end, what := f.begin(r)
			if end == nil {
				continue
			}
			if tell {
				a.t.Logf("%v: %s %s, for %v", begun.Round(time.Millisecond), f.name, what, hold.Round(time.Millisecond))
			}
			a.tally(f.name)
			lasting.Go(func() {
				time.Sleep(hold)
				end()
				a.mu.Lock()
				defer a.mu.Unlock()
				a.plays = append(a.plays, play{f.name, begun, a.now()})
			})
		}
		lasting.Wait()
		time.Sleep(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
	}
}

// leaderless gives the longest time in which a group had no leader, by the kinds of faults
// that lasted when that began.
func (a *attacker) leaderless() map[string]time.Duration {
	longest := map[string]time.Duration{}
	gaps := latchtest.Gaps(a.crowd.views())
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.plays {
		for _, g := range gaps {
			if p.from <= g.From && g.From <= p.to {
				longest[p.kind] = max(longest[p.kind], g.To-g.From)
			}
		}
	}
	return longest
}

func (a *attacker) some(r *rand.Rand, most int) (nodes []*node, what string) {
	for _, i := range r.Perm(len(a.nodes))[:1+r.IntN(most)] {
		nodes = append(nodes, a.nodes[i])
	}
	return nodes, "of node " + numbers(nodes)
}

func numbers(nodes []*node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, fmt.Sprint(n.n))
	}
	return strings.Join(all, ", ")
}

// halves deals the nodes' hosts into two parts, neither empty.
func (a *attacker) halves(r *rand.Rand) (some, others []*host) {
	order := r.Perm(len(a.hosts))
	cut := 1 + r.IntN(len(order)-1)
	for i, n := range order {
		if i < cut {
			some = append(some, a.hosts[n])
		} else {
			others = append(others, a.hosts[n])
		}
	}
	return some, others
}

func names(hosts []*host) string {
	var all []string
	for _, h := range hosts {
		all = append(all, fmt.Sprint(h.n))
	}
	return "{" + strings.Join(all, " ") + "}"
}

// each calls f for each node, and gives what calls what that gave.
func each(nodes []*node, f func(*node) func()) func() {
	var ends []func()
	for _, n := range nodes {
		ends = append(ends, f(n))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

func (a *attacker) nodeFaults() []fault {
	return slices.Concat(a.processFaults(), a.raftLeaderFaults(), a.firewallFaults(), a.folderFaults(), a.snapshotFaults(), a.clockFaults())
}

// processFaults are those of processes, networks, disks and machines as a whole.
func (a *attacker) processFaults() []fault {
	return []fault{
		{"kill", func(r *rand.Rand) (func(), string) {
			nodes, what := a.some(r, len(a.nodes))
			stay := r.IntN(2) == 0 // down for a while, or started again at once
			return each(nodes, func(n *node) func() {
				release := func() {}
				if stay {
					release = n.hold()
				}
				n.signal(syscall.SIGKILL)
				return release
			}), what
		}, 4 * time.Second},
		{"pause", func(r *rand.Rand) (func(), string) {
			nodes, what := a.some(r, len(a.nodes))
			return each(nodes, func(n *node) func() {
				n.signal(syscall.SIGSTOP)
				return func() { n.signal(syscall.SIGCONT) }
			}), what
		}, 4 * time.Second},
		{"short pause", func(r *rand.Rand) (func(), string) {
			nodes, what := a.some(r, len(a.nodes))
			return each(nodes, func(n *node) func() {
				n.signal(syscall.SIGSTOP)
				return func() { n.signal(syscall.SIGCONT) }
			}), what
		}, 2200 * time.Millisecond}, // about as long as a lease
		{"stop", func(r *rand.Rand) (func(), string) {
			nodes, what := a.some(r, 2)
			return each(nodes, func(n *node) func() {
				release := n.hold()
				n.terminate()
				return release
			}), what
		}, 3 * time.Second},
		{"isolate", func(r *rand.Rand) (func(), string) {
			n := a.nodes[r.IntN(len(a.nodes))]
			return a.cut(both([]*host{n.host}, a.hosts)), "node " + fmt.Sprint(n.n)
		}, 5 * time.Second},
		{"isolate the host", func(r *rand.Rand) (func(), string) { // from clients too
			n := a.nodes[r.IntN(len(a.nodes))]
			return a.cut(both([]*host{n.host}, a.network.hosts)), "of node " + fmt.Sprint(n.n)
		}, 5 * time.Second},
		{"split", func(r *rand.Rand) (func(), string) {
			some, others := a.halves(r)
			return a.cut(both(some, others)), names(some) + names(others)
		}, 5 * time.Second},
		{"shatter", func(*rand.Rand) (func(), string) {
			return a.cut(all(both(a.hosts, a.hosts))), "all nodes"
		}, 5 * time.Second},
		{"bridge", func(r *rand.Rand) (func(), string) { // one is seen by all others
			order := r.Perm(len(a.hosts))
			var left, right []*host
			for i, n := range order[1:] {
				if i < (len(order)-1)/2 {
					left = append(left, a.hosts[n])
				} else {
					right = append(right, a.hosts[n])
				}
			}
			return a.cut(both(left, right)), names(left) + " - " + fmt.Sprint(order[0]) + " - " + names(right)
		}, 6 * time.Second},
		{"ring", func(r *rand.Rand) (func(), string) { // each sees its neighbours; of three, one link is cut
			order := r.Perm(len(a.hosts))
			var arrows []arrow
			for i := range order {
				for j := i + 2; j < len(order) && j-i < len(order)-1; j++ {
					arrows = append(arrows, both([]*host{a.hosts[order[i]]}, []*host{a.hosts[order[j]]})...)
				}
			}
			if len(order) == 3 {
				arrows = both([]*host{a.hosts[order[0]]}, []*host{a.hosts[order[2]]})
			}
			return a.cut(arrows), fmt.Sprint(order)
		}, 6 * time.Second},
		{"one way", func(r *rand.Rand) (func(), string) {
			some, others := a.halves(r)
			var arrows []arrow
			for _, w := range both(some, others) {
				if slices.Contains(some, w.from) {
					arrows = append(arrows, w)
				}
			}
			return a.cut(arrows), names(others) + " hear nothing of " + names(some)
		}, 6 * time.Second},
		{"some ways", func(r *rand.Rand) (func(), string) { // any set of directions
			var arrows []arrow
			var what []string
			for _, w := range all(both(a.hosts, a.hosts)) {
				if r.IntN(3) == 0 {
					arrows = append(arrows, w)
					what = append(what, fmt.Sprint(w.from.n, ">", w.to.n))
				}
			}
			return a.cut(arrows), "cut " + strings.Join(what, " ")
		}, 6 * time.Second},
		{"loss", func(r *rand.Rand) (func(), string) {
			some, _ := a.halves(r)
			percent := 2 + r.IntN(40)
			return a.lose(percent, some), fmt.Sprintf("of %d%% at %s", percent, names(some))
		}, 6 * time.Second},
		{"slow", func(r *rand.Rand) (func(), string) {
			some, _ := a.halves(r)
			return a.slow(some), names(some)
		}, 5 * time.Second},
		{"freeze the host", func(r *rand.Rand) (func(), string) {
			n := a.nodes[r.IntN(len(a.nodes))]
			heal := a.cut(both([]*host{n.host}, a.network.hosts))
			n.signal(syscall.SIGSTOP)
			var asleep []*client
			for _, c := range a.crowd.clients {
				if c.home == n.host {
					c.pause()
					asleep = append(asleep, c)
				}
			}
			return func() {
				n.signal(syscall.SIGCONT)
				heal()
				for _, c := range asleep {
					c.wake()
				}
			}, "of node " + fmt.Sprint(n.n)
		}, 5 * time.Second},
		{"rolling restart", func(r *rand.Rand) (func(), string) {
			order := r.Perm(len(a.nodes))
			for _, i := range order {
				n := a.nodes[i]
				release := n.hold()
				n.terminate()
				n.awaitEnd(20 * time.Second)
				release()
				n.program("wait", "--timeout", "10s").Run() // it may be cut off just now
			}
			return func() {}, fmt.Sprint(order)
		}, time.Second},
		{"wall clock set", func(r *rand.Rand) (func(), string) {
			n := a.nodes[r.IntN(len(a.nodes))]
			by := time.Duration(r.Int64N(int64(time.Hour))) - time.Hour/2
			n.setWallClock(by)
			return func() {}, fmt.Sprintf("to %v at node %d", by.Round(time.Second), n.n)
		}, 500 * time.Millisecond},
		{"force-remove", func(r *rand.Rand) (func(), string) { // of a node that lives; it comes back as a new one
			order := r.Perm(len(a.nodes))
			n, other := a.nodes[order[0]], a.nodes[order[1]]
			done, ok := a.changeMembers()
			if !ok {
				return nil, ""
			}
			n.mayBeRemoved(true)
			other.within(15*time.Second, "cluster", "force-remove", "--yes", n.name)
			return func() {
				n.beginAnew()
				done()
			}, "node " + fmt.Sprint(n.n)
		}, 3 * time.Second},
		{"replace", func(r *rand.Rand) (func(), string) { // a machine loses its disk, and comes back under its name
			n, release, done := a.killOne(r)
			if n == nil {
				return nil, ""
			}
			if err := os.RemoveAll(filepath.Join(n.disk, "data")); err != nil {
				a.t.Error(err)
			}
			return func() { release(); done() }, "node " + fmt.Sprint(n.n)
		}, 3 * time.Second},
		{"leave and join", func(r *rand.Rand) (func(), string) {
			order := r.Perm(len(a.nodes))
			n, other := a.nodes[order[0]], a.nodes[order[1]]
			done, ok := a.changeMembers()
			if !ok {
				return nil, ""
			}
			n.within(15*time.Second, "cluster", "leave")
			return func() {
				a.crowd.running.Go(func() {
					for !a.crowd.stopped() && !a.one() {
						n.within(15*time.Second, "cluster", "join", other.name)
						time.Sleep(time.Second)
					}
				})
				done()
			}, "node " + fmt.Sprint(n.n)
		}, 2 * time.Second},
		{"full disk", func(r *rand.Rand) (func(), string) {
			n := a.nodes[r.IntN(len(a.nodes))]
			well := n.sicken()
			heal, err := n.fillDisk(int64(r.IntN(2)) * (32 << 20)) // to the last block, or to what some nodes keep
			if err != nil {
				well()
				a.t.Error(err)
				return nil, ""
			}
			return func() { heal(); well() }, "of node " + fmt.Sprint(n.n)
		}, 8 * time.Second},
		{"stalled disk", func(r *rand.Rand) (func(), string) {
			n := a.nodes[r.IntN(len(a.nodes))]
			well := n.sicken()
			heal, err := n.stallDisk(15 * time.Second)
			if err != nil {
				well()
				a.t.Error(err)
				return nil, ""
			}
			return func() { heal(); well() }, "of node " + fmt.Sprint(n.n)
		}, 10 * time.Second},
	}
}

// changeMembers begins a change of the cluster's members, unless another one is under
// way or not all are well: two of three that begin anew would be a majority lost for
// good. The next one may begin when done was called and all are one cluster again.
func (a *attacker) changeMembers() (done func(), ok bool) {
	if !a.changing.TryLock() {
		return nil, false
	}
	if !a.one() {
		a.changing.Unlock()
		return nil, false
	}
	return func() {
		a.crowd.running.Go(func() {
			defer a.changing.Unlock()
			for !a.crowd.stopped() && !a.one() {
				time.Sleep(200 * time.Millisecond)
			}
		})
	}, true
}

// holdOne begins a change of the members that concerns one node, whichever. That is not
// started again until release is called. nil: there is no change now.
func (a *attacker) holdOne(r *rand.Rand) (n *node, release, done func()) {
	n = a.nodes[r.IntN(len(a.nodes))]
	done, ok := a.changeMembers()
	if !ok {
		return nil, nil, nil
	}
	return n, n.hold(), done
}

// killOne is holdOne of a node that is killed, and has ended.
func (a *attacker) killOne(r *rand.Rand) (n *node, release, done func()) {
	if n, release, done = a.holdOne(r); n != nil {
		n.signal(syscall.SIGKILL)
		n.awaitEnd(30 * time.Second)
	}
	return n, release, done
}

// one reports whether each node knows all as voting members with a session.
func (a *attacker) one() bool {
	for _, n := range a.nodes {
		var c ensemble.Cluster
		if n.ask("/cluster", &c) != nil || !whole(c, len(a.nodes)) {
			return false
		}
	}
	return true
}

// awaitOne waits until all are one cluster, and at most so long.
func (a *attacker) awaitOne(limit time.Duration) {
	for end := time.Now().Add(limit); !a.one() && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
}

// all drops what is there twice.
func all(arrows []arrow) []arrow {
	seen := map[arrow]bool{}
	return slices.DeleteFunc(arrows, func(w arrow) bool {
		twice := seen[w]
		seen[w] = true
		return twice
	})
}

// sicken allows that the node fails, until a while after well was called: what it
// asked of its disk may still be under way.
func (n *node) sicken() (well func()) {
	n.count(&n.sick, 1)
	return func() {
		time.AfterFunc(10*time.Second, func() { n.count(&n.sick, -1) })
	}
}

func (a *attacker) clientFaults() []fault {
	leave := func(how func(*net.TCPConn)) func(*rand.Rand) (func(), string) {
		return func(r *rand.Rand) (func(), string) {
			for range 1 + r.IntN(4) {
				a.crowd.clients[r.IntN(len(a.crowd.clients))].leave(how)
			}
			return func() {}, ""
		}
	}
	return []fault{
		{"client closes", leave(func(nc *net.TCPConn) { nc.Close() }), time.Second},
		{"client half closes", leave(func(nc *net.TCPConn) { nc.CloseWrite(); time.AfterFunc(time.Second, func() { nc.Close() }) }), time.Second},
		{"client resets", leave(func(nc *net.TCPConn) { nc.SetLinger(0); nc.Close() }), time.Second},
		{"client pauses", func(r *rand.Rand) (func(), string) {
			var asleep []*client
			for range 1 + r.IntN(20) {
				c := a.crowd.clients[r.IntN(len(a.crowd.clients))]
				c.pause()
				asleep = append(asleep, c)
			}
			return func() {
				for _, c := range asleep {
					c.wake()
				}
			}, ""
		}, 3 * time.Second},
		{"client process killed", func(r *rand.Rand) (func(), string) {
			a.crowd.processes[r.IntN(len(a.crowd.processes))].signal(syscall.SIGKILL)
			return func() {}, ""
		}, time.Second},
		{"client process stopped", func(r *rand.Rand) (func(), string) {
			p := a.crowd.processes[r.IntN(len(a.crowd.processes))]
			p.signal(syscall.SIGSTOP)
			return func() { p.signal(syscall.SIGCONT) }, ""
		}, 4 * time.Second},
		{"client by its clock stops", func(r *rand.Rand) (func(), string) {
			select {
			case a.crowd.bounded[r.IntN(len(a.crowd.bounded))].stops <- struct{}{}:
			default: // it has not come to that yet
			}
			return func() {}, ""
		}, time.Second},
		{"keyed client killed", func(r *rand.Rand) (func(), string) {
			a.crowd.keyed[r.IntN(len(a.crowd.keyed))].end(false)
			return func() {}, ""
		}, time.Second},
		{"keyed client leaves", func(r *rand.Rand) (func(), string) {
			a.crowd.keyed[r.IntN(len(a.crowd.keyed))].end(true)
			return func() {}, ""
		}, time.Second},
		{"keyed client breaks off", func(r *rand.Rand) (func(), string) {
			for range 1 + r.IntN(4) {
				if k := a.crowd.keyed[r.IntN(len(a.crowd.keyed))].present(); k != nil {
					k.breakOff()
				}
			}
			return func() {}, ""
		}, time.Second},
		{"keyed client hangs", func(r *rand.Rand) (func(), string) {
			k := a.crowd.keyed[r.IntN(len(a.crowd.keyed))].present()
			if k == nil {
				return nil, ""
			}
			k.hang(true)
			return func() { k.hang(false) }, ""
		}, 12 * time.Second},
		{"clients cut off", func(r *rand.Rand) (func(), string) { // a host of clients, from some nodes, one way or both
			h := a.network.hosts[len(a.hosts)+r.IntN(2)]
			some, _ := a.halves(r)
			arrows := both([]*host{h}, some)
			if way := r.IntN(3); way < 2 {
				arrows = slices.DeleteFunc(arrows, func(w arrow) bool { return (w.from == h) == (way == 0) })
			}
			return a.cut(arrows), ""
		}, 5 * time.Second},
	}
}

// settle waits until every group has one leader, whom all its members know.
func (a *attacker) settle(when string) {
	a.t.Helper()
	began := time.Now()
	for {
		var connected int
		views := a.crowd.views()
		for _, v := range views {
			if v.End == 0 && len(v.Told) > 0 {
				connected++
			}
		}
		why := latchtest.Unsettled(views)
		if connected == a.crowd.size() && why == nil {
			break
		}
		if time.Since(began) > settleTime || a.t.Failed() {
			a.t.Errorf("%s: %d of %d clients are members, and\n%s", when, connected, a.crowd.size(), strings.Join(why, "\n"))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Logf("%s: %d clients in %d groups have settled after %v", when, a.crowd.size(), len(a.crowd.groups), time.Since(began).Round(time.Millisecond))
	a.sameAsNodesSay()
}

// sameAsNodesSay compares what clients were told with what each node shows.
func (a *attacker) sameAsNodesSay() {
	a.t.Helper()
	last := map[string]latchtest.Told{}
	for _, v := range a.crowd.views() {
		if v.End == 0 && len(v.Told) > 0 {
			last[v.Group] = v.Told[len(v.Told)-1]
		}
	}
	for _, n := range a.nodes {
		var differs []string
		for range 100 { // clients see a change before the slowest node does
			differs = nil
			for _, g := range n.groups() {
				if l := last[g.Name]; l.Leader != g.Leader || l.Token != g.Token {
					differs = append(differs, fmt.Sprintf("%s: %s with token %d, clients know %s with %d", g.Name, g.Leader, g.Token, l.Leader, l.Token))
				}
			}
			if differs == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if differs != nil {
			a.t.Errorf("node %d: %s", n.n, strings.Join(differs, "\n"))
		}
	}
}

// judge waits until all has settled, and holds what was seen against the promise.
func (a *attacker) judge() latchtest.Verdict {
	a.t.Helper()
	healed := time.Now()
	for !a.one() && time.Since(healed) < settleTime {
		time.Sleep(50 * time.Millisecond)
	}
	if !a.one() {
		a.t.Errorf("%v after the last fault the nodes are not one cluster", settleTime)
	}
	a.settle("after the last fault")
	a.t.Logf("all nodes are one cluster, and all groups have a leader, %v after the last fault", time.Since(healed).Round(time.Millisecond))
	views := a.crowd.views()
	v := latchtest.Check(views)
	losses := a.losses()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(a.count)) {
		a.t.Logf("faults: %5d %s", a.count[kind], kind)
	}
	for _, n := range a.nodes {
		n.mu.Lock()
		a.t.Logf("endings of node %d: %v", n.n, n.endings)
		n.mu.Unlock()
	}
	promises := 0
	for _, view := range views {
		promises += len(view.Promises)
	}
	a.t.Logf("%d connections, %d leaderships, %d promises, %d JOINs refused; violations: %d", len(views), v.Leaderships, promises, a.crowd.refused.Load(), len(v.Violations))
	for kind, times := range v.Excused {
		slices.Sort(times)
		bound := clientGivesUp + clientGrace
		if kind == latchtest.AgainAndAgain {
			bound += closedFor
		}
		a.t.Logf("two took themselves for the leader while the older one was %s: %d times, %v p50, %v at most; bound %v",
			kind, len(times), times[len(times)/2], times[len(times)-1], bound)
	}
	replaced := 0
	for _, n := range losses {
		replaced += n
	}
	if replaced >= 20 && losses[lossOther]*10 >= replaced {
		a.t.Errorf("%d of %d keyed leaders were replaced for no cause but that no majority was at hand", losses[lossOther], replaced)
	}
	if v.Leaderships < len(a.crowd.groups) || promises < len(a.crowd.bounded) {
		a.t.Error("hardly anybody led")
	}
	return v
}
