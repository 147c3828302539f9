package session

import (
	"sync/atomic"

	"leaderlatch/ensemble/state"
)

// Clients that observe a group are told who leads it, and are no members (PROTOCOL.md, Observers).
// They are told by a goroutine of their own ([Roster.Tell]): members do not wait for them. With
// the session their right is over, and they are closed behind the members, in time as these are.

// Observer is what speaks to a client that observes a group: a connection. Its methods return
// at once. Leader is called by one goroutine, which holds no lock.
type Observer interface {
	Connection

	// Leader tells who leads the group, and the fencing token; an empty name: nobody does, with
	// a token that none is above which the group has given, and below all that it will give. The
	// first call comes when the node has a session. Then the last leader is told at each change,
	// in committed order. A change may be left out if another one has followed.
	Leader(name string, token uint64)
}

// Observation is what one client observes. It is safe for concurrent use.
type Observation struct {
	roster   *Roster
	observer Observer
	group    string
	lease    atomic.Pointer[lease] // within which it may be told; nil before the first

	// Guarded by the roster's guard.
	among *observations // that have it; nil: it is closed
	place int           // there
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

// observations is a queue from which any may go.
type observations struct {
	all  []*Observation
	head int // before it there are none
}

func (q *observations) size() int { return len(q.all) - q.head }

func (q *observations) push(o *Observation) {
	o.among, o.place = q, len(q.all)
	q.all = append(q.all, o)
}

// remove takes one out. The last one gets its place, which is no later one.
func (q *observations) remove(o *Observation) {
	last := len(q.all) - 1
	moved := q.all[last]
	q.all[o.place], moved.place = moved, o.place
	q.all[last] = nil
	q.all = q.all[:last]
	o.among = nil
}

func (q *observations) pop() *Observation {
	o := q.all[q.head]
	q.all[q.head] = nil
	if q.head++; q.head > len(q.all)/2 { // mostly empty
		q.all = append(q.all[:0], q.all[q.head:]...)
		clear(q.all[len(q.all):cap(q.all)])
		for i, o := range q.all {
			o.place = i
		}
		q.head = 0
	}
	o.among = nil
	return o
}

// observers are the observers of all groups.
type observers struct {
	count  int
	asking observations // have been told nothing yet
	groups map[string]*observed
	behind []*observed // those whose observers have not all been told, in the order in which they are

	wake func() // there is somebody to tell; does not block
}

// observed is a group that has observers.
type observed struct {
	name   string
	leader string
	token  uint64
	count  int             // of its observers
	told   *observations   // those that were told of this leader
	untold []*observations // the others, who have waited longest first
	behind bool            // it is among those
}

// push adds one that has been told nothing yet.
func (g *observed) push(o *Observation) {
	if len(g.untold) == 0 {
		g.untold = append(g.untold, new(observations))
	}
	g.untold[len(g.untold)-1].push(o)
	g.count++
}

// changed has all wait to be told of another leader, behind those that wait already. It takes as
// long for many as for one: whoever applies entries waits for it.
func (g *observed) changed(leader string, token uint64) {
	g.leader, g.token = leader, token
	if g.told.size() > 0 {
		g.untold = append(g.untold, g.told)
		g.told = new(observations)
	}
}

// pop gives the one that is to be told next, who counts as told; nil: there is none.
func (g *observed) pop() *Observation {
	for ; len(g.untold) > 0; g.untold = g.untold[1:] {
		if g.untold[0].size() > 0 {
			o := g.untold[0].pop()
			g.told.push(o)
			return o
		}
	}
	g.untold = nil
	return nil
}

// Observe has a client told who leads a group. It is told when the node has a session.
func (r *Roster) Observe(group string, by Observer) *Observation {
	o := &Observation{roster: r, observer: by, group: group}
	r.observers.count++
	r.observers.asking.push(o)
	r.observers.wake()
	return o
}

func (a *observers) remove(o *Observation) {
	if o.among == nil {
		return
	}
	asked := o.among == &a.asking
	o.among.remove(o)
	if a.count--; asked {
		return
	}
	g := a.groups[o.group]
	if g.count--; g.count == 0 {
		delete(a.groups, o.group)
	}
}

// observersAtOnce is how many observers are admitted, or told, under one hold of the locks.
const observersAtOnce = 64

// Asking reports whether there are observers that Admit has something to do for.
func (r *Roster) Asking() bool {
	return r.observers.asking.size() > 0 && r.session.phase == phaseOpen
}

// Admit has observers that have asked told who leads by the node's state: some at a time. Without a
// session they go on waiting.
func (r *Roster) Admit(s *state.State) {
	a := &r.observers
	for range observersAtOnce {
		if !r.Asking() {
			return
		}
		o := a.asking.pop()
		g := a.groups[o.group]
		if g == nil {
			g = &observed{name: o.group, told: new(observations)}
			a.groups[o.group] = g
		}
		if leader, token := s.Leader(o.group); g.leader == leader {
			g.token = token // of nobody it rises: who comes from another node may know a higher one
		} else {
			g.leader, g.token = leader, token // the group is a new one here
		}
		o.lease.Store(r.session.lease)
		g.push(o)
		a.fallBehind(g)
	}
}

// changed has the observers of a group told who leads it.
func (a *observers) changed(group, leader string, token uint64) {
	g := a.groups[group]
	if g == nil {
		return
	}
	g.changed(leader, token)
	a.fallBehind(g)
	a.wake()
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
			g.token = token
		case token != g.token:
			a.changed(g.name, leader, token)
		}
	}
}

// lost gives all that were told something, to be closed: the node may not tell them any more.
func (a *observers) lost() (closing []Connection) {
	for name, g := range a.groups {
		for _, q := range append(g.untold, g.told) {
			closing = a.take(q, closing)
		}
		delete(a.groups, name)
	}
	a.behind = nil
	return closing
}

// stop gives all, to be closed.
func (a *observers) stop() (closing []Connection) { return a.take(&a.asking, a.lost()) }

func (a *observers) take(q *observations, closing []Connection) []Connection {
	for _, o := range q.all[q.head:] {
		closing = append(closing, o.observer)
		o.among = nil
		a.count--
	}
	q.all, q.head = nil, 0
	return closing
}

// Word is what an observer is to be told.
type Word struct {
	To     Observer
	Leader string
	Token  uint64
}

// Tell appends to words who is to be told what next: some at a time. They are to be told before the
// next call. It appends none if all have been told.
func (r *Roster) Tell(words []Word) []Word {
	a := &r.observers
	for len(words) < observersAtOnce && len(a.behind) > 0 {
		g := a.behind[0]
		o := g.pop()
		if o == nil {
			g.behind = false
			a.behind = a.behind[1:]
			continue
		}
		words = append(words, Word{o.observer, g.leader, g.token})
	}
	if len(a.behind) > 1 { // the others come between
		a.behind = append(a.behind[1:], a.behind[0])
	}
	return words
}

// fewObservers are told so fast that nobody has to wait for it.
const fewObservers = 8

// Few reports whether those that are to be told are few.
func (r *Roster) Few() bool {
	left := fewObservers
	for _, g := range r.observers.behind {
		for _, q := range g.untold {
			if left -= q.size(); left < 0 {
				return false
			}
		}
	}
	return true
}

// Observers is how many clients observe groups.
func (r *Roster) Observers() int { return r.observers.count }
