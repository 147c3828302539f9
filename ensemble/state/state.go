package state

import (
	"cmp"
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
	order    []*node                      // the same, by their ids: to sort them takes long when many have been removed
	sessions map[Incarnation]*nodeSession // those of nodes, and orphaned ones
	groups   map[string]*group

	// From KeyedLevel on; see changes.go.
	numbered []*node  // by their numbers, from 1 on
	recorded uint64   // tokens above this were given when changes of leaders were kept
	recent   []change // the last ones, a ring
	oldest   int      // of them

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
	number  uint32       // its place among all nodes, for what is packed; 0: below KeyedLevel
	session *nodeSession // nil: none
}

// nodeSession is a node's session as the cluster sees it; the node's own view
// is [session]. It is orphaned if it is over for its node, by an End or an Open, and has
// keyed members: it stays for them, and accepts nothing, until the last one has moved or it
// is expired.
type nodeSession struct {
	node          *node
	incarnation   Incarnation
	boot          string
	lease, expiry time.Duration
	seq           uint64 // of the last operation accepted
	renewal       uint64 // seq of the last Renew accepted; 0: the Open itself
	moved         uint64 // seq of the last Join that moved a member here; 0: none did
	members       map[uint64]*member
	keyed         map[uint64]*keyed // of those members that are keyed; nil: none was
}

func (ses *nodeSession) orphaned() bool { return ses.node.session != ses }

// sign is the number of the last sign of life, which an Expire has to name. A member that
// moves to a session is one: before the promises are over that were made to it elsewhere, its
// new session must not be expired (DESIGN.md, Keyed members).
func (ses *nodeSession) sign() uint64 { return max(ses.renewal, ses.moved) }

// silence is for how long a session has to be silent before it may be expired: S, or the
// longest hold of its members, which may come from nodes with another S.
func (ses *nodeSession) silence() time.Duration {
	longest := ses.expiry
	for _, k := range ses.keyed {
		longest = max(longest, k.hold)
	}
	return longest
}

// add and drop have a member in a session, with what it is keyed by, if it is.
func (ses *nodeSession) add(m *member, k *keyed) {
	ses.members[m.id.Seq] = m
	if k == nil {
		return
	}
	if ses.keyed == nil {
		ses.keyed = make(map[uint64]*keyed)
	}
	ses.keyed[m.id.Seq] = k
	m.group.keyed++
}

func (ses *nodeSession) drop(m *member) {
	delete(ses.members, m.id.Seq)
	if ses.keyed[m.id.Seq] != nil {
		delete(ses.keyed, m.id.Seq)
		m.group.keyed--
	}
}

// group is a list of members in their order of joining. Its first member
// leads. Empty groups do not exist.
type group struct {
	name        string
	first, last *member
	byClient    map[string]*member // nil while the group is small: a walk is as fast then
	token       uint64             // of the present leader
	since       int64              // when it became first, Unix milliseconds
	past        *past              // the leaders before; nil: none is remembered
	size        int32
	keyed       int32  // how many of its members are
	epoch       uint32 // of the newest snapshot that does not need the group as it is now: the group is younger, or that snapshot has it
	headless    bool   // has lost its leader in the operation under way
}

