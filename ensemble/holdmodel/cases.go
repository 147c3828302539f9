package main

// A scenario is a case: a setting, and whether all that is looked at holds in it.
type scenario struct {
	name  string
	walk  bool     // random walks; else breadth first
	fails property // what breaks without the rule; 0: all holds
	test  bool     // cheap enough for "go test"
	set   func(c *config)
}

var scenarios = []scenario{
	// One client, two nodes, equal clocks.
	{"x0 a PING, a broken line, a killed node", false, 0, true, func(c *config) { c.budget = budget{Ping: 1, Break: 1, Crash: 1} }},
	{"x1 a Move, a broken line, a renewal", false, 0, false, func(c *config) {
		c.without = closesFirst
		c.budget, c.until = budget{Renew: 1, Join: 1, Ping: 1, Break: 1}, 4
	}},
	{"x1b a Move, a killed node, a renewal", false, 0, false, func(c *config) {
		c.without = closesFirst
		c.budget, c.until = budget{Renew: 1, Join: 1, Ping: 1, Crash: 1}, 4
	}},
	{"x2 two JOINs under way, one abandoned", false, 0, false, func(c *config) {
		c.without = closesFirst
		c.budget, c.until = budget{Join: 2, Ping: 1, Close: 1}, 4
	}},
	{"x3 a stop, a restart, a Move", false, 0, false, func(c *config) {
		c.without = closesFirst
		c.budget, c.until = budget{Join: 1, Ping: 1, Stop: 1, Open: 1}, 5
	}},
	{"x4 a killed node, a restart, a Move", false, 0, false, func(c *config) {
		c.without = closesFirst
		c.budget, c.until = budget{Join: 1, Ping: 1, Crash: 1, Open: 1}, 5
	}},
	{"x5 a pause, a snapshot, a lost lease", false, 0, false, func(c *config) {
		c.budget, c.until = budget{Renew: 1, Ping: 1, Pause: 1, Snap: 1, Open: 1}, 5
	}},
	{"x6 PING answered after the lease", false, 0, false, func(c *config) {
		c.without = closesFirst | gate
		c.budget, c.until = budget{Renew: 1, Join: 1, Ping: 1, Break: 1}, 4
	}},
	{"x28 three nodes, a Move, a broken line", false, 0, false, func(c *config) {
		c.nodes, c.without = 3, closesFirst
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1}, 4
	}},
	{"f1 ALIVE is longer by one", false, promised, true, func(c *config) {
		c.without, c.budget = tight, budget{Ping: 1, Break: 1, Crash: 1}
	}},
	{"f2 e does not come off hold", false, promised, false, func(c *config) {
		c.without = offHold | closesFirst
		c.budget, c.until = budget{Join: 2, Ping: 1, Close: 1}, 4
	}},
	{"f3 the hold of a JOIN that waits runs from the end of its connection", false, spared, true, func(c *config) {
		c.without, c.budget = holdFromJoin|closesFirst, budget{Join: 1, Ping: 1, Close: 1}
	}},
	{"f3b the same, P2", false, promised, false, func(c *config) {
		c.without, c.only = holdFromJoin|closesFirst, promised
		c.budget, c.until = budget{Renew: 1, Join: 1, Ping: 1, Close: 1}, 4
	}},
	{"f4 a Move does not count for Expire", false, spared, true, func(c *config) {
		c.without, c.budget = moveRenews|closesFirst, budget{Renew: 1, Join: 1, Ping: 1}
		c.clients[0].hold = 3
	}},
	{"f4b the same, P2", false, promised, false, func(c *config) {
		c.without, c.only = moveRenews|closesFirst, promised
		c.budget, c.until, c.clients[0].hold = budget{Renew: 1, Join: 1, Ping: 1}, 5, 3
	}},
	{"f5 Open ends keyed members", false, spared, true, func(c *config) {
		c.without, c.budget = openSpares, budget{Ping: 1, Crash: 1, Open: 1}
	}},
	{"f5b the same, P2", false, promised, true, func(c *config) {
		c.without, c.only, c.budget = openSpares, promised, budget{Ping: 1, Crash: 1, Open: 1}
	}},
	{"f6 End ends keyed members", false, spared, true, func(c *config) {
		c.without, c.budget = endSpares, budget{Ping: 1, Stop: 1}
	}},
	{"f6b the same, P2", false, promised, true, func(c *config) {
		c.without, c.only, c.budget = endSpares, promised, budget{Ping: 1, Stop: 1}
	}},
	{"f7 Leave names the client", false, spared, true, func(c *config) {
		c.without, c.budget = leaveById|closesFirst, budget{Join: 1, Ping: 1, Break: 1}
	}},
	{"fA a client believes while its connection stands", false, promised, true, func(c *config) {
		c.without, c.budget = promiseAlone, budget{Stop: 1, Break: 1}
	}},

	// LEAVE on one connection while another stands; a client without hold.
	{"x7 the old connection is ended first, LEAVE", false, 0, false, func(c *config) {
		c.lines, c.leaves, c.clients[0].hold = true, true, 0
		c.budget, c.until = budget{Join: 1, Renew: 1}, 4
	}},
	{"x8 the old connection is kept, LEAVE waits S after a Move", false, 0, false, func(c *config) {
		c.lines, c.leaves, c.waits, c.without, c.clients[0].hold = true, true, true, closesFirst, 0
		c.budget, c.until = budget{Join: 1, Renew: 1}, 6
	}},
	{"fB the old connection is kept, LEAVE at once", false, oneTold, true, func(c *config) {
		c.lines, c.leaves, c.without, c.clients[0].hold = true, true, closesFirst, 0
		c.budget = budget{Join: 1}
	}},

	// Three nodes, clocks 9:11:10, every fault.
	{"w1 every fault", true, 0, true, func(c *config) { wide(c); c.without = closesFirst }},
	{"w2 the same, hold above S", true, 0, false, func(c *config) { wide(c); c.without = closesFirst; c.clients[0].hold = 60 }},
	{"w3 the same, clients end old connections first", true, 0, false, wide},
	{"w4 a client with hold and one without, an impostor, an observer, LEAVE, a step-down", true, 0, true, func(c *config) {
		wide(c)
		c.lines, c.leaves, c.asks = true, true, true
		c.clients = []client{{keyed: true, hold: 40}, {name: 1, keyed: true}, {keyed: true, hold: 60, finEnd: true}}
		c.joined = 2
		c.budget.Step, c.budget.Watch, c.budget.Hang = 1, 2, 1
	}},
	{"w5 a client with fin=end, plain ones, one of them an impostor", true, 0, false, func(c *config) {
		wide(c)
		c.lines = true
		c.clients = []client{{keyed: true, hold: 40, later: 30, finEnd: true}, {name: 1}, {}}
		c.joined = 2
		c.budget.Step, c.budget.Watch, c.budget.Hang = 1, 1, 1
	}},
	{"f8 e counts from the acceptance", true, promised, false, func(c *config) { wide(c); c.without = fromSending | closesFirst }},
	{"f9 no factor for the clocks", true, promised, true, func(c *config) { wide(c); c.without, c.num, c.den = clockFactor|closesFirst, 1, 1 }},

	// Nodes with different S; hold is that of the first node.
	{"x9 the second node has a smaller S", false, 0, false, unequal},
	{"fC Expire waits for its own S alone", false, promised, true, func(c *config) { unequal(c); c.without |= longestExpiry }},
	{"fE the same, the old connection is ended first", false, promised, true, func(c *config) { unequal(c); c.without = longestExpiry }},

	// fin=end.
	{"x10 fin=end, two JOINs", false, 0, false, func(c *config) {
		c.clients[0].finEnd = true
		c.budget, c.until = budget{Join: 2, Ping: 1, Break: 1, Hang: 1}, 3
	}},
	{"x11 fin=end, a node ends a connection", false, 0, false, func(c *config) {
		c.clients[0].finEnd = true
		c.budget, c.until = budget{Join: 1, Ping: 1, Kick: 1, Hang: 1}, 5
	}},
	{"fD fin=end, a JOIN is abandoned by a FIN", false, promised, true, func(c *config) {
		c.clients[0].finEnd, c.without = true, resets|closesFirst
		c.only, c.budget, c.until = promised, budget{Join: 1, Ping: 1, Close: 1}, 4
	}},
	{"fF fin=end, a FIN counts that answers the node's own", false, promised, true, func(c *config) {
		c.clients[0].finEnd, c.without = true, finBefore
		c.budget, c.until = budget{Ping: 1, Kick: 1}, 4
	}},

	// A client without hold that sends JOIN again to be sure by its clock.
	{"x26 JOIN again, a Move, a broken line", false, 0, false, func(c *config) {
		c.lines, c.asks, c.clients[0].hold = true, true, 0
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 2}, 4
	}},
	{"x27 JOIN again, a step-down", false, 0, false, func(c *config) {
		c.lines, c.asks = true, true
		c.clients, c.joined = []client{{keyed: true}, {name: 1, keyed: true}}, 2
		c.budget, c.until = budget{Join: 1, Ping: 1, Step: 1}, 4
	}},
	{"g6 a reset ends what was promised", false, promised, true, func(c *config) {
		c.lines, c.asks, c.clients[0].hold, c.without = true, true, 0, asksBind
		c.budget, c.until = budget{Ping: 1, Break: 1}, 4
	}},
	{"g7 a Move does not bind the node", false, promised, false, func(c *config) {
		c.lines, c.asks, c.clients[0].hold, c.without = true, true, 0, moveBinds
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1, Stop: 1}, 4
	}},

	{"x30 no hold, two JOINs under way, one abandoned", false, 0, false, func(c *config) {
		c.lines, c.clients[0].hold = true, 0
		c.budget, c.until = budget{Join: 2, Break: 1}, 5
	}},
	{"g9 an old JOIN moves the member, whose node ends it while the connection before stands", false, oneTold, false, func(c *config) {
		c.lines, c.clients[0].hold, c.without = true, 0, oldEnds
		c.budget = budget{Join: 2, Break: 1}
	}},

	// A hung client, and others whose connection the node ends.
	{"x12 a node ends a connection", false, 0, false, func(c *config) { c.budget = budget{Join: 1, Ping: 1, Kick: 1, Renew: 1} }},
	{"fG the node does not wait before the Leave", false, promised, true, func(c *config) {
		c.without, c.budget = nodeEndHolds, budget{Ping: 1, Kick: 1}
	}},

	// A hold that a later JOIN lowers.
	{"x13 a later JOIN has a smaller hold", false, 0, false, func(c *config) {
		c.clients[0].hold, c.clients[0].later = 3, 1
		c.budget = budget{Join: 1, Ping: 1, Break: 1}
	}},
	{"fH a Move lowers the hold", false, promised, true, func(c *config) {
		c.clients[0].hold, c.clients[0].later, c.without = 3, 1, holdStays
		c.only, c.budget = promised, budget{Join: 1, Ping: 1, Break: 1}
	}},

	// An impostor: the same name with another key, or without one.
	{"x14 an impostor with a key", false, 0, false, func(c *config) {
		impostor(c)
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1, Snap: 1}, 4
	}},
	{"x29 one node, an impostor waits until the name is free", false, 0, true, func(c *config) {
		impostor(c)
		c.nodes, c.budget, c.until = 1, budget{Join: 1, Ping: 1, Break: 1}, 4
	}},
	{"x15 an impostor without a key", false, 0, false, func(c *config) {
		impostor(c)
		c.clients[1] = client{}
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1, Snap: 1}, 4
	}},
	{"x16 the same, connections are compared by name", false, 0, false, func(c *config) {
		impostor(c)
		c.without = byMember
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1, Snap: 1}, 4
	}},
	{"x17 LEAVE, and a JOIN after it", false, 0, false, func(c *config) {
		c.lines, c.leaves, c.clients[0].hold, c.clients[0].later = true, true, 3, 1
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1}, 4
	}},
	{"fI a Move needs no key", false, promised, true, func(c *config) {
		impostor(c)
		c.without, c.budget = sameKey, budget{Join: 1, Ping: 1}
	}},
	{"fJ connections are compared by name, and old ones kept", false, promised, false, func(c *config) {
		impostor(c)
		c.without, c.leaves, c.until = byMember|closesFirst, true, 4
		c.budget = budget{Join: 2, Ping: 1, Snap: 1}
	}},
	{"fK a client keeps its promises after LEAVE", false, promised, true, func(c *config) {
		c.lines, c.leaves, c.clients[0].hold, c.clients[0].later = true, true, 3, 1
		c.nodes, c.without = 1, dropsPromises
		c.budget, c.until = budget{Join: 1, Ping: 1, Break: 1}, 4
	}},

	// Observers.
	{"x18 observers", false, 0, false, func(c *config) {
		c.clients = []client{{}}
		c.budget, c.until = budget{Watch: 2, Close: 1, Join: 1}, 4
	}},
	{"fL observers are not closed when the lease is over", false, watched, true, func(c *config) {
		c.clients, c.without = []client{{}}, watchersToo
		c.budget = budget{Watch: 1, Close: 1}
	}},
	{"fM NO_LEADER has no position", false, watched, true, func(c *config) {
		c.clients, c.joined, c.without = []client{{}}, 0, positions
		c.budget = budget{Watch: 2, Join: 1}
	}},

	// A stop in order, with plain members.
	{"x19 a stop, a keyed and a plain client", false, 0, false, func(c *config) {
		c.lines = true
		c.clients, c.joined = []client{{keyed: true, hold: 2}, {name: 1}}, 2
		c.budget, c.until = budget{Stop: 1, Join: 1, Ping: 1}, 4
	}},
	{"fN JOINs are accepted during a stop", false, oneTold, true, func(c *config) {
		c.lines, c.without = true, refusesJoins
		c.clients, c.joined = []client{{}}, 0
		c.budget = budget{Stop: 1, Join: 1}
	}},
	{"fO the session ends before its connections", false, oneTold, true, func(c *config) {
		c.lines, c.without, c.clients = true, endLast, []client{{}}
		c.budget = budget{Stop: 1}
	}},

	// A step-down.
	{"x20 a step-down of a client with hold", false, 0, false, func(c *config) { stepping(c); c.budget.Join = 1 }},
	{"x21 a step-down of a keyed client without hold", false, 0, false, func(c *config) { stepping(c); c.clients[0].hold, c.budget.Join = 0, 1 }},
	{"x22 a step-down of a plain client", false, 0, false, func(c *config) { stepping(c); c.clients[0], c.budget.Join = client{}, 1 }},
	{"fP PING is answered in full during a step-down", false, promised, true, func(c *config) { stepping(c); c.without = stepSilent }},
	{"fQ a step-down does not wait", false, promised, true, func(c *config) { stepping(c); c.without = stepWaits }},
	{"fR a step-down names the leadership, not the member", false, promised, false, func(c *config) {
		stepping(c)
		c.without, c.budget.Join = stepDownById, 1
	}},
	{"fS PING is answered in full when the StepDown is proposed", false, promised, true, func(c *config) { stepping(c); c.without = stepUntilDone }},
	{"fT a plain leader's connection is kept", false, oneTold, true, func(c *config) { stepping(c); c.clients[0], c.without = client{}, stepClosesPlain }},
	{"fU the connection of a keyed leader without hold is kept", false, oneTold, true, func(c *config) { stepping(c); c.clients[0].hold, c.without = 0, stepClosesZero }},
	{"fV ALIVE overtakes LEADER", false, promised, true, func(c *config) { stepping(c); c.without = leaderFirst }},
	{"fBb the old connection is kept, P2", false, promised, false, func(c *config) {
		stepping(c)
		c.without, c.budget.Join, c.unread = closesFirst, 1, true
	}},
	{"fW clients with hold count by their connections too", false, oneTold, true, func(c *config) { stepping(c); c.without = holdByPromise }},

	// The level, with one node of the version before.
	{"x23 an upgrade under a client, and a way back", false, 0, false, func(c *config) { upgrade(c); c.budget.Old = 1 }},
	{"fX keyed JOINs are accepted before the level", false, formats, true, func(c *config) { upgrade(c); c.without = levelFirst }},
	{"fY a Raise is not judged when it is applied", false, formats, true, func(c *config) {
		upgrade(c)
		c.without, c.budget.Old, c.budget.Crash = raiseIsJudged, 1, 2
	}},

	// Two processes of one node with copies of its folder, on machines of their own; and a machine that boots again.
	{"x24 a second process on another boot", false, 0, false, twoBoots},
	{"x25 a machine that boots again", false, 0, false, func(c *config) {
		c.budget = budget{Ping: 1, Crash: 1, Open: 1, Reboot: 1, Join: 1}
	}},
	{"fZ an Open of another boot ends the session at once", false, oneTold, true, func(c *config) { twoBoots(c); c.without = waitForBoot }},

	// In time: a Move commits in time, and who is dead is replaced.
	{"t1 a node is killed, perhaps the raft leader", false, 0, true, func(c *config) { inTime(c); c.budget = budget{Join: 4, Crash: 1, Open: 1}; c.until = 14 }},
	{"t2 a rolling restart", false, 0, false, func(c *config) { inTime(c); rolling(c) }},
	{"t3 a client is killed or hangs, perhaps a node dies too", false, 0, false, func(c *config) {
		inTime(c)
		c.budget = budget{Join: 3, Crash: 1, Open: 1, Hang: 1}
		c.until = 26
	}},
	{"t5 each node is killed in turn, perhaps the raft leader", false, 0, false, func(c *config) {
		inTime(c)
		c.T.inTurn, c.T.Y = true, 1
		c.budget, c.until = budget{Join: 6, Crash: 3, Open: 3}, 20
	}},
	{"t6 a rolling restart, no node waits until all have moved", false, 0, false, func(c *config) {
		inTime(c)
		rolling(c)
		c.without = allMoved
	}},
	{"g1 a new raft leader expires at once", false, keeps, true, func(c *config) {
		inTime(c)
		c.T.E, c.without, c.until = 6, freshExpirer, 16
		c.budget = budget{Join: 4, Crash: 1, Open: 3}
	}},
	{"t4 an election as long as S", false, 0, true, func(c *config) {
		inTime(c)
		c.T.E, c.until = 6, 16
		c.budget = budget{Join: 4, Crash: 1, Open: 3}
	}},
	{"g2 the next node is stopped before the last one is back", false, keeps, true, func(c *config) {
		inTime(c)
		rolling(c)
		c.without, c.T.slow, c.T.Y = rolled, true, 3
	}},
	{"g3 a node that stops keeps Raft's leadership", false, keeps, true, func(c *config) {
		inTime(c)
		rolling(c)
		c.without = handsOver
	}},
	{"g8 the next node is killed before all have moved", false, keeps, false, func(c *config) {
		inTime(c)
		c.T.inTurn, c.T.Y, c.without = true, 1, allMoved
		c.budget, c.until = budget{Join: 6, Crash: 3, Open: 3}, 20
	}},
	{"g4 a member whose connection the node has ended never leaves", false, replaced, true, func(c *config) {
		inTime(c)
		c.without, c.until = nodeEndLeaves, 26
		c.budget = budget{Hang: 1}
	}},
	{"g5 nobody looks for PINGs", false, replaced, true, func(c *config) {
		inTime(c)
		c.without, c.until = stuckCloses, 26
		c.budget = budget{Hang: 1}
	}},
}

