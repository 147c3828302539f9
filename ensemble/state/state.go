package state

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// State is the replicated state machine (DESIGN.md, State): plain data that
// changes by committed entries alone. It reads no clock, draws nothing at
// random and depends on no map's order, so that equal entries make equal
// states, byte for byte, on every node.
//
// What Apply decides is part of the format: nodes of two versions of the program make the
// same state of the same entry. Whoever has it decide otherwise adds a level (level.go) and
// has it ask for that: below the new level it decides as it ever did.
//
// It is not safe for concurrent use.
type State struct {
	index     uint64 // of the last entry applied
	cluster   string // empty until Found
	tokenBase uint64
	active    bool
	level     uint64 // of what is written; see level.go

	nodes    map[NodeID]*node
	order    []*node // the same, by their ids: to sort them takes long when many have been removed
	sessions map[Incarnation]*nodeSession
	groups   map[string]*group

	snap  *Snapshot // that is being written; nil: none
	epoch uint32    // how many snapshots were begun
}

// node is what stays of a node beyond its sessions.
type node struct {
	id      NodeID
	name    string
	address string
	reads   uint64       // the newest level that it reads, and lets the cluster rise to, by its last Open
	counter uint64       // of the last Open accepted; kept after End and Expire
	removed bool         // no member any more: no Open is accepted from it
	session *nodeSession // nil: none
}

// nodeSession is a node's session as the cluster sees it; the node's own view
// is [session].
type nodeSession struct {
	node          *node
	incarnation   Incarnation
	boot          string
	lease, expiry time.Duration
	seq           uint64 // of the last operation accepted
	renewal       uint64 // seq of the last Renew accepted; 0: the Open itself
	members       map[uint64]*member
}

// group is a list of members in their order of joining. Its first member
// leads. Empty groups do not exist.
type group struct {
	name        string
	first, last *member
	size        int
	byClient    map[string]*member // nil while the group is small: a walk is as fast then
	token       uint64             // of the present leader
	since       int64              // when it became first, Unix milliseconds
	headless    bool               // has lost its leader in the operation under way
	epoch       uint32             // of the newest snapshot that does not need the group as it is now: the group is younger, or that snapshot has it
}

// member is a membership. Its first three fields never change, so that a snapshot
// may read them at any time.
type member struct {
	id         MemberID
	client     string
	since      int64 // Unix milliseconds
	group      *group
	prev, next *member
}

// smallGroup is the size up to which a group has no index by client.
const smallGroup = 16

// New returns the state before the first entry.
func New() *State {
	return &State{
		level:    FirstLevel,
		nodes:    make(map[NodeID]*node),
		sessions: make(map[Incarnation]*nodeSession),
		groups:   make(map[string]*group),
	}
}

// Effect is something that an entry changed, for those who act on changes:
// one of [Opened], [Renewed], [Ended], [Joined], [Refused], [Left], [Led],
// [Removed] and [Raised].
// Operations that were dropped have none.
type Effect interface{ effect() }

type (
	// Opened: the node has a new session; the one before has ended.
	Opened struct {
		Node        NodeID
		Counter     uint64
		Incarnation Incarnation
		Expiry      time.Duration
	}

	// Renewed: the renewal was accepted.
	Renewed struct {
		Node        NodeID
		Incarnation Incarnation
		Seq         uint64
	}

	// Ended: the session and its memberships are gone.
	Ended struct {
		Node        NodeID
		Incarnation Incarnation
	}

	// Joined: the membership is committed; Leader leads its group. If that is the client,
	// the group came into being with it.
	Joined struct {
		Member MemberID
		Group  string
		Client string
		Node   NodeID // of the member
		Leader string
		Token  uint64
	}

	// Refused: another member of the group has the name.
	Refused struct {
		Member MemberID
		Group  string
		Client string
		Holder NodeID // the node of that member
	}

	// Left: the membership has ended; its name is free.
	Left struct {
		Member MemberID
		Group  string
		Client string
		Node   NodeID // of the member
		By     Ending
		Led    bool // the group, before the operation that ended this
		Last   bool // the group is gone with it
	}

	// Led: the leader of a group that goes on has changed.
	Led struct {
		Group  string
		Leader string
		Node   NodeID // of the leader
		Token  uint64
	}

	// Removed: the node is no member any more.
	Removed struct{ Node NodeID }

	// Raised: the level is a higher one.
	Raised struct{ Level uint64 }
)

