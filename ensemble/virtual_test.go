package ensemble

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// The real stack in virtual time: three nodes with Raft, the cluster port and its TLS, and
// bbolt on a disk. What every client was told is held against the promise at the moment at
// which it is told (virtual_client_test.go). What happens to them meanwhile is in
// virtual_happens_test.go, on what they run in virtual_host_test.go and
// virtual_network_test.go, what they are together in virtual_world_test.go.
//
// A failure prints its seed and its history. -virtual.seed plays a run of that seed again,
// which is not the same one: goroutines are scheduled as they like.
var (
	virtualRuns = flag.Int("virtual.runs", 20, "how many runs to play")
	virtualSeed = flag.Uint64("virtual.seed", 0, "play runs with this seed alone")

	// With fewer than the service keeps, nodes that lag get snapshots while they run.
	virtualTrailing = flag.Uint64("virtual.trailing", 4, "how many entries Raft keeps behind a snapshot, so that others get snapshots; 0: as many as the service does")
)

func TestRealStackInVirtualTime(t *testing.T) {
	if raceEnabled {
		*virtualRuns = min(*virtualRuns, 3)
	}
	for i := range *virtualRuns {
		seed := uint64(time.Now().UnixNano())
		if *virtualSeed != 0 {
			seed = *virtualSeed
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := playVirtual(t, seed, mutation.Nothing)
			if w.bad != "" {
				t.Errorf("seed %d: %s\n%s", seed, w.bad, strings.Join(w.history, "\n"))
			}
			checked, open := checkLinear(t, w.orders()) // in real time
			t.Logf("seed %d: %v; %d lines to clients, %d groups in order, %d not decided; %v", seed, w.took.Round(time.Second), w.told, checked, open, w.happened)
			if len(w.stale) > 0 {
				slices.Sort(w.stale)
				t.Logf("%d believed themselves to lead on a machine that was frozen, %v at most after it went on", len(w.stale), w.stale[len(w.stale)-1].Round(time.Millisecond))
			}
		})
	}
}

// aims is, for each rule that can be taken away from the real stack, what alone fails
// then, to find that soon.
var aims = map[mutation.Mutation]string{
	mutation.AnyCounter:        "late copies",
	mutation.NoDedup:           "late copies",
	mutation.ReceiveTime:       "links that come and go",
	mutation.NoAcknowledgement: "cut off",
	mutation.NoCompare:         "late copies",
	mutation.NoGrace:           "hand-overs",
	mutation.NoSwitchNoGate:    "pauses",
	mutation.LeaveBeforeClose:  "ended by the node",
	mutation.OpenBeforeClose:   "links that come and go",
	mutation.NoCloseTime:       "links that come and go",
	mutation.NoJump:            "frozen machines",
	mutation.NoSwitch:          "pauses",
	mutation.EndBeforeClose:    "stops",
	mutation.ApplyUnflushed:    "entries lost",
	mutation.CommitUnflushed:   "entries lost",
	mutation.FollowUnflushed:   "entries lost",
	mutation.LeaveWait:         "ended by the node",
	mutation.EndWait:           "stops",
	mutation.OpenWait:          "links that come and go",
	mutation.StartWait:         "crashes",
	mutation.NoNote:            "crashes",
}

// Each rule that is taken away from the real stack is found.
func TestRealStackFindsEveryMissingRule(t *testing.T) {
	if raceEnabled {
		t.Skip("virtual time is slow under the race detector, and not about races")
	}
	for mutate := range aims {
		t.Run(mutate.String(), func(t *testing.T) {
			t.Parallel()
			const most = 300 // the rarest is found by one of fifteen
			for i := range most {
				if w := playVirtual(t, uint64(time.Now().UnixNano()), mutate); w.bad != "" {
					t.Logf("found by run %d, %v into it: %s", i+1, w.took.Round(time.Second), w.bad)
					return
				}
			}
			t.Errorf("not found in %d runs", most)
		})
	}
}

