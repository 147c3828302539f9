package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/state"
)

// The same simulation with clients that have keys, beside plain ones: they lose their
// connections, or break them off unnoticed by the server, come back at other nodes, ask for
// promises, hang and leave. Nodes have different timings, which change when they start. After
// every step what a client was promised has to be so in the committed log.

func TestSimulationOfKeyedMembers(t *testing.T) {
	if *simSeed != 0 {
		if err := newKeyedSim(*simSeed, mutation.Nothing).play(); err != nil {
			t.Fatal(err)
		}
		return
	}
	schedules := *simSchedules / 4
	if raceEnabled {
		schedules = min(schedules, 20)
	}
	var total keyedCounts
	for seed := uint64(1); seed <= uint64(schedules); seed++ {
		s := newKeyedSim(seed, mutation.Nothing)
		if err := s.play(); err != nil {
			t.Fatal(err)
		}
		total.add(s.keyed)
	}
	t.Logf("%d schedules: %+v", schedules, total)
	for what, n := range map[string]int{
		"moves": total.moves, "promises": total.promises, "promises to leaders": total.leading, "breaks": total.breaks,
		"stops": total.stops, "hung": total.hung, "left": total.left, "kept through the end of a node": total.kept,
		"stepped down with a hold": 3 * total.stepped, "stepped down without": 3 * total.closed,
	} {
		if n < schedules/4 {
			t.Errorf("%s: only %d in %d schedules; they prove little", what, n, schedules)
		}
	}
}

func TestSimulationOfKeyedMembersFindsEveryMissingRule(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, for a long time: there is no race to detect")
	}
	for _, mutate := range []mutation.Mutation{
		mutation.NoHold, mutation.NoAcceptance, mutation.NoSince, mutation.NoSilence, mutation.NoCompare, mutation.NoStepping,
	} {
		t.Run(mutate.String(), func(t *testing.T) {
			find(t, func(seed uint64) *sim { return newKeyedSim(seed, mutate) })
		})
	}
}

type keyedCounts struct {
	moves, promises, leading, breaks, stops, hung, left, kept, stepped, closed int
}

func (c *keyedCounts) add(d keyedCounts) {
	c.moves += d.moves
	c.promises += d.promises
	c.leading += d.leading
	c.breaks += d.breaks
	c.stops += d.stops
	c.hung += d.hung
	c.left += d.left
	c.kept += d.kept
	c.stepped += d.stepped
	c.closed += d.closed
}

// simClient is a process with a key.
type simClient struct {
	sim           *sim
	group, client string
	key           state.Key
	hold          time.Duration
	fin           bool // fin=end: its FIN says that it has stopped

	conn     *simConn // nil: none
	since    time.Duration
	patience time.Duration // for the answer to its JOIN
	next     time.Duration // when it acts again
	asked    time.Duration // when it sent the PING that waits for its answer; 0: none
	until    time.Duration // the furthest promise, in real time
	leader   string        // the newest LEADER that it has read
	hangs    time.Duration // it does nothing before that
	over     bool          // it has left, or is dead
}

func newKeyedSim(seed uint64, mutate mutation.Mutation) *sim {
	s := newSim(seed, mutate)
	s.log = append(s.log, state.Entry{Ops: []state.Op{
		state.Raise{Level: 2}, state.Open{Node: "n0", Counter: 1, Boot: "x", Reads: state.KeyedLevel}, // all that are known read it
		state.Raise{Level: state.KeyedLevel},
	}}, state.Entry{Ops: []state.Op{state.End{Incarnation: state.Incarnation(state.PositionOf(2, 1)), Seq: 1}}})
	s.mixed, s.truth = true, state.New()
	for i := range 5 {
		s.begin(i)
	}
	return s
}

// begin starts the process of a name anew, with another key.
func (s *sim) begin(i int) {
	c := &simClient{sim: s, group: fmt.Sprintf("g%d", i%2), client: fmt.Sprintf("k%d", i), fin: s.chance(0.3), next: s.now + s.upTo(time.Second)}
	c.key = state.KeyOf(c.group, c.client, fmt.Sprint("secret ", s.rng.Uint64()))
	switch {
	case s.chance(0.7):
		c.hold = s.upTo(8 * time.Second)
	}
	s.people = append(s.people, c)
	s.after(3*time.Second+s.upTo(10*time.Second), func() {
		if s.calm || !c.over && s.chance(0.5) {
			return
		}
		if !c.over {
			c.stop()
		}
		s.begin(i)
	})
}

// stop ends the process in one of the ways that there are.
func (c *simClient) stop() {
	s := c.sim
	s.keyed.stops++
	c.over, c.until = true, 0
	conn := c.conn
	c.conn = nil
	if conn == nil || !conn.reachable() {
		return
	}
	conn.shut()
	switch {
	case conn.m.state == memberJoined && s.chance(0.5):
		s.keyed.left++
		s.tracef("%s: LEAVE of %s %s", conn.node.id, c.group, c.client)
		conn.m.Stopped()
		conn.m.Closed("left", true)
	case c.fin:
		s.tracef("%s: FIN of %s %s, which has stopped", conn.node.id, c.group, c.client)
		conn.m.Stopped()
		conn.m.Closed("closed", true)
	default:
		s.tracef("%s: FIN of %s %s", conn.node.id, c.group, c.client)
		conn.m.Closed("closed", true)
	}
}

