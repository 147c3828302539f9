package state

import (
	"iter"
	"maps"
	"slices"
	"time"
)

// What others read of a state. They get copies.

// NodeRecord is what a state says of a node.
type NodeRecord struct {
	ID            NodeID
	Name, Address string // by its last Open; empty: it has had none
	Reads         uint64 // the newest level that it reads, and lets the cluster rise to, by that too
	Counter       uint64 // of that
	Removed       bool   // it is no member any more
	Session       bool   // it has one
	Renewed       bool   // and that has been renewed
}

// SessionRecord is what a state says of a session.
type SessionRecord struct {
	Node          NodeID
	Name          string // of the node
	Incarnation   Incarnation
	Lease, Expiry time.Duration
	Renewal       uint64        // the number of the last Renew accepted; 0: none was
	Sign          uint64        // that of the last sign of life, which is what an Expire names: of a Renew, or of a Join that moved a member to it
	Silence       time.Duration // for how long without one it may be expired: Expiry, or the longest hold of its members
	Orphaned      bool          // it is over for its node, and there for its keyed members only
	Members       int
	Keyed         int // of these
}

// GroupRecord is what a state says of a group.
type GroupRecord struct {
	Name    string
	Leader  string
	Token   uint64    // of the leader
	Since   time.Time // when it became it
	Why     Reason    // why the leader before leads no more; 0: nobody led before, or that is not kept
	Members []MemberRecord
}

// MemberRecord is what a state says of a member of a group.
type MemberRecord struct {
	ID     MemberID
	Client string
	Node   NodeID
	Since  time.Time // when it joined
	Keyed  bool
	Hold   time.Duration // if it is keyed
	Away   bool          // it is keyed, and its session is orphaned
}

// Index is that of the last entry applied.
func (s *State) Index() uint64 { return s.index }

// Cluster is the cluster's id, empty until Found.
func (s *State) Cluster() string { return s.cluster }

// TokenBase is the number that tokens are counted from.
func (s *State) TokenBase() uint64 { return s.tokenBase }

// Active reports whether elections have begun.
func (s *State) Active() bool { return s.active }

// Level is that of the formats that nodes write.
func (s *State) Level() uint64 { return s.level }

// Given is a token that none is above which was given by the entries that were applied, and
// all are that later ones give.
func (s *State) Given() uint64 { return s.token(PositionOf(s.index, MaxOps-1)) }

// GivenBy is a token that none is above which was given up to an entry, applied already or not.
func (s *State) GivenBy(index uint64) uint64 { return s.token(PositionOf(max(index, s.index)+1, 0)) }

// Node gives a node; false: the state does not know it.
func (s *State) Node(id NodeID) (NodeRecord, bool) {
	n := s.nodes[id]
	if n == nil {
		return NodeRecord{}, false
	}
	return n.record(), true
}

func (n *node) record() NodeRecord {
	r := NodeRecord{ID: n.id, Name: n.name, Address: n.address, Reads: n.reads, Counter: n.counter, Removed: n.removed}
	if n.session != nil {
		r.Session, r.Renewed = true, n.session.renewal > 0
	}
	return r
}

// Nodes gives all nodes that the state knows, in order of their ids.
func (s *State) Nodes() iter.Seq[NodeRecord] {
	return func(yield func(NodeRecord) bool) {
		for _, n := range s.order {
			if !yield(n.record()) {
				return
			}
		}
	}
}

// Current gives the incarnation and the open counter of a node's session; false: it has none.
func (s *State) Current(id NodeID) (inc Incarnation, counter uint64, ok bool) {
	n := s.nodes[id]
	if n == nil || n.session == nil {
		return 0, 0, false
	}
	return n.session.incarnation, n.counter, true
}

// Session gives the session of an incarnation, orphaned or not; false: there is none.
func (s *State) Session(inc Incarnation) (SessionRecord, bool) {
	ses := s.sessions[inc]
	if ses == nil {
		return SessionRecord{}, false
	}
	return ses.record(), true
}

// Standing gives S of a session of a node's own; false: there is none, or it is orphaned.
func (s *State) Standing(inc Incarnation) (expiry time.Duration, ok bool) {
	if ses := s.sessions[inc]; ses != nil && !ses.orphaned() {
		return ses.expiry, true
	}
	return 0, false
}