func unequal(c *config) {
	c.without, c.only = closesFirst, promised
	c.L[0], c.S[0], c.L[1], c.S[1], c.clients[0].hold, c.until = 4, 5, 2, 3, 5, 7
	c.budget = budget{Join: 1, Ping: 1, Break: 1}
}

func impostor(c *config) {
	c.lines = true
	c.clients[0].hold = 1 // so that the name comes free within the leases
	c.clients = append(c.clients, client{keyed: true, hold: 2})
}

// stepping is a leader and an heir.
func stepping(c *config) {
	c.lines = true
	c.clients, c.joined = []client{{keyed: true, hold: 2}, {name: 1, keyed: true, hold: 2}}, 2
	for i := range c.L {
		c.L[i], c.C[i], c.S[i] = 2, 0, 2
	}
	c.budget, c.until = budget{Step: 1, Ping: 1, Renew: 1}, 4
}

func upgrade(c *config) {
	c.old[1], c.level, c.joined, c.emptyX = true, 0, 0, true
	c.budget, c.until = budget{Join: 1, Crash: 1, Open: 2, Raise: 1}, 4
}

func twoBoots(c *config) {
	c.nodes, c.id, c.boot, c.off[2], c.emptyX = 3, [maxNodes]int8{0, 1, 0}, [maxNodes]int8{0, 0, 1}, true, true
	c.lines = true
	c.clients, c.joined = []client{{}, {name: 1, keyed: true, hold: 2}}, 2
	c.budget, c.until = budget{Open: 1, Ping: 1}, 5
}

// rolling is a restart of each node in turn, with clients that need three R to come back.
func rolling(c *config) {
	c.T.X, c.T.Y = 3, 0
	c.budget, c.until = budget{Join: 6, Stop: 3, Open: 3}, 20
}

// inTime is three nodes as with timing normal, in units of R = 0.4 s.
func inTime(c *config) {
	c.timed, c.nodes = true, 3
	for i := range c.L {
		c.L[i], c.C[i], c.S[i] = 5, 1, 6
	}
	c.clients[0].hold = 6
	c.T = times{X: 1, D: 0, E: 3, fresh: 2, Y: 3, stuck: 8, bound: 20}
	c.until = 14
}
