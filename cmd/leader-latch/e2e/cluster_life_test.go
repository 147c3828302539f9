package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

// order runs a command beside the node, expects its exit code, and gives all that
// it printed.
func (m *member) order(code int, args ...string) string {
	m.t.Helper()
	cmd := m.program(args...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		m.t.Fatalf("%s on %s: exit code %d (%v), want %d\n%s", strings.Join(args, " "), m.name, got, err, code, out)
	}
	return string(out)
}

// wantRefusal expects that a JOIN is refused at once.
func (m *member) wantRefusal() {
	m.t.Helper()
	c := m.dial()
	sent := time.Now()
	c.send("JOIN g a\n")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()
	if took := time.Since(sent); took >= joinTimeout() {
		m.t.Errorf("refused only after %v, when the time for an answer was over", took)
	}
}

func (m *member) logs(text string) {
	m.t.Helper()
	m.until(fmt.Sprintf("%s logs %q", m.name, text), func() bool { return strings.Contains(m.logText(), text) })
}

func wantContains(t testing.TB, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q is not in:\n%s", want, text)
	}
}

// With one leader_latch.join on all nodes it does not matter which starts when: as
// long as one has not come nobody founds a cluster, or elects; then there is one.
func TestNodesOfOneListAreOneClusterInWhateverOrderTheyStart(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"the first of the list comes last": {2, 1, 0}, "the last of the list comes last": {1, 0, 2}} {
		all := founders(t, 3)
		for _, i := range order[:2] {
			all[i].run()
		}
		late := all[order[2]]
		for _, i := range order[:2] {
			all[i].logs("this node is in no cluster yet, trying on reason=")
			wantContains(t, all[i].logText(), late.name)
			all[i].wantRefusal()
			if c := all[i].cluster(); c.ID != "" || len(c.Members) != 0 {
				t.Errorf("%s: %s has a cluster: %+v", name, all[i].name, c)
			}
			wantContains(t, all[i].order(exitOK, "cluster", "status"), "This node is in no cluster yet.\n")
		}
		late.run()
		wantWhole(all)
		for _, m := range all {
			if got, want := m.cluster().ID, all[0].cluster().ID; got != want || got == "" {
				t.Errorf("%s: %s is in cluster %q, %s in %q", name, m.name, got, all[0].name, want)
			}
		}
		all[0].join("g", "a", "a")
		all[1].join("g", "b", "a")
		all[2].join("g", "c", "a")
	}
}

