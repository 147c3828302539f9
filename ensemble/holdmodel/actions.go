package main

import "fmt"

type verb int8

const (
	tick verb = iota
	applies
	snapshot
	renews
	leaseLost
	reopens
	restarts
	reboots
	downgrades
	crashes
	pauses
	continues
	stops
	closes
	ends
	exits
	raises
	commits
	expires
	joins
	joinsAgain
	writes
	reads
	pings
	pongs
	hearsPong
	clientCloses
	clientStops
	clientHangs
	nodeSeesEnd
	nodeEnds
	lateFin
	leaves
	sendsLeave
	steps
	stepCommits
	observes
	verbs
)

// An action is one step of a run: of a process i, a connection i, a proposal i; a joins has the client in j.
type action struct {
	verb verb
	i, j int8
}

// actions gives all that can happen next.
func (s *State) actions(out []action) []action {
	if cfg.timed {
		return s.timely(out)
	}
	out = out[:0]
	can := func(v verb, i, j int) { out = append(out, action{v, int8(i), int8(j)}) }
	passes := s.now < cfg.until
	for i := range cfg.nodes {
		passes = s.processCan(i, can) && passes
	}
	for k := range s.flight[:s.flying] {
		if s.logged < maxLog && s.committable(s.flight[k]) {
			can(commits, k, 0)
		}
	}
	for x := range int(s.opened) {
		if s.logged < maxLog && s.expirable(x) {
			can(expires, x, 0)
		}
	}
	for c := range s.conns {
		passes = s.connCan(c, can) && passes
	}
	for k := range cfg.clients {
		if c := &s.clients[k]; c.stopped == 0 && s.b.Hang > 0 && cfg.clients[k].finEnd {
			can(clientStops, k, 0)
		}
	}
	if passes {
		can(tick, 0, 0)
	}
	return out
}

// committable tells whether an operation would take effect now. One that would not is the same as lost, or as late.
func (s *State) committable(o op) bool {
	if o.kind == open || o.kind == raise {
		g := s.g
		ok, _ := g.apply(o)
		return ok
	}
	ses := s.g.sessions[o.sess]
	return ses.state == alive && o.seq == ses.seq+1
}

func (s *State) expirable(x int) bool {
	if st := s.g.sessions[x].state; st != alive && st != orphaned {
		return false
	}
	has := cfg.emptyX
	for _, m := range s.g.members[:s.g.n] {
		has = has || int(m.sess) == x
	}
	return has && (s.now-s.heard[x])*cfg.expireR >= s.silence(x)
}

// processCan adds what a process can do, and tells whether time may pass for it: one that runs closes in time.
func (s *State) processCan(i int, can func(verb, int, int)) bool {
	p := &s.nodes[i]
	switch p.mode {
	case down:
		if s.b.Open > 0 && s.opened < maxSessions && s.room() {
			can(restarts, i, 0)
			if s.b.Reboot > 0 {
				can(reboots, i, 0)
			}
			if s.b.Old > 0 && p.g.level == 0 { // node.json refuses it later
				can(downgrades, i, 0)
			}
		}
		return true
	case paused:
		can(continues, i, 0)
		return true
	}
	t := clock(i, s.now)
	late := p.sess < 0 || t >= p.acked+cfg.L[i]
	stands := s.stands(i)
	if p.applied < s.logged {
		can(applies, i, 0)
		if s.b.Snap > 0 && p.applied+1 < s.logged && p.reads > 0 {
			can(snapshot, i, 0)
		}
	}
	if !late && p.stopping == 0 && s.b.Renew > 0 && s.canPropose(i) {
		can(renews, i, 0)
	}
	if late && stands {
		can(leaseLost, i, 0)
	}
	if late && !stands && p.opening == 0 && p.stopping == 0 && s.b.Open > 0 && s.opened < maxSessions && s.room() {
		can(reopens, i, 0)
	}
	if s.b.Crash > 0 {
		can(crashes, i, 0)
	}
	if s.b.Pause > 0 {
		can(pauses, i, 0)
	}
	if s.b.Stop > 0 && !late && p.stopping == 0 && s.canPropose(i) {
		can(stops, i, 0)
	}
	switch {
	case p.stopping == refusing && without(endLast) && !late && s.canPropose(i):
		can(ends, i, 0)
	case p.stopping == refusing:
		can(closes, i, 0)
	case p.stopping == closed && (late || !s.canPropose(i)):
		can(exits, i, 0) // without an End
	case p.stopping == closed:
		can(ends, i, 0)
	case p.stopping == ending:
		can(exits, i, 0)
	}
	if !late && s.canPropose(i) {
		for k := range cfg.clients {
			if s.mayJoin(k, i) {
				can(joins, i, k)
			}
		}
	}
	if s.b.Raise > 0 && p.g.level == 0 && p.reads > 0 && s.room() && s.announced(p) {
		can(raises, i, 0)
	}
	if s.b.Watch > 0 && s.live(i) && s.freeConn() >= 0 && (p.stopping == 0) {
		can(observes, i, 0)
	}
	return !(stands && p.sess >= 0 && clock(i, s.now+1) >= p.acked+cfg.L[i]+cfg.C[i])
}

