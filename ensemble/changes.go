package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
)

// Changes of who is a member and who votes. They are the raft leader's to make,
// one at a time, and change Raft's configuration only: the session of a node
// that goes ends by itself or by Expire (DESIGN.md, rule 4).

// applicant is a node that wants to be added.
type applicant struct {
	Node    NodeID `json:"node"`
	Name    string `json:"name"`
	Address string `json:"address"`
}

// removal names a node that is to be removed.
type removal struct {
	Node NodeID `json:"node"`
}

// changeTime bounds the wait for one change to be committed.
const changeTime = 5 * time.Second

// letIn answers askAdd of a node outside the cluster: the raft leader adds it.
func (n *Node) letIn(ctx context.Context, peer clusterport.Hello, _ json.RawMessage) (any, error) {
	id := n.dir.id()
	if id.Cluster != peer.Cluster || id.Cluster == "" || id.Join != "" {
		return nil, later("%s is not of the cluster that is asked for", n.cfg.Name)
	}
	a := applicant{NodeID(peer.Node), peer.Name, peer.Address}
	return nil, n.askLeader(ctx, askAdd, a, func(context.Context) error { return n.add(a) })
}

// answerAdd, answerRemove and answerLeave answer members.
func (n *Node) answerAdd(_ context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var a applicant
	if err := json.Unmarshal(with, &a); err != nil {
		return nil, err
	}
	return nil, n.add(a)
}

func (n *Node) answerRemove(_ context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var r removal
	if err := json.Unmarshal(with, &r); err != nil {
		return nil, err
	}
	return nil, n.remove(r)
}

func (n *Node) answerLeave(ctx context.Context, _ clusterport.Hello, _ json.RawMessage) (any, error) {
	return nil, n.leave(ctx)
}

// add makes a node a member that does not vote yet. Asked again, it does
// nothing. A member of the same name is replaced if its session is over: it was
// a machine whose folder is lost.
func (n *Node) add(a applicant) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if !n.serving() {
		return later("%s is not the raft leader any more", n.cfg.Name)
	}
	var removed bool
	live := map[NodeID]bool{}
	n.fsm.read(func(s *State) {
		if known := s.nodes[a.Node]; known != nil {
			removed = known.removed
		}
		for id, node := range s.nodes {
			live[id] = node.session != nil
		}
	})
	if removed {
		return fmt.Errorf("%s was removed from this cluster; move its data folder away to let it join as a new node", a.Name)
	}
	suffrage := n.raft.AddNonvoter
	for _, s := range n.servers() {
		switch {
		case s.id == a.Node && s.name == a.Name && s.address == a.Address:
			return nil
		case s.id == a.Node:
			if s.voter {
				suffrage = n.raft.AddVoter // of what is there: its address changes
			}
		case s.name == a.Name && live[s.id]:
			return later("a live node has the name %s; give this one another nodename, or wait until that one is found dead", a.Name)
		case s.name == a.Name:
			n.log.Warn("a new node takes the place of one of the same name, which is dead", "name", a.Name, "node", a.Node, "old", s.id)
			if err := n.removeServer(s.id); err != nil {
				return err
			}
		}
	}
	if err := suffrage(raft.ServerID(a.Node), raftAddress(a.Name, a.Address), 0, changeTime).Error(); err != nil {
		return later("add %s: %w", a.Name, err)
	}
	n.log.Info("a node was added", "name", a.Name, "address", a.Address)
	return nil
}

// remove takes a member out. The raft leader does not remove itself: it hands
// over first, and the next one is asked.
func (n *Node) remove(r removal) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	switch _, member := n.server(r.Node); {
	case !n.serving():
		return later("%s is not the raft leader any more", n.cfg.Name)
	case !member:
		return nil
	case len(n.servers()) == 1:
		return fmt.Errorf("%s is the only member", n.cfg.Name)
	case r.Node == n.self:
		n.handOver()
		return later("%s is the raft leader and has not handed over yet", n.cfg.Name)
	}
	return n.removeServer(r.Node)
}

func (n *Node) removeServer(id NodeID) error {
	name := n.nameOf(id)
	if err := n.raft.RemoveServer(raft.ServerID(id), 0, changeTime).Error(); err != nil {
		return later("remove %s: %w", name, err)
	}
	// Should this one be lost, upkeep says it once more.
	n.propose([]Op{Remove{id}}).Error()
	n.log.Info("a node was removed", "node", name)
	return nil
}