// playVirtual plays one run, in which the rule mutate is taken away.
func playVirtual(t *testing.T, seed uint64, mutate mutation.Mutation) (w *world) {
	synctest.Test(t, func(t *testing.T) { w = playInBubble(t, seed, mutate) })
	return w
}

func playInBubble(t *testing.T, seed uint64, mutate mutation.Mutation) *world {
	w := newWorld(t, seed, mutate)
	rng := w.rng

	low := w.hosts[0].node.seen.level.Load() == state.FirstLevel
	const faults = 60 * time.Second
	for end := time.Now().Add(faults); time.Now().Before(end) && w.violation() == ""; {
		time.Sleep(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
		for _, h := range w.hosts {
			h.bury()
		}
		w.proposeLate()
		w.goOn()
		if o := omits(mutate); o.Leave || o.End || o.Open || o.Start || o.Note || seed%4 == 1 {
			w.leadersAsk()
		}
		w.happens()
	}
	w.note("the faults are over")
	for _, h := range w.hosts {
		h.bury()
		h.goOn()
		h.flush.Store(0)
		for _, o := range w.hosts {
			w.net.cut(h.address, o.address, false)
		}
		h.start()
	}
	w.until("every group has its leader", 30*time.Second, func() bool {
		for _, h := range w.hosts { // one may learn only now that it has to begin anew
			h.bury()
			h.start()
		}
		return w.isSettled()
	})
	if low && w.hosts[0].node.seen.level.Load() > state.FirstLevel {
		w.happened["level raised"]++
	}
	w.took = time.Since(w.began)
	return w
}

// A node that comes back has what it missed at once, however long it was away.
func TestANodeThatWasAwayForLongIsSoonBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		for _, away := range []time.Duration{10 * time.Second, 3 * time.Minute} {
			h := w.follower()
			h.crash()
			time.Sleep(away)
			h.start()
			began := time.Now()
			w.until("it is back", time.Minute, h.ready)
			took := time.Since(began)
			t.Logf("away for %v, back after %v", away, took)
			if took > 2*time.Second {
				t.Errorf("away for %v, back after %v", away, took)
			}
		}
	})
}

// A raft leader of which nothing is heard any more is missed within a timeout and a quarter, and
// the next one is elected at once, unless the two others stand at the same moment. Raft by
// itself takes 2.2 timeouts on average.
func TestALostRaftLeaderIsReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const deaths = 15
		var took []time.Duration
		for range deaths {
			lost := w.raftLeader()
			w.net.stop(lost.address, true)
			took = append(took, w.untilAnotherLeads(lost))
			w.net.stop(lost.address, false)
			w.until("the cluster is whole", time.Minute, func() bool { return w.whole() && lost.node.replica.Role() == "following" })
			time.Sleep(time.Second) // all heartbeats come again
		}
		slices.Sort(took)
		t.Logf("after %v", took)
		if most := session.Normal.Heartbeat * 3 / 2; took[deaths/2] > most {
			t.Errorf("the median is %v, want at most %v", took[deaths/2], most)
		}
	})
}

// A follower with a slow disk stores an entry after the majority has committed it. Its
// clients are told when it has, and not when Raft happens to send it something.
func TestASlowFollowerIsToldWhenItHasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const flush = 50 * time.Millisecond
		slow := w.follower()
		slow.flush.Store(int64(flush))
		var took []time.Duration
		for range 21 {
			began := time.Now()
			w.join(slow)
			w.mu.Lock()
			c := w.clients[len(w.clients)-1]
			w.mu.Unlock()
			w.until("its client is told", time.Minute, func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return c.told != ""
			})
			took = append(took, c.answered-began.Sub(w.began))
			c.hangUp()
			time.Sleep(time.Second)
		}
		slow.flush.Store(0)
		slices.Sort(took)
		t.Logf("after %v", took)
		// Another flush may be under way, and the client's machine take its time.
		if most := 2*flush + 80*time.Millisecond; took[len(took)-1] > most {
			t.Errorf("it took up to %v, want at most %v", took[len(took)-1], most)
		}
	})
}

