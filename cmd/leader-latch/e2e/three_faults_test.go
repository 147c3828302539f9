package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
)

// scene is a cluster of three as its clients see it before one node, the victim,
// fails: two groups with members on all nodes, one led from the victim.
type scene struct {
	t      *testing.T
	victim *member
	rest   []*member

	lead, next, third   *conn // members of one group, in order of succession; lead on the victim
	own, watcher, guest *conn // members of the other one; guest on the victim
	other               string

	probed time.Time     // the victim has renewed its session since R before this
	bound  time.Duration // within which its members have to be replaced
}

// replaced is within which time the members of a node are replaced that does nothing more,
// where the raft leader is another one, and well (DESIGN.md, Bounds). A node whose renewals
// go out still, though it learns of nothing, renews its session with the two batches that it
// sends without an answer: 2R later at most.
func replaced(tm session.Timing) time.Duration { return tm.Expiry + 200*time.Millisecond }

// replacedAfterElection is the same where that node was the raft leader.
func replacedAfterElection(tm session.Timing) time.Duration { return replaced(tm) + election(tm) }

// election is within which time there is another raft leader, if the votes are shared once
// at most.
func election(tm session.Timing) time.Duration { return tm.Heartbeat*5/4 + 2*tm.Heartbeat }

// newScene sets up a scene. The victim is the raft leader, or is not.
func newScene(t *testing.T, all []*member, raftLeads bool) *scene {
	t.Helper()
	s := &scene{t: t, bound: replacedAfterElection(clusterTiming)}
	s.victim, s.rest = raftLeader(t, all)
	if !raftLeads {
		s.victim, s.rest[0] = s.rest[0], s.victim
		s.bound = replaced(clusterTiming)
	}
	led := unique("led")
	s.other = unique("other")
	s.lead = s.victim.join(led, "lead", "lead")
	s.next = s.rest[0].join(led, "next", "lead")
	s.third = s.rest[1].join(led, "third", "lead")
	s.own = s.rest[0].join(s.other, "own", "own")
	s.watcher = s.rest[1].join(s.other, "watcher", "own")
	s.guest = s.victim.join(s.other, "guest", "own")
	s.probed = s.victim.probe()
	return s
}

// probe joins at the node and gives the time before. A renewal that was due then
// went ahead of that JOIN into the log, so whatever happens to the node later, its
// session lasts until S - R after that time at least.
func (m *member) probe() time.Time {
	m.t.Helper()
	t := time.Now()
	name := unique("probe")
	m.join(name, name, name)
	return t
}

// wantReplaced expects what others see of a node that failed at a time: the members
// of the group that it led are told of the next leader, once, when these connections
// have ended; nobody else of anything.
func (s *scene) wantReplaced(what string, failed time.Time, ended ...*conn) {
	s.t.Helper()
	wantSuccession(what, s.probed, failed, s.bound, s.next, "next", ended...)
	s.third.want("LEADER next")
	for _, m := range s.rest {
		m.expired(s.victim)
		m.until("the guest has gone", func() bool { return len(m.group(s.other).Members) == 2 })
	}
	for _, c := range []*conn{s.next, s.third, s.own, s.watcher} {
		c.wantSilence() // rule 13
	}
}

// wantSuccession expects that a member is told of its group's next leader after
// the node of the old one has failed: not before the node's session can have
// expired, nor before these connections have ended; and in time.
func wantSuccession(what string, probed, failed time.Time, bound time.Duration, next *conn, leader string, ended ...*conn) {
	next.t.Helper()
	next.want("LEADER " + leader)
	told := time.Now()
	for _, c := range ended {
		c.wantEnded()
	}
	tm := clusterTiming
	if earliest := time.Duration(float64(tm.Expiry-tm.Renew) * (1 - session.Rho)); told.Sub(probed) < earliest {
		next.t.Errorf("%s: told %v after a JOIN succeeded at the node, before %v", what, told.Sub(probed), earliest)
	}
	took(next.t, what+": the next leader was told", told.Sub(failed), bound)
}

// wantEnded expects that the connection is at its end already, without a byte
// before that. It is asked when somebody else was told to lead.
func (c *conn) wantEnded() {
	c.t.Helper()
	c.SetReadDeadline(time.Time{})
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 1)
	var n int
	var failure error
	if err := raw.Read(func(fd uintptr) bool {
		n, _, failure = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}); err != nil {
		c.t.Fatal(err)
	}
	if n != 0 && failure != syscall.ECONNRESET || c.r.Buffered() > 0 {
		c.t.Errorf("the next leader was named and the old one's connection is open (%d bytes to read, %v)", n, failure)
	}
}

// expired waits until a majority lives on without a node's session.
func (m *member) expired(node *member) {
	m.t.Helper()
	m.until("the session of "+node.name+" has ended", func() bool {
		c := m.cluster()
		for _, cm := range c.Members {
			if cm.Name == node.name && cm.Session {
				return false
			}
		}
		return c.Majority
	})
}

// Whatever node is killed, the connections of its clients end with it, its members
// go when its session has expired, and nobody else notices.
func TestAKilledNodeIsReplacedWhenItsSessionHasExpired(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for _, role := range []string{"a follower", "the raft leader"} {
		s := newScene(t, all, role == "the raft leader")
		killed := time.Now()
		s.victim.kill()
		s.lead.wantGone()
		s.guest.wantGone()
		s.wantReplaced("killed "+role, killed, s.lead, s.guest)
		s.victim.run()
		wantWhole(all)
	}
}

