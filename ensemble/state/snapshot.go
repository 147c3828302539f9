package state

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A snapshot is the whole state at one log index, in the primitives of
// entries. Nodes are in order of their ids, groups of their names, members in
// that of joining, so that equal states give equal bytes.
//
//	snapshot = version(1 byte) [level] index cluster tokenBase active
//	           count node* [recorded count session* count change*] count group*
//	node     = id name address reads counter flags [number] [incarnation boot lease expiry seq renewal [moved]]
//	flags    = 1 if it has a session + 2 if it was removed (1 byte)
//	session  = node incarnation boot lease expiry seq renewal moved
//	change   = at group from to token reason(1 byte) node seen
//	group    = name token since [flags] count member* [count past*]
//	flags    = 1 if it has keyed members + 2 if it has a past (1 byte)
//	member   = incarnation seq client since [flag [key(32 bytes) hold]]
//	past     = client token since reason(1 byte) node seen
//
// Version 1 has no level: it is that of a state of level 1. Version 2 has none of what is
// optional beyond that and the sessions of nodes. A state is written in the version of its
// level. In version 3 session* are the orphaned ones, in order of their incarnations; nodes
// are numbers of nodes there, and in changes and pasts; a member of a group with flag 1 says
// whether it is keyed.

// Snapshot is a state as it was at one index, written while the state goes on:
// its groups are read bit by bit, and one that changes before its turn is kept as
// it was (see [State.keep]). There is one of a state at a time.
type Snapshot struct {
	state *State
	head  []byte // what comes before the groups
	count int    // of the groups
	kept  map[*group]image
	early []*group // those that were kept, in any order
	burst int      // how many members, or groups, are read before the state may change again
}

// image is what a snapshot says of a group. Its members do not change.
type image struct {
	name    string
	token   uint64
	since   int64
	members []*member // in order of joining
	keys    []*keyed  // of these, nil for plain ones; empty if all are
	past    *past
}

// burst is how many members are read at once, in a millisecond at most; a larger group
// is read whole.
const burst = 1024

// Snapshot begins a snapshot of the state as it is now. The caller has it written,
// if at all, and then ends it. nil: there is one already.
func (s *State) Snapshot() *Snapshot {
	if s.snap != nil {
		return nil
	}
	s.epoch++
	s.snap = &Snapshot{state: s, head: s.appendHead(nil), count: len(s.groups), kept: make(map[*group]image), burst: burst}
	return s.snap
}

// End lets go of what is kept for the snapshot.
func (p *Snapshot) End() {
	if p.state.snap == p {
		p.state.snap = nil
	}
}

// keep is called before a group of the state changes, for the sake of a snapshot
// that has not come to it yet.
func (s *State) keep(g *group) {
	if s.snap != nil && g.epoch != s.epoch {
		s.snap.kept[g], _ = s.image(g, make([]*member, 0, g.size))
		s.snap.early = append(s.snap.early, g)
		g.epoch = s.epoch
	}
}

// image appends the members of a group's image to scratch, and gives that too.
func (s *State) image(g *group, scratch []*member) (image, []*member) {
	from := len(scratch)
	for m := g.first; m != nil; m = m.next {
		scratch = append(scratch, m)
	}
	p := image{name: g.name, token: g.token, since: g.since, members: scratch[from:], past: g.past}
	if g.keyed > 0 {
		for _, m := range p.members {
			p.keys = append(p.keys, s.sessions[m.id.Incarnation].keyed[m.id.Seq])
		}
	}
	return p, scratch
}

// Write writes the snapshot. It holds lock while it reads the state, which must
// not change then, and lets go of it after every burst, or a group that is larger.
func (p *Snapshot) Write(w io.Writer, lock sync.Locker) error {
	e := &encoder{buf: p.head, version: p.head[0]}
	groups := p.groups(lock)
	if len(groups) != p.count {
		return fmt.Errorf("snapshot: %d groups where there were %d", len(groups), p.count)
	}
	e.uint(uint64(len(groups)))
	var images []image
	var members []*member
	for len(groups) > 0 {
		images, members = images[:0], members[:0]
		lock.Lock()
		for len(groups) > 0 && len(images) < p.burst && len(members) < p.burst {
			g := groups[0]
			groups = groups[1:]
			kept, ok := p.kept[g]
			if !ok {
				kept, members = p.state.image(g, members)
				g.epoch = p.state.epoch // it may change now
			}
			delete(p.kept, g)
			images = append(images, kept)
		}
		lock.Unlock()
		for _, g := range images {
			if err := g.write(w, e); err != nil {
				return err
			}
		}
	}
	return e.flush(w, 0)
}

// groups gives the groups of the snapshot in order of their names: those that
// have not changed when they are come upon, and those that changed before.
func (p *Snapshot) groups(lock sync.Locker) []*group {
	groups := make([]*group, 0, p.count)
	lock.Lock()
	n := 0
	for _, g := range p.state.groups {
		if g.epoch != p.state.epoch {
			groups = append(groups, g)
		}
		if n++; n%p.burst == 0 {
			lock.Unlock() // a map may change between two steps of its iteration
			lock.Lock()
		}
	}
	early := p.early
	p.early = nil
	lock.Unlock()
	groups = append(groups, early...)
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	return slices.Compact(groups) // who changed after that is there twice
}

