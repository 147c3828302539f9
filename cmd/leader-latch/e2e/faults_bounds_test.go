//go:build faults

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
)

// The table of DESIGN.md, Bounds, line by line: within which time a dead leader is replaced,
// whatever the state of the raft leader.

// condition is a line of that table.
type condition struct {
	name  string
	dies  bool                                           // the raft leader's is the node that dies
	slows bool                                           // the nodes have disks that can be slow
	begin func(s *site, raftLeader *member) (end func()) // makes it so; nil: it is so
	bound func(tm session.Timing) time.Duration          // from the death to the successor's line
}

var conditions = []condition{
	{name: "the raft leader is well", bound: replaced},
	{name: "the raft leader dies itself", dies: true, bound: replacedAfterElection},
	{name: "the raft leader is stopped and goes on in turn", bound: replacedSlowly, begin: func(_ *site, m *member) func() {
		return starve(m, 110*time.Millisecond, 15*time.Millisecond)
	}},
	{name: "the raft leader has a quota of the processor", bound: replacedSlowly, begin: func(_ *site, m *member) func() {
		return m.ration(15*time.Millisecond, 125*time.Millisecond)
	}},
	{name: "the raft leader's flushes take 50 ms", slows: true, bound: replacedSlowly, begin: func(s *site, m *member) func() {
		heal, err := s.host(m).slowDisk(50 * time.Millisecond)
		if err != nil {
			m.t.Skip(err)
		}
		return heal
	}},
}

// replacedSlowly is within which time a node is replaced while each step of the raft leader is
// late by up to an eighth of a second.
func replacedSlowly(tm session.Timing) time.Duration { return tm.Expiry + 1600*time.Millisecond }

// boundedTimings are those for which the table is held.
var boundedTimings = []session.Timing{session.Normal, session.Calm}

func TestFaultADeadLeaderIsReplacedInTime(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for _, tm := range boundedTimings {
		for _, c := range conditions {
			t.Run(tm.Name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				s := c.site(t, tm)
				for round, void := 0, 0; round < rounds; {
					switch {
					case c.play(t, s, tm):
						round++
					case void == rounds:
						t.Fatal("the machine is too busy")
					default:
						void++
					}
				}
			})
		}
	}
}

// site starts three nodes, on hosts of their own only where they need that.
func (c condition) site(t *testing.T, tm session.Timing) *site {
	t.Helper()
	if !c.slows {
		return &site{all: cluster(t, 3, "leader_latch.timing = "+tm.Name)}
	}
	s := &site{network: newNetwork(t, 3)}
	s.hosts = s.network.hosts
	for _, h := range s.hosts {
		h.mountSlowableDisk()
	}
	s.all = onHosts(s.hosts, tm.Name)
	for _, m := range s.all {
		s.run(m)
	}
	wantWhole(s.all)
	return s
}

// play kills the node of a group's leader, and holds the time until the next one is told
// against the bound. It is not ok where one of the two has lost its node without that, as on a
// machine that is too busy for the timing.
func (c condition) play(t *testing.T, s *site, tm session.Timing) (ok bool) {
	t.Helper()
	defer s.mend(t)
	raft, rest := raftLeader(t, s.all)
	victim, witness := rest[0], rest[1]
	if c.dies {
		victim = raft
	}
	group := unique("bound")
	lead := victim.join(group, "lead", "lead")
	next := witness.join(group, "next", "lead")
	if c.begin != nil {
		defer c.begin(s, raft)()
	}
	for began := time.Now(); time.Since(began) < tm.Renew; {
		witness.joinWithin(patience, unique("probe")).Close() // it goes on, however slowly
	}
	if !lead.isTold("") || !next.isTold("") {
		return false
	}
	began := time.Now()
	victim.kill()
	if !next.isTold("LEADER next") {
		return false
	}
	took(t, c.name+", "+tm.Name+": the next leader was told", time.Since(began), c.bound(tm))
	if !c.dies {
		if now, _ := raftLeader(t, []*member{witness, raft}); now != raft {
			t.Logf("%s has become the raft leader meanwhile", now.name)
		}
	}
	return true
}

