//go:build faults

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"leaderlatch/ensemble"
)

// What slows the raft leader down. It stays the raft leader, and the members of a node that
// dies meanwhile are replaced all the same: so another one dies, and the slowness lasts longer
// than the bound of that.
func (a *attacker) raftLeaderFaults() []fault {
	return []fault{
		{"starved raft leader", func(r *rand.Rand) (func(), string) {
			n := a.raftLeader()
			if n == nil {
				return nil, ""
			}
			fed := starve(n, 110*time.Millisecond, 15*time.Millisecond)
			back, what := a.killAnother(r, n)
			return a.pastTheBound("starved raft leader", func() { fed(); back() }), fmt.Sprintf("node %d, and %s", n.n, what)
		}, time.Second},
		{"slow disk at the raft leader", func(r *rand.Rand) (func(), string) {
			n := a.raftLeader()
			if n == nil {
				return nil, ""
			}
			heal, err := n.slowDisk(50 * time.Millisecond)
			if errors.Is(err, errNoSlowDisk) {
				return nil, ""
			}
			if err != nil {
				a.t.Error(err)
				return nil, ""
			}
			back, what := a.killAnother(r, n)
			return a.pastTheBound("slow disk at the raft leader", func() { heal(); back() }), fmt.Sprintf("node %d, and %s", n.n, what)
		}, time.Second},
	}
}

// What a firewall does to a raft leader that lives: it refuses its port, and resets its
// connections again and again.
func (a *attacker) firewallFaults() []fault {
	begin := func(refuses, resets bool) func(r *rand.Rand) (func(), string) {
		return func(r *rand.Rand) (func(), string) {
			n := a.raftLeader()
			if n == nil {
				return nil, ""
			}
			others := slices.DeleteFunc(slices.Clone(a.hosts), func(h *host) bool { return h == n.host })
			heals := []func(){}
			if refuses {
				r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
				heals = append(heals, n.host.refuse(others[:1+r.IntN(len(others))]))
			}
			if resets {
				heals = append(heals, n.host.resetAgain(others, 100*time.Millisecond, time.Duration(r.Int64N(int64(time.Second)))))
			}
			return func() {
				for _, heal := range heals {
					heal()
				}
			}, fmt.Sprintf("node %d", n.n)
		}
	}
	return []fault{
		{"refused raft leader", begin(true, false), 4 * time.Second},
		{"reset raft leader", begin(false, true), 4 * time.Second},
		{"refused and reset raft leader", begin(true, true), 4 * time.Second},
	}
}

// raftLeader is the one that most nodes follow that answer at once; nil: there is none.
func (a *attacker) raftLeader() *node {
	for _, n := range a.nodes {
		var c ensemble.Cluster
		if n.askWithin(time.Second, "/cluster", &c) != nil || !c.Majority {
			continue
		}
		for _, m := range c.Members {
			if i := slices.IndexFunc(a.nodes, func(n *node) bool { return n.name == m.Name }); m.RaftLeader && i >= 0 {
				return a.nodes[i]
			}
		}
	}
	return nil
}

// killAnother kills another node, which stays down until back is called.
func (a *attacker) killAnother(r *rand.Rand, but *node) (back func(), what string) {
	others := slices.DeleteFunc(slices.Clone(a.nodes), func(n *node) bool { return n == but })
	n := others[r.IntN(len(others))]
	back = n.hold()
	n.signal(syscall.SIGKILL)
	return back, fmt.Sprintf("node %d is killed", n.n)
}

// pastTheBound has a fault that begins now end when its bound has passed for certain, with what
// a loaded machine may add: so nodes that replace nobody while it lasts are found.
func (a *attacker) pastTheBound(kind string, end func()) func() {
	over := time.After(bounds[kind] + margin + 2*time.Second)
	return func() {
		<-over
		end()
	}
}