func (g image) write(w io.Writer, e *encoder) error {
	e.string(g.name)
	e.uint(g.token)
	e.uint(uint64(g.since))
	if e.version >= 3 {
		e.byte(flagsOf(len(g.keys) > 0, g.past != nil))
	}
	e.uint(uint64(len(g.members)))
	for i, m := range g.members {
		e.uint(uint64(m.id.Incarnation))
		e.uint(m.id.Seq)
		e.string(m.client)
		e.uint(uint64(m.since))
		if len(g.keys) > 0 {
			k := g.keys[i]
			e.bool(k != nil)
			if k != nil {
				e.key(k.key)
				e.uint(uint64(k.hold))
			}
		}
		if err := e.flush(w, snapshotPage); err != nil {
			return err
		}
	}
	if g.past != nil {
		e.uint(uint64(g.past.count))
		e.buf = append(e.buf, g.past.records...)
	}
	return nil
}

// snapshotPage is how many bytes of a snapshot are written and read at once.
const snapshotPage = 64 << 10

// flush writes what there is, unless it is less than least.
func (e *encoder) flush(w io.Writer, least int) error {
	if len(e.buf) < least {
		return nil
	}
	_, err := w.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

// appendHead appends what comes before the groups.
func (s *State) appendHead(b []byte) []byte {
	e := &encoder{version: levels[s.level].snapshot}
	e.buf = slices.Grow(b, 1024+128*len(s.order)+128*len(s.recent)) // to grow it bit by bit takes longer than the rest
	e.byte(e.version)
	if e.version > 1 {
		e.uint(s.level)
	}
	e.uint(s.index)
	e.string(s.cluster)
	e.uint(s.tokenBase)
	e.bool(s.active)
	e.uint(uint64(len(s.order)))
	for _, n := range s.order {
		e.string(string(n.id))
		e.string(n.name)
		e.string(n.address)
		e.uint(n.reads)
		e.uint(n.counter)
		e.byte(flagsOf(n.session != nil, n.removed))
		if e.version >= 3 {
			e.uint(uint64(n.number))
		}
		if n.session != nil {
			e.session(n.session)
		}
	}
	if e.version >= 3 {
		e.uint(s.recorded)
		orphaned := s.orphaned()
		e.uint(uint64(len(orphaned)))
		for _, ses := range orphaned {
			e.uint(uint64(ses.node.number))
			e.session(ses)
		}
		e.uint(uint64(len(s.recent)))
		for i := range s.recent {
			e.change(s.recent[(s.oldest+i)%len(s.recent)])
		}
	}
	return e.buf
}

// flagsOf gives a byte of flags.
func flagsOf(first, second bool) (f byte) {
	if first {
		f |= 1
	}
	if second {
		f |= 2
	}
	return f
}

func (d *decoder) flags() (first, second bool) {
	f := d.byte()
	if f > 3 {
		d.fail("bad flags")
	}
	return f&1 != 0, f&2 != 0
}

// session writes a session, and not whose it is.
func (e *encoder) session(ses *nodeSession) {
	e.uint(uint64(ses.incarnation))
	e.string(ses.boot)
	e.uint(uint64(ses.lease))
	e.uint(uint64(ses.expiry))
	e.uint(ses.seq)
	e.uint(ses.renewal)
	if e.version >= 3 {
		e.uint(ses.moved)
	}
}

// readSession reads one of a node.
func (s *State) readSession(d *decoder, n *node, version byte) *nodeSession {
	ses := &nodeSession{
		node:        n,
		incarnation: d.incarnation(),
		boot:        d.string(),
		lease:       time.Duration(d.uint()),
		expiry:      time.Duration(d.uint()),
		seq:         d.uint(),
		renewal:     d.uint(),
		members:     make(map[uint64]*member),
	}
	if version >= 3 {
		ses.moved = d.uint()
	}
	if s.sessions[ses.incarnation] != nil {
		d.fail("two sessions of one incarnation")
	}
	s.sessions[ses.incarnation] = ses
	return ses
}

func (e *encoder) change(c change) {
	e.uint(uint64(c.at))
	e.string(c.group)
	e.string(c.from)
	e.string(c.to)
	e.uint(c.token)
	e.byte(byte(c.reason))
	e.uint(uint64(c.node.number))
	e.uint(uint64(numberOf(c.seen)))
}

// readChange reads one.
func (s *State) readChange(d *decoder) change {
	return change{int64(d.uint()), d.string(), d.string(), d.string(), d.uint(), Reason(d.byte()), s.readNode(d, false), s.readNode(d, true)}
}

// readNode reads the number of a node, which may be that of none.
func (s *State) readNode(d *decoder, none bool) *node {
	switch number := d.uint(); {
	case number == 0 && none:
	case number == 0 || number > uint64(len(s.numbered)):
		d.fail("no such node")
	default:
		return s.numbered[number-1]
	}
	return nil
}

// Restore reads a snapshot. Its error wraps [ErrFormat] if a newer
// program wrote it, [ErrCorrupt] if none did; others are the reader's.
func Restore(r io.Reader) (*State, error) { return restore(r, NewestLevel) }

// restore reads a snapshot as a program does that reads levels up to newest.
func restore(r io.Reader, newest uint64) (*State, error) {
	d := &decoder{from: r}
	d.fill()
	version := d.byte()
	if d.err == nil && (version == 0 || version > levels[newest].snapshot) {
		return nil, fmt.Errorf("snapshot of version %d: %w", version, ErrFormat)
	}
	s := New()
	if version > 1 {
		s.level = d.uint()
		switch {
		case d.err == nil && s.level > newest:
			return nil, fmt.Errorf("snapshot of a state of level %d: %w", s.level, ErrFormat)
		case s.level < FirstLevel || levels[s.level].snapshot != version:
			d.fail("bad level")
			s.level = FirstLevel
		}
	}
	s.index = d.uint()
	s.cluster = d.string()
	s.tokenBase = d.uint()
	s.active = d.bool()

	for range d.uint() {
		d.fill()
		n := &node{id: NodeID(d.string()), name: d.string(), address: d.string(), reads: d.uint(), counter: d.uint()}
		session, removed := d.flags()
		n.removed = removed
		if version >= 3 {
			if n.number = d.uint32(); n.number == 0 {
				d.fail("a node without a number")
			}
		}
		if session {
			n.session = s.readSession(d, n, version)
		}
		if s.nodes[n.id] != nil {
			d.fail("a node twice")
		}
		if d.err != nil {
			break
		}
		s.add(n)
	}
	if version >= 3 {
		s.restoreKept(d, version)
	}

	d.fill()
	for range d.uint() {
		d.fill()
		g := &group{name: d.string(), token: d.uint(), since: int64(d.uint())}
		var hasKeys, hasPast bool
		if version >= 3 {
			hasKeys, hasPast = d.flags()
		}
		for range d.uint() {
			d.fill()
			m := &member{id: MemberID{d.incarnation(), d.uint()}, client: d.string(), since: int64(d.uint()), group: g}
			var k *keyed
			if hasKeys && d.bool() {
				k = &keyed{d.key(), time.Duration(d.uint())}
			}
			ses := s.sessions[m.id.Incarnation]
			if ses == nil || m.id.Seq > ses.seq || ses.members[m.id.Seq] != nil || g.find(m.client) != nil || k == nil && ses.orphaned() {
				d.fail("a member without a place")
			}
			if d.err != nil {
				break
			}
			ses.add(m, k)
			g.append(m)
		}
		if hasPast {
			g.past = s.readPast(d)
		}
		if g.size == 0 || s.groups[g.name] != nil || hasKeys != (g.keyed > 0) {
			d.fail("a group empty or twice, or without the keys that it should have")
		}
		if d.err != nil {
			break
		}
		s.groups[g.name] = g
	}
	for _, ses := range s.orphaned() {
		if len(ses.members) == 0 {
			d.fail("an orphaned session without members")
		}
	}
	d.fill()
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}

// restoreKept reads what a state has from KeyedLevel on, beyond its nodes and groups.
func (s *State) restoreKept(d *decoder, version byte) {
	s.numbered = make([]*node, len(s.order))
	for _, n := range s.order {
		if int(n.number) > len(s.numbered) || s.numbered[n.number-1] != nil {
			d.fail("two nodes of one number")
			return
		}
		s.numbered[n.number-1] = n
	}
	d.fill()
	s.recorded = d.uint()
	for range d.uint() {
		d.fill()
		n := s.readNode(d, false)
		if d.err != nil {
			return
		}
		s.readSession(d, n, version)
	}
	count := d.uint()
	if count > MaxRecent {
		d.fail("too many changes")
	}
	for range count {
		d.fill()
		c := s.readChange(d)
		if d.err != nil {
			return
		}
		s.changed(c)
	}
}

// readPast reads what a group remembers of its former leaders.
func (s *State) readPast(d *decoder) *past {
	d.fill()
	count := d.uint()
	if count == 0 || count > MaxPast {
		d.fail("too many former leaders")
	}
	var p *past
	for range count {
		d.fill()
		l := d.leadership()
		if known := uint32(len(s.numbered)); l.node == 0 || l.node > known || l.seen > known {
			d.fail("no such node")
		}
		if d.err != nil {
			return nil
		}
		p = p.and(l)
	}
	return p
}

// orphaned gives the orphaned sessions in order of their incarnations.
func (s *State) orphaned() (all []*nodeSession) {
	for _, inc := range slices.Sorted(maps.Keys(s.sessions)) {
		if ses := s.sessions[inc]; ses.orphaned() {
			all = append(all, ses)
		}
	}
	return all
}
