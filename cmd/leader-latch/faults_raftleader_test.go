//go:build faults

package main

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
// dies meanwhile are replaced all the same: so in every second of these another one dies.
func (a *attacker) raftLeaderFaults() []fault {
	return []fault{
		{"starved raft leader", func(r *rand.Rand) (func(), string) {
			n := a.raftLeader()
			if n == nil {
				return nil, ""
			}
			fed := starve(n, 110*time.Millisecond, 15*time.Millisecond)
			back, what := a.perhapsKill(r, n)
			return func() { fed(); back() }, fmt.Sprintf("node %d%s", n.n, what)
		}, 6 * time.Second},
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
			back, what := a.perhapsKill(r, n)
			return func() { heal(); back() }, fmt.Sprintf("node %d%s", n.n, what)
		}, 6 * time.Second},
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

// perhapsKill kills another node, every second time, which stays down until back is called.
func (a *attacker) perhapsKill(r *rand.Rand, but *node) (back func(), what string) {
	n := a.nodes[r.IntN(len(a.nodes))]
	if n == but || r.IntN(2) == 0 {
		return func() {}, ""
	}
	back = n.hold()
	n.signal(syscall.SIGKILL)
	return back, fmt.Sprintf(", and node %d is killed", n.n)
}