// member is a membership. Its first three fields never change, so that a snapshot
// may read them at any time: one that moves gets another member in its place. What a keyed
// one has beyond these is in its session, so that plain ones take no memory for it.
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
// one of [Opened], [Renewed], [Ended], [Emptied], [Joined], [Moved], [Refused], [Left],
// [SteppedDown], [Led], [Removed] and [Raised].
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

	// Ended: the session of the node is over, and its memberships are gone. If it is
	// orphaned, its keyed members are not, nor is the session itself.
	Ended struct {
		Node        NodeID
		Incarnation Incarnation
		Orphaned    bool
	}

	// Emptied: an orphaned session is gone, as its last member has moved or it was expired.
	Emptied struct {
		Node        NodeID // whose session it was
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
		Hold   time.Duration // of a keyed member
	}

	// Moved: a keyed member has another session or connection. Nothing else of it has
	// changed, and nobody else is concerned. It counts as a renewal for who expires
	// sessions, and for no lease.
	Moved struct {
		From   MemberID // which is none any more
		Member MemberID
		Group  string
		Client string
		Node   NodeID // of Member
		Leader string
		Token  uint64
		Hold   time.Duration
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
		Reason Reason
		Led    bool   // the group, before the operation that ended this
		Last   bool   // the group is gone with it
		Token  uint64 // if Last: above all that the group had, below all that it will have
	}

	// SteppedDown: the leader is the last member of its group now, as was asked for. Who
	// leads, the next effect says.
	SteppedDown struct {
		Member MemberID
		Group  string
		Client string
		Node   NodeID // of the member
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

func (Opened) effect()      {}
func (Renewed) effect()     {}
func (Ended) effect()       {}
func (Emptied) effect()     {}
func (Joined) effect()      {}
func (Moved) effect()       {}
func (Refused) effect()     {}
func (Left) effect()        {}
func (SteppedDown) effect() {}
func (Led) effect()         {}
func (Removed) effect()     {}
func (Raised) effect()      {}

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
				effects = s.join(ses, op, nil, pos, at, effects)
			}
		case KeyedJoin:
			if ses := s.acceptKeyed(op.Incarnation, op.Seq); ses != nil {
				effects = s.join(ses, op.Join, &keyed{op.Key, op.Hold}, pos, at, effects)
			}
		case Leave:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				if m := ses.members[op.Join]; m != nil {
					effects = s.leave(ses, m, cause{ByLeave, cmp.Or(op.Reason, ReasonClosed), ses.node, pos, at}, effects)
				}
			}
		case StepDown:
			if ses := s.acceptKeyed(op.Incarnation, op.Seq); ses != nil {
				effects = s.stepDown(ses, op, cause{reason: ReasonSteppedDown, seen: ses.node, pos: pos, at: at}, effects)
			}
		case End:
			if ses := s.accept(op.Incarnation, op.Seq); ses != nil {
				effects = s.end(ses, cause{ByEnd, cmp.Or(op.Reason, ReasonNodeStopped), ses.node, pos, at}, effects)
			}
		case Expire:
			// Compare and expire: whoever proposed this may have been deposed
			// or late; a sign of life since makes it void.
			if ses := s.sessions[op.Incarnation]; ses != nil && ses.sign() == op.Renewal {
				c := cause{ByExpire, cmp.Or(op.Reason, ReasonNodeLost), s.nodes[op.By], pos, at}
				if ses.node.removed && c.reason != ReasonHoldOver {
					c.reason = ReasonRemoved
				}
				effects = s.end(ses, c, effects)
			}
		case Remove:
			if n := s.node(op.Node); !n.removed {
				n.removed = true
				effects = append(effects, Removed(op))
			}
		case Raise:
			if op.Level > s.level && (op.Level < KeyedLevel || s.allRead(op.Level)) {
				if s.level < KeyedLevel && op.Level >= KeyedLevel {
					s.keepChanges(pos)
				}
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
	if s.level >= KeyedLevel && n.number == 0 {
		s.number(n)
	}
}

// allRead reports whether all members have announced, by the sessions that they have now,
// that they read a level. The raft leader has looked before it proposed a Raise; since then one
// may have been started as an older program.
func (s *State) allRead(level uint64) bool {
	return !slices.ContainsFunc(s.order, func(n *node) bool {
		return !n.removed && (n.session == nil || n.reads < level)
	})
}

func (s *State) number(n *node) {
	s.numbered = append(s.numbered, n)
	n.number = uint32(len(s.numbered))
}

// keepChanges has changes of leaders kept from a position on. Nodes get their numbers by
// what every state has, and not by how it came to be: by their ids.
func (s *State) keepChanges(from Position) {
	s.recorded = s.token(from)
	for _, n := range s.order {
		s.number(n)
	}
}

// numberOf and idOf give what a node that may be unknown is called; idNumbered the id for
// a number.
func numberOf(n *node) uint32 {
	if n == nil {
		return 0
	}
	return n.number
}

func idOf(n *node) NodeID {
	if n == nil {
		return ""
	}
	return n.id
}

func (s *State) idNumbered(number uint32) NodeID {
	if number == 0 {
		return ""
	}
	return s.numbered[number-1].id
}

func (s *State) nodeOf(m *member) *node { return s.sessions[m.id.Incarnation].node }

// accept gives the session whose next operation this is, and counts it; nil
// if the session is over, or the operation came before or leaves a gap.
func (s *State) accept(inc Incarnation, seq uint64) *nodeSession {
	ses := s.sessions[inc]
	if ses == nil || ses.orphaned() || seq != ses.seq+1 {
		return nil
	}
	ses.seq = seq
	return ses
}

