package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// Each reason for a change of leaders is provoked by its real cause here; what needs a network
// that can be cut, in faults_explain_test.go.

// provoked says where those reasons are provoked that have no row in the tables below.
var provoked = map[state.Reason]string{
	state.ReasonSilent:      "TestFaultAVanishedHostIsExplained",
	state.ReasonSessionLost: "TestALostSessionIsExplained, TestFaultALostSessionIsExplained",
}

// cause is what has a leader lead no more.
type cause struct {
	name   string
	reason state.Reason
	keyed  string // what the leader's JOIN has behind the names
	pings  bool   // the leader sends PINGs until it has gone, or its group has another: else it would be taken for hung after 9 s
	then   string // who would be next when the next one leads; empty: nobody
	begin  func(s *succession)
	by     func(s *succession, by string) bool // who may have seen it; nil: the leader's node
}

// succession is a group whose leader is at one node, and the next one at another.
type succession struct {
	*cause
	t          *testing.T
	group      string
	at, other  *member
	lead, next *conn
}

func newSuccession(t *testing.T, c *cause, at, other *member) *succession {
	t.Helper()
	s := &succession{cause: c, t: t, group: unique("why"), at: at, other: other, lead: at.dial()}
	s.lead.send("JOIN %s lead%s\n", s.group, c.keyed)
	var token uint64
	if line := s.lead.line(); !scans(line, "LEADER lead %d", &token) {
		t.Fatalf("the leader was told %q", line)
	}
	if c.pings {
		s.ping()
	}
	s.next = other.dial()
	s.next.send("JOIN %s next\n", s.group)
	s.next.want(fmt.Sprintf("LEADER lead %d", token))
	return s
}

// wantExplained waits until the next one leads, and expects that the node says why.
func (s *succession) wantExplained() {
	s.t.Helper()
	if line := s.next.line(); !strings.HasPrefix(line, "LEADER next ") {
		s.t.Errorf("%s: the next one was told %q", s.name, line)
		return
	}
	c := s.other.lastChange(s.group)
	seen := c.By == s.at.name
	if s.by != nil {
		seen = s.by(s, c.By)
	}
	if c.From != "lead" || c.To != "next" || c.Reason != s.reason.String() || c.Node != s.at.name || !seen {
		s.t.Errorf("%s: the change is told as %+v, want reason %v at %s", s.name, c, s.reason, s.at.name)
	}
	out, _ := s.other.outputs("explain", s.group)
	wantContains(s.t, out, "next leads since ")
	wantContains(s.t, out, " ("+s.reason.String()+", seen by ")
	out, _ = s.other.outputs("groups", s.group)
	wantContains(s.t, out, " ("+s.reason.String()+", seen by "+c.By+"); "+cmp.Or(s.then, "nobody")+" would be next.\n")
	if g := s.other.group(s.group); g.Why != s.reason.String() || g.Next != s.then {
		s.t.Errorf("%s: group %+v", s.name, g)
	}
}

// changes gives those of a group, or of all.
func (p *proc) changes(group string) (changes []ensemble.Change) {
	p.t.Helper()
	p.get("/changes?group="+group, &changes)
	return changes
}

// lastChange is the last one of a group.
func (p *proc) lastChange(group string) ensemble.Change {
	p.t.Helper()
	changes := p.changes(group)
	if len(changes) == 0 {
		p.t.Fatalf("no change of %s is known", group)
	}
	return changes[len(changes)-1]
}

// explained is what explain --json prints.
func (m *member) explained() (out string, changes []ensemble.Change) {
	m.t.Helper()
	out, _ = m.outputs("explain", "--json")
	if err := json.Unmarshal([]byte(out), &changes); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	return out, changes
}

// wantSameChanges waits until all nodes print the same, and gives that.
func wantSameChanges(all []*member) (out string, changes []ensemble.Change) {
	all[0].t.Helper()
	all[0].until("all nodes tell the same changes", func() bool {
		out, changes = all[0].explained()
		return !slices.ContainsFunc(all[1:], func(m *member) bool {
			other, _ := m.explained()
			return other != out
		})
	})
	return out, changes
}

// wantKept expects that all that was told before is told still, on every node, by the same words.
func wantKept(all []*member, before string) {
	all[0].t.Helper()
	out, _ := wantSameChanges(all)
	if kept := strings.TrimSuffix(before, "\n]\n"); !strings.HasPrefix(out, kept) {
		all[0].t.Errorf("told\n%s\nand before\n%s", out, before)
	}
}

