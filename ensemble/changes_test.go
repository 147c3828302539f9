package ensemble

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

func TestNextChange(t *testing.T) {
	live := func(name string) known { return known{name: name, address: name + ":5324", live: true} }
	voter := func(name string) replica.Server {
		return replica.Server{ID: state.NodeID(name), Name: name, Address: name + ":5324", Voter: true}
	}
	follower := func(name string) replica.Server {
		return replica.Server{ID: state.NodeID(name), Name: name, Address: name + ":5324"}
	}
	for _, c := range []struct {
		name    string
		servers []replica.Server
		nodes   map[state.NodeID]known
		away    map[state.NodeID]bool
		voters  int
		want    string // node and text; empty: nothing
	}{
		{name: "all is well", voters: 5,
			servers: []replica.Server{voter("a"), voter("b"), voter("c")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": live("b"), "c": live("c")}},
		{name: "one that lives gets its vote", voters: 5, want: "b: gets a vote",
			servers: []replica.Server{voter("a"), follower("b")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": live("b")}},
		{name: "one that has not caught up does not", voters: 5,
			servers: []replica.Server{voter("a"), follower("b")},
			nodes:   map[state.NodeID]known{"a": live("a")}},
		{name: "there are voters enough", voters: 2,
			servers: []replica.Server{voter("a"), voter("b"), follower("c")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": live("b"), "c": live("c")}},
		{name: "a voter that is down for a moment keeps its vote", voters: 2,
			servers: []replica.Server{voter("a"), voter("b"), follower("c")},
			nodes:   map[state.NodeID]known{"a": live("a"), "c": live("c")}},
		{name: "a voter that stays away loses it", voters: 2, want: "b: loses its vote",
			servers: []replica.Server{voter("a"), voter("b"), follower("c")},
			nodes:   map[state.NodeID]known{"a": live("a"), "c": live("c")}, away: map[state.NodeID]bool{"b": true}},
		{name: "and nobody does where nobody could take it", voters: 2,
			servers: []replica.Server{voter("a"), voter("b"), follower("c")},
			nodes:   map[state.NodeID]known{"a": live("a")}, away: map[state.NodeID]bool{"b": true, "c": true}},
		{name: "a node that has moved", voters: 5, want: "b: is now b at elsewhere:1",
			servers: []replica.Server{voter("a"), voter("b")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": {name: "b", address: "elsewhere:1", live: true}}},
		{name: "a node with a new name", voters: 5, want: "b: is now d at b:5324",
			servers: []replica.Server{voter("a"), voter("b")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": {name: "d", address: "b:5324", live: true}}},
		{name: "a name that another node has is not taken", voters: 5,
			servers: []replica.Server{voter("a"), voter("b")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": {name: "a", address: "b:5324", live: true}}},
		{name: "a node that was removed is forgotten", voters: 5, want: "b: is no member",
			servers: []replica.Server{voter("a")},
			nodes:   map[state.NodeID]known{"a": live("a"), "b": live("b")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := nextChange(c.servers, c.nodes, c.away, c.voters)
			text := ""
			if got.text != "" {
				text = string(got.node) + ": " + got.text
			}
			if (text == "") != (c.want == "") || !strings.HasPrefix(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}

// The level rises by one, when every member says so by the session that it has.
func TestNextLevel(t *testing.T) {
	member := func(name string) replica.Server {
		return replica.Server{ID: state.NodeID(name), Name: name, Voter: name != "follower"}
	}
	three := []replica.Server{member("a"), member("b"), member("follower")}
	reads := func(a, b, f uint64) map[state.NodeID]known {
		return map[state.NodeID]known{"a": {reads: a}, "b": {reads: b}, "follower": {reads: f}}
	}
	for _, c := range []struct {
		name    string
		level   uint64
		servers []replica.Server
		nodes   map[state.NodeID]known
		next    uint64
		holding string
	}{
		{"all read it", 1, three, reads(2, 2, 2), 2, ""},
		{"one is alone", 1, three[:1], reads(2, 0, 0), 2, ""},
		{"one reads more", 1, three, reads(2, 3, 2), 2, ""},
		{"a voter does not read it", 1, three, reads(2, 1, 2), 1, "b"},
		{"who only follows does not read it", 1, three, reads(2, 2, 1), 1, "follower"},
		{"one has no session", 1, three, reads(0, 2, 2), 1, "a"},
		{"one has never been heard of", 1, three, map[state.NodeID]known{"a": {reads: 2}, "b": {reads: 2}}, 1, "follower"},
		{"who is no member does not count", 1, three[:2], reads(2, 2, 1), 2, ""},
		{"there are no members", 1, nil, reads(2, 2, 2), 1, ""},
		{"it is the newest", state.NewestLevel, three, reads(1, 9, 9), state.NewestLevel, ""},
	} {
		next, holding := nextLevel(c.level, c.servers, c.nodes)
		var names []string
		for _, h := range holding {
			names = append(names, h.Name)
		}
		if next != c.next || strings.Join(names, " ") != c.holding {
			t.Errorf("%s: level %d, held by %q; want %d, %q", c.name, next, names, c.next, c.holding)
		}
	}
}

// A raft leader is one that a majority of the voters says so of, in one term.
func TestQuorum(t *testing.T) {
	servers := []replica.Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "d"}}
	leads := view{State: "leading", Term: 7, Leader: "a"}
	follows := view{State: "following", Term: 7, Leader: "a"}
	for _, c := range []struct {
		name  string
		views map[state.NodeID]view
		want  state.NodeID
		with  []state.NodeID
	}{
		{"all answer", map[state.NodeID]view{"a": leads, "b": follows, "c": follows, "d": follows}, "a", []state.NodeID{"a", "b", "c"}},
		{"two of three", map[state.NodeID]view{"a": leads, "c": follows}, "a", []state.NodeID{"a", "c"}},
		{"the raft leader does not answer", map[state.NodeID]view{"b": follows, "c": follows}, "", nil},
		{"one that follows has no vote", map[state.NodeID]view{"a": leads, "d": follows}, "", nil},
		{"alone", map[state.NodeID]view{"a": leads}, "", nil},
		{"deposed, and does not know", map[state.NodeID]view{"a": leads, "b": {State: "following", Term: 8, Leader: "c"}, "c": {State: "leading", Term: 8, Leader: "c"}}, "c", []state.NodeID{"b", "c"}},
		{"of an older term", map[state.NodeID]view{"a": leads, "b": {State: "following", Term: 6, Leader: "a"}, "c": {State: "probe", Term: 7}}, "", nil},
	} {
		leader, with := quorum(servers, c.views)
		if leader != c.want || !reflect.DeepEqual(with, c.with) {
			t.Errorf("%s: %q with %q, want %q with %q", c.name, leader, with, c.want, c.with)
		}
	}
}

// A removal after which nobody could be elected is refused: it would count as
// soon as it is written, and nobody could take it back.
func TestMayRemove(t *testing.T) {
	servers := []replica.Server{{ID: "a", Name: "A", Voter: true}, {ID: "b", Name: "B", Voter: true}, {ID: "c", Name: "C", Voter: true}, {ID: "d", Name: "D"}}
	up := func(ids ...state.NodeID) map[state.NodeID]view {
		views := map[state.NodeID]view{}
		for _, id := range ids {
			views[id] = view{}
		}
		return views
	}
	for _, c := range []struct {
		name    string
		servers []replica.Server
		views   map[state.NodeID]view
		remove  state.NodeID
		want    string
	}{
		{"one of three, all up", servers, up("a", "b", "c", "d"), "b", ""},
		{"the dead one of three", servers, up("a", "b", "d"), "c", ""},
		{"a live one of three, one is dead", servers, up("a", "b", "d"), "b", "as C cannot be reached"},
		{"one that only follows", servers, up("a", "b"), "d", ""},
		{"the last voter", servers[2:], up("c", "d"), "c", "the only voter"},
		{"one of two", servers[:2], up("a", "b"), "b", ""},
		{"the live one of two", servers[:2], up("a"), "a", "no majority of the nodes, as B does not answer"},
		{"the dead one of two", servers[:2], up("a"), "b", "no majority of the nodes, as B does not answer"},
		{"one of three, two are dead", servers, up("a", "d"), "b", "no majority of the nodes, as B, C do not answer"},
	} {
		err := mayRemove(c.servers, c.views, c.remove)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Of a node that was removed a little stays for ever, in the state and in every snapshot, and
// nobody goes through it all again and again: ten thousand that come and go are no burden.
func TestWhatStaysOfRemovedNodes(t *testing.T) {
	const gone = 10_000
	s := state.New()
	s.Apply(1, state.Entry{Ops: []state.Op{state.Raise{Level: state.NewestLevel}, state.Open{Node: "here", Counter: 1, Boot: "boot"}}}, nil)
	before, size := statetest.Heap(), len(statetest.Bytes(s))
	for i := range uint64(gone) {
		id := state.NodeID(randomID())
		index := 2 + i
		open := state.Open{Node: id, Counter: 1 + i%100, Boot: "boot", Name: fmt.Sprintf("riak%d@10.0.%d.%d", i, i/250, i%250), Address: fmt.Sprintf("10.0.%d.%d:5324", i/250, i%250), Reads: state.NewestLevel}
		s.Apply(index, state.Entry{Ops: []state.Op{open, state.End{Incarnation: state.Incarnation(state.PositionOf(index, 0)), Seq: 1}, state.Remove{Node: id}}}, nil)
		if s.Apply(index, state.Entry{Ops: []state.Op{state.Open{Node: id, Counter: 1000, Boot: "boot"}}}, nil) != nil {
			t.Fatal("one that was removed has a session")
		}
	}
	if each := (len(statetest.Bytes(s)) - size) / gone; each > 80 {
		t.Errorf("%d bytes of a snapshot each", each)
	}
	if each := (statetest.Heap() - before) / gone; each > 400 {
		t.Errorf("%d bytes of memory each", each)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := statetest.ThreadTime()
	s.Snapshot().End()
	marking := statetest.ThreadTime() - began
	t.Logf("each %d bytes of a snapshot, %d of memory; a snapshot is marked in %v", (len(statetest.Bytes(s))-size)/gone, (statetest.Heap()-before)/gone, marking)
	if nodes := knownNodes(s); len(nodes) != 1 {
		t.Errorf("the raft leader looks at %d nodes, five times a second", len(nodes))
	}
}
