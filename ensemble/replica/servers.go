package replica

import (
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// Server is a member of the cluster. Raft's configuration is the list of members. It
// has their names too, because it is there before a node's first session, and on a
// node that has nothing else yet.
type Server struct {
	ID      state.NodeID
	Name    string // riak@host
	Address string // of its cluster port, host:port
	Voter   bool
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

// Servers gives the members of the cluster in order of their ids, by the newest
// configuration in this node's log. It may be called from any goroutine.
func (r *Replica) Servers() []Server {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return serversOf(f.Configuration())
}

func serversOf(c raft.Configuration) (all []Server) {
	for _, s := range c.Servers {
		name, address := splitRaftAddress(s.Address)
		all = append(all, Server{state.NodeID(s.ID), name, address, s.Suffrage == raft.Voter})
	}
	slices.SortFunc(all, func(a, b Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}

// Server gives a member by its id.
func (r *Replica) Server(id state.NodeID) (Server, bool) {
	all := r.Servers()
	i := slices.IndexFunc(all, func(s Server) bool { return s.ID == id })
	if i < 0 {
		return Server{}, false
	}
	return all[i], true
}

// AddressOf is where to dial a member: where it said that it is when it last
// talked to this node, else where the configuration says. So nodes find each other
// again though all have moved.
func (r *Replica) AddressOf(s Server) string {
	if a, ok := r.met.Load(s.ID); ok {
		return a.(string)
	}
	return s.Address
}

// Meet notes where a node says that it is, and its name.
func (r *Replica) Meet(peer clusterport.Hello) {
	id := state.NodeID(peer.Node)
	if peer.Name != "" {
		r.heardAs.Store(id, peer.Name)
	}
	if s, member := r.Server(id); member && peer.Address != "" && id != r.self {
		if s.Address == peer.Address {
			r.met.Delete(id)
		} else {
			r.met.Store(id, peer.Address)
		}
	}
}

// Others gives the members but this node.
func (r *Replica) Others() []Server {
	return slices.DeleteFunc(r.Servers(), func(s Server) bool { return s.ID == r.self })
}
