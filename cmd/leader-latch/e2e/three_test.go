package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
)

// loopback gives an address of this machine that no other test has: so nodes
// keep theirs over restarts, with one cluster port for all.
func loopback() string {
	n := loopbacks.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%120, 1+n/250, 1+n%250)
}

var loopbacks atomic.Int32

// unique gives a group's name that no other one has.
func unique(name string) string { return fmt.Sprint(name, "-", uniques.Add(1)) }

var uniques atomic.Int32

// clusterTiming is the timing of nodes that are to form a cluster: calm, so that a
// stall of a busy machine is no fault. LEADER_LATCH_TEST_TIMING sets another one, to
// measure on a machine that has nothing else to do.
var clusterTiming = func() session.Timing {
	name := os.Getenv("LEADER_LATCH_TEST_TIMING")
	if name == "" {
		return session.Calm
	}
	t, err := session.TimingNamed(name)
	if err != nil {
		panic(err)
	}
	return t
}()

// member is a node of a cluster, over the lives of its processes.
type member struct {
	*proc
	t     testing.TB
	dir   string
	name  string
	ip    string
	lines []string
}

// newMember prepares a node with an address of its own. It does not run yet.
func newMember(t testing.TB, lines ...string) *member {
	m := &member{t: t, dir: t.TempDir(), ip: loopback()}
	m.name = "riak@" + m.ip
	m.lines = append([]string{
		"nodename = " + m.name,
		"listener.leader_latch.internal = " + m.ip + ":5323",
		"leader_latch.cluster_listener = " + m.ip + ":5324",
		"leader_latch.minimum_nodes = 3",
		"leader_latch.timing = " + clusterTiming.Name,
	}, lines...)
	return m
}

// run starts the node's process.
func (m *member) run() *member { return m.runAs("") }

// runAs starts it with another program.
func (m *member) runAs(exe string) *member {
	m.t.Helper()
	m.proc = launchAs(m.t, exe, m.dir, m.lines...)
	return m
}

func (m *member) kill() {
	m.t.Helper()
	m.signal(syscall.SIGKILL)
	<-m.gone
}

func (m *member) cluster() (c ensemble.Cluster) {
	m.t.Helper()
	m.get("/cluster", &c)
	return c
}

// cluster starts n nodes that find each other, and waits until all vote.
func cluster(t testing.TB, n int, lines ...string) []*member {
	t.Helper()
	return clusterAs(t, "", n, lines...)
}

// clusterAs is cluster with another program.
func clusterAs(t testing.TB, exe string, n int, lines ...string) []*member {
	t.Helper()
	all := founders(t, n, lines...)
	for _, m := range all {
		m.runAs(exe)
	}
	wantWhole(all)
	return all
}

// founders prepares n nodes with one leader_latch.join, which names them all.
func founders(t testing.TB, n int, lines ...string) (all []*member) {
	var names []string
	for range n {
		m := newMember(t, lines...)
		all = append(all, m)
		names = append(names, m.name)
	}
	for _, m := range all {
		m.lines = append(m.lines, "leader_latch.join = "+strings.Join(names, ", "))
	}
	return all
}

// wantWhole waits until these nodes are one cluster, and each serves.
func wantWhole(all []*member) {
	for _, m := range all {
		m.t.Helper()
		m.ready()
		m.until("all vote", func() bool { return whole(m.cluster(), len(all)) })
	}
}

// whole reports whether n members are up and vote, and follow one raft leader.
func whole(c ensemble.Cluster, n int) bool {
	return c.Active && c.Majority && len(c.Members) == n &&
		!slices.ContainsFunc(c.Members, func(m ensemble.ClusterMember) bool { return !m.Voter || !m.Up || !m.Session })
}

// raftLeader gives the raft leader and the others.
func raftLeader(t testing.TB, all []*member) (leader *member, others []*member) {
	t.Helper()
	all[0].until("a raft leader", func() bool {
		leader, others = nil, nil
		c := all[0].cluster()
		for _, m := range all {
			if slices.ContainsFunc(c.Members, func(cm ensemble.ClusterMember) bool { return cm.Name == m.name && cm.RaftLeader }) {
				leader = m
			} else {
				others = append(others, m)
			}
		}
		return leader != nil
	})
	return leader, others
}

