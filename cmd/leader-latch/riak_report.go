package main

import (
	"cmp"
	"slices"
	"strconv"

	"leaderlatch/cmd/leader-latch/status"
	"leaderlatch/ensemble"
)

// riakReport is Riak's report on the cluster. The ensemble of the service is root, its voters
// are the peers, Raft's term is the epoch. Without a majority it has no leader. Enabled is
// true; whether elections are switched on is not the cluster's to know.
func riakReport(c ensemble.Cluster) *status.Report {
	r := &status.Report{Enabled: true, Active: c.Active, RingReady: true, TreeValidation: true}
	root := status.Ensemble{ID: "root", Ping: status.Ping{Timeout: !c.Majority}}
	var peers []status.Peer
	for _, m := range slices.SortedFunc(slices.Values(c.Members), func(a, b ensemble.ClusterMember) int { return cmp.Compare(a.ID, b.ID) }) {
		r.ReadyMembers = append(r.ReadyMembers, m.Name)
		if m.Up {
			r.OnlineNodes = append(r.OnlineNodes, m.Name)
			r.RingReady = r.RingReady && m.Agrees
		}
		if !m.Voter {
			continue
		}
		peer := status.Peer{ID: "root", Node: m.Name}
		peers = append(peers, peer)
		info := status.Info{Down: true}
		if m.Up {
			info = status.Info{State: m.Role, Trusted: true, Epoch: strconv.FormatUint(m.Term, 10)}
		}
		root.PeerInfo = append(root.PeerInfo, status.PeerInfo{Peer: peer, Info: info})
		if m.RaftLeader {
			root.Ping.Leader, root.Ping.Ready = &peer, m.Serving
		}
		if m.Follows {
			root.Ping.Replied = append(root.Ping.Replied, peer)
		}
	}
	root.Views = [][]status.Peer{peers}
	if r.Active {
		r.Ensembles = []status.Ensemble{root}
	}
	return r
}
