//go:build faults

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/latch/latchtest"
)

// byTheClock begins the names of these kinds.
const byTheClock = "by the clock: "

// What befalls the node of a leader that goes by its clock, just when that one was promised
// something, and another member waits at another node. It leads on until its promise is over,
// and nothing else begins before: so a node that does not wait as long is found.
func (a *attacker) clockFaults() []fault {
	return []fault{
		{byTheClock + "node stopped", func(r *rand.Rand) (func(), string) {
			w, n := a.promised(r)
			if w == nil {
				return nil, ""
			}
			release := n.hold()
			n.terminate()
			time.Sleep(windows[a.timing.Name])
			return release, fmt.Sprintf("node %d, of %s", n.n, w.Client)
		}, time.Second},
		{byTheClock + "node killed", func(r *rand.Rand) (func(), string) { // it starts again at once
			w, n := a.promised(r)
			if w == nil {
				return nil, ""
			}
			n.killToRestart()
			time.Sleep(windows[a.timing.Name])
			return func() {}, fmt.Sprintf("node %d, of %s", n.n, w.Client)
		}, 0},
		{byTheClock + "session lost", func(r *rand.Rand) (func(), string) { // and opened anew at once
			w, n := a.promised(r)
			if w == nil {
				return nil, ""
			}
			heal := a.cut(both([]*host{n.host}, a.hosts))
			select {
			case <-w.ended:
			case <-time.After(2 * a.timing.Expiry): // something else keeps the end from it
			}
			heal()
			time.Sleep(windows[a.timing.Name])
			return func() {}, fmt.Sprintf("node %d, of %s", n.n, w.Client)
		}, 0},
	}
}

// promised gives a client that leads by its clock just now, and its node; nil: there is none
// soon. It is not the raft leader's node, as an election takes longer than the promise lasts.
func (a *attacker) promised(r *rand.Rand) (*witness, *node) {
	raftLeader := a.raftLeader()
	for range 20 {
		for _, i := range r.Perm(len(a.crowd.bounded)) {
			w, at := a.crowd.bounded[i].leads()
			if w == nil {
				continue
			}
			if n := a.nodes[slices.Index(a.hosts, at)]; n != raftLeader {
				return w, n
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, nil
}

// leads gives the client's connection and where it leads to, if it has just been promised
// something and another member of its group is at another node.
func (b *boundedClient) leads() (*witness, *host) {
	b.g.mu.Lock()
	defer b.g.mu.Unlock()
	if !b.member() || b.conn.Stopped != 0 || b.conn.Promised() < b.now()+b.window/2 {
		return nil, nil
	}
	for _, heir := range b.crowd.bounded {
		if heir.g == b.g && heir.member() && heir.at != b.at && heir.conn.Knows(b.name) {
			return b.conn, b.at
		}
	}
	return nil, nil
}

// member reports whether its connection lasts. g.mu is held.
func (b *boundedClient) member() bool { return b.conn != nil && b.conn.End == 0 }

// Nodes that go without a wait for what they promised are found by the one of these that it is
// for. The one for a lost session takes longer, as FAULTS.md says.
func TestFaultsFindABrokenPromise(t *testing.T) {
	t.Setenv("LEADER_LATCH_WITHOUT", "end,start")
	a := newAttacker(t, 3, 5, session.Calm)
	for _, f := range a.clockFaults()[:2] {
		before := len(latchtest.Check(a.crowd.views()).Violations)
		found := func() bool { return len(latchtest.Check(a.crowd.views()).Violations) > before }
		for round := 0; round < 20 && !found(); round++ {
			a.awaitOne(patience)
			end, what := f.begin(a.victims)
			if end == nil {
				continue
			}
			end()
			a.tally(f.name)
			for over := time.Now().Add(time.Second); !found() && time.Now().Before(over); {
				time.Sleep(100 * time.Millisecond)
			}
			t.Logf("%v: %s %s", a.now().Round(time.Millisecond), f.name, what)
		}
		if !found() {
			t.Errorf("%s: nothing was found", f.name)
		}
	}
}
