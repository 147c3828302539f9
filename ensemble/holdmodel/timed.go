package main

// In a timed case everything happens in time: what is proposed commits within D of the raft leader
// being there, nodes apply at once, renew at every instant and act when they have to, clients JOIN
// again within X. So "never" and "at the latest" become properties of single states.
//
// The majority counts: nothing commits while fewer than two of three nodes run, or until an
// election is over.

type times struct {
	X     int16 // a client that has lost its connection JOINs within this
	D     int16 // a commit
	E     int16 // an election
	fresh int16 // 2R: a new raft leader expires nobody for so long
	Y     int16 // a node that has stopped or died is started again within this
	stuck int16 // a client that sends no PING for so long is closed
	bound int16 // one that does not live is replaced within this
	slow  bool  // X and Y are taken in full

	inTurn bool // a node is killed only when the others are well
}

func (s *State) canCommit() bool {
	n := 0
	for i := range cfg.nodes {
		if s.nodes[i].mode == up {
			n++
		}
	}
	return n*2 > cfg.nodes && s.nodes[s.raft].mode == up && s.now >= s.election
}

// elect has another raft leader elected if it was on this process.
func (s *State) elect(i int) {
	if !cfg.timed || int(s.raft) != i {
		return
	}
	s.handOver(i)
	s.election = s.now + cfg.T.E
	s.fresh = s.election + cfg.T.fresh
}

func (s *State) handOver(i int) {
	if int(s.raft) != i || s.nodes[i].mode == up && without(handsOver) {
		return
	}
	for j := range cfg.nodes {
		if j != i && s.nodes[j].mode == up && s.nodes[j].stopping == 0 {
			s.raft = int8(j)
			break
		}
	}
	s.fresh = s.now + cfg.T.fresh
}

func (s *State) timePassed() {
	if s.nodes[s.raft].mode != up {
		s.elect(int(s.raft))
	}
	if !s.canCommit() {
		return
	}
	for i := range cfg.nodes {
		if p := &s.nodes[i]; p.mode == up && p.sess >= 0 && p.stopping < ending && s.now < p.acked+cfg.L[i] {
			p.acked, s.heard[p.sess] = s.now-1, s.now-1
		}
	}
}

func (s *State) applyAll() {
	for i := range cfg.nodes {
		for s.nodes[i].mode == up && s.nodes[i].applied < s.logged {
			s.applyNext(i)
			s.settle(i)
		}
	}
}

// mayRoll tells whether the operator may stop the next node.
func (s *State) mayRoll() bool {
	if without(rolled) {
		return true // whatever became of the last one
	}
	for i := range cfg.nodes {
		p := &s.nodes[i]
		if p.mode != up || p.stopping != 0 || p.sess < 0 || s.g.sessions[p.sess].state != alive {
			return false
		}
	}
	for _, ses := range s.g.sessions {
		if ses.state == orphaned && !without(allMoved) {
			return false
		}
	}
	return true
}

func (s *State) timely(out []action) []action {
	out = out[:0]
	passes := s.now < cfg.until
	can := func(v verb, i, j int) { out = append(out, action{v, int8(i), int8(j)}) }
	must := func(v verb, i, j int) { can(v, i, j); passes = false }
	for i := range cfg.nodes {
		p := &s.nodes[i]
		if p.mode == down {
			if s.b.Open > 0 && s.opened < maxSessions && s.room() {
				if s.now-p.downAt >= cfg.T.Y {
					must(restarts, i, 0)
				} else if !cfg.T.slow {
					can(restarts, i, 0)
				}
			}
			continue
		}
		late := p.sess < 0 || s.now >= p.acked+cfg.L[i]
		switch {
		case late && s.stands(i):
			must(leaseLost, i, 0)
		case late && p.opening == 0 && p.stopping == 0 && s.b.Open > 0 && s.opened < maxSessions && s.room():
			must(reopens, i, 0)
		case p.stopping == refusing:
			must(closes, i, 0)
		case p.stopping == closed && !late && s.canPropose(i):
			must(ends, i, 0)
		case p.stopping >= closed && late:
			must(exits, i, 0)
		}
		if s.b.Crash > 0 && (!cfg.T.inTurn || s.mayRoll()) {
			can(crashes, i, 0)
			can(crashes, i, 1) // and what it has proposed is lost
		}
		if s.b.Stop > 0 && i == int(cfg.budget.Stop-s.b.Stop) && p.stopping == 0 && s.mayRoll() {
			can(stops, i, 0)
		}
	}
	for k := range s.flight[:s.flying] {
		if o := s.flight[k]; s.canCommit() && s.logged < maxLog && s.committable(o) {
			if s.now-max(o.at, s.election) >= cfg.T.D {
				must(commits, k, 0)
			} else {
				can(commits, k, 0)
			}
		}
	}
	for x := range int(s.opened) {
		if s.canCommit() && s.expirable(x) && (s.now >= s.fresh || without(freshExpirer)) {
			if s.now > max(s.fresh, s.heard[x]+s.silence(x)) {
				must(expires, x, 0)
			} else {
				can(expires, x, 0)
			}
		}
	}
	for k := range cfg.clients {
		c := &s.clients[k]
		if c.stopped == 0 && s.b.Hang > 0 && c.lostAt < 0 {
			can(clientHangs, int(dead), k)
			can(clientHangs, int(hung), k)
		}
		if c.stopped != 0 || c.lostAt < 0 || s.waiting(k) {
			continue
		}
		for i := range cfg.nodes {
			if s.live(i) && s.nodes[i].stopping == 0 && s.canPropose(i) && s.freeConn() >= 0 {
				if s.now-c.lostAt >= cfg.T.X {
					must(joins, i, k)
				} else if !cfg.T.slow {
					can(joins, i, k)
				}
			}
		}
	}
	for c := range s.conns {
		q := &s.conns[c]
		if q.server == none || s.nodes[q.node].mode != up {
			continue
		}
		here := q.server == pending || q.server == joined
		switch {
		case here && q.client != standing:
			must(nodeSeesEnd, c, 0)
		case here && s.b.Break > 0:
			can(nodeSeesEnd, c, 0)
		}
		if s.held(q) && s.canPropose(int(q.node)) {
			must(leaves, c, 0)
		}
		if k := &s.clients[q.who]; here && k.stopped == hung && !without(stuckCloses) && s.now-k.stoppedAt >= cfg.T.stuck {
			must(nodeEnds, c, 0)
		}
	}
	if passes {
		can(tick, 0, 0)
	}
	return out
}

// waiting tells whether a client's JOIN is under way.
func (s *State) waiting(k int) bool {
	for _, q := range s.conns {
		if q.server == pending && int(q.who) == k && q.client == standing {
			return true
		}
	}
	return false
}
