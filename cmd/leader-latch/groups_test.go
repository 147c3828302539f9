package main

import (
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

// The role says who is keyed, and who is away. It stays one word, for who reads by columns.
func TestRolesOfKeyedMembers(t *testing.T) {
	at := time.Date(2026, 5, 4, 19, 7, 12, 0, time.Local)
	var out strings.Builder
	if err := printGroups(&out, []ensemble.Group{{Name: "g", Leader: "a", Token: 17, Since: at, Members: []ensemble.GroupMember{
		{Client: "a", Node: "riak@n1", Since: at, Keyed: true, Away: true},
		{Client: "b", Node: "riak@n2", Since: at, Keyed: true, Hold: 2000},
		{Client: "c", Node: "riak@n2", Since: at, Keyed: true, Away: true},
		{Client: "d", Node: "riak@n2", Since: at},
		{Client: "e", Node: "riak@n2", Since: at, Keyed: true, Held: 300},
	}}}); err != nil {
		t.Fatal(err)
	}
	const want = `GROUP  CLIENT  ROLE          NODE     SINCE                TOKEN
g      a       leader,away   riak@n1  2026-05-04 19:07:12  17
g      b       member,keyed  riak@n2  2026-05-04 19:07:12  
g      c       member,away   riak@n2  2026-05-04 19:07:12  
g      d       member        riak@n2  2026-05-04 19:07:12  
g      e       member,held   riak@n2  2026-05-04 19:07:12  
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

// cluster status says, node by node, who has not come back yet.
func TestWhoIsAwayIsInTheStatusOfTheCluster(t *testing.T) {
	c := ensemble.Cluster{Away: map[string]int{"riak@n2": 1, "riak@n1": 3}}
	want := "keyed members of riak@n1, which was stopped or started again, have not come back yet: 3\n" +
		"keyed members of riak@n2, which was stopped or started again, have not come back yet: 1"
	if got := strings.Join(clusterHints(c, "riak@n1"), "\n"); got != want {
		t.Errorf("said\n%s\nwant\n%s", got, want)
	}
}