// An operator makes a cluster of three nodes that have only a riak.conf each, and
// changes it: joins and their refusals, leaves, removals.
func TestAnOperatorMakesAClusterAndChangesIt(t *testing.T) {
	t.Parallel()
	a, b, c := newMember(t).run(), newMember(t).run(), newMember(t).run()
	all := []*member{a, b, c}

	// Alone, nobody elects, and says why.
	for _, m := range all {
		m.logs("elections are not active yet: JOINs are refused until the cluster has leader_latch.minimum_nodes nodes=1 minimum=3")
		m.wantRefusal()
		wantContains(t, m.order(exitOK, "ensemble-status"), "the cluster has 1 of the 3 nodes with which elections begin (leader_latch.minimum_nodes); add nodes: leader-latch cluster join")
	}

	// What cannot be joined leaves the node as it is.
	was := b.cluster()
	wantContains(t, b.order(exitFailed, "cluster", "join", b.name), "a node cannot join itself")
	nobody := newMember(t)
	wantContains(t, b.order(exitFailed, "cluster", "join", nobody.name), nobody.name)
	wantContains(t, b.order(exitFailed, "cluster", "leave"), "is the only member")
	wantContains(t, b.order(exitFailed, "cluster", "leave", nobody.name), "is not a member of the cluster")
	wantContains(t, b.order(exitFailed, "cluster", "force-remove", b.name), "is the only member")
	if is := b.cluster(); is.ID != was.ID || is.Joining != "" || len(is.Members) != 1 || is.Members[0] != was.Members[0] {
		t.Errorf("after refusals %+v, before %+v", is, was)
	}

	// Another cookie: both sides say so, whoever asked.
	stranger := newMember(t, "distributed_cookie = another", "leader_latch.join = "+a.name).run()
	stranger.logs("another distributed_cookie; set the same one on all nodes")
	a.logs("another distributed_cookie; set the same one on all nodes")
	wantContains(t, stranger.order(exitFailed, "wait", "--timeout", "2s"), "this node is in no cluster yet; "+a.name+": cluster port "+a.ip+":5324: another distributed_cookie; set the same one on all nodes")
	wantContains(t, stranger.order(exitFailed, "cluster", "join", a.name), "another distributed_cookie; set the same one on all nodes")
	if is := stranger.cluster(); is.ID != "" || is.Joining != "" {
		t.Errorf("after refusals %+v", is)
	}
	stranger.kill()

	wantContains(t, b.order(exitOK, "cluster", "join", a.name), "Success: "+b.name+" has joined the cluster of "+a.name+"\n")
	a.wantRefusal() // two are too few
	wantContains(t, b.order(exitFailed, "cluster", "join", c.name), "already a member of a cluster; let it leave that first (cluster leave)")
	c.order(exitOK, "cluster", "join", b.name+":5324")
	wantWhole(all)
	for _, m := range all {
		m.join("first", m.ip, a.ip)
	}

	// A node that leaves names successors before it goes, is alone and inactive
	// then, and can join again; this one's order comes from another node.
	leaves := func(what string, m, by *member, args ...string) {
		t.Helper()
		var rest []*member
		for _, o := range all {
			if o != m {
				rest = append(rest, o)
			}
		}
		g := unique("g")
		lead, next, own := m.join(g, "lead", "lead"), rest[0].join(g, "next", "lead"), rest[1].join(unique("h"), "own", "own")
		began := time.Now()
		by.order(exitOK, args...)
		t.Logf("%s left within %v", what, time.Since(began))
		lead.wantEnd()
		next.SetReadDeadline(time.Now()) // it has been told
		next.want("LEADER next")
		own.wantSilence()
		next.Close()
		own.Close()
		for _, o := range rest {
			o.until("two are left", func() bool { return whole(o.cluster(), 2) })
		}
		m.until("it is alone", func() bool { c := m.cluster(); return len(c.Members) == 1 && c.Members[0].Session && !c.Active })
		m.wantRefusal()
		m.order(exitOK, "cluster", "join", rest[1].name)
		wantWhole(all)
	}
	_, rest := raftLeader(t, all)
	leaves("a follower", rest[0], rest[0], "cluster", "leave")
	_, rest = raftLeader(t, all)
	leaves("another node", rest[1], rest[0], "cluster", "leave", rest[1].name)
	leader, _ := raftLeader(t, all)
	leaves("the raft leader", leader, leader, "cluster", "leave")

	// A dead node cannot leave; it is removed, and stops when it comes back.
	leader, rest = raftLeader(t, all)
	dead := rest[0]
	dead.kill()
	wantContains(t, leader.order(exitFailed, "cluster", "leave", dead.name), "if it is dead: cluster force-remove "+dead.name)
	wantContains(t, leader.order(exitOK, "cluster", "force-remove", dead.name), "Success: "+dead.name+" was removed from the cluster\n")
	leader.until("it is gone", func() bool { return len(leader.cluster().Members) == 2 })
	dead.run().wantExit(exitPermanent)
	wantContains(t, dead.logText(), "removed from the cluster")
	if _, last, _ := strings.Cut(dead.logText(), "[error] cannot serve"); strings.Contains(last, "no raft leader") {
		t.Errorf("a node that ends looks for a raft leader:\n%s", last)
	}

	// A live one is not taken for dead. Removed all the same, here the raft leader, it stops
	// at once; its members go when its session has expired.
	lead, next := leader.join("g", "lead", "lead"), rest[1].join("g", "next", "lead")
	wantContains(t, rest[1].order(exitFailed, "cluster", "force-remove", leader.name),
		leader.name+" is up; cluster leave "+leader.name+" has it go in order, and cluster force-remove --yes "+leader.name+" removes it all the same\n")
	wantContains(t, rest[1].order(exitFailed, "cluster", "force-remove", rest[1].name), rest[1].name+" is up; ")
	lead.wantSilence()
	next.wantSilence()
	probed, removed := leader.probe(), time.Now()
	rest[1].order(exitOK, "cluster", "force-remove", "--yes", leader.name)
	wantSuccession("removed the raft leader by force", probed, removed, replacedAfterElection(clusterTiming), next, "next", lead)
	leader.wantExit(exitPermanent)
	lead.wantEnd()
	if c := rest[1].cluster(); len(c.Members) != 1 || !c.Majority || !c.Active {
		t.Errorf("what is left: %+v", c)
	}
	next.wantSilence()
}

