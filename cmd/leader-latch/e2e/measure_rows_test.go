//go:build bench

package e2e

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// placed is a node by what it is in the cluster.
type placed struct {
	name string
	*member
}

func places(t *testing.T, all []*member) (leader, follower, other placed) {
	l, others := raftLeader(t, all)
	return placed{"raft leader", l}, placed{"follower", others[0]}, placed{"other follower", others[1]}
}

// electAt is the time of n elections, one after the other: a client alone in its group,
// from before it connects until it is told, or from its JOIN on.
func electAt(t *testing.T, node *member, n int, connecting bool) (l latencies) {
	t.Helper()
	for i := range n + 20 { // the first ones warm up
		began := time.Now()
		c, err := call(node.addr, "a")
		if err == nil {
			if !connecting {
				began = time.Now()
			}
			err = c.lead(unique("elect"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if i >= 20 {
			l = append(l, time.Since(began))
		}
		c.Close()
	}
	return l
}

func measureElect(t *testing.T) {
	all := timed(t, 3, "normal")
	leader, follower, other := places(t, all)
	for _, p := range []placed{leader, follower, other} {
		row("new connection to elected, "+p.name, "%v", electAt(t, p.member, fewer(1000), true))
	}
	for _, p := range []placed{leader, follower} {
		row("JOIN on an open connection to elected, "+p.name, "%v", electAt(t, p.member, fewer(1000), false))
	}
}

// pair has two clients in a fresh group, of which a leads.
func pair(t *testing.T, from, to, group string) (a, b *caller) {
	t.Helper()
	a, err := call(from, "a")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = call(to, "b"); err != nil {
		t.Fatal(err)
	}
	if err := a.lead(group); err != nil {
		t.Fatal(err)
	}
	if _, err := b.join(group); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// How old a group of two is when its leader closes. In one that was made just now nothing
// of the joining is under way any more, and the processors are awake; in one that has
// been quiet for so long as those of other services when they were measured, they sleep.
const (
	justMade = 2 * time.Millisecond
	quiet    = 250 * time.Millisecond
)

// handOvers is the time of n hand-overs in groups of two.
func handOvers(t *testing.T, from, to string, age time.Duration, n int) (l latencies) {
	t.Helper()
	for i := range n + 5 {
		group := unique("hand-over")
		a, b := pair(t, from, to, group)
		time.Sleep(age)
		took, err := handOver(a, b)
		if err != nil {
			t.Fatal(err)
		}
		if i >= 5 {
			l = append(l, took)
		}
		b.Close()
	}
	return l
}

func measureHandOver(t *testing.T) {
	all := timed(t, 3, "normal")
	leader, follower, other := places(t, all)
	chain := startChain(t)
	bare := map[placed]string{leader: chain[0], follower: chain[1], other: chain[2]}
	for _, way := range [][2]placed{
		{leader, leader}, {leader, follower}, {follower, leader}, {follower, follower}, {follower, other},
	} {
		where := way[0].name + " to " + way[1].name
		if way[0] == way[1] {
			where = "both at one " + way[0].name
		}
		row("leader closes, next told, "+where, "%v", handOvers(t, way[0].addr, way[1].addr, justMade, fewer(500)))
		var ours, floor latencies
		for range repetitions { // in turn, so that a disturbance hits both
			ours = append(ours, handOvers(t, way[0].addr, way[1].addr, quiet, fewer(20))...)
			floor = append(floor, handOvers(t, bare[way[0]], bare[way[1]], quiet, fewer(20))...)
		}
		row("the same in a quiet group", "%v", ours)
		row("the same at a chain of three bare processes", "%v; ours: %.1f times that", floor, float64(ours.at(0.5))/float64(floor.at(0.5)))
	}
}

// load is what many workers elected, and at what cost.
type load struct {
	perSecond float64
	latencies latencies
	cpu       float64 // of the servers, in us for each election
	cores     float64 // that the servers used
	own       float64 // that the clients used
	limited   bool    // it ended early, as no more connections are allowed
}

// elect has workers connect, join a fresh group, and be told, again and again. With
// churn they leave then; else they keep their connections to the end.
func elect(t *testing.T, addrs []string, pids servers, workers int, churn bool, d time.Duration) (r load) {
	t.Helper()
	most, _ := affordable(1 << 20)
	run := unique("load")
	var n atomic.Int64
	var mu sync.Mutex
	var kept []*caller
	began, end := time.Now(), time.Now().Add(d)
	cpu, own := pids.cpu(t), servers{os.Getpid()}.cpu(t)
	err := inParallel(workers, workers, func(w int) error {
		var times latencies
		var mine []*caller
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			r.latencies, kept = append(r.latencies, times...), append(kept, mine...)
		}()
		for i := 0; time.Now().Before(end); i++ {
			if !churn && n.Add(1) > int64(most) {
				return nil
			}
			began := time.Now()
			c, err := call(addrs[w%len(addrs)], "a")
			if err != nil {
				return err
			}
			if err := c.lead(fmt.Sprint(run, "-", w, "-", i)); err != nil {
				return err
			}
			times = append(times, time.Since(began))
			if churn {
				c.Close()
			} else {
				mine = append(mine, c)
			}
		}
		return nil
	})
	r.took(time.Since(began), pids.cpu(t)-cpu, servers{os.Getpid()}.cpu(t)-own)
	for _, c := range kept {
		c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.limited = n.Load() > int64(most)
	return r
}

// electOpen has workers join fresh groups, and be told, on connections that are open
// already, each on one after the other until all have joined; again and again with new
// connections until that has taken d.
func electOpen(t *testing.T, addrs []string, pids servers, workers int, d time.Duration) (r load) {
	t.Helper()
	wanted := fewer(15000)
	most, _ := affordable(wanted)
	var took, cpu, own time.Duration
	for took < d {
		times, now, servers, clients := joinOpen(t, addrs, pids, workers, most)
		r.latencies = append(r.latencies, times...)
		took, cpu, own = took+now, cpu+servers, own+clients
	}
	r.took(took, cpu, own)
	r.limited = most < wanted
	return r
}

// joinOpen opens n connections, then, when the servers have nothing to do with that any
// more, has workers join on them, and tells how long the JOINs took and how much of the
// processors.
func joinOpen(t *testing.T, addrs []string, pids servers, workers, n int) (times latencies, took, cpu, own time.Duration) {
	t.Helper()
	run := unique("load")
	open := make([]*caller, n)
	defer func() {
		for _, c := range open {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err := inParallel(n, 64, func(i int) (err error) {
		open[i], err = call(addrs[i%len(addrs)], "a")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	pids.rest(t)
	times = make(latencies, n)
	cpu, own = pids.cpu(t), servers{os.Getpid()}.cpu(t)
	began := time.Now()
	if err := inParallel(n, workers, func(i int) error {
		began := time.Now()
		err := open[i].lead(fmt.Sprint(run, "-", i))
		times[i] = time.Since(began)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return times, time.Since(began), pids.cpu(t) - cpu, servers{os.Getpid()}.cpu(t) - own
}

// took works out what comes of the time that the elections took, and of the processors'.
func (r *load) took(d, servers, own time.Duration) {
	done := float64(len(r.latencies))
	r.perSecond = done / d.Seconds()
	r.cpu = float64(servers.Microseconds()) / done
	r.cores, r.own = servers.Seconds()/d.Seconds(), own.Seconds()/d.Seconds()
}

// loads are repetitions of one load.
type loads []load

func (l loads) each(f func(load) float64) (s spread) {
	for _, r := range l {
		s = append(s, f(r))
	}
	return s
}

func (l loads) perSecond() spread { return l.each(func(r load) float64 { return r.perSecond }) }
func (l loads) cpu() spread       { return l.each(func(r load) float64 { return r.cpu }) }

func (l loads) String() string {
	ms := func(p float64) spread {
		return l.each(func(r load) float64 { return float64(r.latencies.at(p).Microseconds()) / 1000 })
	}
	limited := ""
	if slices.ContainsFunc(l, func(r load) bool { return r.limited }) {
		most, _ := affordable(1 << 20)
		limited = fmt.Sprintf("; ended at %d connections, by the limit of open files", most)
	}
	return fmt.Sprintf("%v per second; server CPU %v us each; p50 %.1f, p99 %.1f ms; cores: servers %.1f, clients %.1f%s",
		l.perSecond(), l.cpu(), ms(0.5).median(), ms(0.99).median(),
		l.each(func(r load) float64 { return r.cores }).median(), l.each(func(r load) float64 { return r.own }).median(), limited)
}

const repetitions = 3

func measureThroughput(t *testing.T) {
	all := timed(t, 3, "normal")
	var bare servers
	var bareAddrs []string
	for range 3 {
		addr := loopback() + ":5323"
		bare = append(bare, startOutsider(t, "bare", addr).cmd.Process.Pid)
		bareAddrs = append(bareAddrs, addr)
	}
	d := 4 * time.Second
	if testing.Short() {
		d /= 4
	}
	for _, kind := range []struct {
		what  string
		elect func(addrs []string, pids servers, workers int, d time.Duration) load
	}{
		{"JOIN on an open connection, told", func(addrs []string, pids servers, workers int, d time.Duration) load {
			return electOpen(t, addrs, pids, workers, d/4)
		}},
		{"connect, JOIN, told", func(addrs []string, pids servers, workers int, d time.Duration) load {
			return elect(t, addrs, pids, workers, false, d)
		}},
		{"connect, JOIN, told, leave", func(addrs []string, pids servers, workers int, d time.Duration) load {
			return elect(t, addrs, pids, workers, true, d)
		}},
	} {
		for _, workers := range []int{64, 512} {
			var ours, floor loads
			for range repetitions { // in turn, so that a disturbance hits both
				floor = append(floor, kind.elect(bareAddrs, bare, workers, d/2))
				ours = append(ours, kind.elect(addrsOf(all), pidsOf(all), workers, d))
				for _, m := range all {
					m.settled()
				}
			}
			row(fmt.Sprintf("%s, %d workers", kind.what, workers), "%v", ours)
			row("the same at three bare TCP servers", "%v; ours: %.2f of the elections, %.1f times the CPU", floor,
				ours.perSecond().median()/floor.perSecond().median(), ours.cpu().median()/floor.cpu().median())
		}
	}
}

// killLeaders is the time from the kill -9 of a leader's process until the next one is
// told, n times.
func killLeaders(t *testing.T, all []*member, n int) (l latencies) {
	t.Helper()
	for range n {
		group := unique("killed")
		p := startOutsider(t, "lead", all[0].addr, group)
		b, err := call(all[1].addr, "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.join(group); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		b.SetDeadline(time.Now().Add(patience))
		began := time.Now()
		p.kill()
		if told, err := b.told(); err != nil || told != "b" {
			t.Fatalf("told %q, %v", told, err)
		}
		l = append(l, time.Since(began))
		b.Close()
	}
	return l
}

func measureClientKilled(t *testing.T) {
	row("kill -9 of the leader's process, next told", "%v", killLeaders(t, timed(t, 3, "normal"), fewer(30)))
}

func measureFanOut(t *testing.T) {
	for _, c := range []struct {
		members int
		where   string
		atOnce  int
	}{{1000, "at all nodes", 32}, {10000, "at all nodes", 32}, {10000, "at one node", 512}} {
		t.Run(fmt.Sprint(c.members, " ", c.where), func(t *testing.T) {
			all := timed(t, 3, "normal")
			n, limited := affordable(fewer(c.members))
			_, follower, _ := places(t, all)
			at := all
			if c.where == "at one node" {
				at = []*member{follower.member}
			}
			began := time.Now()
			a := assemble(t, at, "fan-out", n, c.atOnce)
			row(fmt.Sprintf("%d members of one group joined %s, %d at a time", n, c.where, c.atOnce), "%.2f s%s", time.Since(began).Seconds(), limited)

			joins := startOutsider(t, "joins", follower.addr)
			quiet := latencies(joins.timesOf(func() { time.Sleep(time.Second) }))
			tell := func(what string, changes int) {
				cpu := pidsOf(all).cpu(t)
				var first, last, beside latencies
				for range changes {
					time.Sleep(200 * time.Millisecond)
					f, l := a.depose(nil)
					first, last = append(first, f), append(last, l)
				}
				cpu = pidsOf(all).cpu(t) - cpu
				row(fmt.Sprintf("%d members %s%s told of a new leader, the last one", n, c.where, what), "%v; first one p50 %s; server CPU %s ms each",
					last, ms(first.at(0.5)), ms(cpu/time.Duration(changes)))
				for range changes {
					time.Sleep(200 * time.Millisecond)
					beside = append(beside, joins.timesOf(func() { a.depose(nil) })...)
				}
				row("a client elected in another group at a node meanwhile", "%v; in quiet p50 %s, p99 %s", beside, ms(quiet.at(0.5)), ms(quiet.at(0.99)))
			}
			tell("", 10)
			jam(stickAt(t, follower.member, "fan-out", 100))
			tell(", 100 more stuck,", 5) // for as long as these are kept: 9 s
		})
	}
}

// jam has clients send and read nothing, until their kernels take no answer any more.
func jam(clients []*conn) {
	var running sync.WaitGroup
	for _, c := range clients {
		running.Go(func() {
			lines := slices.Repeat([]byte("JOIN g stuck\n"), 100)
			for {
				c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				if _, err := c.Write(lines); err != nil {
					return
				}
			}
		})
	}
	running.Wait()
}

func measureMemory(t *testing.T) {
	all := timed(t, 3, "normal")
	n, limited := affordable(fewer(10000))
	quiet := 20 * time.Second
	if testing.Short() {
		quiet /= 10
	}
	idle := func(what string) {
		cpu := pidsOf(all).cpu(t)
		time.Sleep(quiet)
		row("CPU of 3 idle servers, "+what, "%.3f cores over %v", (pidsOf(all).cpu(t)-cpu).Seconds()/quiet.Seconds(), quiet)
	}
	idle("no members")
	before := rssOf(all)
	began := time.Now()
	joinInPairs(t, all, n)
	row(fmt.Sprintf("%d members in pairs joined, 32 at a time", n), "%.2f s%s", time.Since(began).Seconds(), limited)
	idle(fmt.Sprint(n, " members"))
	after := rssOf(all)
	row("RSS of 3 servers", "%.1f MiB; %.1f MiB with %d members: %.2f KiB for each", mib(before), mib(after), n, float64(after-before)/1024/float64(n))
}

// joinInPairs has n clients join groups of two, spread over the nodes, and stay to the end
// of the test.
func joinInPairs(t *testing.T, all []*member, n int) {
	t.Helper()
	if err := inParallel(n, 32, func(i int) error {
		c, err := call(all[i%len(all)].addr, fmt.Sprint("c", i))
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		_, err = c.join(fmt.Sprint("pair-", i/2))
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

func measureStorm(t *testing.T) {
	n, limited := affordable(fewer(15000))
	all := timed(t, 3, "normal")
	_, follower, _ := places(t, all)
	for _, ready := range []bool{false, true} {
		s := returnTo(t, follower.member, n, ready)
		when := "as soon as it listens"
		if ready {
			when = "when it is ready"
		}
		row(fmt.Sprintf("%d clients at once at a restarted node, %s", n, when), "all members after %.2f s%s; JOIN to answer %v; %d refused (and came again); session lost: %v",
			s.all.Seconds(), limited, latencies(s.answers), s.refusals, follower.lostSession())
		if ready {
			row("hand-overs at that node meanwhile", "%v", latencies(s.handOvers))
		}
		follower.settled()
	}
}

func measureNodeKilled(t *testing.T) {
	for _, timing := range []string{"normal", "quick"} {
		t.Run(timing, func(t *testing.T) {
			all := timed(t, 3, timing)
			var first, slowest, told latencies
			attempts, refused, hung := 0, 0, 0
			for range fewer(10) {
				victim, rest := raftLeader(t, all)
				group := unique("led")
				a, b := pair(t, victim.addr, rest[0].addr, group)
				time.Sleep(time.Second)
				b.SetDeadline(time.Now().Add(patience))
				heard := make(chan time.Time, 1)
				go func() {
					if leader, err := b.told(); err != nil || leader != "b" {
						t.Errorf("told %q, %v", leader, err)
					}
					heard <- time.Now()
				}()
				o := killAndElect(t, victim, rest)
				first, slowest = append(first, o.first), append(slowest, o.slowest)
				attempts, refused, hung = attempts+o.attempts, refused+o.refused, hung+o.hung
				told = append(told, (<-heard).Sub(o.killed))
				a.Close()
				b.Close()
				victim.run()
				wantWhole(all)
			}
			row("kill -9 of the raft leader's node, timing "+timing+": first election elsewhere", "%v", first)
			row("the slowest attempt meanwhile, timing "+timing, "%v; of %d attempts %d refused, %d not answered within join_timeout + 0.5 s", slowest, attempts, refused, hung)
			row("members of the node's groups told, timing "+timing, "%v", told)
		})
	}
}

// outage is what clients of other nodes saw after a node was killed.
type outage struct {
	killed                  time.Time
	first, slowest          time.Duration // since then; of all attempts
	attempts, refused, hung int
}

// killAndElect kills a node. From then on until a second after the first success a
// client comes to the others every 20 ms, and leads a group of its own.
func killAndElect(t *testing.T, victim *member, rest []*member) (o outage) {
	t.Helper()
	limit := joinTimeoutOf(t, victim) + 500*time.Millisecond
	var mu sync.Mutex
	var running sync.WaitGroup
	o.killed = time.Now()
	victim.kill()
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return o.first > 0 && time.Since(o.killed) > o.first+time.Second
	}
	for ; !enough(); o.attempts++ {
		if time.Since(o.killed) > patience {
			t.Fatal("nobody is elected any more")
		}
		addr := rest[o.attempts%2].addr
		running.Go(func() {
			began := time.Now()
			c, err := elected(addr)
			took := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				c.Close()
				if since := time.Since(o.killed); o.first == 0 || since < o.first {
					o.first = since
				}
			case err == errRefused:
				o.refused++
			default:
				t.Errorf("an attempt after %v: %v", took, err)
			}
			o.slowest = max(o.slowest, took)
			if took > limit {
				o.hung++
			}
		})
		time.Sleep(20 * time.Millisecond)
	}
	running.Wait()
	return o
}

func measureMoreNodes(t *testing.T) {
	d := 4 * time.Second
	if testing.Short() {
		d /= 4
	}
	for _, n := range []int{3, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			all := timed(t, n, "normal", "leader_latch.voters = 7")
			_, follower, other := places(t, all)
			row(fmt.Sprintf("%d nodes, all vote: new connection to elected, follower", n), "%v", electAt(t, follower.member, fewer(500), true))
			row(fmt.Sprintf("%d nodes: leader closes, next told, follower to other follower", n), "%v", handOvers(t, follower.addr, other.addr, justMade, fewer(200)))
			var l loads
			for range repetitions {
				l = append(l, elect(t, addrsOf(all), pidsOf(all), 512, true, d/2))
				all[0].settled()
			}
			row(fmt.Sprintf("%d nodes: connect, JOIN, told, leave, 512 workers", n), "%v", l)
		})
	}
}

func measureSlowDisk(t *testing.T) {
	d := 2 * time.Second
	if testing.Short() {
		d /= 10
	}
	for _, r := range goBenchmark(t, "leaderlatch/ensemble", "^BenchmarkDisk$", "-benchtime", d.String()) {
		row("3 nodes in one process, "+r.name, "%v", r)
	}
}

func measureMillion(t *testing.T) {
	for _, of := range [][2]string{{"^BenchmarkApply$", "200ms"}, {"^Benchmark(Restore|Snapshot|StateMemory)$", "1x"}} {
		for _, r := range goBenchmark(t, "leaderlatch/ensemble", of[0], "-benchtime", of[1]) {
			row("state of members in one process, "+r.name, "%v", r)
		}
	}
}
