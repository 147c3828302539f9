package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/mutation"
)

// A raft leader whose process ends is replaced before it was silent for a timeout, whether it
// is started again at once or not. Of two nodes the other one needs its vote.
func TestAnEndedRaftLeaderIsReplacedAtOnce(t *testing.T) {
	for _, c := range []struct{ nodes, voters int }{{2, 2}, {3, 3}, {4, 3}, {4, 4}, {5, 5}} {
		t.Run(fmt.Sprintf("%d of %d vote", c.voters, c.nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, c.nodes, c.voters, 1, mutation.Nothing)
				var took []time.Duration
				for i := range 10 {
					lost := w.raftLeader()
					lost.crash()
					if i%2 == 0 || c.voters == 2 {
						lost.start()
					}
					took = append(took, w.untilAnotherLeads(lost))
					time.Sleep(standEvery)
					lost.start()
					w.until("the cluster is whole", time.Minute, w.whole)
				}
				slices.Sort(took)
				t.Logf("after %v", took)
				if most := 200 * time.Millisecond; took[len(took)-1] > most {
					t.Errorf("the longest is %v, want at most %v", took[len(took)-1], most)
				}
				if w.bad != "" {
					t.Error(w.bad)
				}
			})
		})
	}
}

// What a node that was dialled says of the process that it had in the life "one".
func TestWhatDiallingSaysOfAProcess(t *testing.T) {
	type hello = clusterport.Hello
	refused := func(by hello) error {
		return fmt.Errorf("cluster port a:1: %w", &clusterport.RefusedError{Peer: by})
	}
	for name, c := range map[string]struct {
		life         string
		greets       hello
		err          error
		ended, known bool
	}{
		"its port is refused":         {"one", hello{}, fmt.Errorf("dial: %w", syscall.ECONNREFUSED), true, true},
		"the same life":               {"one", hello{Node: "a", Life: "one"}, nil, false, true},
		"another life":                {"one", hello{Node: "a", Life: "two"}, nil, true, true},
		"an older program was there":  {"", hello{Node: "a", Life: "two"}, nil, false, true},
		"an older program is there":   {"one", hello{Node: "a"}, nil, false, true},
		"it refuses, in the same":     {"one", hello{}, refused(hello{Node: "a", Life: "one"}), false, true},
		"it refuses, in another life": {"one", hello{}, refused(hello{Node: "a", Life: "two"}), true, true},
		"another node refuses":        {"one", hello{}, refused(hello{Node: "b", Life: "two"}), false, false},
		"no answer":                   {"one", hello{}, context.DeadlineExceeded, false, false},
		"it is just going":            {"one", hello{}, syscall.ECONNRESET, false, false},
	} {
		if ended, known := judge("a", c.life, c.greets, c.err); ended != c.ended || known != c.known {
			t.Errorf("%s: ended %v, known %v, want %v, %v", name, ended, known, c.ended, c.known)
		}
	}
}

// A raft leader that lives stays one, though its connections are reset again and again, though
// its port refuses those whose connections are not reset, or a minority, and though it stands
// still for half a timeout. Where it refuses all others it is replaced, once: nobody stands
// against the next one.
func TestARaftLeaderThatLivesIsNotReplaced(t *testing.T) {
	type attack struct {
		name      string
		refuses   int // how many others
		resets    bool
		stops     bool   // again and again, for half a timeout
		elections uint64 // at most
	}
	for _, a := range []attack{
		{"reset", 0, true, false, 0},
		{"refused", 2, false, false, 0},
		{"reset, and refused by one", 1, true, false, 0},
		{"reset and refused", 2, true, false, 2},
		{"reset while it stands still", 0, true, true, 0},
	} {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, mutation.Nothing)
				leader := w.raftLeader()
				others := w.but(leader)
				refuse := func(is bool) {
					for _, h := range others[:a.refuses] {
						w.net.refuse(h.address, leader.address, is)
					}
				}
				term := others[0].node.replica.Term()
				refuse(true)
				for i := range 100 {
					if a.stops {
						w.net.stop(leader.address, i%10 < 2)
					}
					if a.resets {
						w.net.reset(leader.address)
					}
					time.Sleep(70 * time.Millisecond)
				}
				var now uint64
				for _, h := range w.hosts {
					now = max(now, h.node.replica.Term())
				}
				if now > term+a.elections || a.elections == 0 && w.raftLeader() != leader {
					t.Errorf("term %d after %d; the raft leader is another one: %v", now, term, w.raftLeader() != leader)
				}
				refuse(false)
				w.until("the cluster is whole", time.Minute, w.whole)
				if w.bad != "" {
					t.Error(w.bad)
				}
			})
		})
	}
}