// isTold waits for a line, or without one sees to it that nothing was sent, and reports
// whether the connection has lasted until then.
func (c *conn) isTold(line string) bool {
	c.t.Helper()
	if line == "" {
		fmt.Fprint(c, "?\n") // what fails here, the read is told
		line = "ERROR"
	}
	c.SetReadDeadline(time.Now().Add(patience))
	got, err := c.r.ReadString('\n')
	if isTimeout(err) || err == nil && got != line+"\n" {
		c.t.Fatalf("read %q, %v; want %q", got, err, line)
	}
	return err == nil
}

// mend starts the nodes that have ended, and waits until all are well.
func (s *site) mend(t *testing.T) {
	t.Helper()
	for _, m := range s.all {
		select {
		case <-m.gone:
			s.run(m)
		default:
		}
	}
	wantWhole(s.all)
}

// The raft leader dies while the snapshot that it sends to another node hangs in the middle,
// as each one may have done that it has tried. That node, without which there is no majority,
// votes when nothing has come for 5 s.
func TestFaultTheRaftLeaderDiesWhileATransferHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 17,000 entries of the log")
	}
	for when, reached := range map[string]func(leader, away *member) bool{
		"at once": func(_, away *member) bool { return away.transferBegun() },
		"after attempts": func(leader, _ *member) bool {
			return strings.Count(leader.logText(), "failed to install snapshot") >= 2
		},
	} {
		for _, tm := range boundedTimings {
			t.Run(tm.Name+", "+when, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, 0, false, "leader_latch.timing = "+tm.Name)
				leader, rest := raftLeader(t, s.all)
				away, other := rest[0], rest[1]
				long := strings.Repeat("x", 240)
				const members = 1000 // of 500 bytes in the snapshot
				for i := range members {
					other.join(fmt.Sprint(long, i), long, long)
				}
				leader.join("dead", "lead", "lead")
				reconnect := s.outdate(away, leader, other)
				widen := s.host(away).narrow(200<<10, s.host(leader), s.host(other))
				reconnect()
				away.until("a transfer hangs, "+when, func() bool {
					leader, rest = raftLeader(t, []*member{leader, other})
					other = rest[0]
					return reached(leader, away)
				})

				killed := time.Now()
				leader.kill()
				raftLeader(t, []*member{other, away})
				what := "a transfer hangs (" + when + "), " + tm.Name
				took(t, what+": another raft leader", time.Since(killed), 5*time.Second+election(tm))
				widen()
				other.joinWithin(patience, "dead")
				took(t, what+": the next one leads", time.Since(killed), 5*time.Second+replacedAfterElection(tm))
				s.run(leader)
				wantWhole(s.all)
			})
		}
	}
}

// transferBegun reports whether the node is being sent a snapshot.
func (m *member) transferBegun() bool {
	begun, _ := filepath.Glob(filepath.Join(m.dir, "data", "leader_latch", "snapshots", "*.tmp"))
	return len(begun) > 0
}

// A firewall that refuses the port of a raft leader that lives, and resets its connections again
// and again, takes it for ended in the eyes of the others. They replace it, and no raft leader
// comes after the other: each that is elected is well.
func TestFaultAFirewallTakesARaftLeaderForEnded(t *testing.T) {
	for _, c := range []struct {
		name            string
		refuses, resets bool
		most            int // raft leaders that come to be
	}{
		{"refused", true, false, 0},
		{"reset", false, true, 3}, // a heartbeat may come too late after all
		{"refused and reset", true, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0, false)
			leader, rest := raftLeader(t, s.all)
			others := []*host{s.host(rest[0]), s.host(rest[1])}
			elections := func() (count int) {
				for _, m := range s.all {
					count += strings.Count(m.logText(), "] raft leader")
				}
				return count
			}
			before := elections()
			if c.refuses {
				defer s.host(leader).refuse(others)()
			}
			if c.resets {
				defer s.host(leader).resetAgain(others, 100*time.Millisecond, 200*time.Millisecond)()
			}
			for began := time.Now(); time.Since(began) < 10*time.Second; {
				for _, m := range rest {
					m.joinWithin(patience, unique("firewall")).Close()
				}
			}
			if n := elections() - before; n > c.most {
				t.Errorf("%d times a node has become the raft leader in 10 s, want at most %d", n, c.most)
			}
		})
	}
}