// ForceRemove removes the node of a name from the cluster, dead or alive. Its
// session, if it has one, goes on until its own end or expiry; it is told that
// it was removed when it comes back, and stops for good.
func (n *Node) ForceRemove(ctx context.Context, name string) error {
	s, err := n.named(name)
	if err != nil {
		return err
	}
	if len(n.others()) == 0 {
		return fmt.Errorf("%s is the only member", name)
	}
	return n.askLeader(ctx, askRemove, removal{s.id}, func(context.Context) error { return n.remove(removal{s.id}) })
}

// named gives the member of a name.
func (n *Node) named(name string) (server, error) {
	all := n.servers()
	i := slices.IndexFunc(all, func(s server) bool { return s.name == name })
	if i < 0 {
		return server{}, fmt.Errorf("%s is not a member of the cluster", name)
	}
	return all[i], nil
}

// Leave has the node of a name leave the cluster in order; an empty name is this
// node's. When that is done it begins anew, alone; of this node [Node.Failed]
// tells so, with [ErrAnew].
func (n *Node) Leave(ctx context.Context, name string) error {
	if name == "" || name == n.cfg.Name {
		return n.leave(ctx)
	}
	s, err := n.named(name)
	if err != nil {
		return err
	}
	_, err = n.ask(ctx, clusterport.Admin, s.address, s.id, askLeave, nil, nil)
	if _, refused := errors.AsType[*refusal](err); err == nil || refused {
		return err
	}
	if _, member := n.server(s.id); !member {
		return nil // it has left, and its answer was lost with its life
	}
	return fmt.Errorf("%s cannot be asked to leave (%w); if it is dead: cluster force-remove %s", name, err, name)
}