// A node without members of theirs, be it the raft leader, is killed, and clients of
// the others get no byte of it.
func TestTheDeathOfANodeWithoutMembersIsNotNoticed(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for _, role := range []string{"a follower", "the raft leader"} {
		s := newScene(t, all, role == "the raft leader")
		s.lead.Close()
		s.guest.Close()
		s.next.want("LEADER next")
		s.third.want("LEADER next")
		s.victim.kill() // with nobody of these groups
		for _, m := range s.rest {
			m.expired(s.victim)
		}
		for _, c := range []*conn{s.next, s.third, s.own, s.watcher} {
			c.wantSilence()
		}
		s.victim.run()
		wantWhole(all)
	}
}

// When a majority is killed, the node that is left closes its members before they
// could be replaced, and refuses JOINs; when the others are back, nobody of before
// is there.
func TestWithoutAMajorityANodeFallsSilent(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	s := newScene(t, all, true)
	killed := time.Now()
	s.victim.signal(syscall.SIGKILL)
	s.rest[0].signal(syscall.SIGKILL)
	s.own.wantGone()
	s.watcher.wantEnd()
	took(t, "killed two of three: the members of the third were closed", time.Since(killed), clusterTiming.Lease+clusterTiming.Close)
	s.third.wantEnd()
	for _, c := range []*conn{s.lead, s.next, s.guest} {
		c.wantGone()
	}
	late := s.rest[1].dial()
	late.send("JOIN g a\n")
	late.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	late.wantEnd()
	<-s.victim.gone
	<-s.rest[0].gone
	s.victim.run()
	s.rest[0].run()
	wantWhole(all)
	s.rest[1].join(s.other, "guest", "guest")
}

// Two nodes of five are killed at once, one of them the raft leader with the
// group's leader on it: the other three go on.
func TestTwoOfFiveNodesAreKilledAtOnce(t *testing.T) {
	t.Parallel()
	all := cluster(t, 5)
	first, rest := raftLeader(t, all)
	victims, rest := []*member{first, rest[0]}, rest[1:]
	lead := victims[0].join("g", "lead", "lead")
	second := victims[1].join("g", "second", "lead")
	third, fourth := rest[0].join("g", "third", "lead"), rest[1].join("g", "fourth", "lead")
	own := rest[2].join("other", "own", "own")
	probed := victims[0].probe()
	victims[1].probe()
	killed := time.Now()
	for _, v := range victims {
		v.signal(syscall.SIGKILL)
	}
	lead.wantGone()
	second.wantGone()
	third.maybe("LEADER second") // which is a member like any other until its own session has expired
	wantSuccession("killed two of five", probed, killed, replacedAfterElection(clusterTiming), third, "third", lead, second)
	fourth.maybe("LEADER second")
	fourth.want("LEADER third")
	for _, m := range rest {
		for _, v := range victims {
			m.expired(v)
		}
	}
	for _, c := range []*conn{third, fourth, own} {
		c.wantSilence()
	}
}

// maybe skips a line that may come next; it waits for what comes.
func (c *conn) maybe(line string) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	c.r.Peek(1)
	if b, _ := c.r.Peek(c.r.Buffered()); strings.HasPrefix(string(b), line+"\n") {
		c.r.Discard(len(line) + 1)
	}
}

// pause stops the process, and returns when all its threads have stopped.
func (m *member) pause() {
	m.t.Helper()
	m.signal(syscall.SIGSTOP)
	threads := fmt.Sprintf("/proc/%d/task/*/stat", m.cmd.Process.Pid)
	m.until("it is stopped", func() bool {
		stats, err := filepath.Glob(threads)
		return err == nil && !slices.ContainsFunc(stats, func(name string) bool {
			b, err := os.ReadFile(name)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
}

// A node that is stopped beyond its lease is killed by the kernel's timer: its
// clients see the end and no line, before anybody else leads.
func TestAPausedNodeIsKilledBeforeItsMembersAreReplaced(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for _, role := range []string{"a follower", "the raft leader"} {
		s := newScene(t, all, role == "the raft leader")
		paused := time.Now()
		s.victim.pause()
		s.wantReplaced("paused "+role, paused, s.lead, s.guest)
		select {
		case <-s.victim.gone:
		case <-time.After(patience):
			t.Fatal("the process lives")
		}
		if st := s.victim.cmd.ProcessState.Sys().(syscall.WaitStatus); !st.Signaled() || st.Signal() != syscall.SIGKILL {
			t.Errorf("ended as %v, want killed", s.victim.err)
		}
		s.victim.run()
		wantWhole(all)
	}
}

// Without the switch the connections of a stopped node stay open. When it goes on,
// it closes them first of all: nothing stale is written, whatever the clients have
// sent in the meantime, and it takes part again as if it were new.
func TestAPausedNodeWithoutTheSwitchWritesNothingStale(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, "leader_latch.dead_man_switch = off")
	for _, role := range []string{"a follower", "the raft leader"} {
		s := newScene(t, all, role == "the raft leader")
		paused := time.Now()
		s.victim.pause()
		s.lead.send("JOIN again lead\n") // to a leader in office the answer is ALREADY_JOINED
		s.wantReplaced("paused "+role+" without the switch", paused)
		s.victim.signal(syscall.SIGCONT)
		s.lead.wantGone()
		s.guest.wantGone()
		wantWhole(all)
		if strings.Contains(s.victim.logText(), "[error]") {
			t.Errorf("the node that went on:\n%s", s.victim.logText())
		}
		back := s.victim.join(s.other, "guest", "own")
		s.own.Close()
		back.want("LEADER watcher")
	}
}
