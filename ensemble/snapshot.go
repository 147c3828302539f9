package ensemble

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A snapshot is the whole state at one log index, in the primitives of
// entries. Nodes are in order of their ids, groups of their names, members in
// that of joining, so that equal states give equal bytes.
//
//	snapshot = version(1 byte = 1) index cluster tokenBase active
//	           count node* count group*
//	node     = id name address reads counter flags [incarnation boot lease expiry seq renewal]
//	flags    = 1 if it has a session + 2 if it was removed (1 byte)
//	group    = name token since count member*
//	member   = incarnation seq client since
const snapshotVersion = 1

// Snapshot gives the state's bytes.
func (s *State) Snapshot() []byte {
	e := &encoder{}
	e.byte(snapshotVersion)
	e.uint(s.index)
	e.string(s.cluster)
	e.uint(s.tokenBase)
	e.bool(s.active)

	e.uint(uint64(len(s.nodes)))
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[id]
		e.string(string(n.id))
		e.string(n.name)
		e.string(n.address)
		e.uint(n.reads)
		e.uint(n.counter)
		e.byte(flags(n))
		if ses := n.session; ses != nil {
			e.uint(uint64(ses.incarnation))
			e.string(ses.boot)
			e.uint(uint64(ses.lease))
			e.uint(uint64(ses.expiry))
			e.uint(ses.seq)
			e.uint(ses.renewal)
		}
	}

	e.uint(uint64(len(s.groups)))
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[name]
		e.string(g.name)
		e.uint(g.token)
		e.uint(uint64(g.since))
		e.uint(uint64(g.size))
		for m := g.first; m != nil; m = m.next {
			e.uint(uint64(m.id.Incarnation))
			e.uint(m.id.Seq)
			e.string(m.client)
			e.uint(uint64(m.since))
		}
	}
	return e.buf
}

const (
	flagSession = 1 << iota
	flagRemoved
)

func flags(n *node) (f byte) {
	if n.session != nil {
		f |= flagSession
	}
	if n.removed {
		f |= flagRemoved
	}
	return f
}

// restoreState reads a snapshot. Its error wraps [ErrFormat] if a newer
// program wrote it.
func restoreState(b []byte) (*State, error) {
	d := &decoder{buf: b}
	if v := d.byte(); d.err == nil && v != snapshotVersion {
		return nil, fmt.Errorf("snapshot of version %d: %w", v, ErrFormat)
	}
	s := NewState()
	s.index = d.uint()
	s.cluster = d.string()
	s.tokenBase = d.uint()
	s.active = d.bool()

	for range d.uint() {
		n := &node{id: NodeID(d.string()), name: d.string(), address: d.string(), reads: d.uint(), counter: d.uint()}
		f := d.byte()
		if f > flagSession|flagRemoved {
			d.fail("bad flags")
		}
		n.removed = f&flagRemoved != 0
		if f&flagSession != 0 {
			n.session = &nodeSession{
				node:        n,
				incarnation: d.incarnation(),
				boot:        d.string(),
				lease:       time.Duration(d.uint()),
				expiry:      time.Duration(d.uint()),
				seq:         d.uint(),
				renewal:     d.uint(),
				members:     make(map[uint64]*member),
			}
			if s.sessions[n.session.incarnation] != nil {
				d.fail("two sessions of one incarnation")
			}
			s.sessions[n.session.incarnation] = n.session
		}
		if s.nodes[n.id] != nil {
			d.fail("a node twice")
		}
		if d.err != nil {
			break
		}
		s.nodes[n.id] = n
	}

	for range d.uint() {
		g := &group{name: d.string(), token: d.uint(), since: int64(d.uint())}
		for range d.uint() {
			m := &member{id: MemberID{d.incarnation(), d.uint()}, client: d.string(), since: int64(d.uint()), group: g}
			ses := s.sessions[m.id.Incarnation]
			if ses == nil || m.id.Seq > ses.seq || ses.members[m.id.Seq] != nil || g.find(m.client) != nil {
				d.fail("a member without a place")
			}
			if d.err != nil {
				break
			}
			ses.members[m.id.Seq] = m
			g.append(m)
		}
		if g.size == 0 || s.groups[g.name] != nil {
			d.fail("a group empty or twice")
		}
		if d.err != nil {
			break
		}
		s.groups[g.name] = g
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}
