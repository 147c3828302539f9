package replica

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// Raft looks at random moments, one to two timeouts apart, whether the raft leader is
// silent. So a follower misses the raft leader after 1.8 timeouts on average. Of three
// nodes both others have to miss it before one of them is elected. So a node has Raft look
// when the silence has lasted a timeout and, by chance, up to a quarter of it more. Without
// that chance, nodes that last heard the raft leader at the same moment would share the votes.

// stalled is how late a look of the node may be. After a later one the node takes itself for
// the one that stood still, and first lets Raft read what has arrived meanwhile.
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

// Following is a raft leader that this node follows, and since when it has heard nothing of it.
type Following struct {
	Leader state.NodeID
	Term   uint64
	since  time.Time
}

// Following gives whom this node follows as a voter, from now on; false: nobody.
func (r *Replica) Following() (f Following, ok bool) {
	select {
	case <-r.started:
	case <-r.done:
		return f, false
	}
	f = Following{r.RaftLeader(), r.raft.CurrentTerm(), time.Now()}
	self, member := r.Server(r.self)
	return f, member && self.Voter && f.Leader != "" && r.Misses(f)
}

// Misses reports whether this node still follows a raft leader, and has heard nothing of it.
func (r *Replica) Misses(f Following) bool {
	return r.raft.State() == raft.Follower && r.RaftLeader() == f.Leader && r.raft.CurrentTerm() == f.Term && !r.raft.LastContact().After(f.since)
}

// FollowsNobody reports whether this node knows of no raft leader, and of no later term than
// this one.
func (r *Replica) FollowsNobody(term uint64) bool {
	return r.raft.State() == raft.Follower && r.RaftLeader() == "" && r.raft.CurrentTerm() <= term
}

// Stand has Raft stand for election at once, as if the raft leader that is missed had asked for
// it: it asks for no pre-votes, and the others vote though they have not missed that one yet.
// false: it does not, as it misses none, or has to do with something else, by which it may
// follow another one.
func (r *Replica) Stand(f Following) bool {
	if !r.Misses(f) {
		return false
	}
	select {
	case r.transport.calls <- raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: make(chan raft.RPCResponse, 1),
	}:
		return true
	default:
		return false
	}
}
