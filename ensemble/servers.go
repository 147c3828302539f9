package ensemble

import (
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// server is a member of the cluster. Raft's configuration is the list of them,
// and has their names too: it is there before a node's first session, and on a
// node that has nothing else yet.
type server struct {
	id      state.NodeID
	name    string // riak@host
	address string // of its cluster port, host:port
	voter   bool
}

// raftAddress is what Raft's configuration has for an address: the node's name
// and where its cluster port is reached. Raft itself dials by id.
func raftAddress(name, address string) raft.ServerAddress {
	return raft.ServerAddress(name + " " + address)
}

func splitRaftAddress(a raft.ServerAddress) (name, address string) {
	name, address, _ = strings.Cut(string(a), " ")
	return name, address
}

// servers gives the members of the cluster in order of their ids, by the newest
// configuration in this node's log. It may be called from any goroutine.
func (n *Node) servers() []server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var all []server
	for _, s := range f.Configuration().Servers {
		name, address := splitRaftAddress(s.Address)
		all = append(all, server{state.NodeID(s.ID), name, address, s.Suffrage == raft.Voter})
	}
	slices.SortFunc(all, func(a, b server) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}

// server gives a member by its id.
func (n *Node) server(id state.NodeID) (server, bool) {
	all := n.servers()
	i := slices.IndexFunc(all, func(s server) bool { return s.id == id })
	if i < 0 {
		return server{}, false
	}
	return all[i], true
}

// addressOf is where to dial a member: where it said that it is when it last
// talked to this node, else where the configuration says. So nodes find each other
// again though all have moved.
func (n *Node) addressOf(s server) string {
	if a, ok := n.met.Load(s.id); ok {
		return a.(string)
	}
	return s.address
}

// meet notes where a node says that it is, and its name.
func (n *Node) meet(peer clusterport.Hello) {
	id := state.NodeID(peer.Node)
	if peer.Name != "" {
		n.heardAs.Store(id, peer.Name)
	}
	if s, member := n.server(id); member && peer.Address != "" && id != n.self {
		if s.address == peer.Address {
			n.met.Delete(id)
		} else {
			n.met.Store(id, peer.Address)
		}
	}
}

// others gives the members but this node.
func (n *Node) others() []server {
	return slices.DeleteFunc(n.servers(), func(s server) bool { return s.id == n.self })
}

// size is how many nodes count for leader_latch.minimum_nodes: those that vote,
// and where as many vote as may, those that follow too. A node that is still
// catching up does not count.
func (n *Node) size() int {
	all := n.servers()
	voters := 0
	for _, s := range all {
		if s.voter {
			voters++
		}
	}
	if voters >= n.cfg.Voters {
		return len(all)
	}
	return voters
}
