package main

// What the committed log makes of a group. Every node computes it for the entries that it has
// applied, and State.log keeps it for all that are committed.

// The sizes of the model. A schedule that needs more is not played.
const (
	maxNodes    = 3 // processes
	maxClients  = 3
	maxConns    = 5
	maxSessions = 6
	maxLog      = 12 // entries that not every node has applied
	maxFlight   = 6  // proposals that are neither committed nor lost
	maxSeq      = 8  // operations of a session
	maxViews    = 24 // changes of leader
)

type kind int8

const (
	open kind = iota + 1
	join
	leave
	renew
	end
	expire
	stepDown
	raise
)

var kindNames = [...]string{open: "Open", join: "Join", leave: "Leave", renew: "Renew", end: "End", expire: "Expire", stepDown: "StepDown", raise: "Raise"}

// op is an operation. Its fields are those of its kind, the others are zero.
type op struct {
	kind kind
	sess int8 // the session
	seq  int8 // number in the session: Join, Leave, Renew, End, StepDown
	id   int8 // the member, by the number of its Join: Leave, StepDown

	client, hold int8 // Join
	view         int8 // StepDown

	node, boot, reads int8 // Open

	at int16 // when it was proposed; in timed cases only
}

// A session is alive until its End, Expire or next Open. If keyed members are left in it then,
// it is orphaned until it is expired or the last of them has moved.
const (
	alive int8 = iota + 1
	orphaned
	over
)

type session struct{ state, seq, node, boot, reads int8 }

type member struct {
	client   int8
	sess, id int8 // the number of the Join or Move that counts
	hold     int8
	life     int8 // of this membership; a Move keeps it
}

type group struct {
	n        int8
	members  [maxClients]member // the first one leads
	view     int8               // rises with every change of leader: the token, or the position of "nobody"
	lives    int8
	level    int8
	sessions [maxSessions]session
	newest   [maxNodes]int8 // of each node, plus one
}

func (g *group) leader() *member {
	if g.n == 0 {
		return nil
	}
	return &g.members[0]
}

// find gives the place of a member by its session and id, -1 if there is none.
func (g *group) find(sess, id int8) int {
	for i := range g.members[:g.n] {
		if g.members[i].sess == sess && g.members[i].id == id {
			return i
		}
	}
	return -1
}

// ofClient and ofName give the place of a client's membership, and that of a name's.
func (g *group) ofClient(client int8) int {
	for i := range g.members[:g.n] {
		if g.members[i].client == client {
			return i
		}
	}
	return -1
}

func (g *group) ofName(name int8) int {
	for i := range g.members[:g.n] {
		if cfg.clients[g.members[i].client].name == name {
			return i
		}
	}
	return -1
}

func (g *group) remove(i int) {
	copy(g.members[i:], g.members[i+1:g.n])
	g.n--
	g.members[g.n] = member{}
}

// over ends a session: with its plain members always, with its keyed ones if all is true.
func (g *group) over(sess int8, all bool) {
	s := &g.sessions[sess]
	if s.state != alive && s.state != orphaned {
		return
	}
	s.state = over
	for i := int(g.n) - 1; i >= 0; i-- {
		switch {
		case g.members[i].sess != sess:
		case all || !cfg.clients[g.members[i].client].keyed:
			g.remove(i)
		default:
			s.state = orphaned
		}
	}
}

// left ends an orphaned session that the last member has left.
func (g *group) left(sess int8) {
	if g.sessions[sess].state != orphaned {
		return
	}
	for _, m := range g.members[:g.n] {
		if m.sess == sess {
			return
		}
	}
	g.sessions[sess].state = over
}

// apply makes an operation take effect. It tells whether it was accepted, and whether it was a Move.
func (g *group) apply(o op) (ok, moved bool) {
	before := g.members[0].life
	ok, moved = g.decide(o)
	if g.members[0].life != before {
		g.view++
	}
	return ok, moved
}

func (g *group) decide(o op) (ok, moved bool) {
	switch o.kind {
	case open:
		if before := g.newest[o.node] - 1; before >= 0 {
			if before > o.sess || o.reads < g.level {
				return false, false
			}
			s := g.sessions[before]
			if s.state == alive && s.boot != o.boot && !without(waitForBoot) {
				return false, false
			}
			g.over(before, without(openSpares))
		}
		g.newest[o.node] = o.sess + 1
		g.sessions[o.sess] = session{state: alive, node: o.node, boot: o.boot, reads: o.reads}
		return true, false
	case expire:
		g.over(o.sess, true)
		return true, false
	case raise:
		for _, s := range g.newest[:cfg.ids()] {
			if !without(raiseIsJudged) && (s == 0 || g.sessions[s-1].state != alive || g.sessions[s-1].reads == 0) {
				return false, false
			}
		}
		g.level = 1
		return true, false
	}
	s := &g.sessions[o.sess]
	if s.state != alive || o.seq != s.seq+1 {
		return false, false
	}
	s.seq = o.seq
	switch o.kind {
	case join:
		return g.join(o)
	case leave:
		i := g.find(o.sess, o.id)
		if without(leaveById) {
			i = g.ofClient(o.client)
		}
		if i >= 0 {
			was := g.members[i].sess
			g.remove(i)
			g.left(was)
		}
	case end:
		g.over(o.sess, without(endSpares))
	case stepDown:
		i := g.find(o.sess, o.id)
		if without(stepDownById) && g.view == o.view {
			i = 0
		}
		if i == 0 && g.n > 1 {
			m := g.members[0]
			g.remove(0)
			g.members[g.n] = m
			g.n++
		}
	}
	return true, false
}

func (g *group) join(o op) (ok, moved bool) {
	c := cfg.clients[o.client]
	if c.keyed && g.level == 0 {
		return false, false
	}
	i := g.ofName(c.name)
	if i < 0 {
		g.lives++
		g.members[g.n] = member{client: o.client, sess: o.sess, id: o.seq, hold: o.hold, life: g.lives}
		g.n++
		return true, false
	}
	m := &g.members[i]
	if !c.keyed || !cfg.clients[m.client].keyed || m.client != o.client && !without(sameKey) {
		return false, false // the name is in use
	}
	was := m.sess
	m.client, m.sess, m.id = o.client, o.sess, o.seq
	if o.hold > m.hold || without(holdStays) {
		m.hold = o.hold
	}
	g.left(was)
	return true, true
}
