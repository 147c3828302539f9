package ensemble

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/status"
)

// Status is Riak's report on the cluster as this node sees it. The ensemble
// of the service is root, its voters are the peers, Raft's term is the epoch.
// Enabled is true; whether elections are switched on is not the node's to know.
func (n *Node) Status() *status.Report {
	r := &status.Report{Enabled: true, Active: n.active.Load(), RingReady: true, TreeValidation: true}
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return r
	}
	_, leader := n.raft.LeaderWithID()
	names := n.names()
	root := status.Ensemble{ID: "root"}
	var view []status.Peer
	for _, s := range f.Configuration().Servers {
		id := NodeID(s.ID)
		name := names[id]
		if name == "" {
			name = string(s.Address) // has never opened a session
		}
		here := id == n.roster.session.node
		r.ReadyMembers = append(r.ReadyMembers, name)
		if here {
			r.OnlineNodes = append(r.OnlineNodes, name)
		}
		if s.Suffrage != raft.Voter {
			continue
		}
		peer := status.Peer{ID: "root", Node: name}
		view = append(view, peer)
		info := status.Info{Down: true}
		if here {
			info = status.Info{State: n.raftState(leader), Trusted: true, Epoch: strconv.FormatUint(n.raft.CurrentTerm(), 10)}
		}
		root.PeerInfo = append(root.PeerInfo, status.PeerInfo{Peer: peer, Info: info})
		if s.ID == leader {
			root.Ping.Leader = &peer
		}
		if here && s.ID == leader {
			root.Ping.Ready = n.serving()
			root.Ping.Replied = append(root.Ping.Replied, peer)
		}
	}
	root.Views = [][]status.Peer{view}
	if r.Active {
		r.Ensembles = []status.Ensemble{root}
	}
	return r
}

// raftState is the state of this node's peer in Riak's words.
func (n *Node) raftState(leader raft.ServerID) string {
	switch n.raft.State() {
	case raft.Leader:
		return "leading"
	case raft.Candidate:
		return "election"
	}
	if leader == "" {
		return "probe"
	}
	return "following"
}

// serving reports whether this node is the raft leader and caught up as such.
func (n *Node) serving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster.expirer.leading
}

// names gives the nodes' names by their ids.
func (n *Node) names() map[NodeID]string {
	names := map[NodeID]string{}
	n.fsm.read(func(s *State) {
		for id, node := range s.nodes {
			names[id] = node.name
		}
	})
	names[n.roster.session.node] = n.cfg.Name
	return names
}

// Group is a group of clients that elects a leader.
type Group struct {
	Name    string        `json:"group"`
	Leader  string        `json:"leader"` // empty: only waiting clients are known
	Token   uint64        `json:"token"`  // rises with every change of the leader
	Since   time.Time     `json:"since"`  // when the leader became it, by the clock of the node that proposed it
	Members []GroupMember `json:"members"`
	Waiting []Waiting     `json:"waiting,omitempty"`
}

// GroupMember is a member of a group, in order of succession.
type GroupMember struct {
	Client string    `json:"client"`
	Node   string    `json:"node"`
	Since  time.Time `json:"since"`
}

// Waiting is a client of this node that has asked to join under a name that a
// member has.
type Waiting struct {
	Client string `json:"client"`
	Holder string `json:"held_through"` // the node of the member that has the name
}

// Groups gives the groups in order of their names: all, or the one named.
func (n *Node) Groups(only string) []Group {
	names := n.names()
	byName := map[string]*Group{}
	n.fsm.read(func(s *State) {
		for name, g := range s.groups {
			if only != "" && name != only {
				continue
			}
			out := &Group{Name: name, Leader: g.first.client, Token: g.token, Since: time.UnixMilli(g.since)}
			for m := g.first; m != nil; m = m.next {
				node := s.sessions[m.id.Incarnation].node.id
				out.Members = append(out.Members, GroupMember{m.client, names[node], time.UnixMilli(m.since)})
			}
			byName[name] = out
		}
	})
	n.mu.Lock()
	for key, waiting := range n.roster.held {
		if only != "" && key.group != only {
			continue
		}
		if byName[key.group] == nil {
			byName[key.group] = &Group{Name: key.group, Members: []GroupMember{}}
		}
		g := byName[key.group]
		for _, m := range waiting {
			g.Waiting = append(g.Waiting, Waiting{m.client, m.holder})
		}
	}
	n.mu.Unlock()
	all := make([]Group, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}
