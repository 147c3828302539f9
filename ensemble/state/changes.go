package state

import (
	"iter"
	"slices"
	"time"
)

// The changes of groups' leaders, for people to read: of each group the last ones, and the
// last ones of all groups. They decide nothing. They are kept from KeyedLevel on.

const (
	// MaxPast is how many of its former leaders a group remembers.
	MaxPast = 16

	// MaxRecent is how many changes of all groups the state remembers.
	MaxRecent = 1000
)

// Reason is why a membership has ended, or why a leader leads no more. A program may meet
// reasons that it does not know.
type Reason byte

// The reasons, as they are on disk. 0: nobody led before. An operation that tells none was
// proposed below KeyedLevel: a Leave counts as closed then, an End as node_stopped, an Open as
// node_restarted and an Expire as node_lost.
const (
	ReasonClosed        Reason = 1  // the client has closed its connection
	ReasonReset         Reason = 2  // its connection was reset
	ReasonSilent        Reason = 3  // its host does not answer any more
	ReasonStuck         Reason = 4  // it takes nothing, or does not ask for promises any more
	ReasonLeft          Reason = 5  // it has sent LEAVE
	ReasonNodeStopped   Reason = 6  // its node was stopped
	ReasonNodeRestarted Reason = 7  // its node was started again
	ReasonNodeLost      Reason = 8  // its node was silent
	ReasonSessionLost   Reason = 9  // its node has lost its session
	ReasonRemoved       Reason = 10 // its node was removed from the cluster, or has left it
	ReasonSteppedDown   Reason = 11 // an operator has let another one lead
	ReasonHoldOver      Reason = 12 // it has not come back in time
)

var reasons = [...]string{
	ReasonClosed: "closed", ReasonReset: "reset", ReasonSilent: "silent", ReasonStuck: "stuck", ReasonLeft: "left",
	ReasonNodeStopped: "node_stopped", ReasonNodeRestarted: "node_restarted", ReasonNodeLost: "node_lost",
	ReasonSessionLost: "session_lost", ReasonRemoved: "removed", ReasonSteppedDown: "stepped_down", ReasonHoldOver: "hold_over",
}

// String gives the word for a reason; "" for none, "unknown" for one that this program does
// not know.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "unknown"
}

// ReasonNamed gives the reason for a word; 0 for none, and for a word that is none.
func ReasonNamed(word string) Reason {
	if i := slices.Index(reasons[:], word); i > 0 {
		return Reason(i)
	}
	return 0
}

// Change is a change of a group's leader.
type Change struct {
	At    time.Time // by the wall clock of the node that proposed it
	Group string
	From  string // who led before; empty: nobody did
	To    string // who leads; empty: nobody does
	Token uint64 // of To. If nobody leads: above all that the group had, below all that it will have

	Reason Reason // why From leads no more
	Node   NodeID // where From was, or where To is if nobody led before
	By     NodeID // which has seen the reason; empty: not told
}

// cause is an operation that ends memberships, or has a leader step down.
type cause struct {
	by     Ending
	reason Reason
	seen   *node // which has seen the reason; nil: not told
	pos    Position
	at     int64 // Unix milliseconds
}

// change is a [Change] as the state keeps it.
type change struct {
	at              int64
	group, from, to string
	token           uint64
	reason          Reason
	node, seen      *node
}

// leadership is that of a former leader.
type leadership struct {
	client     string
	token      uint64
	since      int64
	reason     Reason // why it has ended
	node, seen uint32 // numbers of nodes, see [node]; seen is 0: not told
}

// past is what a group remembers of its former leaders, the oldest first. There may be a
// million groups, so it is packed. It does not change, so that a snapshot may read it at any
// time.
type past struct {
	records []byte
	count   uint8
	last    Reason // why the last of them has ended
}

