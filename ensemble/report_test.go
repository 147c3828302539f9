package ensemble

import (
	"encoding/json"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// A change is told with the names of the nodes, in UTC, and by the word of its reason; who leads
// is told with why, and who would be next.
func TestWhatIsToldOfAChange(t *testing.T) {
	s := state.New()
	s.Apply(1, state.Entry{Ops: []state.Op{state.Raise{Level: state.KeyedLevel}, state.Open{Node: "n1", Counter: 1, Name: "riak@n1"}, state.Open{Node: "n2", Counter: 1, Name: "riak@n2"}}}, nil)
	n1, _, _ := s.Current("n1")
	n2, _, _ := s.Current("n2")
	names := map[state.NodeID]string{"n1": "riak@n1", "n2": "riak@n2"}
	join := func(seq uint64, group, client string) state.Op {
		return state.Join{Incarnation: n1, Seq: seq, Group: group, Client: client}
	}
	s.Apply(2, state.Entry{At: time.UnixMilli(1000), Ops: []state.Op{join(1, "g", "a"), join(2, "other", "x"), state.Join{Incarnation: n2, Seq: 1, Group: "g", Client: "b"}}}, nil)
	s.Apply(3, state.Entry{At: time.UnixMilli(2000), Ops: []state.Op{
		state.Leave{Incarnation: n1, Seq: 3, Join: 1, Reason: state.ReasonReset},
		state.Leave{Incarnation: n1, Seq: 4, Join: 2, Reason: state.ReasonHoldOver + 100}, // of a newer version
	}}, nil)

	const first = `{"time":"1970-01-01T00:00:01Z","group":"g","from":"","to":"a","token":2048,"reason":"","node":"riak@n1","seen_by":"riak@n1"}`
	const reset = `{"time":"1970-01-01T00:00:02Z","group":"g","from":"a","to":"b","token":3072,"reason":"reset","node":"riak@n1","seen_by":"riak@n1"}`
	const founded = `{"time":"1970-01-01T00:00:01Z","group":"other","from":"","to":"x","token":2049,"reason":"","node":"riak@n1","seen_by":"riak@n1"}`
	const over = `{"time":"1970-01-01T00:00:02Z","group":"other","from":"x","to":"","token":3073,"reason":"unknown","node":"riak@n1","seen_by":"riak@n1"}`
	for only, want := range map[string]string{
		"":      "[" + first + "," + founded + "," + reset + "," + over + "]",
		"g":     "[" + first + "," + reset + "]",
		"other": "[" + founded + "," + over + "]",
		"none":  "[]",
	} {
		if got, err := json.Marshal(changesIn(s, only, names)); err != nil || string(got) != want {
			t.Errorf("of %q is told\n%s, %v, want\n%s", only, got, err, want)
		}
	}
	g, _ := s.Group("g")
	if is := groupWith(g, names); is.Leader != "b" || is.Why != "reset" || is.Next != "" {
		t.Errorf("group %+v", is)
	}
	s.Apply(4, state.Entry{Ops: []state.Op{join(5, "g", "c"), join(6, "new", "y")}}, nil)
	g, _ = s.Group("g")
	if is := groupWith(g, names); is.Next != "c" {
		t.Errorf("group %+v", is)
	}
	g, _ = s.Group("new")
	if is := groupWith(g, names); is.Why != "" {
		t.Errorf("group %+v, which nobody led before", is)
	}
}

// What is told of changes is the same after a snapshot and a restart, but for what came since.
func TestChangesAreToldAfterARestart(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	poll(t, "changes are kept", func() bool { _, kept := n.Report().Changes(""); return kept })
	a := join(t, n, "g", "a")
	a.wantTold("a")
	b := join(t, n, "g", "b")
	b.wantTold("a")
	a.close(true)
	b.wantTold("a", "b")
	if err := snapshot(n); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		changes, _ := n.Report().Changes("g")
		out, err := json.Marshal(changes)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := told()
	kill(n)
	n = startNode(t, path, nil)
	changes, kept := n.Report().Changes("g")
	if !kept || len(changes) != 3 {
		t.Fatalf("told %v, %v", changes, kept)
	}
	if last := changes[2]; last.From != "b" || last.To != "" || last.Reason != "node_restarted" || last.By != "riak@127.0.0.1" {
		t.Errorf("the last change is %+v", last)
	}
	if is := told(); is[:len(before)-1] != before[:len(before)-1] {
		t.Errorf("told\n%s, and before\n%s", is, before)
	}
}

// Below the level that keeps changes the node says that it does not.
func TestChangesAreNotKeptBelowTheirLevel(t *testing.T) {
	n := startNode(t, t.TempDir(), func(c *Config) { c.FormatLevel = state.KeyedLevel - 1 })
	join(t, n, "g", "a").wantTold("a")
	if changes, kept := n.Report().Changes(""); kept || len(changes) > 0 {
		t.Errorf("told %v, %v", changes, kept)
	}
	if g := n.Report().Groups("g"); len(g) != 1 || g[0].Why != "" {
		t.Errorf("group %+v", g)
	}
}
