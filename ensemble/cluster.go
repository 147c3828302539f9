package ensemble

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// cluster is a node's part in who the nodes of its cluster are: how it gets into one
// (entering.go) and out, what the raft leader changes (changes.go), what nodes ask each other
// (ask.go, views.go). It is safe for concurrent use.
type cluster struct {
	cfg     *Config
	log     *slog.Logger
	self    state.NodeID
	dir     *Dir
	dirLife int // by which dir may be changed
	replica *replica.Replica
	port    *clusterport.Port
	seen    *seen
	life    context.Context // of the node
	node    localNode

	changing   sync.Mutex                       // held by the raft leader over a change of the configuration; taken first
	awaySince  map[state.NodeID]session.Reading // guarded by changing: when a member was first seen without a session
	awayTerm   uint64                           // guarded by changing: Raft's, when awaySince was begun
	differ     *session.Reading                 // guarded by changing: since when sessions have different timings; nil: they have not
	toldDiffer bool                             // guarded by changing
	keepsUp    atomic.Bool                      // the configuration is being looked after

	handOvers handOvers
	waits     atomic.Pointer[string] // see waitsFor; nil: nothing

	anew      sync.Mutex // guards begunAnew
	begunAnew bool

	ended ended

	lifeID    string          // of the node from its start to its end
	born      session.Reading // when the node was started
	recovered sync.Once       // see recovering
}

// localNode is the node whose cluster it is.
type localNode interface {
	serving() bool                    // it is the raft leader, and caught up as such
	hasEntered() bool                 // it has had a session
	retire(ctx context.Context) error // closes all connections and ends the session
	failed(err error)                 // ends the node
	Failed() <-chan struct{}
	Err() error
	Missing() error // why a JOIN would not succeed

	// A leader at this node is to step down; see [session.Roster.StepDown].
	dismiss(leader state.MemberID, token uint64) (closing session.Connection, here, begins bool)
}

// seen is what holds for the whole cluster, as the node's state says.
type seen struct {
	founded atomic.Bool // the state has a cluster id
	active  atomic.Bool // elections have begun
	level   atomic.Uint64
}

// handle has the cluster port answer what other nodes ask.
func (c *cluster) handle() {
	c.port.Handle(clusterport.Admin, c.answers(map[string]answerer{
		askView:     c.answerView,
		askAdd:      c.answerAdd,
		askLift:     c.answerLift,
		askRemove:   c.answerRemove,
		askLeave:    c.answerLeave,
		askCounter:  c.answerCounter,
		askOrder:    c.answerOrder,
		askEnded:    c.answerEnded,
		askStepDown: c.answerStepDown,
	}))
	c.port.Handle(clusterport.Join, c.answers(map[string]answerer{
		askCluster: c.invite,
		askAdd:     c.letIn,
		askLift:    c.passLift,
		askOrder:   c.passOrder,
	}))
}

// hello is how the node introduces itself to others.
func (c *cluster) hello() clusterport.Hello {
	id := c.dir.id()
	return clusterport.Hello{
		Cluster: id.Cluster, Node: string(id.Node), Name: c.cfg.Name, Address: c.cfg.Address, Life: c.lifeID,
		// At its start the state may be older than what the folder says.
		Formats: clusterport.Formats{Oldest: state.FirstLevel, Newest: state.NewestLevel, Writes: max(int(c.seen.level.Load()), id.Format)},
	}
}

// admit decides whether a node of this cluster may connect. A node whose log is
// behind does not know the newest members, and one of those may be the raft
// leader that could bring it up to date: while it follows nobody, it lets in all
// but those that it knows to be removed.
func (c *cluster) admit(peer clusterport.Hello, p clusterport.Purpose) error {
	if p == clusterport.Join {
		return nil
	}
	id := state.NodeID(peer.Node)
	c.replica.Meet(peer)
	var known state.NodeRecord
	c.replica.Read(func(s *state.State) { known, _ = s.Node(id) })
	_, member := c.replica.Server(id)
	leader, yields := c.replica.RaftLeader(), c.replica.Yields()
	switch {
	case known.Removed:
		return clusterport.ErrRemoved
	case p == clusterport.Raft && yields != nil:
		return yields
	case !member && leader != "" && leader != id:
		return clusterport.ErrUnknownNode
	}
	return nil
}

// dropped ends all dealings with a node that was removed.
func (c *cluster) dropped(id state.NodeID) {
	if id == c.self {
		c.removed("its own log")
		return
	}
	c.replica.Drop(id)
	c.port.CloseNode(string(id))
}

// seekRaftLeader asks the other members who leads while this node does not know:
// it may have moved, so that the raft leader looks for it at an old address; and
// it may have been removed, which only the others can tell. Those of
// leader_latch.join are asked too, so that nodes meet that have all moved.
func (c *cluster) seekRaftLeader() {
	every := max(2*c.cfg.Timing.Heartbeat, 500*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	alone := 0 // for how many ticks it has known none
	for {
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
		}
		if c.replica.RaftLeader() != "" || len(c.replica.Others()) == 0 {
			alone = 0
			continue
		}
		alone++
		if alone < 2 {
			continue
		}
		answering := 0
		ctx, cancel := context.WithTimeout(c.life, viewTime)
		for id, v := range c.views(ctx) {
			if id != c.self {
				answering++
			}
			if v.Leader != "" && v.Leader != c.self {
				c.replica.HearOf(v.Leader)
			}
		}
		cancel()
		for _, p := range c.cfg.Join { // where all have moved, these are where they are now
			ctx, cancel := context.WithTimeout(c.life, viewTime)
			c.inquire(ctx, p)
			cancel()
		}
		if alone == 2 && c.node.Err() == nil { // a node that ends looks for none
			c.log.Warn("no raft leader: without a majority of the nodes nobody is elected", "others_answering", answering, "others", len(c.replica.Others()))
		}
	}
}
