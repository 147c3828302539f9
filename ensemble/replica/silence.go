package replica

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Raft looks whether the raft leader is silent at random moments, one to two timeouts
// apart, so that a follower misses it after 1.8 timeouts on average; and of three nodes
// both others have to miss it before one of them is elected. So a node has Raft look
// when the silence has lasted a timeout, and up to a quarter of it more, by chance: those
// that heard the raft leader last at the same moment would share the votes.

// stalled is how late a node may come to look, beyond which it takes itself for the one
// that stood still, and first lets Raft read what has arrived meanwhile.
const stalled = 50 * time.Millisecond

// watchSilence has Raft miss a silent raft leader in time.
func (r *Replica) watchSilence() {
	timeout := r.cfg.Heartbeat
	patience := func() time.Duration { return timeout + rand.N(timeout/4) }
	limit := patience()
	for look := time.Now().Add(limit); ; {
		select {
		case <-r.done:
			return
		case <-time.After(time.Until(look)):
		}
		_, leader := r.raft.LeaderWithID()
		missing := r.raft.LastContact().Add(limit)
		switch now := time.Now(); {
		case leader == "" || r.raft.State() != raft.Follower:
			look = now.Add(timeout)
		case now.Before(missing):
			look = missing
		case now.Sub(look) > stalled:
			look = now.Add(stalled / 2)
		default:
			r.missRaftLeader()
			limit = patience()
			look = now.Add(timeout)
		}
	}
}

// missRaftLeader has Raft look at once whether its raft leader is silent: it does when the
// timeout gets shorter, and a nanosecond suffices.
func (r *Replica) missRaftLeader() {
	r.reloadRaft(func(c *raft.ReloadableConfig) { c.HeartbeatTimeout-- })
}

// StandAlone has a node that is the only voter stand for election at once. It may at any
// time, and there is nobody whose heartbeats it could wait for.
func (r *Replica) StandAlone() {
	voters := slices.DeleteFunc(r.Servers(), func(s Server) bool { return !s.Voter })
	if len(voters) == 1 && voters[0].ID == r.self {
		r.missRaftLeader()
	}
}
