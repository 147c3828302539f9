package session

import (
	"sync/atomic"

	"leaderlatch/ensemble/state"
)

// Clients that observe a group are told who leads it, and are no members (PROTOCOL.md,
// Observers). No promise depends on them. So they count neither among those that have to be closed in
// time, nor do they delay the end of a session. Who tells them is a goroutine of its own
// ([Roster.Tell]): ten thousand observers of a group are told behind its members.

// Observer is what speaks to a client that observes a group: a connection. Its methods return
// at once, and come from one goroutine, which holds no lock.
type Observer interface {
	// Leader tells who leads the group, and the fencing token; an empty name: nobody does, with
	// a token that none is above which the group has given, and below all that it will give. The
	// first call comes when the node has a session. Then the last leader is told at each change,
	// in committed order. A change may be left out if another one has followed.
	Leader(name string, token uint64)

	// Close ends the connection without a further line. It may come more than once.
	Close()
}

// Observation is what one client observes. It is safe for concurrent use.
type Observation struct {
	roster   *Roster
	observer Observer
	group    string
	lease    atomic.Pointer[lease] // within which it may be told; nil before the first

	// Guarded by the roster's guard.
	among *[]*Observation // the list that has it; nil: none has
	place int             // there
}

// Live reports whether the node may, at this instant, tell the client who leads. It takes no
// lock.
func (o *Observation) Live() bool {
	l := o.lease.Load()
	return l != nil && l.live()
}

// Closed says that the connection is closed for good.
func (o *Observation) Closed() {
	o.roster.guard.Lock()
	defer o.roster.guard.Unlock()
	o.roster.observers.remove(o)
}

// observers are the observers of all groups.
type observers struct {
	asking []*Observation // have been told nothing yet
	groups map[string]*observed
	behind []*observed    // those whose observers have not all been told, in the order in which they are
	over   []*Observation // to be closed

	wake func() // there is somebody to tell, or to close; does not block
}

// observed is a group that has observers.
type observed struct {
	name   string
	leader string
	token  uint64
	told   []*Observation
	untold []*Observation // have not been told of this leader
	behind bool           // it is among those
}

// move takes an observation to another list, or out of all.
func (o *Observation) move(to *[]*Observation) {
	if from := o.among; from != nil {
		last := len(*from) - 1
		moved := (*from)[last]
		(*from)[o.place], moved.place = moved, o.place
		(*from)[last] = nil
		*from = (*from)[:last]
	}
	if o.among = to; to != nil {
		o.place = len(*to)
		*to = append(*to, o)
	}
}

// Observe has a client told who leads a group. It is told when the node has a session.
func (r *Roster) Observe(group string, by Observer) *Observation {
	o := &Observation{roster: r, observer: by, group: group}
	o.move(&r.observers.asking)
	r.observers.wake()
	return o
}

func (a *observers) remove(o *Observation) {
	o.move(nil)
	if g := a.groups[o.group]; g != nil && len(g.told)+len(g.untold) == 0 {
		delete(a.groups, o.group)
	}
}

// Admit has the observers that have asked told who leads by the node's state. Without a session
// they go on waiting.
func (r *Roster) Admit(s *state.State) {
	a := &r.observers
	for r.session.phase == phaseOpen && len(a.asking) > 0 {
		o := a.asking[len(a.asking)-1]
		g := a.groups[o.group]
		if g == nil {
			g = &observed{name: o.group}
			g.leader, g.token = s.Leader(o.group)
			a.groups[o.group] = g
		}
		o.lease.Store(r.session.lease)
		o.move(&g.untold)
		a.fallBehind(g)
	}
}

// changed has the observers of a group told who leads it.
func (a *observers) changed(group, leader string, token uint64) {
	if g := a.groups[group]; g != nil {
		g.changed(leader, token)
		a.fallBehind(g)
		a.wake()
	}
}

func (g *observed) changed(leader string, token uint64) {
	g.leader, g.token = leader, token
	if len(g.told) == 0 {
		return
	}
	if len(g.untold) == 0 {
		g.told, g.untold = g.untold, g.told
		for _, o := range g.untold {
			o.among = &g.untold
		}
		return
	}
	for len(g.told) > 0 {
		g.told[len(g.told)-1].move(&g.untold)
	}
}

// fallBehind has the observers of a group told in their turn.
func (a *observers) fallBehind(g *observed) {
	if !g.behind {
		g.behind = true
		a.behind = append(a.behind, g)
	}
}

// restored has all told who leads by the state that a snapshot had.
func (a *observers) restored(s *state.State) {
	for _, g := range a.groups {
		switch leader, token := s.Leader(g.name); {
		case leader == "" && g.leader == "": // nobody, as before
		case token != g.token:
			a.changed(g.name, leader, token)
		}
	}
}

// lost has all closed that were told something: the node may not tell them any more.
func (a *observers) lost() {
	for name, g := range a.groups {
		for _, list := range []*[]*Observation{&g.told, &g.untold} {
			for len(*list) > 0 {
				(*list)[len(*list)-1].move(&a.over)
			}
		}
		delete(a.groups, name)
	}
	a.behind = nil
	a.wake()
}

// stop has all closed.
func (a *observers) stop() {
	for len(a.asking) > 0 {
		a.asking[len(a.asking)-1].move(&a.over)
	}
	a.lost()
}

// Asking reports whether there are observers that Admit has something to do for.
func (r *Roster) Asking() bool { return len(r.observers.asking) > 0 && r.session.phase == phaseOpen }

// tellObservers is how many observers are told under one hold of the guard.
const tellObservers = 64

// Word is what an observer is to be told, or that it is to be closed.
type Word struct {
	To     Observer
	Leader string
	Token  uint64
	Close  bool
}

// Tell appends to words who is to be told what next, or closed: some at a time. They are to be told before
// the next call. It appends none if nothing is left to do.
func (r *Roster) Tell(words []Word) []Word {
	a := &r.observers
	for range tellObservers {
		switch {
		case len(a.over) > 0:
			o := a.over[len(a.over)-1]
			o.move(nil)
			words = append(words, Word{To: o.observer, Close: true})
		case len(a.behind) == 0:
			return words
		case len(a.behind[0].untold) == 0:
			a.behind[0].behind = false
			a.behind = a.behind[1:]
		default:
			g := a.behind[0]
			o := g.untold[len(g.untold)-1]
			o.move(&g.told)
			words = append(words, Word{To: o.observer, Leader: g.leader, Token: g.token})
		}
	}
	if len(a.behind) > 1 { // the others come between
		a.behind = append(a.behind[1:], a.behind[0])
	}
	return words
}

// Observers is how many clients observe groups.
func (r *Roster) Observers() (count int) {
	count = len(r.observers.asking)
	for _, g := range r.observers.groups {
		count += len(g.told) + len(g.untold)
	}
	return count
}
