package status

import (
	"fmt"
	"slices"
)

// views are those of the ensemble, and one empty view if it has none, so that
// it still gets its line.
func (e *Ensemble) views() [][]Peer {
	if len(e.Views) == 0 {
		return [][]Peer{nil}
	}
	return e.Views
}

// numbered returns the peers in the order of their numbers, which begin with 1:
// view by view, each view sorted; a peer keeps its first number.
func (e *Ensemble) numbered() []Peer {
	var all []Peer
	seen := make(map[Peer]bool)
	for _, v := range e.Views {
		for _, p := range slices.SortedFunc(slices.Values(v), comparePeers) {
			if !seen[p] {
				seen[p] = true
				all = append(all, p)
			}
		}
	}
	return all
}

// leader is the leader's node, with the number of the peer if several peers are
// on that node, and -- if there is no leader. Of a leader that is in no view,
// where Riak crashes, it is the plain node.
func (e *Ensemble) leader() string {
	if e.Ping.Leader == nil {
		return "--"
	}
	leader := *e.Ping.Leader
	number, onNode := 0, 0
	for i, p := range e.numbered() {
		if p == leader {
			number = i + 1
		}
		if p.Node == leader.Node {
			onNode++
		}
	}
	if number > 0 && onNode > 1 {
		return fmt.Sprintf("%s (%d)", leader.Node, number)
	}
	return leader.Node
}

// info is what is known of p; nothing said is the same as unknown.
func (e *Ensemble) info(p Peer) Info {
	for _, i := range e.PeerInfo {
		if i.Peer == p {
			return i.Info
		}
	}
	return Info{}
}