// leave closes the connections and ends the session as a stop does, and only
// then has the node removed. Should the removal fail, the next life goes on as
// the member that it was.
func (n *Node) leave(ctx context.Context) error {
	switch id := n.dir.id(); {
	case id.Join != "" || id.Cluster == "":
		return n.beginAnew("") // it gives up asking to be let in
	case len(n.others()) == 0:
		return fmt.Errorf("%s is the only member", n.cfg.Name)
	}
	for patience := time.After(changeTime); n.raftLeader() == ""; {
		select {
		case <-time.After(askAnew):
		case <-patience:
			return fmt.Errorf("there is no raft leader: nobody can leave or join before a majority of the nodes is up")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := n.dir.change(func(id *identity) { id.Leaving = true }); err != nil {
		return err
	}
	err := n.retire(ctx)
	if err == nil {
		r := removal{n.self}
		err = n.askLeader(ctx, askRemove, r, func(context.Context) error { return n.remove(r) })
	}
	if err != nil {
		n.failed(ErrAnew)
		return err
	}
	n.log.Info("left the cluster")
	return n.beginAnew("")
}

// removed is called when others say that this node was removed.
func (n *Node) removed(by string) {
	if n.dir.id().Leaving {
		n.beginAnew("")
		return
	}
	n.failed(permanent("removed from the cluster, says %s; to use this machine again, move %s away and start it as a new node", by, n.dir.path))
}

// handOver has another voter that lives take raft leadership, and waits for
// that as long as an election may take.
func (n *Node) handOver() {
	if n.raft.State() != raft.Leader {
		return
	}
	live := n.live()
	for _, s := range n.others() {
		if s.voter && live[s.id] {
			if err := n.raft.LeadershipTransferToServer(raft.ServerID(s.id), raftAddress(s.name, s.address)).Error(); err == nil {
				return
			}
		}
	}
}

// live gives the nodes that have a session and have renewed it: they have
// applied the log as far as that.
func (n *Node) live() map[NodeID]bool {
	live := map[NodeID]bool{}
	n.fsm.read(func(s *State) {
		for id, node := range s.nodes {
			live[id] = node.session != nil && node.session.renewal > 0
		}
	})
	return live
}

// upkeepEvery is how often the raft leader looks whether the configuration is
// as it should be.
const upkeepEvery = 200 * time.Millisecond

// upkeep makes at most one change of the configuration that is due.
func (n *Node) upkeep(now reading) {
	n.changing.Lock()
	defer n.changing.Unlock()
	if !n.serving() {
		return
	}
	var nodes map[NodeID]known
	n.fsm.read(func(s *State) { nodes = knownNodes(s) })
	n.noteAway(nodes, now)
	c := nextChange(n.servers(), nodes, n.away(now), n.cfg.Voters)
	if c.what == nil {
		return
	}
	n.log.Info("changing the configuration", "node", cmp.Or(c.name, string(c.node)), "change", c.text)
	if err := c.what(n.raft); err != nil {
		n.log.Debug("the configuration was not changed", "error", err)
	}
	if c.forget {
		n.propose([]Op{Remove{c.node}}).Error()
	}
}

// known is what the state says of a node.
type known struct {
	name, address string
	live, removed bool
}

func knownNodes(s *State) map[NodeID]known {
	nodes := make(map[NodeID]known, len(s.nodes))
	for id, node := range s.nodes {
		nodes[id] = known{node.name, node.address, node.session != nil && node.session.renewal > 0, node.removed}
	}
	return nodes
}

// awayTime is how long a voter may have no session before one that follows
// takes its vote: a restart, and even a boot, is no reason.
const awayTime = 60 * time.Second

// noteAway keeps since when nodes have had no session. changing is held.
func (n *Node) noteAway(nodes map[NodeID]known, now reading) {
	maps.DeleteFunc(n.awaySince, func(id NodeID, _ reading) bool { return nodes[id].live })
	for _, s := range n.servers() {
		if _, noted := n.awaySince[s.id]; !noted && !nodes[s.id].live {
			n.awaySince[s.id] = now
		}
	}
}

func (n *Node) away(now reading) map[NodeID]bool {
	away := map[NodeID]bool{}
	for id, since := range n.awaySince {
		away[id] = now.atLeast(since) >= awayTime
	}
	return away
}

// change is one step towards the configuration that should be.
type change struct {
	text   string
	node   NodeID
	name   string
	forget bool // the state does not know yet that the node is gone
	what   func(*raft.Raft) error
}

// nextChange decides what the configuration needs next; no what: nothing. Nodes
// that live vote, up to a number of voters; a voter that stays away gives its
// vote to one that follows. A name or address that a node has announced in its
// last Open is taken over.
func nextChange(servers []server, nodes map[NodeID]known, away map[NodeID]bool, voters int) change {
	voting := 0
	var absent, follower *server
	names := map[string]int{}
	for i, s := range servers {
		names[s.name]++
		switch {
		case s.voter:
			voting++
			if away[s.id] && absent == nil {
				absent = &servers[i]
			}
		case nodes[s.id].live && follower == nil:
			follower = &servers[i]
		}
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		k := nodes[id]
		if !k.removed && !slices.ContainsFunc(servers, func(s server) bool { return s.id == id }) {
			return change{text: "it is no member any more", node: id, name: k.name, forget: true, what: func(*raft.Raft) error { return nil }}
		}
	}
	for _, s := range servers {
		k, ok := nodes[s.id]
		if !ok || k.name == "" || k.name == s.name && k.address == s.address || k.name != s.name && names[k.name] > 0 {
			continue
		}
		return change{text: "it is now " + k.name + " at " + k.address, node: s.id, name: s.name, what: func(r *raft.Raft) error {
			add := r.AddNonvoter
			if s.voter {
				add = r.AddVoter
			}
			return add(raft.ServerID(s.id), raftAddress(k.name, k.address), 0, changeTime).Error()
		}}
	}
	switch {
	case follower != nil && voting < voters:
		s := *follower
		return change{text: "it votes", node: s.id, name: s.name, what: func(r *raft.Raft) error {
			return r.AddVoter(raft.ServerID(s.id), raftAddress(s.name, s.address), 0, changeTime).Error()
		}}
	case follower != nil && absent != nil:
		s := *absent
		return change{text: "it does not vote any more, as it stays away", node: s.id, name: s.name, what: func(r *raft.Raft) error {
			return r.DemoteVoter(raft.ServerID(s.id), 0, changeTime).Error()
		}}
	}
	return change{}
}
