package e2e

import (
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
)

// An operator restarts one node after the other: successors are named while the
// connections to it close, and members of other nodes hear of nothing but a new
// leader of their own group.
func TestARollingRestartNamesSuccessorsAtOnce(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for i, m := range all {
		led, other := unique("led"), unique("other")
		near, far := all[(i+1)%3], all[(i+2)%3]
		lead := m.join(led, "lead", "lead")
		next, third := near.join(led, "next", "lead"), far.join(led, "third", "lead")
		own, watcher := near.join(other, "own", "own"), far.join(other, "watcher", "own")
		guest := m.join(other, "guest", "own")

		stopped := time.Now()
		m.signal(syscall.SIGTERM)
		next.want("LEADER next")
		after := time.Since(stopped)
		lead.wantEnded()
		guest.wantEnded()
		took(t, "stopped in order: the next leader was told", after, 200*time.Millisecond)
		third.want("LEADER next")
		m.wantExit(exitOK)
		lead.wantEnd()
		guest.wantEnd()
		for _, c := range []*conn{next, third, own, watcher} {
			c.wantSilence()
		}
		m.run()
		wantWhole(all)
		for _, c := range []*conn{next, third, own, watcher} {
			c.wantSilence()
		}
	}
}

// After a power cut nobody is a member, every name is free, and the tokens of a
// group go on rising.
func TestAllNodesAreKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	var token uint64
	for round := range 2 {
		clients := []*conn{all[0].join("g", "a", "a"), all[1].join("g", "b", "a"), all[2].join("g", "c", "a")}
		g := all[2].group("g")
		if g.Token <= token {
			t.Errorf("round %d: token %d after %d", round, g.Token, token)
		}
		token = g.Token
		for _, m := range all {
			m.signal(syscall.SIGKILL)
		}
		for i, m := range all {
			clients[i].wantGone()
			<-m.gone
		}
		for _, m := range all {
			m.run()
		}
		started := time.Now()
		for _, m := range all {
			m.joinWithin(patience, "g").Close()
			m.until("nobody is a member", func() bool { return len(m.groups()) == 0 })
		}
		took(t, "all killed and started: all names are free, after the start", time.Since(started), clusterTiming.Expiry) // no session was waited for
	}
	all[1].join("g", "a", "a")
	if g := all[1].group("g"); g.Token <= token {
		t.Errorf("token %d after %d", g.Token, token)
	}
}

// After a power cut one node stays away. Its members are gone when its session has
// been silent for S since there is a raft leader again, and not before: nobody knows
// how long it was before that.
func TestAllNodesAreKilledAndOneStaysAway(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, "leader_latch.join_timeout = 60s") // not what is tested, on whatever machine
	away, rest := all[0], all[1:]
	old := away.join("g", "x", "x")
	for _, m := range all {
		m.signal(syscall.SIGKILL)
	}
	old.wantGone()
	for _, m := range all {
		<-m.gone
	}
	began := time.Now()
	for _, m := range rest {
		m.run()
	}
	for _, m := range rest {
		m.ready()
	}
	ready := time.Now()
	again := rest[0].join("g", "x", "x")
	if waited := time.Since(began); waited < clusterTiming.Expiry {
		t.Errorf("the name of a member of the node that is away was free %v after the start, before %v", waited, clusterTiming.Expiry)
	}
	took(t, "all killed, one stays away: its members' names are free, after the others serve", time.Since(ready), replaced(clusterTiming))
	away.run()
	wantWhole(all)
	again.wantSilence()
}

// An operator changes leader_latch.timing and restarts one node after the other.
// Members of the others hear of no more than of any restart, and while the timings
// differ, each node's members are replaced by its own. Who has to hear nothing sits
// where the lease is the longest, as a stall of a busy machine is no fault.
func TestTheTimingIsChangedNodeByNode(t *testing.T) {
	t.Parallel()
	longer, shorter := session.Calm, session.Normal
	if clusterTiming == session.Quick {
		longer, shorter = session.Normal, session.Quick
	}
	all := founders(t, 3, "leader_latch.timing = "+longer.Name)
	for _, m := range all {
		m.run()
	}
	wantWhole(all)
	m, near, far := all[0], all[1], all[2]
	change := func(m *member, to session.Timing) {
		t.Helper()
		m.signal(syscall.SIGTERM)
		m.wantExit(exitOK)
		m.lines = append(m.lines, "leader_latch.timing = "+to.Name)
		m.run()
		wantWhole(all)
		for _, cm := range near.cluster().Members {
			if cm.Name == m.name && cm.Timing != to.Name {
				t.Errorf("%s says that %s has the timing %s, want %s", near.name, m.name, cm.Timing, to.Name)
			}
		}
	}
	lead, next := m.join("g", "lead", "lead"), near.join("g", "next", "lead")
	watcher := far.join("own", "watcher", "watcher")
	change(m, shorter)
	lead.wantGone()
	next.want("LEADER next")
	next.wantSilence()
	watcher.wantSilence()

	for victim, tm := range map[*member]session.Timing{m: shorter, far: longer} {
		g := unique("g")
		lead, next := victim.join(g, "lead", "lead"), near.join(g, "next", "lead")
		probed := victim.probe()
		killed := time.Now()
		victim.kill()
		lead.wantGone()
		next.want("LEADER next")
		told := time.Now()
		if earliest := time.Duration(float64(tm.Expiry-tm.Renew) * (1 - session.Rho)); told.Sub(probed) < earliest {
			t.Errorf("%s among others: told %v after a JOIN succeeded at the node, before %v", tm.Name, told.Sub(probed), earliest)
		}
		took(t, "timings differ, killed a node with "+tm.Name+": the next leader was told", told.Sub(killed), replaced(tm)+election(longer))
		next.wantSilence()
		victim.run()
		wantWhole(all)
	}

	change(near, shorter)
	change(far, shorter)
	for _, m := range all { // and back
		change(m, longer)
	}
	m.join(unique("g"), "a", "a")
}
