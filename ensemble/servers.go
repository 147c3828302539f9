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
func (r *replica) servers() []server {
	f := r.raft.GetConfiguration()
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
func (r *replica) server(id state.NodeID) (server, bool) {
	all := r.servers()
	i := slices.IndexFunc(all, func(s server) bool { return s.id == id })
	if i < 0 {
		return server{}, false
	}
	return all[i], true
}

// addressOf is where to dial a member: where it said that it is when it last
// talked to this node, else where the configuration says. So nodes find each other
// again though all have moved.
func (r *replica) addressOf(s server) string {
	if a, ok := r.met.Load(s.id); ok {
		return a.(string)
	}
	return s.address
}

// meet notes where a node says that it is, and its name.
func (r *replica) meet(peer clusterport.Hello) {
	id := state.NodeID(peer.Node)
	if peer.Name != "" {
		r.heardAs.Store(id, peer.Name)
	}
	if s, member := r.server(id); member && peer.Address != "" && id != r.self {
		if s.address == peer.Address {
			r.met.Delete(id)
		} else {
			r.met.Store(id, peer.Address)
		}
	}
}

// others gives the members but this node.
func (r *replica) others() []server {
	return slices.DeleteFunc(r.servers(), func(s server) bool { return s.id == r.self })
}
