package main

import (
	"testing"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/state"
	"leaderlatch/riakconf"
)

// The configuration knows the newest level, without knowing who writes it.
func TestTheNewestFormatLevelIsOne(t *testing.T) {
	if riakconf.NewestFormatLevel != state.NewestLevel {
		t.Errorf("riak.conf takes levels up to %d, the service writes up to %d", riakconf.NewestFormatLevel, state.NewestLevel)
	}
}

// What cluster status says of the formats, also of a node that runs an older version.
func TestFormatsText(t *testing.T) {
	members := []ensemble.ClusterMember{
		{Name: "a", Up: true, Reads: 2, Allows: 2},
		{Name: "b", Up: true, Reads: 2, Allows: 1},
		{Name: "c", Up: true, Reads: 1, Allows: 1},
		{Name: "d", Reads: 2, Allows: 2},
		{Name: "e", Up: true, Reads: 2},
	}
	for _, c := range []struct {
		cluster ensemble.Cluster
		want    string
	}{
		{ensemble.Cluster{Members: members}, "This node runs an older version, which does not say at which level the formats are."},
		{ensemble.Cluster{Level: 2, Newest: 2, Members: members}, "The formats have level 2, the newest: no node can go back to an older version."},
		{ensemble.Cluster{Level: 1, Newest: 2, Members: members, Holding: []string{"b", "c", "d", "e"}},
			"The formats have level 1 of 2: every node can still go back to a version that has level 1. That ends when all nodes are up, read level 2 and allow it; " +
				"not yet: b (leader_latch.format_level), c (older version), d (down), e (no session yet)."},
	} {
		if got := formatsText(c.cluster); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