// restartAll stops all nodes at once, and starts them again. The last ones to stop have no
// majority any more to end their sessions by.
func restartAll(all []*member) {
	all[0].t.Helper()
	for _, m := range all {
		m.signal(syscall.SIGTERM)
	}
	for _, m := range all {
		<-m.gone
	}
	for _, m := range all {
		m.run()
	}
	wantWhole(all)
}

// byAnother is another node, the raft leader then.
func byAnother(s *succession, by string) bool { return by != "" && by != s.at.name }

// byAnybody is a node.
func byAnybody(_ *succession, by string) bool { return by != "" }

// takesNothing has the leader ask more than it reads the answers to.
func takesNothing(s *succession) {
	s.lead.Conn.(*net.TCPConn).SetReadBuffer(2048)
	lines := []byte(strings.Repeat(fmt.Sprintf("JOIN %s lead\n", s.group), 50))
	for range 100_000 { // until its answers back up
		s.lead.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := s.lead.Write(lines); err != nil {
			return
		}
	}
	s.t.Errorf("%s: the node reads on", s.name)
}

func resets(s *succession) {
	s.lead.Conn.(*net.TCPConn).SetLinger(0)
	s.lead.Close()
}

// ping has the leader send PINGs until its connection has ended, or the test.
func (s *succession) ping() {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := io.WriteString(s.lead.Conn, "PING\n"); err != nil {
				return
			}
			select {
			case <-over:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	s.t.Cleanup(func() {
		close(over)
		<-ended
	})
}

func stepsDown(s *succession) {
	out := s.other.order(exitOK, "step-down", s.group)
	if !strings.HasPrefix(out, "next leads "+s.group+", with the token ") {
		s.t.Errorf("%s: %q", s.name, out)
	}
}

// clientCauses are those of clients, and may happen at the same time.
var clientCauses = []*cause{
	{name: "the client closes", reason: state.ReasonClosed, begin: func(s *succession) { s.lead.Close() }},
	{name: "the client resets", reason: state.ReasonReset, begin: resets},
	{name: "the client leaves", reason: state.ReasonLeft, begin: func(s *succession) { s.lead.send("LEAVE\n") }},
	{name: "the client reads nothing", reason: state.ReasonStuck, begin: takesNothing},
	{name: "a keyed client sends no PING", reason: state.ReasonStuck, keyed: " key=0123456789abcdef hold=1", begin: func(*succession) {}},
	{name: "a keyed client does not come back", reason: state.ReasonHoldOver, keyed: " key=0123456789abcdef hold=1", pings: true, begin: resets},
	{name: "an operator has it step down", reason: state.ReasonSteppedDown, begin: stepsDown},
	{name: "an operator has it step down, and it closes too", reason: state.ReasonSteppedDown, begin: func(s *succession) {
		go func() { // as most clients do
			io.Copy(io.Discard, s.lead.Conn)
			s.lead.Close()
		}()
		stepsDown(s)
	}},
	{name: "an operator has a keyed client step down", reason: state.ReasonSteppedDown, keyed: " key=0123456789abcdef hold=1", then: "lead", pings: true, begin: stepsDown},
	{name: "an operator has a keyed client without a hold step down", reason: state.ReasonSteppedDown, keyed: " key=0123456789abcdef hold=0", begin: stepsDown},
}

// nodeCauses are those of the leader's node, one after the other. Afterwards it runs.
var nodeCauses = []*cause{
	{name: "the node is stopped", reason: state.ReasonNodeStopped, begin: func(s *succession) {
		s.at.signal(syscall.SIGTERM)
		s.at.wantExit(exitOK)
		s.at.run()
	}},
	{name: "the node is killed, and started again", reason: state.ReasonNodeRestarted, begin: func(s *succession) {
		s.at.kill()
		s.at.run()
	}},
	{name: "the node is killed", reason: state.ReasonNodeLost, by: byAnother, begin: func(s *succession) {
		s.at.kill()
		s.other.expired(s.at)
		s.at.run()
	}},
	{name: "a keyed client does not come back from a node that was stopped", reason: state.ReasonHoldOver, by: byAnybody, keyed: " key=0123456789abcdef hold=1", begin: func(s *succession) {
		s.at.signal(syscall.SIGTERM)
		s.at.wantExit(exitOK)
		s.at.run()
	}},
}

// lastCauses take the leader's node out of the cluster.
var lastCauses = []*cause{
	{name: "the node leaves the cluster", reason: state.ReasonRemoved, begin: func(s *succession) {
		s.at.order(exitOK, "cluster", "leave")
	}},
	{name: "the node is removed by force", reason: state.ReasonRemoved, by: byAnybody, begin: func(s *succession) {
		s.other.order(exitOK, "cluster", "force-remove", "--yes", s.at.name)
	}},
}

// No reason is without a cause.
func TestEachReasonIsProvoked(t *testing.T) {
	rows := slices.Concat(clientCauses, nodeCauses, lastCauses)
	for r := state.ReasonClosed; r.String() != "unknown"; r++ {
		isRow := slices.ContainsFunc(rows, func(c *cause) bool { return c.reason == r })
		if elsewhere := provoked[r]; isRow == (elsewhere != "") {
			t.Errorf("%v has a row: %v, and is provoked elsewhere: %q", r, isRow, elsewhere)
		}
	}
}

// Whatever has a leader lead no more, every node says what it was, at any time after, and also
// after all nodes were started again.
func TestEachChangeOfLeadersIsExplained(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, withKeys)
	wantLevel(all, state.KeyedLevel)
	victim, other := all[0], all[1]

	var at []*succession
	for _, c := range clientCauses {
		at = append(at, newSuccession(t, c, victim, other))
	}
	for _, s := range at {
		s.begin(s)
	}
	for _, s := range at {
		s.wantExplained()
	}
	for _, c := range nodeCauses {
		s := newSuccession(t, c, victim, other)
		s.begin(s)
		s.wantExplained()
		wantWhole(all)
	}

	before, changes := wantSameChanges(all)
	for _, c := range slices.Concat(clientCauses, nodeCauses) {
		if !slices.ContainsFunc(changes, func(is ensemble.Change) bool { return is.Reason == c.reason.String() && is.From == "lead" }) {
			t.Errorf("no change because of %v among\n%s", c.reason, before)
		}
	}
	out, _ := other.outputs("explain")
	for _, c := range clientCauses {
		wantContains(t, out, "\n"+c.reason.String()+" ")
	}
	restartAll(all)
	wantKept(all, before)

	for i, c := range lastCauses {
		s := newSuccession(t, c, all[2-i], all[0])
		s.begin(s)
		s.wantExplained()
	}
	wantKept(all[:1], before)
	if _, hint := all[0].outputs("explain"); hint != "" {
		t.Errorf("on stderr %q", hint)
	}
}

