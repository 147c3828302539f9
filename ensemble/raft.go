package ensemble

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
)

// startRaft starts Raft on the folder and the cluster port, and what drives
// them.
func (n *Node) startRaft() error {
	if err := n.checkRecovery(); err != nil {
		return err
	}
	if !n.dir.id().Settled {
		if err := n.dir.clear(n.dirLife); err != nil {
			return err
		}
	}
	if id := n.dir.id(); id.Cluster == "" && id.Join == "" && len(n.cfg.Join) == 0 {
		if err := n.foundCluster(); err != nil {
			return err
		}
	}
	if err := n.checkSpace(); err != nil {
		return err
	}
	store, err := logstore.Open(n.dir.raftPath(), logstore.Options{
		Format:       state.LogstoreVersion(uint64(n.dir.id().Format)),
		Thread:       n.dir.log,
		There:        n.dir.there,
		OnError:      func(err error) { n.failed(fmt.Errorf("disk: %w", err)) },
		BeforeCommit: n.cfg.beforeCommit,
		StallLimit:   n.cfg.stallLimit,
	})
	switch {
	case errors.Is(err, logstore.ErrVersion):
		return permanent("data folder: %w; install that version again", err)
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.store = store
	counter, bound, err := boundBy(store)
	if err != nil {
		return permanent("data folder: %w; %s", err, cureFolder)
	}
	n.counter.Store(counter)
	n.roster.Bind(bound)
	if err := n.replica.open(store); err != nil {
		return permanent("data folder: %w", err)
	}
	if err := n.checkState(); err != nil {
		return err
	}
	n.port, err = clusterport.New(clusterport.Config{
		Key:         n.cfg.Key,
		Self:        n.hello,
		Admit:       n.admit,
		Logger:      n.log,
		DialContext: n.cfg.dial,
		Refused: func(err *clusterport.RefusedError) {
			switch {
			case errors.Is(err, clusterport.ErrRemoved):
				go n.removed(err.Peer.String())
			case errors.Is(err, clusterport.ErrWrongCluster):
				go n.estranged(err.Peer)
			}
		},
	})
	if err != nil {
		return err
	}
	if n.cfg.createState != nil {
		n.replica.snapshots.create = n.cfg.createState
	}
	if err := n.replica.start(n.port.Raft(n.replica.addressToDial)); err != nil {
		return err
	}
	if id := n.dir.id(); id.Cluster != "" && !id.Settled {
		if err := n.found(); err != nil {
			n.endRaft()
			return err
		}
	}
	n.replica.run()
	n.serveOthers()
	n.running.Go(n.seekRaftLeader)
	n.running.Go(n.watchSpace)
	n.running.Go(n.watchFiles)
	n.running.Go(n.watchFolder)
	n.running.Go(n.run)
	n.running.Go(n.runProposer)
	n.running.Go(func() { n.dispatch.Run(n.done, n.allJoined) })
	switch id := n.dir.id(); {
	case id.Cluster == "" || id.Join != "":
		n.running.Go(n.enter)
	case id.Leaving:
		n.running.Go(n.stay)
	}
	return nil
}

// serveOthers has the cluster port answer other nodes.
func (n *Node) serveOthers() {
	n.port.Handle(clusterport.Forward, n.replica.acceptProposals)
	n.port.Handle(clusterport.Admin, n.answers(map[string]answerer{
		askView:    n.answerView,
		askAdd:     n.answerAdd,
		askLift:    n.answerLift,
		askRemove:  n.answerRemove,
		askLeave:   n.answerLeave,
		askCounter: n.answerCounter,
		askOrder:   n.answerOrder,
	}))
	n.port.Handle(clusterport.Join, n.answers(map[string]answerer{
		askCluster: n.invite,
		askAdd:     n.letIn,
		askLift:    n.passLift,
		askOrder:   n.passOrder,
	}))
	if n.cfg.Listener != nil {
		n.running.Go(func() {
			if err := n.port.Serve(n.cfg.Listener); !errors.Is(err, clusterport.ErrClosed) {
				n.failed(fmt.Errorf("cluster port: %w", err))
			}
		})
	}
}

// checkState makes sure that Raft's state is there if the folder says so. While a node
// waits to be added it may be there or not.
func (n *Node) checkState() error {
	if id := n.dir.id(); !id.Settled || id.Join != "" {
		return nil
	}
	switch isNew, err := n.replica.isNew(); {
	case err != nil:
		return permanent("data folder: %w; %s", err, cureFolder)
	case isNew:
		return permanent("%s is empty though this node has had state; %s", n.dir.raftPath(), cureFolder)
	}
	return nil
}

// endRaft ends Raft and the cluster port, and returns when the store is used no more.
func (n *Node) endRaft() error { return n.replica.end(n.port.Close) }

// roomForSnapshot refuses a snapshot if, with so many bytes, it would leave less than the node
// needs to go on: the log has all that would be in it.
func (n *Node) roomForSnapshot(bytes int64) error {
	free, err := n.cfg.freeSpace(n.dir.path)
	if err != nil || free >= n.cfg.MinimumFree+uint64(bytes) {
		return nil
	}
	return fmt.Errorf("only %d MiB are free in %s, which is too little for %d MiB of a snapshot beside the %d MiB of leader_latch.minimum_free_space; make room: without snapshots the log grows, until the node ends",
		free>>20, n.dir.path, bytes>>20, n.cfg.MinimumFree>>20)
}

// follow, lead and turned implement observer: a raft leader acts on stamps only when its own
// state machine has caught up with its log.
func (n *Node) follow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.roster.Follow()
}

