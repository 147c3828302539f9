package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
)

// joinTimeout is the default of leader_latch.join_timeout.
func joinTimeout() time.Duration {
	if clusterTiming == session.Calm {
		return 6 * time.Second
	}
	return 3 * time.Second
}

// Many clients of the other nodes send JOIN around the moment in which the raft
// leader dies. Those that stay get one answer, in time, and it is true; those that
// go at once leave no member.
func TestAJoinIsAnsweredOnceWhileTheRaftLeaderDies(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	for round := range 3 {
		seed := time.Now().UnixNano()
		rnd := rand.New(rand.NewPCG(uint64(seed), 0))
		leader, rest := raftLeader(t, all)
		type client struct {
			*conn
			name   string
			at     time.Duration // when it sends its JOIN
			goes   bool
			answer string
			took   time.Duration
			err    error
		}
		var clients []*client
		for i := range 90 {
			clients = append(clients, &client{
				conn: rest[i%2].dial(), name: fmt.Sprintf("c-%d-%d", round, i),
				at: time.Duration(rnd.Int64N(int64(600 * time.Millisecond))), goes: i%3 == 0,
			})
		}
		var running sync.WaitGroup
		began := time.Now()
		for _, c := range clients {
			running.Go(func() {
				time.Sleep(c.at - time.Since(began)) // clients come when they come
				sent := time.Now()
				c.SetDeadline(sent.Add(patience))
				if _, c.err = fmt.Fprintf(c, "JOIN %s %s\n", c.name, c.name); c.err != nil {
					return
				}
				if c.goes {
					c.err = c.Close()
					return
				}
				c.answer, c.err = c.r.ReadString('\n')
				c.took = time.Since(sent)
			})
		}
		time.Sleep(300*time.Millisecond - time.Since(began))
		leader.kill()
		running.Wait()

		var members []string
		var times []time.Duration
		for _, c := range clients {
			switch {
			case c.err != nil:
				t.Fatalf("seed %d: %s: %v", seed, c.name, c.err)
			case c.goes:
				continue
			case c.answer == "LEADER "+c.name+"\n":
				members = append(members, c.name)
				c.wantSilence()
			case c.answer == "JOIN_FAILED SERVICE_UNAVAILABLE\n":
				c.wantEnd()
			default:
				t.Errorf("seed %d: %s was answered %q", seed, c.name, c.answer)
			}
			times = append(times, c.took)
			if c.took > joinTimeout()+slack(time.Since(began)) {
				t.Errorf("seed %d: %s was answered after %v", seed, c.name, c.took)
			}
		}
		slices.Sort(times)
		t.Logf("JOINs while the raft leader dies: %d of %d admitted, answered after %v p50, %v at most; bound %v",
			len(members), len(times), times[len(times)/2], times[len(times)-1], joinTimeout())
		if len(members) == 0 {
			t.Errorf("seed %d: nobody was admitted", seed)
		}
		leader.run()
		wantWhole(all)
		slices.Sort(members)
		for _, m := range all {
			m.until("only those are members that were told so", func() bool {
				var have []string
				for _, g := range m.groups() {
					have = append(have, g.Name)
				}
				return slices.Equal(have, members)
			})
		}
		for _, c := range clients {
			c.Close()
		}
		all[0].settled()
	}
}

// Rule 11: a client whose node died finds its own old entry in its place. It waits
// for that to expire, and is then admitted.
func TestAClientOfADeadNodeComesBackUnderItsName(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, "leader_latch.join_timeout = 60s") // not what is tested, on whatever machine
	victim, rest := raftLeader(t, all)
	alone := victim.join("alone", "x", "x")
	first, second := victim.join("g", "first", "first"), rest[1].join("g", "second", "first")
	probed := victim.probe()
	victim.kill()
	alone.wantGone()
	first.wantGone()
	alone, first = rest[0].dial(), rest[1].dial()
	sent := time.Now()
	alone.send("JOIN alone x\n")
	first.send("JOIN g first\n")
	alone.want("LEADER x")
	told := time.Now()
	tm := clusterTiming
	if earliest := time.Duration(float64(tm.Expiry-tm.Renew) * (1 - session.Rho)); told.Sub(probed) < earliest {
		t.Errorf("admitted %v after a JOIN succeeded at the old node, before %v", told.Sub(probed), earliest)
	}
	t.Logf("the client of a dead raft leader's node that came back waited %v; default join_timeout %v", told.Sub(sent), joinTimeout())
	second.want("LEADER second")
	first.want("LEADER second")
	for _, c := range []*conn{alone, first, second} {
		c.wantSilence()
	}
}

// Rule 11: of two live clients of one name on two nodes the second waits, and
// disturbs nobody. It is refused when its time is up, and admitted when the first
// one goes before.
func TestTwoNamesakesNeverBothLead(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	first := all[0].join("g", "x", "x")
	other := all[2].join("g", "y", "x")

	late := all[1].dial()
	sent := time.Now()
	late.send("JOIN g x\n")
	all[1].until("the second one waits", func() bool {
		g := all[1].group("g")
		return len(g.Waiting) == 1 && g.Waiting[0] == ensemble.Waiting{Client: "x", Holder: all[0].name}
	})
	late.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	took := time.Since(sent)
	late.wantEnd()
	t.Logf("the second of one name was refused after %v; join_timeout %v", took, joinTimeout())
	if took < joinTimeout() || took > joinTimeout()+slack(took) {
		t.Errorf("refused after %v, want %v", took, joinTimeout())
	}
	first.wantSilence()
	other.wantSilence()
	all[1].until("it waits no longer", func() bool {
		g := all[1].group("g")
		return len(g.Members) == 2 && len(g.Waiting) == 0
	})

	late = all[1].dial()
	late.send("JOIN g x\n")
	all[1].until("it waits again", func() bool { return len(all[1].group("g").Waiting) == 1 })
	first.Close()
	other.want("LEADER y")
	late.want("LEADER y")
	late.wantSilence()
	other.Close()
	late.want("LEADER x")
}