// joinWithin joins an own group, trying again when refused.
func (m *member) joinWithin(limit time.Duration, name string) *conn {
	m.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c := m.dial()
		c.send("JOIN %s %[1]s\n", name)
		c.SetReadDeadline(end)
		if line, _ := c.r.ReadString('\n'); line == "LEADER "+name+"\n" {
			return c
		}
		c.Close()
	}
	m.t.Fatalf("no JOIN succeeded within %v\n%s", limit, m.logText())
	return nil
}

// wantSilence expects that nothing has been sent and the connection is open. It
// asks for an answer, which comes in order behind whatever would have been sent.
func (c *conn) wantSilence() {
	c.t.Helper()
	c.send("?\n")
	c.want("ERROR")
}

// wantGone waits for the end of the connection, however it comes, and expects
// nothing before it.
func (c *conn) wantGone() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	line, err := c.r.ReadString('\n')
	if err == nil || isTimeout(err) {
		c.t.Fatalf("read %q, %v; want the end", line, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// The documented session: one of three nodes up, then all, then succession.
func TestDocumentedOutage(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	kept := all[0].join("kept", "1", "1")
	all[1].kill()
	all[2].kill()
	kept.wantEnd()
	one := all[0].dial()
	one.send("JOIN test_group 1\n")
	one.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	one.wantEnd()

	// Any node answers, also without a majority: no leader, what it knows.
	if out, err := all[0].command("ensemble-status"); err != nil || !strings.Contains(out, "   root       0 / 3         1 / 3      --\n") {
		t.Errorf("ensemble-status: %v\n%s", err, out)
	}
	if c := all[0].cluster(); c.Majority || len(c.Members) != 3 {
		t.Errorf("cluster %+v", c)
	}
	for _, args := range [][]string{{"groups"}, {"groups", "kept", "--json"}} {
		out, hint := all[0].outputs(args...)
		if !strings.Contains(out, "kept") || !strings.HasPrefix(hint, "no majority confirms this: it is what was known at 2") || !strings.Contains(hint, "this node has no session") {
			t.Errorf("%v: %q, and on stderr %q", args, out, hint)
		}
	}
	if g := all[0].group("kept"); !g.Stale {
		t.Errorf("not stale: %+v", g)
	}
	all[0].kill()
	all[0].run()
	if _, hint := all[0].outputs("groups"); !strings.HasPrefix(hint, "no majority has confirmed this since the node's start") {
		t.Errorf("after a start: on stderr %q", hint)
	}

	all[1].run()
	all[2].run()
	for _, m := range all {
		m.ready()
	}
	if _, hint := all[0].outputs("groups"); hint != "" {
		t.Errorf("with a majority: on stderr %q", hint)
	}
	two := all[1].join("test_group", "1", "1")
	three := all[2].join("test_group", "2", "1")
	two.Close()
	three.want("LEADER 2")
}

// Whatever node is asked, the answer is one; and members on three nodes see one
// order of leaders.
func TestAnyNodeGivesTheSameAnswers(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	var members []*conn
	var names []string
	for i := range 9 {
		names = append(names, fmt.Sprint("m", i))
		members = append(members, all[i%3].join("g", names[i], "m0"))
	}
	for _, m := range all {
		m.until("it knows all members", func() bool { return len(m.group("g").Members) == 9 })
	}
	var answers []string
	for range 10 { // raft leadership may move between two answers
		answers = nil
		for _, m := range all {
			groups, err := m.command("groups", "--json")
			if err != nil {
				t.Fatal(err)
			}
			out, err := m.command("ensemble-status")
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, groups+out)
		}
		if answers[0] == answers[1] && answers[1] == answers[2] && strings.Contains(answers[0], "   root       3 / 3         3 / 3      riak@") {
			break
		}
	}
	if answers[0] != answers[1] || answers[1] != answers[2] {
		t.Errorf("the nodes answer differently:\n%s\n%s\n%s", answers[0], answers[1], answers[2])
	}
	if !strings.Contains(answers[0], "   root       3 / 3         3 / 3      riak@") {
		t.Errorf("ensemble-status:\n%s", answers[0])
	}
	for i := range 8 {
		members[i].Close()
		for _, m := range members[i+1:] {
			m.want("LEADER " + names[i+1])
		}
	}
}

// outputs runs a command that succeeds, and gives what is on its stdout and stderr.
func (p *proc) outputs(args ...string) (stdout, stderr string) {
	p.t.Helper()
	cmd := p.program(args...)
	var out, rest strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &rest
	if err := cmd.Run(); err != nil {
		p.t.Errorf("%v: %v: %s", args, err, rest.String())
	}
	return out.String(), rest.String()
}