// A command that says that it is done is done for the next one, with no pause between.
func TestACommandFindsDoneWhatTheOneBeforeHasDone(t *testing.T) {
	t.Parallel()
	var all []*member
	for range 3 {
		all = append(all, newMember(t, "leader_latch.minimum_nodes = 1").run())
	}
	a, b, c := all[0], all[1], all[2]
	for range 3 {
		b.order(exitOK, "cluster", "join", a.name)
		wantContains(t, b.order(exitOK, "cluster", "status"), b.name)
		b.order(exitOK, "cluster", "leave")
		b.order(exitOK, "ping")
		b.order(exitOK, "cluster", "join", a.name)
		a.order(exitOK, "cluster", "leave", b.name)
	}
	b.order(exitOK, "cluster", "join", a.name)
	b.order(exitOK, "cluster", "leave")
	b.order(exitOK, "wait", "--timeout", "30s")
	for _, m := range []*member{b, c} {
		m.order(exitOK, "cluster", "join", a.name)
	}
	wantWhole(all)

	// The successor of a dead node under its name waits for the session of that one.
	for _, remove := range []bool{true, false} {
		b.kill()
		if remove {
			a.order(exitOK, "cluster", "force-remove", b.name)
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "data")); err != nil {
			t.Fatal(err)
		}
		b.run()
		b.until("it is up", func() bool { return b.ask("/ping", new(string)) == nil })
		b.order(exitOK, "cluster", "join", a.name)
		wantWhole(all)
	}
	wantContains(t, b.order(exitFailed, "cluster", "join", c.name), "already a member")
	twin := newMember(t, "nodename = "+b.name).run()
	twin.until("it is up", func() bool { return twin.ask("/ping", new(string)) == nil })
	wantContains(t, twin.order(exitFailed, "cluster", "join", a.name), "has a live node of the name")
}

// Without a majority nobody is removed: that is said at once, with the way out, and it is not
// done later either.
func TestNothingIsBegunWithoutAMajority(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	last, dead := all[0], all[1:]
	for _, m := range dead {
		m.kill()
	}
	for i, what := range [][]string{{"force-remove", dead[0].name}, {"force-remove", dead[0].name}, {"force-remove", last.name}, {"leave"}, {"leave", dead[0].name}} {
		if i == 1 {
			last.logs("no raft leader") // it may have been that one, and not have seen yet that it is alone
		}
		began := time.Now()
		out := last.order(exitFailed, append([]string{"cluster"}, what...)...)
		if took := time.Since(began); took > 10*time.Second { // 5 s where the machine has nothing else to do
			t.Errorf("%v: answered after %v", what, took)
		}
		t.Logf("%v after %v: %s", what, time.Since(began), out)
		if i < 4 {
			wantContains(t, out, "nothing was done: there is no majority of the nodes, as ")
			wantContains(t, out, dead[0].name)
			wantContains(t, out, dead[1].name)
			wantContains(t, out, " do not answer; start what is down, or, if that is lost for good, run leader-latch recover on the node that was up last")
		}
	}
	alone := newMember(t).run()
	alone.until("it has a cluster", func() bool { c := ensemble.Cluster{}; return alone.ask("/cluster", &c) == nil && len(c.Members) == 1 })
	was := alone.cluster()
	wantContains(t, alone.order(exitFailed, "cluster", "join", last.name), last.name+": its cluster takes nobody in now: there is no majority of the nodes, as ")
	if is := alone.cluster(); is.ID != was.ID || is.Joining != "" || len(is.Members) != 1 {
		t.Errorf("it has given up what it had: %+v, before %+v", is, was)
	}
	interrupted := last.program("cluster", "force-remove", dead[0].name)
	if err := interrupted.Start(); err != nil {
		t.Fatal(err)
	}
	interrupted.Process.Signal(os.Interrupt)
	if err := interrupted.Wait(); err == nil {
		t.Error("a command that was interrupted says that it is done")
	}
	for _, m := range dead {
		m.run()
	}
	wantWhole(all)
	last.join("g", "a", "a")
	if c := last.cluster(); len(c.Members) != 3 {
		t.Errorf("it was done later: %+v", c)
	}
}

