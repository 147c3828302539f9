package main

// A process of a node, its connections, the clients, and what is between them.

const ( // of a process
	down int8 = iota
	up
	paused
)

const ( // how far a process is with its stop
	refusing int8 = iota + 1
	closed
	ending
)

type process struct {
	mode, applied  int8
	reads, boot    int8
	sess, seq      int8 // the session, -1: none; its newest operation
	opening        int8 // the session that its Open names, plus one
	openAt, acked  int16
	sent           [maxSeq]int16 // t_send of renewals; acked is that of the newest one that the own state has accepted
	stopping       int8
	step, stepSent int8 // the member that is being stepped down, by id
	stepAt         int16
	downAt, upAt   int16 // timed
	g              group // its own state
}

const ( // of the node's end of a connection
	none int8 = iota
	pending
	joined
	ended
)

const ( // of the client's end
	standing    int8 = iota + 1
	reset            // ended by the client, by a reset
	fin              // ended by the client, by a FIN
	endedByNode      // what was sent before may still be read
)

const ( // who ended a connection first
	byClient int8 = iota
	byNode
	byStep // the node, for a step-down: the Leave follows at once
)

const ( // of a PING
	asked int8 = iota + 1
	answered
)

const observer = -1

type conn struct {
	server, client, who  int8
	node, sess, id       int8 // the process, and the member by its Join; id -1: the name is in use
	told, read           int8 // the newest LEADER that was written, and that was read, by its view
	toldMe, toldNobody   bool
	endAt                int16 // by the node's clock, where a hold may run from; -1: none
	bound                int16 // by the node's clock, plus one: the client may rely on W from here; 0: it has nothing
	arrived              int16 // likewise: it has moved here
	ender                int8
	finRead, left        bool
	ping                 int8
	pingAt, ms           int16
	life, rank, answered int8 // of the membership that the answer to PING was about; LEADER lines written before
}

type clientState struct {
	view       int8 // the newest LEADER that it has read
	me         bool // it names the client
	until      int16
	life, rank int8  // of the furthest promise
	kept       int16 // a promise that it should have dropped
	leaving    bool  // it has sent LEAVE, or has stopped
	stopped    int8
	lostAt     int16 // timed: without a connection since, -1: has one
	stoppedAt  int16 // timed
}

const (
	dead int8 = iota + 1
	hung
)

// A State is the whole of a run at one instant.
type State struct {
	now      int16
	logged   int8
	log      [maxLog]op // the entries that not every process has applied
	flying   int8
	flight   [maxFlight]op
	nodes    [maxNodes]process
	conns    [maxConns]conn
	clients  [maxClients]clientState
	g        group // all that is committed
	opened   int8
	heard    [maxSessions]int16 // when what counts for Expire was committed
	moved    [maxClients]int16  // when the last Move was committed, -1: none
	gone     [maxViews]int16    // when a view was replaced; with observers only
	seen     int8               // the view that the observer believes
	broken   property
	b        budget
	raft     int8  // timed: the raft leader
	election int16 // timed: nothing is committed before
	fresh    int16 // timed: the new raft leader expires nobody before
}

func clock(i int, t int16) int16 { return t * cfg.rate[i] }