// A raft leader that is lost while it hands over, to nodes that are busy, may be elected
// again, and serves then.
func TestARaftLeaderThatWasLostWhileItHandedOverServesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		for i := range 5 {
			l := w.raftLeader()
			others := w.but(l)
			for _, o := range others {
				o.slow(2 * time.Second)
			}
			w.joinAs(l, "busy", fmt.Sprint("c", i)) // which the others store
			time.Sleep(50 * time.Millisecond)
			for range 3 {
				go l.node.cluster.handOver()
				time.Sleep(handOverPause + 10*time.Millisecond)
			}
			for _, o := range others {
				w.apart(l, o, true)
				o.slow(0)
			}
			w.until("another one leads", time.Minute, func() bool { return w.raftLeader() == others[0] || w.raftLeader() == others[1] })
			for _, o := range others {
				w.apart(l, o, false)
			}
			w.until("it leads again", time.Minute, func() bool {
				if n := w.raftLeader(); n != nil && n != l {
					n.node.replica.Inside().Raft.LeadershipTransferToServer(raft.ServerID(l.node.self), raft.ServerAddress(Place{l.name, l.address}.text()))
				}
				return w.raftLeader() == l
			})
			w.until("the cluster is whole", 10*time.Second, w.whole)
		}
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}

// A voter that is gone just when it is handed over to is not waited for: another one is
// tried.
func TestHandingOverWhereOneIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const most = 1000
		for i := range most {
			time.Sleep(handOverPause)
			w.until("the cluster is whole", time.Minute, w.whole)
			l := w.raftLeader()
			first := l.node.replica.Others()[0].ID
			gone := w.but(l)[0]
			if gone.node.self != first {
				gone = w.but(l)[1]
			}
			go l.node.cluster.handOver()
			time.Sleep(time.Duration(w.rng.Int64N(int64(6 * time.Millisecond)))) // it answers, and is asked
			w.apart(l, gone, true)
			time.Sleep(2 * session.Normal.Heartbeat)
			l.node.cluster.handOvers.Lock()
			_, tried := l.node.cluster.handOvers.failed[first]
			l.node.cluster.handOvers.Unlock()
			if tried && l.node.replica.IsRaftLeader() {
				t.Logf("found by try %d", i+1)
				w.until("another one leads", 10*time.Second, func() bool {
					l.node.cluster.handOver()
					return !l.node.replica.IsRaftLeader()
				})
				break
			}
			w.apart(l, gone, false)
			if i+1 == most {
				t.Error("it never was gone at the right moment")
			}
		}
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}

// A node that came to stand for election while it was cut off, and then is sent a snapshot,
// follows; and elects another one when who sent it is lost.
func TestASnapshotForANodeThatStandsForElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		l := w.raftLeader()
		b, c := w.but(l)[0], w.but(l)[1]
		for _, h := range w.hosts {
			h.node.replica.Inside().Trail(1)
		}
		w.apart(l, b, true)
		w.apart(c, b, true)
		time.Sleep(3 * time.Second) // what was on the way to it is given up
		for i := range 3 {
			w.joinAs(l, "g", fmt.Sprint("c", i))
			time.Sleep(500 * time.Millisecond)
		}
		if err := snapshot(l.node); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if is := b.node.replica.Inside().Raft.State(); is != raft.Candidate {
			t.Fatalf("it is a %v", is)
		}
		b.slow(300 * time.Millisecond)
		w.apart(l, b, false)
		w.until("it knows who leads", time.Minute, func() bool {
			return b.node.replica.RaftLeader() == l.node.self
		})
		w.apart(l, b, true)
		l.crash()
		w.apart(c, b, false)
		b.slow(0)
		w.until("another one leads", 10*time.Second, func() bool { return w.raftLeader() != nil })
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}