func (s *State) stands(i int) bool {
	for c := range s.conns {
		q := &s.conns[c]
		if int(q.node) == i && (q.server == pending || q.server == joined) && !(q.who == observer && without(watchersToo)) {
			return true
		}
	}
	return false
}

// announced tells whether all members have said, by the session that they have, that they read the next level.
func (s *State) announced(p *process) bool {
	for _, newest := range p.g.newest[:cfg.ids()] {
		if newest == 0 || p.g.sessions[newest-1].state != alive || p.g.sessions[newest-1].reads == 0 {
			return false
		}
	}
	return true
}

func (s *State) freeConn() int {
	for c := range s.conns {
		if s.conns[c].server == none {
			return c
		}
	}
	return -1
}

func (s *State) mayJoin(k, i int) bool {
	p, c := &s.nodes[i], &cfg.clients[k]
	if s.b.Join == 0 || s.freeConn() < 0 || s.clients[k].stopped != 0 {
		return false
	}
	if p.stopping != 0 && !(without(refusesJoins) && p.stopping < ending) {
		return false
	}
	if c.keyed && (p.reads == 0 || p.g.level == 0 && !without(levelFirst)) {
		return false
	}
	if !c.keyed { // one connection at a time
		for _, q := range s.conns {
			if int(q.who) == k && (q.server == pending || q.server == joined) && q.client == standing {
				return false
			}
		}
	}
	return true
}

func (s *State) connCan(c int, can func(verb, int, int)) (passes bool) {
	q := &s.conns[c]
	if q.server == none {
		return true
	}
	i := int(q.node)
	p := &s.nodes[i]
	isUp := p.mode == up
	here := q.server == pending || q.server == joined
	passes = true
	writable := isUp && q.server == joined && q.client == standing && (q.who == observer || q.sess == p.sess) && s.live(i)
	if cfg.lines && q.told != p.g.view && writable || q.who == observer && q.told != p.g.view && writable {
		can(writes, c, 0)
		passes = q.who != observer // an observer is told at once, or closed
	}
	if q.read != q.told && (q.client == standing || q.client == endedByNode) {
		can(reads, c, 0)
	}
	if isUp && here && q.client != standing {
		can(nodeSeesEnd, c, 0)
	}
	if q.who == observer {
		return passes
	}
	k := &cfg.clients[q.who]
	if q.client == standing && q.ping == 0 && s.b.Ping > 0 && k.keyed && (k.hold > 0 || cfg.asks) {
		can(pings, c, 0)
	}
	if isUp && q.server == joined && q.ping == asked && q.client == standing && p.place(q) >= 0 && (k.hold > 0 || p.place(q) == 0) && (q.sess == p.sess && s.live(i) || without(gate)) &&
		(!cfg.lines || q.told == p.g.view || without(leaderFirst)) {
		can(pongs, c, 0)
	}
	if q.ping == answered && (q.client == standing || q.client == endedByNode) {
		can(hearsPong, c, 0)
	}
	if q.client == standing && here && s.b.Close > 0 {
		can(clientCloses, c, 0)
	}
	if isUp && here && q.client == standing && s.b.Break > 0 {
		can(nodeSeesEnd, c, 0)
	}
	if isUp && here && s.b.Kick > 0 {
		can(nodeEnds, c, 0)
	}
	if without(finBefore) && k.finEnd && isUp && q.server == ended && q.client == endedByNode && q.endAt >= 0 && !q.finRead {
		can(lateFin, c, 0)
	}
	if s.held(q) && s.canPropose(i) {
		can(leaves, c, 0)
	}
	if isUp && q.server == pending && q.id < 0 && s.live(i) && q.sess == p.sess && p.g.ofName(k.name) < 0 && s.canPropose(i) {
		can(joinsAgain, c, 0)
	}
	if cfg.leaves && isUp && q.server == joined && q.client == standing && !q.left && s.live(i) && q.sess == p.sess && s.canPropose(i) &&
		(!cfg.waits || s.moved[q.who] < 0 || (s.now-s.moved[q.who])*cfg.expireR >= cfg.S[i]) {
		can(sendsLeave, c, 0)
	}
	if s.b.Step > 0 && isUp && q.server == joined && s.live(i) && q.sess == p.sess && p.step == 0 && p.g.find(q.sess, q.id) == 0 && s.canPropose(i) {
		can(steps, c, 0)
	}
	if isUp && p.step != 0 && p.stepSent == 0 && p.step == q.id && q.sess == p.sess && s.live(i) && s.canPropose(i) {
		m := &p.g.members[p.g.find(p.sess, p.step)]
		if without(stepWaits) || clock(i, s.now)-p.stepAt >= max(int16(m.hold), cfg.S[i]) {
			can(stepCommits, c, 0)
		}
	}
	return passes
}

