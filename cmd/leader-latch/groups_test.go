package main

import (
	"net/http"
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

// Of one group it is said since when its leader leads, why, and who would be next.
func TestWhoLeadsAGroupSinceWhenAndWhy(t *testing.T) {
	g := ensemble.Group{Name: "spark", Leader: "worker-1", Token: lostNode.Token, Since: second(3), Why: "node_lost", Next: "worker-2", Members: []ensemble.GroupMember{
		{Client: "worker-1", Node: "riak@192.0.2.1", Since: second(1)}, {Client: "worker-2", Node: "riak@192.0.2.3", Since: second(2)},
	}}
	reset := lostNode
	reset.Reason = "reset"
	older := reset
	older.Token--
	alone := g
	alone.Members = g.Members[:1]
	for _, c := range []struct {
		what    string
		group   ensemble.Group
		changes any
		want    string
	}{
		{"reset", g, []ensemble.Change{older, reset}, "worker-1 leads since 2026-05-04 12:00:03, because the connection of worker-0 was reset (reset, seen by riak@192.0.2.1); worker-2 would be next."},
		{"nobody is next", alone, []ensemble.Change{{At: second(3), Group: "spark", To: "worker-1", Token: g.Token}}, "worker-1 leads since 2026-05-04 12:00:03, because nobody led before; nobody would be next."},
		{"the change came after the question", g, []ensemble.Change{older}, "worker-1 leads since 2026-05-04 12:00:03; worker-2 would be next."},
		{"below the level", g, &adminError{http.StatusConflict, notKept}, "worker-1 leads since 2026-05-04 12:00:03; worker-2 would be next."},
		{"an older version", g, nil, "worker-1 leads since 2026-05-04 12:00:03; worker-2 would be next."},
	} {
		var out, rest strings.Builder
		e := &env{stdout: &out, stderr: &rest}
		code := e.groups(t.Context(), groupList{node: stubAnswers{"/groups": []ensemble.Group{c.group}, "/changes": c.changes}, only: "spark"})
		if _, below, _ := strings.Cut(out.String(), "\n\n"); code != exitOK || below != c.want+"\n" || rest.String() != "" {
			t.Errorf("%s: exit code %d, printed\n%s%s\nwant below the table\n%s", c.what, code, out.String(), rest.String(), c.want)
		}
	}
	var out strings.Builder
	e := &env{stdout: &out, stderr: &out}
	if code := e.groups(t.Context(), groupList{node: stubAnswers{"/groups": []ensemble.Group{g}}}); code != exitOK || strings.Contains(out.String(), "leads since") {
		t.Errorf("of all groups is printed\n%s", out.String())
	}
}