// A process that stood still for longer than its lease, and was not killed for that, has lost its
// session when it goes on.
func TestALostSessionIsExplained(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "leader_latch.timing = normal", "leader_latch.dead_man_switch = off")
	p.until("changes are kept", func() bool { return p.ask("/changes", &[]ensemble.Change{}) == nil })
	// The pause has to outlast the lease, and to be over before the node expires its own session. When
	// that is depends on its last renewal. So the pauses become longer little by little.
	shortest := session.Normal.Lease - session.Normal.Renew/2
	pause := shortest
	for range 60 {
		group := unique("lost")
		p.join(group, "lead", "lead")
		p.signal(syscall.SIGSTOP)
		time.Sleep(pause) // itself; there is nothing to poll in a process that stands still
		p.signal(syscall.SIGCONT)
		p.until("it has a session", func() bool { return p.ask("/wait", new(string)) == nil })
		c := p.lastChange(group)
		switch {
		case c.To == "lead":
			pause += session.Normal.Renew / 8
			continue
		case c.Reason == state.ReasonNodeLost.String():
			pause = shortest
			continue
		}
		if c.From != "lead" || c.To != "" || c.Reason != state.ReasonSessionLost.String() || c.Node != "riak@127.0.0.1" || c.By != c.Node {
			t.Errorf("the change is told as %+v", c)
		}
		out, _ := p.outputs("explain", group)
		wantContains(t, out, "Nobody leads since ")
		wantContains(t, out, "had lost its session (session_lost, seen by riak@127.0.0.1).\n")
		return
	}
	t.Error("no session was lost in a pause")
}

// Without a majority a node explains what it knew last, and says that it is that.
func TestExplainWithoutAMajority(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	wantLevel(all, state.KeyedLevel)
	kept := all[0].join("g", "a", "a")
	all[1].kill()
	all[2].kill()
	kept.wantGone()
	out, hint := all[0].outputs("explain", "g")
	wantContains(t, out, "a leads since ")
	wantContains(t, hint, "no majority confirms this: it is what was known at ")
}

// Who watches groups ends it by a signal, in order.
func TestAWatchEndsByASignal(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	p.join("g", "a", "a")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := p.program("groups", "--watch", "--json")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		var groups []ensemble.Group
		if err := json.NewDecoder(out).Decode(&groups); err != nil || len(groups) != 1 || groups[0].Leader != "a" {
			t.Errorf("printed %+v, %v", groups, err)
		}
		cmd.Process.Signal(sig)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}
