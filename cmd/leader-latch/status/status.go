// Package status holds Riak's report on its ensembles: the state that
// ensemble-status asks a node for, and the two texts that are printed from it.
//
// A node fills in a [Report] and sends it as JSON over the admin socket; the
// command prints it with [Report.Summary] (no argument) or [Report.Detail]
// (root, or the number of an ensemble). Both print byte for byte what Riak
// 2.1.1 prints for the same state; the cases in testdata/ensemble-status are
// Riak's own output. Where Riak crashes (a leader that is in no view) or could
// not get into the state at all (no view, no word on a peer), the report says
// what it knows and leaves out the rest; no Report makes it panic.
//
// The words are Riak's: a peer is one voter of an ensemble, a view is the set
// of its peers, and while the membership changes there is more than one.
package status

// A Report is the state of the whole cluster as one node sees it.
type Report struct {
	// Enabled is the setting strong_consistency. If it is off, no ensemble is
	// printed, whatever Ensembles says.
	Enabled bool `json:"enabled"`
	// Active is whether the cluster has reached its minimum of nodes once.
	Active bool `json:"active"`
	// RingReady is whether all nodes agree on who the members are.
	RingReady bool `json:"ring_ready"`

	TreeValidation         bool `json:"tree_validation"`          // true, unless a node trusts its data unchecked
	SynchronousTreeUpdates bool `json:"synchronous_tree_updates"` // false, unless metadata is written before the answer

	ReadyMembers []string `json:"ready_members"` // names of the cluster's nodes, up or not
	OnlineNodes  []string `json:"online_nodes"`  // names of the nodes that this one reaches, itself included

	Ensembles []Ensemble `json:"ensembles"` // in any order
}

// An Ensemble is a group of peers that elect a leader among themselves. The
// one with the id "root" is the cluster's own.
type Ensemble struct {
	ID       string     `json:"id"`
	Views    [][]Peer   `json:"views"` // newest first; more than one during a change of membership
	Ping     Ping       `json:"ping"`
	PeerInfo []PeerInfo `json:"peer_info"`
}

// A Peer is one voter of an ensemble, on one node.
type Peer struct {
	ID   string `json:"peer"`
	Node string `json:"node"`
}

// A Ping is the answer of an ensemble's leader to the question who of its
// peers is with it. The zero Ping is an answer that knows of no leader.
type Ping struct {
	Timeout bool   // no answer came within 10 s; the rest is zero
	Leader  *Peer  // nil: none
	Ready   bool   // the leader serves
	Replied []Peer // the peers that answered the leader
}

// A PeerInfo is what a peer's node says of that peer.
type PeerInfo struct {
	Peer
	Info Info `json:"info"`
}

// An Info is the state of a peer. The zero Info is that of a peer that its
// node does not know.
type Info struct {
	Down    bool   // the peer's node cannot be reached; the rest is zero
	State   string // Riak's name: leading, following, probe, election, ...
	Trusted bool   // its data have been checked
	Epoch   string // decimal; a string, since Riak's may have any length
}