// Of three nodes with one leader_latch.join two have lost their folders: nobody founds a
// second cluster, and each says what helps. After that they come in by themselves.
func TestWipedNodesAreToldOfRecover(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	old, wiped := all[2], all[:2]
	for _, m := range all {
		m.kill()
	}
	for _, m := range wiped {
		if err := os.RemoveAll(filepath.Join(m.dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range all {
		m.run()
	}
	for _, m := range wiped {
		m.logs(old.name + " has had a cluster, which takes nobody in: there is no majority of the nodes, as ")
		wantContains(t, m.logText(), "run leader-latch recover on the node that was up last")
		wantContains(t, m.order(exitOK, "cluster", "status"), "run leader-latch recover on the node that was up last")
	}
	wantContains(t, wiped[0].order(exitFailed, "cluster", "join", old.name), "its cluster takes nobody in now: there is no majority of the nodes, as ")
	old.kill()
	old.order(exitOK, "recover", "--yes")
	old.run()
	wantWhole(all)
}

// Who comes back to a cluster that was recovered without it says itself that it is refused,
// and what to do.
func TestAStrangerAfterARecoverySaysWhatToDo(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for _, m := range all {
		m.kill()
	}
	all[0].order(exitOK, "recover", "--yes")
	all[0].run()
	all[0].logs("[info] the cluster was recovered: JOINs are refused until the leases of the lost nodes have ended at_least=7s")
	stranger := all[1].run()
	stranger.logs("this node's cluster has been given up")
	wantContains(t, stranger.logText(), "let it join (leader-latch cluster join "+all[0].name+")")
	wantContains(t, stranger.order(exitOK, "cluster", "status"), "it waits: "+all[0].name+" refuses this node: it was made a new cluster")

	stranger.kill()
	if err := os.RemoveAll(filepath.Join(stranger.dir, "data")); err != nil {
		t.Fatal(err)
	}
	stranger.run() // and joins by leader_latch.join
	wantWhole([]*member{all[0], stranger})
}

// A node that learns of its removal while it stops says that no restart will do.
func TestANodeThatStopsMayLearnOfItsRemoval(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, "leader_latch.dead_man_switch = off")
	_, rest := raftLeader(t, all)
	removed, other := rest[0], rest[1]
	removed.pause()
	other.order(exitOK, "cluster", "force-remove", removed.name)
	removed.signal(syscall.SIGTERM)
	removed.signal(syscall.SIGCONT)
	removed.wantExit(exitPermanent)
	wantContains(t, removed.logText(), "removed from the cluster")
}

// A node whose data folder was lost comes back under its name as a new one. While
// the session of the old one lives it has to wait, for its members may live.
func TestAWipedNodeComesBackWhenItsOldSessionHasExpired(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	s := newScene(t, all, true)
	id := func() string {
		for _, m := range s.rest[0].cluster().Members {
			if m.Name == s.victim.name {
				return m.ID
			}
		}
		return ""
	}
	was := id()
	killed := time.Now()
	s.victim.kill()
	if err := os.RemoveAll(filepath.Join(s.victim.dir, "data")); err != nil {
		t.Fatal(err)
	}
	s.victim.run()
	s.victim.wantRefusal()
	s.wantReplaced("wiped the raft leader", killed, s.lead, s.guest)
	wantWhole(all)
	if is := id(); is == was || is == "" {
		t.Errorf("the new node has the id %q, the old one %q", is, was)
	}
	s.victim.join(s.other, "guest", "own")
}

// A member that others refuse, or that finds nobody, gives the operator the reason that it
// knows: status and wait say it, not only the log.
func TestAMemberSaysWhyItIsAlone(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	odd, dead, other := all[0], all[1], all[2]
	odd.kill()
	odd.lines = append(odd.lines, "distributed_cookie = another")
	odd.run()
	dead.kill()
	cookie := other.name + " does not answer: cluster port " + other.ip + ":5324: another distributed_cookie; set the same one on all nodes"
	refused := dead.name + " does not answer: cluster port " + dead.ip + ":5324: dial tcp " + dead.ip + ":5324: connect: connection refused"
	odd.until("status says so", func() bool { // not before the keys of both cookies are derived
		status := odd.order(exitOK, "cluster", "status")
		return strings.Contains(status, cookie+"\n") && strings.Contains(status, refused+"\n")
	})
	wait := odd.order(exitFailed, "wait", "--timeout", "10s")
	wantContains(t, wait, "its renewals are not committed")
	wantContains(t, wait, "; "+cookie)
	wantContains(t, wait, "; "+refused)
}
