package state

import (
	"fmt"
	"io"
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
//	           count node* count group*
//	node     = id name address reads counter flags [incarnation boot lease expiry seq renewal]
//	flags    = 1 if it has a session + 2 if it was removed (1 byte)
//	group    = name token since count member*
//	member   = incarnation seq client since
//
// Version 1 has no level: it is that of a state of level 1. A state is written in the
// version of its level.

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
		s.snap.kept[g], _ = g.image(make([]*member, 0, g.size))
		s.snap.early = append(s.snap.early, g)
		g.epoch = s.epoch
	}
}

// image appends the members of its image to scratch, and gives that too.
func (g *group) image(scratch []*member) (image, []*member) {
	from := len(scratch)
	for m := g.first; m != nil; m = m.next {
		scratch = append(scratch, m)
	}
	return image{g.name, g.token, g.since, scratch[from:]}, scratch
}

// Write writes the snapshot. It holds lock while it reads the state, which must
// not change then, and lets go of it after every burst, or a group that is larger.
func (p *Snapshot) Write(w io.Writer, lock sync.Locker) error {
	e := &encoder{buf: p.head}
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
				kept, members = g.image(members)
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
	e.uint(uint64(len(g.members)))
	for _, m := range g.members {
		e.uint(uint64(m.id.Incarnation))
		e.uint(m.id.Seq)
		e.string(m.client)
		e.uint(uint64(m.since))
		if err := e.flush(w, snapshotPage); err != nil {
			return err
		}
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
	e := &encoder{buf: slices.Grow(b, 1024+128*len(s.order))} // to grow it bit by bit takes longer than the rest
	version := levels[s.level].snapshot
	e.byte(version)
	if version > 1 {
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

// Restore reads a snapshot. Its error wraps [ErrFormat] if a newer
// program wrote it, [ErrCorrupt] if none did; others are the reader's.
func Restore(r io.Reader) (*State, error) {
	d := &decoder{from: r}
	d.fill()
	version := d.byte()
	if d.err == nil && (version == 0 || version > levels[NewestLevel].snapshot) {
		return nil, fmt.Errorf("snapshot of version %d: %w", version, ErrFormat)
	}
	s := New()
	if version > 1 {
		s.level = d.uint()
		switch {
		case d.err == nil && s.level > NewestLevel:
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
		s.add(n)
	}

	d.fill()
	for range d.uint() {
		d.fill()
		g := &group{name: d.string(), token: d.uint(), since: int64(d.uint())}
		for range d.uint() {
			d.fill()
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
	d.fill()
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}