// do takes a step.
func (s *State) do(a action) {
	i := int(a.i)
	switch a.verb {
	case tick:
		s.now++
		if cfg.timed {
			s.timePassed()
		}
	case applies:
		s.applyNext(i)
		s.settle(i)
	case snapshot:
		s.b.Snap--
		for s.nodes[i].mode == up && s.nodes[i].applied < s.logged {
			s.applyNext(i)
		}
		s.settle(i)
	case renews:
		s.b.Renew--
		seq := s.next(i)
		s.nodes[i].sent[seq] = clock(i, s.now)
		s.propose(op{kind: renew, sess: s.nodes[i].sess, seq: seq})
	case leaseLost:
		s.closeAll(i, false)
		p := &s.nodes[i]
		p.sess, p.step, p.stepSent, p.sent = -1, 0, 0, [maxSeq]int16{}
	case reopens:
		s.openSession(i)
	case restarts, reboots, downgrades:
		p := &s.nodes[i]
		p.mode, p.reads = up, 1
		if a.verb == reboots {
			s.b.Reboot--
			p.boot++
		}
		if a.verb == downgrades {
			s.b.Old--
			p.reads = 0
		}
		s.openSession(i)
		p.downAt = 0
		if cfg.timed {
			p.upAt = s.now
		}
	case crashes:
		s.b.Crash--
		if a.j == 1 {
			lost := s.nodes[i].sess
			if lost < 0 {
				lost = s.nodes[i].opening - 1
			}
			kept := int8(0)
			for _, o := range s.flight[:s.flying] {
				if o.sess != lost {
					s.flight[kept] = o
					kept++
				}
			}
			clear(s.flight[kept:s.flying])
			s.flying = kept
		}
		s.die(i)
	case pauses:
		s.b.Pause--
		s.nodes[i].mode = paused
	case continues:
		s.nodes[i].mode = up
		if p := &s.nodes[i]; cfg.lines && s.stands(i) && clock(i, s.now) >= p.acked+cfg.L[i]+cfg.C[i] {
			s.die(i) // the dead-man's switch has killed it; without lines it goes on, which is worse
		}
	case stops:
		s.b.Stop--
		s.nodes[i].stopping = refusing
		if cfg.timed {
			s.handOver(i)
		}
	case closes:
		s.nodes[i].stopping = closed
		for c := range s.conns { // End decides, not their holds
			if q := &s.conns[c]; int(q.node) == i && (q.server == pending || q.server == joined) {
				s.finish(q, -1, byNode)
			}
		}
	case ends:
		p := &s.nodes[i]
		p.stopping = ending
		s.propose(op{kind: end, sess: p.sess, seq: s.next(i)})
	case exits:
		s.die(i)
	case raises:
		s.b.Raise--
		s.propose(op{kind: raise})
	case commits:
		o := s.flight[i]
		copy(s.flight[i:], s.flight[i+1:s.flying])
		s.flying--
		s.flight[s.flying] = op{}
		s.commit(o)
	case expires:
		s.commit(op{kind: expire, sess: a.i})
	case joins:
		s.joinOn(int(a.j), i)
	case joinsAgain:
		q := &s.conns[i]
		q.id = s.next(int(q.node))
		s.propose(op{kind: join, sess: q.sess, seq: q.id, client: q.who, hold: cfg.clients[q.who].hold})
	case writes:
		q := &s.conns[i]
		g := &s.nodes[q.node].g
		q.told, q.toldMe, q.toldNobody = g.view, false, g.n == 0
		if m := g.leader(); m != nil && q.who != observer {
			q.toldMe = cfg.clients[m.client].name == cfg.clients[q.who].name
		}
	case reads:
		s.read(&s.conns[i])
	case pings:
		s.b.Ping--
		s.conns[i].ping, s.conns[i].pingAt = asked, s.now*cfg.clientR
	case pongs:
		q := &s.conns[i]
		p := &s.nodes[q.node]
		place := p.place(q)
		if cfg.clients[q.who].hold == 0 && !without(asksBind) {
			q.bound = clock(int(q.node), s.now) + 1
		}
		q.ping, q.ms, q.life, q.rank, q.answered = answered, s.promise(int(q.node), q), p.g.members[place].life, int8(place), q.told
	case hearsPong:
		q := &s.conns[i]
		if cfg.lines && q.read != q.told && q.answered == q.told { // the lines before the answer come first
			s.read(q)
		}
		c := &s.clients[q.who]
		if end := q.pingAt + q.ms; q.life > c.life || q.life == c.life && end > c.until {
			c.until, c.life, c.rank = end, q.life, q.rank
		}
		q.ping, q.pingAt, q.ms, q.life, q.rank, q.answered = 0, 0, 0, 0, 0, 0
	case clientCloses:
		s.b.Close--
		q := &s.conns[i]
		s.clientEnds(q)
	case clientStops: // with fin=end: every connection by a FIN, and no belief
		s.b.Hang--
		c := &s.clients[i]
		*c = clientState{stopped: dead, leaving: true, lostAt: -1}
		for x := range s.conns {
			if q := &s.conns[x]; q.server != none && int(q.who) == i && q.client == standing {
				q.client, q.ping, q.pingAt, q.read = fin, 0, 0, q.told
			}
		}
	case clientHangs:
		s.b.Hang--
		s.clients[a.j] = clientState{stopped: a.i, leaving: true, lostAt: -1, stoppedAt: s.now}
		for x := range s.conns {
			if q := &s.conns[x]; a.i == dead && q.server != none && q.who == a.j && q.client == standing {
				q.client, q.ping, q.read = reset, 0, q.told
			}
		}
	case nodeSeesEnd:
		q := &s.conns[i]
		switch q.client {
		case standing:
			s.b.Break--
		case fin:
			q.finRead = true
		}
		s.finish(q, clock(int(q.node), s.now), byClient)
	case nodeEnds:
		if !cfg.timed {
			s.b.Kick--
		}
		q := &s.conns[i]
		s.finish(q, clock(int(q.node), s.now), byNode)
	case lateFin: // a library closes when it reads the node's FIN
		s.conns[i].finRead, s.conns[i].client = true, fin
	case leaves:
		s.leave(i)
	case sendsLeave:
		s.leave(i)
		q := &s.conns[i]
		c := &s.clients[q.who]
		kept := max(c.kept, c.until)
		*c = clientState{leaving: true, lostAt: -1}
		if without(dropsPromises) {
			c.kept = kept
		}
		q.client, q.ping, q.pingAt, q.read = reset, 0, 0, q.told
	case steps:
		s.b.Step--
		q := &s.conns[i]
		p := &s.nodes[q.node]
		k := &cfg.clients[q.who]
		switch {
		case k.keyed && p.g.members[0].hold > 0:
			p.step, p.stepAt = q.id, clock(int(q.node), s.now)
		case k.keyed && without(stepClosesZero) || !k.keyed && without(stepClosesPlain):
			s.propose(op{kind: stepDown, sess: q.sess, seq: s.next(int(q.node)), id: q.id, view: p.g.view})
		default:
			s.finish(q, clock(int(q.node), s.now), byStep)
		}
	case stepCommits:
		q := &s.conns[i]
		p := &s.nodes[q.node]
		s.propose(op{kind: stepDown, sess: p.sess, seq: s.next(int(q.node)), id: p.step, view: p.g.view})
		p.stepSent = 1
		if without(stepUntilDone) {
			p.step, p.stepSent = 0, 0
		}
	case observes:
		s.b.Watch--
		for x := range s.conns { // it ends its old connection
			if q := &s.conns[x]; q.server != none && q.who == observer && q.client != reset {
				q.client, q.read = reset, q.told
			}
		}
		s.conns[s.freeConn()] = conn{server: joined, client: standing, who: observer, node: a.i, sess: -1, endAt: -1}
	}
	if cfg.timed {
		s.applyAll()
	}
	s.tidy()
}