func (ses *nodeSession) record() SessionRecord {
	return SessionRecord{
		Node: ses.node.id, Name: ses.node.name, Incarnation: ses.incarnation, Lease: ses.lease, Expiry: ses.expiry,
		Renewal: ses.renewal, Sign: ses.sign(), Silence: ses.silence(),
		Orphaned: ses.orphaned(), Members: len(ses.members), Keyed: len(ses.keyed),
	}
}

// Sessions gives all sessions in order of their incarnations, orphaned ones too. A node may
// have several of these, all older than its own.
func (s *State) Sessions() iter.Seq[SessionRecord] {
	return func(yield func(SessionRecord) bool) {
		for _, inc := range slices.Sorted(maps.Keys(s.sessions)) {
			if !yield(s.sessions[inc].record()) {
				return
			}
		}
	}
}

// Accepted is the number of the last operation that was accepted from an
// incarnation, and of the last Renew; false if that is not the session of its node any more.
func (s *State) Accepted(inc Incarnation) (seq, renewal uint64, current bool) {
	ses := s.sessions[inc]
	if ses == nil || ses.orphaned() {
		return 0, 0, false
	}
	return ses.seq, ses.renewal, true
}

// Leader gives who leads a group, with the token. If nobody does, the name is empty and the
// token one that none is above which was given, and all are that will be: of two answers,
// also of different nodes, that with the higher token is the newer one.
func (s *State) Leader(group string) (leader string, token uint64) {
	if g := s.groups[group]; g != nil {
		return g.first.client, g.token
	}
	return "", s.Given()
}

// Member gives the leader of a member's group, and its token; false: there is no such
// member, or it has moved.
func (s *State) Member(id MemberID) (leader string, token uint64, ok bool) {
	ses := s.sessions[id.Incarnation]
	if ses == nil || ses.members[id.Seq] == nil {
		return "", 0, false
	}
	g := ses.members[id.Seq].group
	return g.first.client, g.token, true
}

// Keyed gives what a member is keyed by; false: there is no such keyed member.
func (s *State) Keyed(id MemberID) (key Key, hold time.Duration, ok bool) {
	if ses := s.sessions[id.Incarnation]; ses != nil && ses.keyed[id.Seq] != nil {
		k := ses.keyed[id.Seq]
		return k.key, k.hold, true
	}
	return Key{}, 0, false
}

// Holder gives the node of the member that has a name in a group; "" if the
// name is free.
func (s *State) Holder(group, client string) NodeID {
	if g := s.groups[group]; g != nil {
		if m := g.find(client); m != nil {
			return s.nodeOf(m).id
		}
	}
	return ""
}

// Group gives a group; false: there is none of that name.
func (s *State) Group(name string) (GroupRecord, bool) {
	g := s.groups[name]
	if g == nil {
		return GroupRecord{}, false
	}
	r := GroupRecord{Name: name, Leader: g.first.client, Token: g.token, Since: time.UnixMilli(g.since), Why: g.past.why()}
	for m := g.first; m != nil; m = m.next {
		ses := s.sessions[m.id.Incarnation]
		k := ses.keyed[m.id.Seq]
		r.Members = append(r.Members, MemberRecord{m.id, m.client, ses.node.id, time.UnixMilli(m.since), k != nil, k.length(), ses.orphaned()})
	}
	return r, true
}

// GroupNames gives the names of all groups, in any order: there may be a million.
func (s *State) GroupNames() []string {
	names := make([]string, 0, len(s.groups))
	for name := range s.groups {
		names = append(names, name)
	}
	return names
}

// Groups gives all groups, in any order: there may be a million.
func (s *State) Groups() iter.Seq[GroupRecord] {
	return func(yield func(GroupRecord) bool) {
		for name := range s.groups {
			if g, _ := s.Group(name); !yield(g) {
				return
			}
		}
	}
}

// Refound makes the state that of another cluster, whose tokens begin above what entries
// beyond the last one may have given too.
func (s *State) Refound(cluster string, tokenBase, beyond uint64) {
	s.cluster, s.tokenBase = cluster, max(tokenBase, s.tokenBase+(s.index+beyond)<<PositionBits)
}
