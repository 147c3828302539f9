package e2e

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

// storm is what came of many clients that lost their node and came back at once.
type storm struct {
	refusals  int             // JOINs that were answered JOIN_FAILED, and asked again
	answers   []time.Duration // from JOIN to its answer, whatever that was
	all       time.Duration   // from the beginning until the last one has joined
	handOvers []time.Duration // meanwhile, of groups at the same node, close to LEADER
}

// returnTo has n clients, members of groups of five at one node, lose it by kill -9,
// and all come back to it at the same instant when it is started again: as soon as it
// listens, or when it is ready. Each JOIN has to be answered. In the second case there
// are groups of two at the node, whose leaders leave one after the other meanwhile:
// clients of another process, which has nothing else to do.
func returnTo(t testing.TB, node *member, n int, ready bool) (s storm) {
	t.Helper()
	run := unique("storm")
	group := func(i int) string { return fmt.Sprint(run, "-", i/5) }
	clients := make([]*caller, n)
	if err := inParallel(n, 32, func(i int) (err error) {
		if clients[i], err = call(node.addr, fmt.Sprint("c", i)); err != nil {
			return err
		}
		_, err = clients[i].join(group(i))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	node.kill()
	for _, c := range clients {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.told(); err == nil || isTimeout(err) {
			t.Fatalf("%s of a killed node: %v", c.name, err)
		}
		c.Close()
	}
	node.run()
	var others *outsider
	if ready {
		node.ready()
		others = startOutsider(t, "hand-overs", node.addr)
		defer others.kill()
	}

	var mu sync.Mutex
	var running sync.WaitGroup
	begin := make(chan struct{})
	for i := range clients {
		running.Go(func() {
			<-begin
			for {
				c, err := call(node.addr, fmt.Sprint("c", i))
				if err != nil {
					t.Errorf("c%d could not connect: %v", i, err)
					return
				}
				sent := time.Now()
				_, err = c.join(group(i))
				took := time.Since(sent)
				mu.Lock()
				clients[i] = c
				s.answers = append(s.answers, took)
				if err == errRefused {
					s.refusals++
				}
				mu.Unlock()
				switch {
				case err == nil:
					return
				case err != errRefused:
					t.Errorf("c%d was not answered for %v: %v", i, took, err)
					return
				}
				c.Close()
			}
		})
	}
	back := func() {
		began := time.Now()
		close(begin)
		running.Wait()
		s.all = time.Since(began)
	}
	if others == nil {
		back()
	} else {
		s.handOvers = others.timesOf(back)
	}
	return s
}

// slowest gives the longest of some times.
func slowest(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Max(times)
}

// openFiles is the limit to which a process can raise its own.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Max > math.MaxInt {
		return math.MaxInt
	}
	return int(l.Max)
}

// All clients of a node come back to it at the same instant after it was killed: no
// JOIN stays without its answer, each has it in time, the leaders of groups at the node
// are replaced meanwhile, the node keeps its session, and nobody elsewhere notices.
func TestAllClientsOfANodeComeBackAtOnce(t *testing.T) {
	t.Parallel()
	n := min(3000, openFiles()/4)
	all := cluster(t, 3)
	_, others := raftLeader(t, all)
	node, elsewhere := others[0], others[1]
	own, watcher := elsewhere.join("calm", "own", "own"), elsewhere.join("calm", "watcher", "own")
	for _, ready := range []bool{false, true} {
		s := returnTo(t, node, n, ready)
		t.Logf("%d clients came back at once, ready %v: all were members after %v, %d refusals; the slowest answer took %v, the slowest of %d hand-overs meanwhile %v",
			n, ready, s.all, s.refusals, slowest(s.answers), len(s.handOvers), slowest(s.handOvers))
		if took := slowest(s.answers); took > joinTimeout()+slack(s.all) {
			t.Errorf("a JOIN was answered after %v, want %v", took, joinTimeout())
		}
		if len(s.answers) != n+s.refusals {
			t.Errorf("%d answers to %d JOINs", len(s.answers), n+s.refusals)
		}
		if took := slowest(s.handOvers); took > joinTimeout()+slack(s.all) {
			t.Errorf("the next leader of a group was told after %v", took)
		}
		if log := node.logText(); strings.Contains(log, "session lost") {
			t.Errorf("the node lost its session:\n%s", log)
		}
		node.until("only the others are members", func() bool { return len(node.groups()) == 1 })
	}
	for _, c := range []*conn{own, watcher} {
		c.wantSilence()
	}
}

// Members that read nothing are told last of all: while they are stuck, the others of
// their group are told of every leader, and at their node others join and are told.
func TestStuckReadersHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	const changes = 40
	all := cluster(t, 3)
	_, others := raftLeader(t, all)
	node := others[0]
	leader := func(i int) string { return fmt.Sprintf("%s-%d", strings.Repeat("l", 250), i) }
	var leaders []*conn
	for i := range changes + 1 {
		leaders = append(leaders, others[1].join("many", leader(i), leader(0)))
	}
	stuck := stickAt(t, node, "many", 100)
	watchers := []*conn{node.join("many", "w0", leader(0)), all[0].join("many", "w1", leader(0))}
	began := time.Now()
	for i := range changes {
		leaders[i].Close()
		group := unique("beside")
		first, next := node.join(group, "first", "first"), node.join(group, "next", "first")
		first.Close()
		next.want("LEADER next")
		for _, w := range watchers {
			w.want("LEADER " + leader(i+1))
		}
		next.Close()
	}
	took := time.Since(began)
	t.Logf("%d changes, of each of which 100 readers took nothing: told to the others within %v in all", changes, took)
	if took > 8*time.Second {
		t.Skip("this machine is so slow that the stuck readers may have been given up")
	}
	for i, c := range stuck {
		for last := ""; last != "LEADER "+leader(changes)+"\n"; {
			c.SetReadDeadline(time.Now().Add(patience))
			var err error
			if last, err = c.r.ReadString('\n'); err != nil {
				t.Fatalf("reader %d, after it was stuck: %q, %v", i, last, err)
			}
		}
	}
}

// stickAt has n clients join a group at a node, whose kernels soon take nothing more,
// as they do not read.
func stickAt(t testing.TB, node *member, group string, n int) (stuck []*conn) {
	t.Helper()
	for i := range n {
		nc, err := (&net.Dialer{Control: smallReceiveBuffer}).Dial("tcp", node.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		c := &conn{t, nc, bufio.NewReader(nc)}
		c.send("JOIN %s stuck-%d\n", group, i)
		stuck = append(stuck, c)
	}
	node.until("the stuck have joined", func() bool {
		return len(slices.DeleteFunc(node.group(group).Members, func(m ensemble.GroupMember) bool { return !strings.HasPrefix(m.Client, "stuck-") })) == n
	})
	return stuck
}