func (c *simConn) reachable() bool {
	return c.open && !c.ending && c.node.up && !c.node.paused
}

// act is what the process does in a moment.
func (c *simClient) act() {
	s := c.sim
	if c.over || s.now < c.next || s.now < c.hangs {
		return
	}
	c.next = s.now + s.upTo(20*time.Millisecond)
	if c.conn != nil && !c.conn.open { // it has read the end
		c.lose(s.upTo(400 * time.Millisecond))
		return
	}
	switch {
	case c.conn == nil:
		c.join()
	case c.conn.m.state != memberJoined || c.conn.told == "":
		if s.now-c.since > c.patience {
			c.breakOff()
		}
	case !c.conn.reachable():
		if s.chance(0.02) {
			c.breakOff()
		}
	case c.asked == 0 && s.chance(0.2):
		c.asked = s.now - s.upTo(3*time.Millisecond)
		if !c.conn.m.Alive() {
			c.conn.Close()
		}
	}
	if s.calm || c.conn == nil {
		return
	}
	switch {
	case s.chance(0.01):
		c.breakOff()
	case s.chance(0.002):
		s.keyed.hung++
		c.hangs = s.now + s.upTo(12*time.Second)
	}
}

func (c *simClient) join() {
	s := c.sim
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if !n.up || n.paused || n.roster.Stopping() {
		return
	}
	conn := &simConn{node: n, open: true, group: c.group, client: c.client, of: c}
	m, ok := n.roster.JoinKeyed(c.group, c.client, c.key, c.hold, conn)
	if !ok {
		return
	}
	s.tracef("%s: JOIN %s %s key=.. hold=%v", n.id, c.group, c.client, c.hold)
	conn.m, c.conn, c.since, c.asked, c.patience = m, conn, s.now, 0, 3*time.Second
	if s.chance(0.3) {
		c.patience = s.upTo(100 * time.Millisecond) // and its Join may come late
	}
	s.conns = append(s.conns, conn)
}

// breakOff is a line that breaks, or a client that gives it up. The server may learn of that
// soon, late, or by a FIN of somebody in between.
func (c *simClient) breakOff() {
	s, conn := c.sim, c.conn
	s.keyed.breaks++
	s.tracef("%s: %s %s breaks off", conn.node.id, c.group, c.client)
	life := conn.node.life
	s.after(s.upTo(3*time.Second), func() {
		if !conn.open || conn.ending || conn.node.life != life {
			return
		}
		conn.shut()
		why := "reset"
		if s.chance(0.3) && !c.fin {
			why = "closed"
		}
		conn.m.Closed(why, true)
	})
	c.lose(s.upTo(300 * time.Millisecond))
}

func (c *simClient) lose(pause time.Duration) {
	c.conn, c.asked, c.next = nil, 0, c.sim.now+pause
}

// operator has leaders step down, at the nodes where they are by what some node knows: in every
// third schedule.
func (s *sim) operator() {
	if !s.mixed || s.seed%3 != 0 || !s.chance(0.05) {
		return
	}
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if !n.up || n.paused {
		return
	}
	g, ok := n.state.Group(fmt.Sprintf("g%d", s.rng.IntN(2)))
	if !ok || len(g.Members) == 1 {
		return
	}
	if closing, here, _ := n.roster.StepDown(g.Members[0].ID, g.Token); here {
		s.tracef("%s: %s %s is to step down", n.id, g.Name, g.Leader)
		if closing != nil {
			closing.Close()
		}
	}
}

// told is a line that it reads.
func (c *simClient) told(conn *simConn, leader string) {
	if c.conn == conn && !c.over {
		c.leader = leader
	}
}

// Alive implements Member: the gate and the line.
func (c *simConn) Alive(lasts time.Duration) {
	k := c.of
	if !c.open || c.ending {
		return
	}
	if !c.m.Live() {
		c.Close()
		return
	}
	if k.conn != c || k.over || k.asked == 0 {
		return
	}
	s := c.node.sim
	s.keyed.promises++
	if until := k.asked + time.Duration(float64(lasts.Truncate(time.Millisecond))*(1+Rho*0.9)); until > k.until {
		k.until = until
	}
	k.asked = 0
	if k.leader == k.client && k.hold > 0 {
		s.keyed.leading++
	}
}

// checkPromises: what was promised is so in the committed log.
func (s *sim) checkPromises() {
	for ; s.judged < len(s.log); s.judged++ {
		for _, e := range s.truth.Apply(uint64(s.judged+1), mutated(s.mutate, s.truth, s.log[s.judged]), nil) {
			switch e := e.(type) {
			case state.Moved:
				s.keyed.moves++
			case state.SteppedDown:
				s.keyed.stepped++
			case state.Left:
				if e.Reason == state.ReasonSteppedDown {
					s.keyed.closed++
				}
			case state.Ended:
				if e.Orphaned {
					s.keyed.kept++
				}
			}
		}
	}
	for _, c := range s.people {
		if c.until < s.now {
			continue
		}
		leader, _ := s.truth.Leader(c.group)
		switch {
		case s.truth.Holder(c.group, c.client) == "":
			s.failf("%s %s is no member, and was promised to be one", c.group, c.client)
		case c.leader == c.client && c.hold > 0 && leader != c.client:
			s.failf("%s %s believes that it leads, and %s does", c.group, c.client, leader)
		}
	}
	s.people = slices.DeleteFunc(s.people, func(c *simClient) bool { return c.over && c.until < s.now })
}
