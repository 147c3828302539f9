package state

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// model is the state machine once more, by what it promises and without thought of memory or
// time: a list of members, in their order of joining, and one of all changes.
type model struct {
	level    uint64
	nodes    map[NodeID]*modelNode
	sessions map[Incarnation]*modelSession
	members  []modelMember
	token    map[string]uint64 // of leaders
	changes  []Change
	began    map[string]int // how many changes there were when the group came into being
}

type modelNode struct {
	counter uint64
	reads   uint64
	boot    string
	removed bool
	session Incarnation // 0: none
}

type modelSession struct {
	node   NodeID
	expiry time.Duration
	seq    uint64
	sign   uint64
}

type modelMember struct {
	group, client string
	id            MemberID
	keyed         bool
	key           Key
	hold          time.Duration
}

func newModel() *model {
	return &model{
		level: FirstLevel, nodes: map[NodeID]*modelNode{}, sessions: map[Incarnation]*modelSession{},
		token: map[string]uint64{}, began: map[string]int{},
	}
}

func (m *model) node(id NodeID) *modelNode {
	if m.nodes[id] == nil {
		m.nodes[id] = &modelNode{}
	}
	return m.nodes[id]
}

func (m *model) of(group string) (all []modelMember) {
	for _, x := range m.members {
		if x.group == group {
			all = append(all, x)
		}
	}
	return all
}

func (m *model) isOrphaned(inc Incarnation) bool { return m.nodes[m.sessions[inc].node].session != inc }

// turn reports whether it is the turn of an operation, and counts it.
func (m *model) turn(inc Incarnation, seq uint64, level uint64) bool {
	ses := m.sessions[inc]
	if ses == nil || m.isOrphaned(inc) || ses.seq+1 != seq || m.level < level {
		return false
	}
	ses.seq++
	return true
}

func (m *model) apply(index uint64, e Entry) {
	for i, op := range e.Ops {
		token := uint64(PositionOf(index, i)) // no cluster is founded here, and no token lifted
		switch op := op.(type) {
		case Raise:
			ready := true
			for _, n := range m.nodes {
				ready = ready && (n.removed || n.session != 0 && n.reads >= op.Level)
			}
			if ready || op.Level < KeyedLevel {
				m.level = max(m.level, op.Level)
			}
		case Remove:
			m.node(op.Node).removed = true
		case Open:
			n := m.node(op.Node)
			if n.removed || op.Counter <= n.counter || n.session != 0 && n.boot != op.Boot {
				continue
			}
			if n.session != 0 {
				m.end(n.session, true, cmp.Or(op.Reason, ReasonNodeRestarted), op.Node, token, e.At)
			}
			n.counter, n.reads, n.boot, n.session = op.Counter, op.Reads, op.Boot, Incarnation(token)
			m.sessions[n.session] = &modelSession{node: op.Node, expiry: op.Expiry}
		case Renew:
			if m.turn(op.Incarnation, op.Seq, FirstLevel) {
				m.sessions[op.Incarnation].sign = op.Seq
			}
		case Join:
			if m.turn(op.Incarnation, op.Seq, FirstLevel) {
				m.join(modelMember{group: op.Group, client: op.Client, id: MemberID{op.Incarnation, op.Seq}}, token, e.At)
			}
		case KeyedJoin:
			if m.turn(op.Incarnation, op.Seq, KeyedLevel) {
				m.join(modelMember{op.Group, op.Client, MemberID{op.Incarnation, op.Seq}, true, op.Key, op.Hold}, token, e.At)
			}
		case Leave:
			if m.turn(op.Incarnation, op.Seq, FirstLevel) {
				m.leave(func(x modelMember) bool { return x.id == MemberID{op.Incarnation, op.Join} }, cmp.Or(op.Reason, ReasonClosed), m.sessions[op.Incarnation].node, token, e.At)
			}
		case StepDown:
			if m.turn(op.Incarnation, op.Seq, KeyedLevel) {
				m.stepDown(op, token, e.At)
			}
		case End:
			if m.turn(op.Incarnation, op.Seq, FirstLevel) {
				m.end(op.Incarnation, true, cmp.Or(op.Reason, ReasonNodeStopped), m.sessions[op.Incarnation].node, token, e.At)
			}
		case Expire:
			if ses := m.sessions[op.Incarnation]; ses != nil && ses.sign == op.Renewal {
				why := cmp.Or(op.Reason, ReasonNodeLost)
				if m.nodes[ses.node].removed && why != ReasonHoldOver {
					why = ReasonRemoved
				}
				by := op.By
				if m.nodes[by] == nil {
					by = ""
				}
				m.end(op.Incarnation, false, why, by, token, e.At)
			}
		}
	}
}