// Ending is the kind of the operation that has ended a membership.
type Ending byte

const (
	ByLeave  Ending = iota + 1 // of the member
	ByEnd                      // of its node's session
	ByOpen                     // of a new session of its node
	ByExpire                   // of its node's session
)

func (Opened) effect()  {}
func (Renewed) effect() {}
func (Ended) effect()   {}
func (Joined) effect()  {}
func (Refused) effect() {}
func (Left) effect()    {}
func (Led) effect()     {}
func (Removed) effect() {}
func (Raised) effect()  {}

// Apply makes the entry at a log index take effect and appends what changed
// to effects. Operations that come twice, out of turn or from a session that
// is over are dropped (DESIGN.md, rules 1, 2 and 4). What it decides is part of the format:
// see [State].
func (s *State) Apply(index uint64, entry Entry, effects []Effect) []Effect {
	s.index = index
	at := entry.At.UnixMilli()
	for i, op := range entry.Ops {
		pos := PositionOf(index, i)
		switch op := op.(type) {
		case Found:
			if s.cluster == "" {
				s.cluster, s.tokenBase = op.Cluster, op.TokenBase
			}
		case Activate:
			s.active = true
		case Open:
			effects = s.open(op, pos, at, effects)
		case Renew:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				ses.renewal = op.Seq
				effects = append(effects, Renewed{ses.node.id, op.Incarnation, op.Seq})
			}
		case Join:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				effects = s.join(ses, op, pos, at, effects)
			}
		case Leave:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				if m := ses.members[op.Join]; m != nil {
					effects = s.leave(ses, m, pos, at, effects)
				}
			}
		case End:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				effects = s.end(ses, ByEnd, pos, at, effects)
			}
		case Expire:
			// Compare and expire: whoever proposed this may have been deposed
			// or late; a renewal accepted since makes it void.
			if ses := s.sessions[op.Incarnation]; ses != nil && ses.renewal == op.Renewal {
				effects = s.end(ses, ByExpire, pos, at, effects)
			}
		case Remove:
			if n := s.node(op.Node); !n.removed {
				n.removed = true
				effects = append(effects, Removed(op))
			}
		case Raise:
			if op.Level > s.level {
				s.level = op.Level
				effects = append(effects, Raised(op))
			}
		case Lift:
			s.tokenBase = max(s.tokenBase, op.Tokens)
		}
	}
	return effects
}

// node gives what is known of a node, from now on at least its id.
func (s *State) node(id NodeID) *node {
	n := s.nodes[id]
	if n == nil {
		n = &node{id: id}
		s.add(n)
	}
	return n
}

func (s *State) add(n *node) {
	s.nodes[n.id] = n
	at, _ := slices.BinarySearchFunc(s.order, n.id, func(o *node, id NodeID) int { return strings.Compare(string(o.id), string(id)) })
	s.order = slices.Insert(s.order, at, n)
}

// accept gives the session whose next operation this is, and counts it; nil
// if the session is over, or the operation came before or leaves a gap.
func (s *State) accept(inc Incarnation, seq uint64) *nodeSession {
	ses := s.sessions[inc]
	if ses == nil || seq != ses.seq+1 {
		return nil
	}
	ses.seq = seq
	return ses
}

func (s *State) open(op Open, pos Position, at int64, effects []Effect) []Effect {
	n := s.node(op.Node)
	if n.removed || op.Counter <= n.counter {
		return effects // or a late copy of an Open before
	}
	if n.session != nil {
		if n.session.boot != op.Boot {
			// The lock on the data folder proves nothing about a process on
			// another boot: its session goes by Expire, then the node asks anew.
			return effects
		}
		effects = s.end(n.session, ByOpen, pos, at, effects)
	}
	n.counter, n.name, n.address, n.reads = op.Counter, op.Name, op.Address, op.Reads
	n.session = &nodeSession{
		node:        n,
		incarnation: Incarnation(pos),
		boot:        op.Boot,
		lease:       op.Lease,
		expiry:      op.Expiry,
		members:     make(map[uint64]*member),
	}
	s.sessions[n.session.incarnation] = n.session
	return append(effects, Opened{n.id, op.Counter, n.session.incarnation, op.Expiry})
}