func initial() State {
	s := State{b: cfg.budget, raft: 0}
	s.g.level = cfg.level
	if cfg.joined == 0 {
		s.g.view = 1 // nobody
	}
	for i := range s.moved {
		s.moved[i] = -1
		s.clients[i].lostAt = -1
	}
	for i := range s.conns {
		s.conns[i].endAt = -1
	}
	for i := range cfg.nodes {
		p := &s.nodes[i]
		*p = process{mode: up, sess: s.opened, boot: cfg.boot[i], reads: 1}
		if cfg.old[i] {
			p.reads = 0
		}
		if cfg.off[i] {
			p.mode, p.sess = down, -1
			continue
		}
		s.g.apply(op{kind: open, sess: s.opened, node: cfg.id[i], boot: p.boot, reads: p.reads})
		s.opened++
	}
	for k := range cfg.joined {
		p := &s.nodes[0]
		p.seq++
		s.g.apply(op{kind: join, sess: p.sess, seq: p.seq, client: int8(k), hold: cfg.clients[k].hold})
		s.conns[k] = conn{server: joined, client: standing, who: int8(k), sess: p.sess, id: p.seq, endAt: -1}
	}
	for k := range cfg.joined {
		s.conns[k].told, s.conns[k].read, s.conns[k].toldMe = s.g.view, s.g.view, k == 0
		s.clients[k].view, s.clients[k].me = s.g.view, k == 0
	}
	for i := range s.nodes {
		s.nodes[i].g = s.g
	}
	if cfg.unread {
		s.conns[0].read, s.clients[0].view, s.clients[0].me = 0, 0, false
	}
	return s
}

func (s *State) propose(o op) {
	if cfg.timed {
		o.at = s.now
	}
	k := s.flying
	for ; k > 0 && (o.sess < s.flight[k-1].sess || o.sess == s.flight[k-1].sess && o.seq < s.flight[k-1].seq); k-- {
		s.flight[k] = s.flight[k-1]
	}
	s.flight[k] = o
	s.flying++
}

func (s *State) room() bool { return s.flying < maxFlight }

// canPropose tells whether the model has room for another operation of the session.
func (s *State) canPropose(i int) bool {
	return s.room() && s.nodes[i].sess >= 0 && s.nodes[i].seq < maxSeq-1
}

func (s *State) next(i int) int8 { s.nodes[i].seq++; return s.nodes[i].seq }

// live tells whether the process may write to its members: the gate.
func (s *State) live(i int) bool {
	p := &s.nodes[i]
	return p.mode == up && p.sess >= 0 && clock(i, s.now) < p.acked+cfg.L[i]
}

func (s *State) commit(o op) {
	before := s.g
	ok, moved := s.g.apply(o)
	o.at = 0
	s.log[s.logged] = o
	s.logged++
	if ok && (o.kind == open || o.kind == renew || moved && !without(moveRenews)) {
		s.heard[o.sess] = s.now
	}
	if moved {
		s.moved[o.client] = s.now
		s.clients[o.client].leaving = s.clients[o.client].stopped != 0
	}
	if cfg.budget.Watch > 0 && s.g.view != before.view {
		s.gone[before.view] = s.now
	}
	s.judge(o, &before)
}

// finish ends the node's side of a connection.
func (s *State) finish(q *conn, endAt int16, ender int8) {
	q.server, q.endAt, q.ender = ended, endAt, ender
	if cfg.timed && q.who != observer && s.clients[q.who].stopped == 0 {
		s.clients[q.who].lostAt = s.now
	}
	if ender != byClient && q.client == standing && !without(promiseAlone) { // without it: the FIN is lost
		q.client = endedByNode
	}
}

// closeAll ends the connections of a process that is over, or whose session is.
func (s *State) closeAll(i int, dies bool) {
	for c := range s.conns {
		q := &s.conns[c]
		if int(q.node) != i || q.server == none {
			continue
		}
		if q.who == observer && !dies && without(watchersToo) {
			continue
		}
		if q.server != ended {
			s.finish(q, -1, byNode)
		}
		q.endAt = -1 // the holds of a session that is over do not matter any more
	}
}

// place gives that of the member of a connection, as the process's own state has it; -1 if there is none.
func (p *process) place(q *conn) int {
	if i := p.g.find(q.sess, q.id); i >= 0 || !without(byMember) {
		return i
	}
	return p.g.ofName(cfg.clients[q.who].name)
}