func (m *model) join(x modelMember, token uint64, at time.Time) {
	for i, o := range m.members {
		if o.group != x.group || o.client != x.client {
			continue
		}
		if o.keyed && x.keyed && o.key == x.key {
			m.members[i].id, m.members[i].hold = x.id, max(o.hold, x.hold)
			m.sessions[x.id.Incarnation].sign = x.id.Seq
			m.sweep()
		}
		return
	}
	first := len(m.of(x.group)) == 0
	m.members = append(m.members, x)
	if first {
		node := m.sessions[x.id.Incarnation].node
		m.began[x.group] = len(m.changes)
		m.led(x.group, "", 0, node, node, token, at)
	}
}

// led remembers a change of a group's leader.
func (m *model) led(group, from string, why Reason, node, by NodeID, token uint64, at time.Time) {
	to := ""
	if all := m.of(group); len(all) > 0 {
		to, m.token[group] = all[0].client, token
	} else {
		delete(m.token, group)
	}
	if m.level >= KeyedLevel {
		m.changes = append(m.changes, Change{at, group, from, to, token, why, node, by})
	}
}

// leave ends memberships, all at once.
func (m *model) leave(who func(modelMember) bool, why Reason, by NodeID, token uint64, at time.Time) {
	before := slices.Clone(m.members)
	m.members = slices.DeleteFunc(m.members, who)
	// In the order in which the members went who led.
	seen := map[string]bool{}
	var leaders []modelMember
	for _, x := range before {
		if !seen[x.group] && who(x) {
			leaders = append(leaders, x)
		}
		seen[x.group] = true
	}
	slices.SortFunc(leaders, func(a, b modelMember) int { return cmp.Compare(a.id.Seq, b.id.Seq) })
	for _, x := range leaders {
		m.led(x.group, x.client, why, m.sessions[x.id.Incarnation].node, by, token, at)
	}
}

func (m *model) stepDown(op StepDown, token uint64, at time.Time) {
	id := MemberID{op.Incarnation, op.Join}
	i := slices.IndexFunc(m.members, func(x modelMember) bool { return x.id == id })
	if i < 0 || !m.members[i].keyed || m.members[i].hold == 0 {
		return
	}
	x := m.members[i]
	if all := m.of(x.group); all[0].id != id || len(all) < 2 || m.token[x.group] != op.Token {
		return
	}
	m.members = append(slices.Delete(m.members, i, i+1), x)
	node := m.sessions[op.Incarnation].node
	m.led(x.group, x.client, ReasonSteppedDown, node, node, token, at)
}

func (m *model) end(inc Incarnation, spare bool, why Reason, by NodeID, token uint64, at time.Time) {
	m.leave(func(x modelMember) bool { return x.id.Incarnation == inc && !(x.keyed && spare) }, why, by, token, at)
	if n := m.nodes[m.sessions[inc].node]; n.session == inc {
		n.session = 0
	}
	m.sweep()
}

// sweep lets go of sessions that nobody needs.
func (m *model) sweep() {
	for inc := range m.sessions {
		if m.isOrphaned(inc) && !slices.ContainsFunc(m.members, func(x modelMember) bool { return x.id.Incarnation == inc }) {
			delete(m.sessions, inc)
		}
	}
}