// end ends a session. All its members leave before anyone is named in their
// place: no leader is named that goes in the same moment.
func (s *State) end(ses *nodeSession, by Ending, pos Position, at int64, effects []Effect) []Effect {
	var headless []*group
	for _, seq := range slices.Sorted(maps.Keys(ses.members)) {
		m := ses.members[seq]
		s.keep(m.group)
		led := m.group.first == m && !m.group.headless
		if led {
			m.group.headless = true
			headless = append(headless, m.group)
		}
		effects = append(effects, m.left(ses.node.id, by, led))
	}
	for _, g := range headless {
		g.headless = false
		effects = s.succeed(g, pos, at, effects)
	}
	ses.node.session = nil
	delete(s.sessions, ses.incarnation)
	return append(effects, Ended{ses.node.id, ses.incarnation})
}

func (s *State) join(ses *nodeSession, op Join, pos Position, at int64, effects []Effect) []Effect {
	id := MemberID{op.Incarnation, op.Seq}
	g := s.groups[op.Group]
	if g == nil {
		g = &group{name: op.Group, epoch: s.epoch}
		s.groups[op.Group] = g
	} else if holder := s.Holder(op.Group, op.Client); holder != "" {
		return append(effects, Refused{id, op.Group, op.Client, holder})
	}
	s.keep(g)
	m := &member{id: id, client: op.Client, since: at, group: g}
	g.append(m)
	ses.members[op.Seq] = m
	if g.first == m {
		g.token, g.since = s.token(pos), at
	}
	return append(effects, Joined{id, op.Group, op.Client, ses.node.id, g.first.client, g.token})
}

func (s *State) leave(ses *nodeSession, m *member, pos Position, at int64, effects []Effect) []Effect {
	s.keep(m.group)
	led := m.group.first == m
	delete(ses.members, m.id.Seq)
	effects = append(effects, m.left(ses.node.id, ByLeave, led))
	if led {
		effects = s.succeed(m.group, pos, at, effects)
	}
	return effects
}

// left takes a member out of its group.
func (m *member) left(node NodeID, by Ending, led bool) Left {
	m.group.remove(m)
	return Left{m.id, m.group.name, m.client, node, by, led, m.group.first == nil}
}

// succeed names the leader of a group that has lost its own, or lets the
// group vanish.
func (s *State) succeed(g *group, pos Position, at int64, effects []Effect) []Effect {
	if g.first == nil {
		delete(s.groups, g.name)
		return effects
	}
	g.token, g.since = s.token(pos), at
	return append(effects, Led{g.name, g.first.client, s.sessions[g.first.id.Incarnation].node.id, g.token})
}

// token is the fencing token of a member that becomes first at a position:
// above every token that its group had before. The base is wall time in
// microseconds, so that a cluster founded anew goes on above the one before,
// and the whole fits a JSON number for two thousand years of a hundred
// entries a second. A Lift makes it higher.
func (s *State) token(pos Position) uint64 { return s.tokenBase + uint64(pos) }

func (g *group) find(client string) *member {
	if g.byClient != nil {
		return g.byClient[client]
	}
	for m := g.first; m != nil; m = m.next {
		if m.client == client {
			return m
		}
	}
	return nil
}

func (g *group) append(m *member) {
	m.prev = g.last
	if g.last == nil {
		g.first = m
	} else {
		g.last.next = m
	}
	g.last = m
	g.size++
	switch {
	case g.byClient != nil:
		g.byClient[m.client] = m
	case g.size > smallGroup:
		g.byClient = make(map[string]*member, g.size)
		for m := g.first; m != nil; m = m.next {
			g.byClient[m.client] = m
		}
	}
}

func (g *group) remove(m *member) {
	if m.prev == nil {
		g.first = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		g.last = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.prev, m.next = nil, nil
	g.size--
	if g.byClient != nil {
		delete(g.byClient, m.client)
	}
}