// acceptKeyed is accept for what there is from KeyedLevel on.
func (s *State) acceptKeyed(inc Incarnation, seq uint64) *nodeSession {
	if s.level < KeyedLevel {
		return nil
	}
	return s.accept(inc, seq)
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
		effects = s.end(n.session, cause{ByOpen, cmp.Or(op.Reason, ReasonNodeRestarted), n, pos, at}, effects)
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
// place: no leader is named that goes in the same moment. Its keyed members stay, unless it is
// expired: they may have been made promises that last.
func (s *State) end(ses *nodeSession, c cause, effects []Effect) []Effect {
	var leaders []*member
	for _, seq := range slices.Sorted(maps.Keys(ses.members)) {
		if ses.keyed[seq] != nil && c.by != ByExpire {
			continue
		}
		m := ses.members[seq]
		s.keep(m.group)
		led := m.group.first == m && !m.group.headless
		if led {
			m.group.headless = true
			leaders = append(leaders, m)
		}
		effects = append(effects, s.left(ses, m, led, c))
	}
	for _, m := range leaders {
		m.group.headless = false
		effects = s.succeed(m, ses.node, c, effects)
	}
	if ses.orphaned() {
		return s.emptied(ses, effects)
	}
	ses.node.session = nil
	if len(ses.members) == 0 {
		delete(s.sessions, ses.incarnation)
	}
	return append(effects, Ended{ses.node.id, ses.incarnation, len(ses.members) > 0})
}

// emptied lets go of an orphaned session that has no member left.
func (s *State) emptied(ses *nodeSession, effects []Effect) []Effect {
	delete(s.sessions, ses.incarnation)
	return append(effects, Emptied{ses.node.id, ses.incarnation})
}

// join has a client join, as a keyed member if k is not nil.
func (s *State) join(ses *nodeSession, op Join, k *keyed, pos Position, at int64, effects []Effect) []Effect {
	id := MemberID{op.Incarnation, op.Seq}
	g := s.groups[op.Group]
	if g == nil {
		g = &group{name: op.Group, epoch: s.epoch}
		s.groups[op.Group] = g
	} else if m := g.find(op.Client); m != nil {
		of := s.sessions[m.id.Incarnation]
		if k != nil && of.keyed[m.id.Seq].is(k.key) {
			return s.move(m, of, ses, op.Seq, k.hold, effects)
		}
		return append(effects, Refused{id, op.Group, op.Client, of.node.id})
	}
	s.keep(g)
	m := &member{id: id, client: op.Client, since: at, group: g}
	g.append(m)
	ses.add(m, k)
	if g.first == m {
		g.token, g.since = s.token(pos), at
		s.changed(change{at: at, group: g.name, to: m.client, token: g.token, node: ses.node, seen: ses.node})
	}
	return append(effects, Joined{id, op.Group, op.Client, ses.node.id, g.first.client, g.token, k.length()})
}

// move gives a keyed member another session, or another number in the same one.
func (s *State) move(m *member, from, to *nodeSession, seq uint64, hold time.Duration, effects []Effect) []Effect {
	g := m.group
	s.keep(g)
	moved := &member{id: MemberID{to.incarnation, seq}, client: m.client, since: m.since, group: g}
	k := from.keyed[m.id.Seq]
	if hold > k.hold {
		k = &keyed{k.key, hold}
	}
	g.replace(m, moved)
	from.drop(m)
	to.add(moved, k)
	to.moved = seq
	effects = append(effects, Moved{m.id, moved.id, g.name, m.client, to.node.id, g.first.client, g.token, k.hold})
	if from.orphaned() && len(from.members) == 0 {
		effects = s.emptied(from, effects)
	}
	return effects
}

func (s *State) leave(ses *nodeSession, m *member, c cause, effects []Effect) []Effect {
	s.keep(m.group)
	led := m.group.first == m
	effects = append(effects, s.left(ses, m, led, c))
	if led {
		effects = s.succeed(m, ses.node, c, effects)
	}
	return effects
}

// stepDown has a keyed leader stand last, if it has a hold: it leads by promises, which are
// over by now. Any other leader goes by its connection. So its node has to close that first,
// and then proposes a Leave.
func (s *State) stepDown(ses *nodeSession, op StepDown, c cause, effects []Effect) []Effect {
	m := ses.members[op.Join]
	if m == nil || ses.keyed[op.Join].length() == 0 {
		return effects
	}
	g := m.group
	if g.first != m || g.token != op.Token || g.size == 1 {
		return effects
	}
	s.keep(g)
	g.remove(m)
	g.append(m)
	effects = append(effects, SteppedDown{m.id, g.name, m.client, ses.node.id})
	return s.succeed(m, ses.node, c, effects)
}

// left takes a member out of its session and its group.
func (s *State) left(ses *nodeSession, m *member, led bool, c cause) Left {
	g := m.group
	ses.drop(m)
	g.remove(m)
	l := Left{Member: m.id, Group: g.name, Client: m.client, Node: ses.node.id, By: c.by, Reason: c.reason, Led: led, Last: g.first == nil}
	if l.Last {
		l.Token = s.token(c.pos)
	}
	return l
}

// succeed names the leader of a group that has lost its own, who was at a node, or lets the
// group vanish.
func (s *State) succeed(was *member, of *node, c cause, effects []Effect) []Effect {
	g := was.group
	s.lost(was, of, c)
	if g.first == nil {
		delete(s.groups, g.name)
		return effects
	}
	g.token, g.since = s.token(c.pos), c.at
	return append(effects, Led{g.name, g.first.client, s.nodeOf(g.first).id, g.token})
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

// replace gives a member's place to another one of its name.
func (g *group) replace(m, by *member) {
	by.prev, by.next = m.prev, m.next
	if m.prev == nil {
		g.first = by
	} else {
		m.prev.next = by
	}
	if m.next == nil {
		g.last = by
	} else {
		m.next.prev = by
	}
	m.prev, m.next = nil, nil
	if g.byClient != nil {
		g.byClient[by.client] = by
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