// differs says where a state is another one than the model.
func (m *model) differs(s *State) string {
	groups := map[string]bool{}
	for _, x := range m.members {
		groups[x.group] = true
	}
	if len(groups) != len(s.groups) {
		return fmt.Sprintf("%d groups, want %d", len(s.groups), len(groups))
	}
	for name := range groups {
		want := m.of(name)
		g, _ := s.Group(name)
		if g.Token != m.token[name] || g.Leader != want[0].client || len(g.Members) != len(want) {
			return fmt.Sprintf("group %s is led by %s with %d and has %d members, want %s, %d and %d", name, g.Leader, g.Token, len(g.Members), want[0].client, m.token[name], len(want))
		}
		for i, x := range want {
			is := g.Members[i]
			if is.ID != x.id || is.Client != x.client || is.Keyed != x.keyed || is.Hold != x.hold || is.Away != m.isOrphaned(x.id.Incarnation) {
				return fmt.Sprintf("member %d of %s is %+v, want %+v", i, name, is, x)
			}
			if key, _, ok := s.Keyed(x.id); ok != x.keyed || key != x.key {
				return fmt.Sprintf("member %d of %s has the key %x", i, name, key)
			}
		}
		// What a group remembers itself is what has changed since it came into being, or since
		// changes are kept.
		all := slices.DeleteFunc(slices.Clone(m.changes[min(m.began[name], len(m.changes)):]), func(c Change) bool { return c.Group != name })
		all = all[max(0, len(all)-MaxPast):]
		is := s.pastOf(s.groups[name])
		for _, changes := range [][]Change{all, is} {
			if len(changes) > 0 && changes[0].From == "" {
				changes[0].Node, changes[0].By = "", "" // the leader may have moved since
			}
		}
		why := Reason(0)
		if len(all) > 0 {
			why = all[len(all)-1].Reason
		}
		if m.level >= KeyedLevel && g.Why != why {
			return fmt.Sprintf("the leader of %s leads because of %v, want %v", name, g.Why, why)
		}
		if m.level >= KeyedLevel && !reflect.DeepEqual(is, all) && len(is)+len(all) > 0 {
			return fmt.Sprintf("group %s remembers\n%v, want\n%v", name, is, all)
		}
	}
	if len(m.sessions) != len(s.sessions) {
		return fmt.Sprintf("%d sessions, want %d", len(s.sessions), len(m.sessions))
	}
	for ses := range s.Sessions() {
		want := m.sessions[ses.Incarnation]
		if want == nil {
			return fmt.Sprintf("a session %+v", ses)
		}
		silence, members, keyed := want.expiry, 0, 0
		for _, x := range m.members {
			if x.id.Incarnation == ses.Incarnation {
				silence, members = max(silence, x.hold), members+1
				if x.keyed {
					keyed++
				}
			}
		}
		seq, _, current := s.Accepted(ses.Incarnation)
		if ses.Node != want.node || ses.Sign != want.sign || ses.Silence != silence || ses.Members != members || ses.Keyed != keyed ||
			ses.Orphaned != m.isOrphaned(ses.Incarnation) || current == ses.Orphaned || current && seq != want.seq {
			return fmt.Sprintf("session %+v (%d), want %+v with silence %v, %d members, %d keyed", ses, seq, *want, silence, members, keyed)
		}
	}
	if is, want := slices.Collect(s.Recent()), m.changes[max(0, len(m.changes)-MaxRecent):]; !slices.Equal(is, want) {
		return fmt.Sprintf("the last changes are\n%v, want\n%v", is, want)
	}
	return ""
}

// Whatever comes, the state is what the model says, also after it was in a snapshot.
func TestTheStateIsTheModels(t *testing.T) {
	moves, spared, steps, full := 0, 0, 0, 0
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 3))
		s, m := New(), newModel()
		for index := uint64(1); index <= 400; index++ {
			e := randomEntry(r, s, index)
			e.Ops = slices.DeleteFunc(e.Ops, func(op Op) bool { _, lifts := op.(Lift); return lifts })
			for _, effect := range s.Apply(index, e, nil) {
				switch effect := effect.(type) {
				case Moved:
					moves++
				case SteppedDown:
					steps++
				case Ended:
					if effect.Orphaned {
						spared++
					}
				}
			}
			m.apply(index, e)
			if r.IntN(10) == 0 {
				var err error
				if s, err = restoreBytes(snapshotOf(s)); err != nil {
					t.Fatal(err)
				}
			}
			for _, g := range s.groups {
				if g.past != nil && g.past.count == MaxPast {
					full++
				}
			}
			if why := m.differs(s); why != "" {
				t.Fatalf("seed %d, entry %d, %+v:\n%s", seed, index, e, why)
			}
		}
	}
	if moves < 200 || spared < 100 || steps < 40 || full < 40 {
		t.Errorf("%d moves, %d sessions orphaned, %d times stepped down, %d times a group had forgotten a leader: too few to prove much", moves, spared, steps, full)
	}
}
