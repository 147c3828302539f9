package main

import (
	"os"
	"strings"
	"testing"

	"leaderlatch/ensemble"
)

// Riak's report on a cluster of one node is the one that Riak itself gave.
func TestRiaksReportOnOneNode(t *testing.T) {
	alone := ensemble.ClusterMember{Name: "dev1@127.0.0.1", ID: "1", Up: true, Voter: true, RaftLeader: true, Role: "leading", Term: 7, Follows: true, Serving: true, Agrees: true}
	r := riakReport(ensemble.Cluster{Active: true, Majority: true, Members: []ensemble.ClusterMember{alone}})
	var b strings.Builder
	if err := r.Summary(&b); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../testdata/ensemble-status/active-one-node.txt")
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("\n got %s\nwant %s", b.String(), want)
	}
	b.Reset()
	if err := r.Detail(&b, "root"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "  1     leading     yes             7            dev1@127.0.0.1\n") {
		t.Errorf("detail:\n%s", b.String())
	}
}

// A cluster with a node that is down, one that only follows, and one that knows other members.
func TestRiaksReportOnThree(t *testing.T) {
	member := func(name string, change func(*ensemble.ClusterMember)) ensemble.ClusterMember {
		m := ensemble.ClusterMember{Name: name, ID: name, Up: true, Voter: true, Role: "following", Term: 3, Follows: true, Agrees: true}
		change(&m)
		return m
	}
	c := ensemble.Cluster{Active: true, Majority: true, Members: []ensemble.ClusterMember{
		member("c", func(m *ensemble.ClusterMember) { m.Up, m.Follows, m.Agrees = false, false, false }),
		member("b", func(m *ensemble.ClusterMember) { m.RaftLeader, m.Role, m.Serving = true, "leading", true }),
		member("d", func(m *ensemble.ClusterMember) { m.Voter, m.Follows, m.Agrees = false, false, false }),
		member("a", func(*ensemble.ClusterMember) {}),
	}}
	r := riakReport(c)
	if got := strings.Join(r.ReadyMembers, " ") + ", " + strings.Join(r.OnlineNodes, " "); got != "a b c d, a b d" {
		t.Errorf("members, and those that are online: %s", got)
	}
	root := r.Ensembles[0]
	if r.RingReady || root.Ping.Leader == nil || root.Ping.Leader.Node != "b" || !root.Ping.Ready || len(root.Ping.Replied) != 2 || len(root.PeerInfo) != 3 || !root.PeerInfo[2].Info.Down {
		t.Errorf("ring ready %v, ensemble %+v", r.RingReady, root)
	}
	c.Majority = false
	c.Members[1].RaftLeader = false
	if root := riakReport(c).Ensembles[0]; root.Ping.Leader != nil || !root.Ping.Timeout {
		t.Errorf("without a majority %+v", root.Ping)
	}
}