// A firewall that goes after whoever is the raft leader has no more elections than each node may
// stand for.
func TestNobodyStandsAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const lasts = 10 * time.Second
		before := w.follower().node.replica.Term()
		for began := time.Now(); time.Since(began) < lasts; time.Sleep(70 * time.Millisecond) {
			leader := w.raftLeader()
			for _, h := range w.hosts {
				for _, o := range w.but(h) {
					w.net.refuse(o.address, h.address, h == leader)
				}
			}
			if leader != nil {
				w.net.reset(leader.address)
			}
		}
		most := uint64(len(w.hosts)) * uint64(lasts/standEvery+1)
		elections := w.follower().node.replica.Term() - before
		t.Log(elections, "elections")
		if elections > most {
			t.Errorf("%d elections in %v, want at most %d", elections, lasts, most)
		}
	})
}

// A voter agrees with those that stand before it in the order of logs and ids, and for as long
// only as it hears nothing of that raft leader itself.
func TestWithWhomAVoterAgrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		leader := w.raftLeader()
		w.net.stop(leader.address, true)
		time.Sleep(50 * time.Millisecond) // nothing of it is under way
		voters := w.but(leader)
		slices.SortFunc(voters, func(a, b *host) int { return cmp.Compare(a.node.self, b.node.self) })
		low, high := voters[0].node.cluster, voters[1].node.cluster
		want := func(when string, c, by *cluster, of endedQuestion, agrees bool) {
			t.Helper()
			with, err := json.Marshal(of)
			if err != nil {
				t.Fatal(err)
			}
			if is, err := c.answerEnded(t.Context(), clusterport.Hello{Node: string(by.self)}, with); err != nil || is != agrees {
				t.Errorf("%s: agrees %v, %v, want %v", when, is, err, agrees)
			}
		}
		for _, c := range []*cluster{low, high} {
			f, ok := c.replica.Following()
			if !ok {
				t.Fatal("it follows nobody")
			}
			by := low
			if c == low {
				by = high
			}
			of := endedQuestion{f.Leader, f.Term, c.replica.LastIndex()}
			want("it has found nothing", c, by, of, false)
			c.ended.found.Store(&f)
			want("equal logs", c, by, of, by == low)
			longer, shorter, term, other := of, of, of, of
			longer.Last++
			shorter.Last--
			term.Term--
			other.Leader = by.self
			want("a longer log", c, by, longer, true)
			want("a shorter log", c, by, shorter, false)
			want("of a term before", c, by, term, false)
			want("of another raft leader", c, by, other, false)
		}
		w.net.stop(leader.address, false)
		w.until("its heartbeats come again", time.Second, func() bool {
			return !low.replica.Misses(*low.ended.found.Load()) && !high.replica.Misses(*high.ended.found.Load())
		})
		if w.raftLeader() != leader {
			t.Fatal("it was replaced")
		}
		of := endedQuestion{leader.node.self, leader.node.replica.Term(), high.replica.LastIndex()}
		want("it hears it again", high, low, of, false)
		of.Last += 100
		want("it hears it again, a longer log", low, high, of, false)
	})
}
