package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// onlooker is an observer that keeps what it is told.
type onlooker struct {
	group  string
	o      *Observation
	told   []lead
	closed bool
}

type lead struct {
	leader string
	token  uint64
}

func (l *onlooker) Leader(name string, token uint64) { l.told = append(l.told, lead{name, token}) }
func (l *onlooker) Close()                           { l.closed = true }

// tells says some words to whom they are for.
func (n *bookkeeper) tells() (words int) {
	for _, w := range n.roster.Tell(nil) {
		words++
		w.To.Leader(w.Leader, w.Token)
	}
	return words
}

// closes closes connections.
func closes(all []Connection) {
	for _, c := range all {
		c.Close()
	}
}

// admits has all told for the first time that have asked.
func (n *bookkeeper) admits() {
	for n.roster.Asking() {
		n.roster.Admit(n.state)
	}
}

func (n *bookkeeper) observe(group string) *onlooker {
	l := &onlooker{group: group}
	l.o = n.roster.Observe(group, l)
	return l
}

// Whatever is committed, and whoever comes and goes meanwhile: what an observer is told is part
// of what happened, in that order, and in the end the last of it; after a snapshot too.
func TestObserversAreToldWhatHappensInOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := newBookkeeper()
		history := map[string][]lead{"g0": {{}}, "g1": {{}}, "g2": {{}}} // by the state
		note := func() {
			for i := range 3 {
				group := fmt.Sprint("g", i)
				leader, token := n.state.Leader(group)
				h := history[group]
				if last := h[len(h)-1]; last.leader != leader || leader != "" && last.token != token {
					history[group] = append(h, lead{leader, token})
				}
			}
		}
		var members []*Membership
		var all, left []*onlooker
		act := func() {
			switch rng.IntN(7) {
			case 0, 1:
				members = append(members, n.roster.Join(fmt.Sprint("g", rng.IntN(3)), fmt.Sprint("c", rng.IntN(1000)), &simDeaf{}))
			case 2, 3:
				if len(members) > 0 {
					i := rng.IntN(len(members))
					members[i].Closed("closed", true)
					members = slices.Delete(members, i, i+1)
				}
			case 4:
				all = append(all, n.observe(fmt.Sprint("g", rng.IntN(3))))
			case 5:
				if len(all) > 0 {
					i := rng.IntN(len(all))
					all[i].o.Closed()
					left = append(left, all[i])
					all = slices.Delete(all, i, i+1)
				}
			case 6:
				again, err := statetest.FromBytes(statetest.Bytes(n.state))
				if err != nil {
					t.Fatal(err)
				}
				n.state = again
				n.roster.Restored(n.state)
			}
		}
		for range 200 {
			act()
			if rng.IntN(2) == 0 {
				for ops := n.roster.Batch(n.clock); len(ops) > 0; ops = n.roster.Batch(n.clock) {
					for _, op := range ops { // an entry each: no leader is passed over in it
						n.commit([]state.Op{op})
						note()
					}
				}
			}
			switch rng.IntN(4) {
			case 0:
				n.roster.Admit(n.state)
			case 1:
				n.tells()
			}
		}
		var were []int
		for _, l := range left {
			were = append(were, len(l.told))
		}
		n.admits()
		for n.tells() > 0 {
		}
		for i, l := range left {
			if len(l.told) != were[i] {
				t.Errorf("seed %d: an observer that has gone was told something", seed)
			}
		}
		for _, l := range append(all, left...) {
			h, from := history[l.group], 0
			for _, told := range l.told {
				i := from
				for ; i < len(h); i++ {
					if h[i] == told || told.leader == "" && h[i].leader == "" && (i == 0 || h[i-1].token < told.token) && (i+1 == len(h) || told.token < h[i+1].token) {
						break
					}
				}
				if from = i; i == len(h) {
					t.Fatalf("seed %d: an observer of %s was told %v, of %v", seed, l.group, l.told, history[l.group])
				}
			}
		}
		for _, l := range all {
			leader, token := n.state.Leader(l.group)
			if len(l.told) == 0 {
				t.Fatalf("seed %d: an observer of %s was told nothing", seed, l.group)
			}
			if last := l.told[len(l.told)-1]; last.leader != leader || leader != "" && last.token != token {
				t.Errorf("seed %d: an observer of %s ends with %v, and %s leads with %d", seed, l.group, last, leader, token)
			}
			if !slices.IsSortedFunc(l.told, func(a, b lead) int { return int(a.token) - int(b.token) }) {
				t.Errorf("seed %d: the tokens of %v fall", seed, l.told)
			}
		}
		if got := n.roster.Observers(); got != len(all) {
			t.Errorf("seed %d: %d observers, want %d", seed, got, len(all))
		}
		for _, l := range all {
			l.o.Closed()
		}
		if b := &n.roster.observers; len(b.groups) > 0 || b.asking.size() > 0 || n.tells() > 0 || len(b.behind) > 0 || b.count != 0 {
			t.Errorf("seed %d: something is left of observers that have gone: %+v", seed, b)
		}
	}
}

// simDeaf is a member that hears nothing.
type simDeaf struct{ deaf }

func (*simDeaf) Leader(string, uint64) {}
func (*simDeaf) Promised()             {}