// applyNext applies the next entry to the process's own state.
func (s *State) applyNext(i int) {
	p := &s.nodes[i]
	o := s.log[p.applied]
	p.applied++
	if p.reads == 0 && (o.kind == raise || o.kind == stepDown || o.kind == join && cfg.clients[o.client].keyed) {
		if o.kind != raise { // the older program met what it cannot read, below the level
			s.broken = formats
		}
		p.g.apply(o)
		s.die(i)
		return
	}
	stood := false // the member had a session that is not orphaned
	if from := p.g.ofClient(o.client); o.kind == join && from >= 0 {
		stood = p.g.sessions[p.g.members[from].sess].state == alive
	}
	ok, moved := p.g.apply(o)
	t := clock(i, s.now)
	switch {
	case o.kind == open:
		if ok && p.opening == o.sess+1 {
			p.sess, p.seq, p.opening, p.acked, p.sent = o.sess, 0, 0, p.openAt, [maxSeq]int16{}
		}
	case o.sess != p.sess || o.kind == expire || o.kind == raise:
	case o.kind == renew && ok:
		at := p.sent[o.seq]
		if without(fromSending) {
			at = t
		}
		p.acked = max(p.acked, at)
		p.sent[o.seq] = 0
	case o.kind == join:
		for c := range s.conns {
			q := &s.conns[c]
			if int(q.node) != i || q.sess != o.sess || q.id != o.seq || q.who == observer || q.server == none {
				continue
			}
			if moved && cfg.asks && !without(moveBinds) {
				q.bound = t + 1
			}
			if moved && stood && cfg.lines && !without(oldEnds) {
				q.arrived = t + 1
			}
			switch {
			case !ok:
				q.id = -1
			case q.server == pending:
				q.server = joined
				s.clients[q.who].lostAt = -1
			case q.endAt >= 0 && !without(holdFromJoin):
				q.endAt = t // the later of the end and the own Join
			}
		}
	case o.kind == stepDown:
		p.step, p.stepSent = 0, 0
	}
}

// settle does what follows when the own state has changed.
func (s *State) settle(i int) {
	p := &s.nodes[i]
	if p.mode == down {
		return
	}
	if p.sess >= 0 && p.g.sessions[p.sess].state != alive {
		s.closeAll(i, false)
		p.sess, p.step, p.stepSent, p.sent = -1, 0, 0, [maxSeq]int16{}
	}
	for c := range s.conns { // moved or removed: ended without a line
		if q := &s.conns[c]; int(q.node) == i && q.server == joined && q.who != observer && p.place(q) < 0 {
			s.finish(q, -1, byNode)
		}
	}
	if p.step != 0 && p.g.find(p.sess, p.step) != 0 {
		p.step, p.stepSent = 0, 0
	}
}

// promise is the answer to a PING on a connection: for how long the membership stays, from the PING on.
func (s *State) promise(i int, q *conn) int16 {
	p := &s.nodes[i]
	if p.step == q.id && p.step != 0 && !without(stepSilent) {
		return 0
	}
	if p.g.members[p.place(q)].hold == 0 { // an ALREADY_JOINED
		return max(cfg.S[i]*cfg.num/cfg.den-cfg.L[i], 0)
	}
	e := clock(i, s.now) - p.acked
	hold := int16(p.g.members[p.place(q)].hold) * cfg.num / cfg.den
	lease := cfg.S[i]*cfg.num/cfg.den - e
	if !without(offHold) {
		hold -= e
	}
	ms := min(hold, lease)
	if without(tight) {
		ms++
	}
	return max(ms, 0)
}

// window is W, for how long an ALREADY_JOINED binds the node.
func window(i int) int16 { return (cfg.S[i] - cfg.L[i]) * cfg.den / cfg.num }

// silence is how long a session may be silent before it is expired.
func (s *State) silence(sess int) int16 {
	longest := cfg.S[s.process(sess)]
	if without(longestExpiry) {
		return longest
	}
	for _, m := range s.g.members[:s.g.n] {
		if int(m.sess) == sess {
			longest = max(longest, int16(m.hold))
		}
	}
	return longest
}

