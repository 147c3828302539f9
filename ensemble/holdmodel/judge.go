package main

// A property is one that must hold in every state.
type property int8

const (
	// At any instant at most one client of a group has LEADER <itself> written to it on a connection
	// that stands at both ends at a running node. A client with hold counts by P2 alone.
	oneTold property = iota + 1

	// A membership stays, and its place gets no worse, while a promise about it runs. A client that
	// believes that it leads does lead, with the token that it read.
	promised

	// A member that has moved is not removed before min(hold, S). End and Open never remove a keyed one.
	spared

	// An observer's belief never goes back, and it is never older than L + C while its connection stands.
	watched

	// No program meets an entry that it cannot read, and none is stopped that was a member in order.
	formats

	// Timed: a client that lives keeps its leadership; one that does not is replaced within the bound.
	keeps
	replaced
)

var propertyNames = [...]string{"", "P1", "P2", "P3", "P4", "P5", "P6", "P7"}

func (p property) String() string { return propertyNames[p] }

// judge looks at what one committed operation has done.
func (s *State) judge(o op, before *group) {
	for _, m := range before.members[:before.n] {
		i := s.g.ofClient(m.client)
		if i >= 0 && s.g.members[i].life == m.life {
			continue
		}
		if c := &s.clients[m.client]; cfg.clients[m.client].keyed && !c.leaving {
			least := min(int16(m.hold), cfg.S[s.process(int(m.sess))])
			moved := s.moved[m.client]
			if o.kind == end || o.kind == open || o.kind != stepDown && moved >= 0 && (s.now-moved)*cfg.expireR < least {
				s.fail(spared)
			}
		}
		s.moved[m.client] = -1
		s.clients[m.client].leaving = s.clients[m.client].stopped != 0
	}
	if o.kind == raise && s.g.level > before.level {
		for _, newest := range s.g.newest[:cfg.ids()] {
			if newest == 0 || s.g.sessions[newest-1].state == alive && s.g.sessions[newest-1].reads == 0 {
				s.fail(formats)
			}
		}
	}
	if cfg.timed && s.g.view != before.view && before.n > 0 && before.members[0].client == 0 && s.clients[0].stopped == 0 {
		s.fail(keeps)
	}
}

func (s *State) fail(p property) {
	if s.broken == 0 && (cfg.only == 0 || cfg.only == p) {
		s.broken = p
	}
}

// look looks at the whole state, and gives the property that it breaks.
func (s *State) look() property {
	if s.broken != 0 {
		return s.broken
	}
	for k := range cfg.clients {
		s.lookAtClient(k)
	}
	for c := range s.conns {
		q := &s.conns[c]
		if q.server != joined || q.client != standing || s.nodes[q.node].mode != up {
			continue
		}
		switch {
		case q.who == observer:
			if q.told > 0 && q.told != s.g.view && (s.now-s.gone[q.told])*cfg.rate[q.node] > cfg.L[q.node]+cfg.C[q.node] {
				s.fail(watched)
			}
		case cfg.lines && q.toldMe && (cfg.clients[q.who].hold == 0 || without(holdByPromise)) && !s.leads(int(q.who), q.told):
			s.fail(oneTold)
		}
	}
	return s.broken
}

func (s *State) lookAtClient(k int) {
	c := &s.clients[k]
	t := s.now * cfg.clientR
	if c.life != 0 && t < c.until {
		if i := s.g.ofClient(int8(k)); i < 0 || s.g.members[i].life != c.life || i > int(c.rank) {
			s.fail(promised)
		}
	}
	believes := t < max(c.until, c.kept)
	if without(promiseAlone) {
		for _, q := range s.conns {
			believes = believes || q.server != none && int(q.who) == k && q.client == standing && q.toldMe
		}
	}
	if believes && c.me && cfg.clients[k].keyed && (cfg.clients[k].hold > 0 || cfg.asks) && (cfg.lines || without(promiseAlone)) && !s.leads(k, c.view) {
		s.fail(promised)
	}
	if cfg.timed && c.stopped != 0 && k == 0 && s.now-c.stoppedAt > cfg.T.bound && s.g.ofClient(0) >= 0 {
		s.fail(replaced)
	}
}

func (s *State) leads(k int, view int8) bool {
	m := s.g.leader()
	return m != nil && int(m.client) == k && s.g.view == view
}