// With the session the right to tell observers is over, and they are closed; those that have been
// told nothing wait for the next one. A node that stops closes these too.
func TestObserversAreClosedWithTheSession(t *testing.T) {
	n := newBookkeeper()
	told := n.observe("g")
	n.roster.Admit(n.state)
	n.tells()
	waits := n.observe("g")
	if !told.o.Live() || waits.o.Live() {
		t.Errorf("live: %v, %v", told.o.Live(), waits.o.Live())
	}
	n.clock = n.clock.Later(Normal.Lease)
	if told.o.Live() {
		t.Error("it may be told something beyond the lease")
	}
	what, closing := n.roster.Step(n.clock)
	if what != NeedClose {
		t.Fatalf("step: %v", what)
	}
	closes(closing)
	n.roster.Admit(n.state)
	n.tells()
	if !told.closed || waits.closed || len(waits.told) > 0 {
		t.Errorf("closed: %v, %v; told %v", told.closed, waits.closed, waits.told)
	}
	told.o.Closed()
	n.clock = n.clock.Later(Normal.Expiry)
	n.roster.Step(n.clock)
	n.roster.Begin(2, n.clock)
	n.run()
	n.roster.Admit(n.state)
	n.tells()
	if len(waits.told) != 1 || !waits.o.Live() {
		t.Errorf("in the next session it was told %v", waits.told)
	}
	again := n.observe("g")
	closes(n.roster.Stop())
	if !waits.closed || !again.closed || !n.roster.Empty() || n.roster.Observers() != 0 {
		t.Errorf("of a node that stops: closed %v, %v; empty %v", waits.closed, again.closed, n.roster.Empty())
	}
	waits.o.Closed()
}

// As the members do, observers have the closing begin so much earlier that all are closed in time; and
// they are closed behind the members.
func TestObserversAreClosedInTime(t *testing.T) {
	n := newBookkeeper()
	n.roster.Join("g", "a", &simDeaf{})
	n.run()
	const many = 20_000 // half a second's
	last := &onlooker{}
	for range many {
		last.o = n.roster.Observe("g", last)
	}
	n.admits()
	if left := n.roster.timeLeft(); left > Normal.Lease-many*closingPace {
		t.Errorf("the closing begins in %v, and takes %v of %v", left, many*closingPace, Normal.Lease)
	}
	if kill := n.roster.KillAt() - n.clock.Boot; kill != Normal.KillAfter(many+1) {
		t.Errorf("the switch kills after %v, want %v", kill, Normal.KillAfter(many+1))
	}
	n.clock = n.clock.Later(Normal.Lease - many*closingPace)
	what, closing := n.roster.Step(n.clock)
	if what != NeedClose || len(closing) != many+1 {
		t.Fatalf("step: %v, %d to close", what, len(closing))
	}
	if _, member := closing[0].(*simDeaf); !member {
		t.Error("an observer is closed before a member")
	}
}

// However fast the leaders of a group change, all of its observers are told in turn, and further ones
// are admitted.
func TestAGroupThatChangesAllTheTimeStarvesNobody(t *testing.T) {
	n := newBookkeeper()
	var all []*onlooker
	for range 5 * observersAtOnce {
		all = append(all, n.observe("g"))
	}
	n.admits()
	for n.tells() > 0 {
	}
	for i := range 2 * len(all) / observersAtOnce {
		n.roster.observers.changed("g", fmt.Sprint("c", i), uint64(1<<40+i))
		n.tells()
	}
	for _, l := range all {
		if len(l.told) < 2 {
			t.Fatal("an observer was told of no change")
		}
	}
}

// What a client may know already from another node is no reason to keep quiet: NO_LEADER has the token of
// what this node knows now.
func TestNobodyHasTheNewestToken(t *testing.T) {
	n := newBookkeeper()
	n.observe("g")
	n.admits()
	n.tells()
	ahead, err := statetest.FromBytes(statetest.Bytes(n.state))
	if err != nil {
		t.Fatal(err)
	}
	inc := n.roster.session.lease.incarnation
	seq, _, _ := ahead.Accepted(inc)
	ahead.Apply(n.index+1, state.Entry{Ops: []state.Op{state.Join{Incarnation: inc, Seq: seq + 1, Group: "g", Client: "x"}}}, nil)
	_, led := ahead.Leader("g")
	ahead.Apply(n.index+2, state.Entry{Ops: []state.Op{state.Leave{Incarnation: inc, Seq: seq + 2, Join: seq + 1}}}, nil)
	n.state, n.index = ahead, n.index+2
	n.roster.Restored(n.state)
	late := n.observe("g")
	n.admits()
	n.tells()
	if len(late.told) != 1 || late.told[0].leader != "" || late.told[0].token <= led {
		t.Errorf("it was told %v, and may know of x with %d", late.told, led)
	}
	n.commit([]state.Op{state.Lift{Tokens: 1 << 50}})
	later := n.observe("g")
	n.admits()
	n.tells()
	if len(later.told) != 1 || later.told[0].token <= 1<<50 {
		t.Errorf("after a Lift to %d it was told %v", 1<<50, later.told)
	}
}

// Many observers of one group do not keep those of another one waiting.
func TestObserversOfOneGroupDelayNoOthers(t *testing.T) {
	n := newBookkeeper()
	for range 20 * observersAtOnce {
		n.observe("large")
	}
	small := n.observe("small")
	n.admits()
	n.tells()
	n.tells()
	if len(small.told) == 0 {
		t.Errorf("after %d words it was told nothing", 2*observersAtOnce)
	}
}