func (s *State) joinOn(k, i int) {
	s.b.Join--
	c := &cfg.clients[k]
	if !without(closesFirst) || !c.keyed {
		for x := range s.conns {
			if q := &s.conns[x]; q.server != none && int(q.who) == k && (q.client == standing || q.client == endedByNode) {
				s.clientEnds(q)
			}
		}
	}
	hold := c.hold
	if c.later > 0 {
		hold = c.later
	}
	p := &s.nodes[i]
	free := s.freeConn()
	s.conns[free] = conn{server: pending, client: standing, who: int8(k), node: int8(i), sess: p.sess, id: s.next(i), endAt: -1}
	s.propose(op{kind: join, sess: p.sess, seq: s.conns[free].id, client: int8(k), hold: hold})
}

// clientEnds ends the client's side: a plain client, and one that breaks the rule, by a FIN.
func (s *State) clientEnds(q *conn) {
	k := &cfg.clients[q.who]
	q.client, q.ping, q.pingAt, q.read = reset, 0, 0, q.told
	if !k.keyed || k.finEnd && without(resets) {
		q.client = fin
	}
}

func (s *State) read(q *conn) {
	q.read = q.told
	if q.who != observer {
		c := &s.clients[q.who]
		c.view, c.me = q.told, q.toldMe
		return
	}
	if q.told < s.seen {
		if without(positions) && q.toldNobody {
			s.fail(watched)
		}
		return // older than what it knows
	}
	s.seen = q.told
}

