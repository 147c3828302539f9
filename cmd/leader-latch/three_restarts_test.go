package main

import (
	"syscall"
	"testing"
	"time"
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
		took := time.Since(stopped)
		lead.wantEnded()
		guest.wantEnded()
		t.Logf("stopped a node: the next leader was told %v after it; bound 200ms", took)
		if took > 200*time.Millisecond+margin {
			t.Errorf("told %v after SIGTERM", took)
		}
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
		began := time.Now()
		for _, m := range all {
			m.run()
		}
		for _, m := range all {
			m.ready()
			m.until("the old members are gone", func() bool { return len(m.groups()) == 0 })
		}
		t.Logf("all killed: names are free again %v after the start", time.Since(began))
	}
	all[1].join("g", "a", "a")
	if g := all[1].group("g"); g.Token <= token {
		t.Errorf("token %d after %d", g.Token, token)
	}
}