// process gives a process of the session's node: S and L are those of the node.
func (s *State) process(sess int) int {
	for i := range cfg.nodes {
		if cfg.id[i] == s.g.sessions[sess].node {
			return i
		}
	}
	return 0
}

func (s *State) leave(c int) {
	q := &s.conns[c]
	q.left = true
	s.propose(op{kind: leave, sess: q.sess, seq: s.next(int(q.node)), id: q.id, client: q.who})
}

func (s *State) openSession(i int) {
	p := &s.nodes[i]
	s.b.Open--
	p.sess, p.openAt, p.opening = -1, clock(i, s.now), s.opened+1
	s.propose(op{kind: open, sess: s.opened, node: cfg.id[i], boot: p.boot, reads: p.reads})
	s.opened++
}

// die ends a process: its kernel ends the connections.
func (s *State) die(i int) {
	s.closeAll(i, true)
	defer s.elect(i)
	p := s.nodes[i]
	s.nodes[i] = process{applied: p.applied, g: p.g, sess: -1, boot: p.boot, reads: p.reads, downAt: s.now}
	if !cfg.timed {
		s.nodes[i].downAt = 0
	}
}

// held tells whether a member without a connection has stayed long enough.
func (s *State) held(q *conn) bool {
	i := int(q.node)
	p := &s.nodes[i]
	if q.server != ended || q.endAt < 0 || q.left || q.sess != p.sess || p.mode != up || q.who == observer {
		return false
	}
	k := &cfg.clients[q.who]
	if !k.keyed || without(holdFromJoin) && q.id > 0 && p.g.find(q.sess, q.id) < 0 {
		return q.id > 0 && (!k.keyed || clock(i, s.now)-q.endAt >= int16(k.hold))
	}
	place := p.g.find(q.sess, q.id)
	if place < 0 { // the own Join is not applied yet
		return false
	}
	hold := int16(p.g.members[place].hold)
	wait := hold
	switch {
	case q.ender == byStep || q.finRead && k.finEnd:
		wait = 0
	case q.ender == byNode && without(nodeEndLeaves):
		return false
	case q.ender == byNode && without(nodeEndHolds):
		wait = 0
	case q.ender == byNode:
		wait = max(hold, cfg.S[i])
	}
	if hold == 0 && q.bound > 0 && !q.finRead && clock(i, s.now)-(q.bound-1) < window(i) {
		return false
	}
	if hold == 0 && q.arrived > 0 && !(q.finRead && k.finEnd) && clock(i, s.now)-(q.arrived-1) < longestS() {
		return false
	}
	return clock(i, s.now)-q.endAt >= wait
}

// longestS stands for the S of the session from which a member has moved.
func longestS() (longest int16) {
	for i := range cfg.nodes {
		longest = max(longest, cfg.S[i])
	}
	return longest
}

// tidy brings states together that have the same future.
func (s *State) tidy() {
	first := s.logged
	for i := range cfg.nodes {
		first = min(first, s.nodes[i].applied)
	}
	if first > 0 {
		copy(s.log[:], s.log[first:s.logged])
		clear(s.log[s.logged-first : s.logged])
		s.logged -= first
		for i := range cfg.nodes {
			s.nodes[i].applied -= first
		}
	}
	kept := int8(0)
	for _, o := range s.flight[:s.flying] { // what can never take effect is lost
		switch o.kind {
		case open:
			if s.g.newest[o.node]-1 > o.sess {
				continue
			}
		case raise:
			if s.g.level > 0 {
				continue
			}
		default:
			if ses := s.g.sessions[o.sess]; ses.state != alive || o.seq <= ses.seq {
				continue
			}
		}
		s.flight[kept] = o
		kept++
	}
	clear(s.flight[kept:s.flying])
	s.flying = kept
	for c := range s.conns {
		q := &s.conns[c]
		over := q.server == ended && (q.endAt < 0 || q.left) && q.ping != answered && q.read == q.told
		if over && (q.client != standing || !without(promiseAlone)) {
			*q = conn{endAt: -1}
		}
	}
}