// show says what an action does, before it is done.
func (s *State) show(a action) string {
	of := func(o op) string {
		switch o.kind {
		case raise:
			return "Raise"
		case open:
			return fmt.Sprintf("Open(N%d s%d)", o.node, o.sess)
		case join:
			return fmt.Sprintf("Join(s%d #%d client %d)", o.sess, o.seq, o.client)
		}
		return fmt.Sprintf("%s(s%d #%d)", kindNames[o.kind], o.sess, o.seq)
	}
	onNode := map[verb]string{snapshot: "installs a snapshot", renews: "renews", leaseLost: "ends its connections at the lease's end", reopens: "opens again",
		restarts: "is started", reboots: "is started on another boot", downgrades: "is started as the older program", crashes: "is killed", pauses: "is paused",
		continues: "goes on", stops: "begins to stop", closes: "ends its connections", ends: "proposes its End", exits: "is gone", raises: "proposes Raise"}
	onConn := map[verb]string{joinsAgain: "its node tries the JOIN again", reads: "its client reads", pings: "PING", clientCloses: "its client ends it",
		nodeSeesEnd: "its node sees its end", nodeEnds: "its node ends it", lateFin: "its client's FIN is read", leaves: "its node proposes Leave",
		sendsLeave: "LEAVE", steps: "step-down begins", stepCommits: "its node proposes StepDown"}
	switch a.verb {
	case tick:
		return fmt.Sprintf("time %d", s.now+1)
	case commits:
		return of(s.flight[a.i]) + " commits"
	case expires:
		return fmt.Sprintf("Expire(s%d) commits", a.i)
	case applies:
		return fmt.Sprintf("N%d applies %s", a.i, of(s.log[s.nodes[a.i].applied]))
	case joins:
		return fmt.Sprintf("client %d JOINs on N%d (c%d)", a.j, a.i, s.freeConn())
	case observes:
		return fmt.Sprintf("OBSERVE on N%d (c%d)", a.i, s.freeConn())
	case writes:
		return fmt.Sprintf("c%d is told %d", a.i, s.nodes[s.conns[a.i].node].g.view)
	case pongs:
		q := &s.conns[a.i]
		return fmt.Sprintf("c%d N%d answers ALIVE %d", a.i, q.node, s.promise(int(q.node), q))
	case hearsPong:
		return fmt.Sprintf("c%d ALIVE is read", a.i)
	case clientStops:
		return fmt.Sprintf("client %d stops", a.i)
	case clientHangs:
		return fmt.Sprintf("client %d %s", a.j, map[int8]string{dead: "is killed", hung: "hangs"}[a.i])
	}
	if what, ok := onNode[a.verb]; ok {
		return fmt.Sprintf("N%d %s", a.i, what)
	}
	return fmt.Sprintf("c%d %s", a.i, onConn[a.verb])
}