func (n *Node) lead(still func() bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if still() {
		n.roster.Lead(n.now())
		signal(n.wake)
	}
}

func (n *Node) turned(state.NodeID) { signal(n.wakeProposer) }

// hello is how the node introduces itself to others.
func (n *Node) hello() clusterport.Hello {
	id := n.dir.id()
	return clusterport.Hello{
		Cluster: id.Cluster, Node: string(id.Node), Name: n.cfg.Name, Address: n.cfg.Address,
		// At its start the state may be older than what the folder says.
		Formats: clusterport.Formats{Oldest: state.FirstLevel, Newest: state.NewestLevel, Writes: max(int(n.level.Load()), id.Format)},
	}
}

// admit decides whether a node of this cluster may connect. A node whose log is
// behind does not know the newest members, and one of those may be the raft
// leader that could bring it up to date: while it follows nobody, it lets in all
// but those that it knows to be removed.
func (n *Node) admit(peer clusterport.Hello, p clusterport.Purpose) error {
	if p == clusterport.Join {
		return nil
	}
	id := state.NodeID(peer.Node)
	n.replica.meet(peer)
	var known state.NodeRecord
	n.replica.read(func(s *state.State) { known, _ = s.Node(id) })
	_, member := n.replica.server(id)
	leader := n.replica.leader()
	switch {
	case known.Removed:
		return clusterport.ErrRemoved
	case p == clusterport.Raft && n.replica.yields.Load():
		return errYields
	case !member && leader != "" && leader != id:
		return clusterport.ErrUnknownNode
	}
	return nil
}

// yield has a raft leader whose disk hangs step aside, early enough for the others
// to elect another one before their leases end. Raft would not: it goes on sending
// heartbeats while it cannot store an entry. If the disk comes back, so does the
// node, as a follower; if not, the store ends it.
func (n *Node) yield() {
	hangs := n.store.Busy() > n.cfg.Timing.Lease/3
	switch {
	case !hangs && n.replica.yields.Load():
		n.replica.yields.Store(false)
		n.log.Info("the disk answers again")
	case hangs && !n.replica.yields.Load() && n.replica.leads.Load() != 0:
		n.replica.yields.Store(true)
		n.log.Warn("the disk hangs: no raft leader until it answers", "for", n.store.Busy())
		n.port.ClosePurpose(clusterport.Raft)
	}
}

// dropped ends all dealings with a node that was removed.
func (n *Node) dropped(id state.NodeID) {
	if id == n.self {
		n.removed("its own log")
		return
	}
	n.replica.drop(id)
	n.port.CloseNode(string(id))
}

// dialMember opens a connection for proposals.
func (n *Node) dialMember(ctx context.Context, to state.NodeID) (net.Conn, error) {
	s, ok := n.replica.server(to)
	if !ok {
		return nil, fmt.Errorf("%s is not a member", n.replica.nameOf(to))
	}
	c, _, err := n.port.Dial(ctx, clusterport.Forward, n.replica.addressOf(s), string(to))
	return c, err
}

// seekRaftLeader asks the other members who leads while this node does not know:
// it may have moved, so that the raft leader looks for it at an old address; and
// it may have been removed, which only the others can tell. Those of
// leader_latch.join are asked too, so that nodes meet that have all moved.
func (n *Node) seekRaftLeader() {
	every := max(2*n.cfg.Timing.Heartbeat, 500*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	alone := 0 // for how many ticks it has known none
	for {
		select {
		case <-n.done:
			return
		case <-tick.C:
		}
		if n.replica.leader() != "" || len(n.replica.others()) == 0 {
			alone = 0
			continue
		}
		alone++
		if alone < 2 {
			continue
		}
		answering := 0
		ctx, cancel := context.WithTimeout(n.life, viewTime)
		for id, v := range n.views(ctx) {
			if id != n.self {
				answering++
			}
			if v.Leader != "" && v.Leader != n.self {
				n.replica.hint.Store(&hint{v.Leader, time.Now()})
				signal(n.wakeProposer)
			}
		}
		cancel()
		for _, p := range n.cfg.Join { // where all have moved, these are where they are now
			ctx, cancel := context.WithTimeout(n.life, viewTime)
			n.inquire(ctx, p)
			cancel()
		}
		if alone == 2 {
			n.log.Warn("no raft leader: without a majority of the nodes nobody is elected", "others_answering", answering, "others", len(n.replica.others()))
		}
	}
}