// and is what is remembered after a further leadership.
func (p *past) and(l leadership) *past {
	if p == nil {
		p = &past{}
	}
	count, records := p.count, p.records
	if count == MaxPast {
		d := &decoder{buf: records}
		d.leadership()
		count, records = count-1, d.buf
	}
	const integers = 24
	e := &encoder{buf: append(make([]byte, 0, len(records)+len(l.client)+integers), records...)}
	e.leadership(l)
	return &past{e.buf, count + 1, l.reason}
}

// why is the reason for the last change that is remembered; 0: none is.
func (p *past) why() Reason {
	if p == nil {
		return 0
	}
	return p.last
}

func (p *past) leaderships() (all []leadership) {
	if p != nil {
		d := &decoder{buf: p.records}
		for range p.count {
			all = append(all, d.leadership())
		}
	}
	return all
}

func (e *encoder) leadership(l leadership) {
	e.string(l.client)
	e.uint(l.token)
	e.uint(uint64(l.since))
	e.byte(byte(l.reason))
	e.uint(uint64(l.node))
	e.uint(uint64(l.seen))
}

func (d *decoder) leadership() leadership {
	return leadership{d.string(), d.uint(), int64(d.uint()), Reason(d.byte()), d.uint32(), d.uint32()}
}

// changed remembers a change, if the level allows it.
func (s *State) changed(c change) {
	switch {
	case s.level < KeyedLevel:
	case len(s.recent) < MaxRecent:
		s.recent = append(s.recent, c)
	default:
		s.recent[s.oldest] = c
		s.oldest = (s.oldest + 1) % MaxRecent
	}
}

// lost remembers that a group has lost its leader, who was at a node. The group still has
// the token of that leader.
func (s *State) lost(was *member, of *node, c cause) {
	g := was.group
	if s.level < KeyedLevel {
		return
	}
	next := ""
	if g.first != nil {
		next = g.first.client
		g.past = g.past.and(leadership{was.client, g.token, g.since, c.reason, of.number, numberOf(c.seen)})
	}
	s.changed(change{c.at, g.name, was.client, next, s.token(c.pos), c.reason, of, c.seen})
}

// Recent gives the last changes of all groups, the oldest first, [MaxRecent] at most.
func (s *State) Recent() iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for i := range s.recent {
			c := s.recent[(s.oldest+i)%len(s.recent)]
			if !yield(Change{time.UnixMilli(c.at), c.group, c.from, c.to, c.token, c.reason, c.node.id, idOf(c.seen)}) {
				return
			}
		}
	}
}

// Changes gives the last changes of a group, the oldest first, [MaxPast] at most: those that
// it remembers itself, and what is among the last ones of all, in which an earlier group
// of that name may be too.
func (s *State) Changes(group string) []Change {
	var recent []Change
	for c := range s.Recent() {
		if c.Group == group {
			recent = append(recent, c)
		}
	}
	var all []Change
	for _, c := range s.pastOf(s.groups[group]) {
		if len(recent) == 0 || c.Token < recent[0].Token {
			all = append(all, c)
		}
	}
	all = append(all, recent...)
	return all[max(0, len(all)-MaxPast):]
}

// pastOf gives the changes that a group remembers itself.
func (s *State) pastOf(g *group) (all []Change) {
	if g == nil {
		return nil
	}
	former := g.past.leaderships()
	to := append(former, leadership{client: g.first.client, token: g.token, since: g.since, node: s.nodeOf(g.first).number})
	if first := to[0]; len(former) < MaxPast && first.token > s.recorded { // else it may have followed on another one
		at := s.idNumbered(first.node)
		all = append(all, Change{At: time.UnixMilli(first.since), Group: g.name, To: first.client, Token: first.token, Node: at, By: at})
	}
	for i, from := range former {
		all = append(all, Change{time.UnixMilli(to[i+1].since), g.name, from.client, to[i+1].client, to[i+1].token, from.reason, s.idNumbered(from.node), s.idNumbered(from.seen)})
	}
	return all
}
