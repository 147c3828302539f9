package session

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// A seeded event loop drives the pure code of several nodes over a modelled
// log: what is proposed may be committed at any later time, twice, out of
// order or never; nodes apply arbitrarily late, from snapshots too; clocks
// differ in rate; nodes crash, pause, stop and come back. After every step no
// two clients of a group may have been told that they lead on connections
// that are open at running nodes. A failure prints its seed and its last
// steps; -sim.seed plays it again.
var (
	simSchedules = flag.Int("sim.schedules", 2000, "how many schedules to play")
	simSeed      = flag.Uint64("sim.seed", 0, "play this schedule alone")
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		if err := newSim(*simSeed, mutation.Nothing).play(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if raceEnabled {
		*simSchedules = min(*simSchedules, 40)
	}
	var total simCounts
	for seed := uint64(1); seed <= uint64(*simSchedules); seed++ {
		s := newSim(seed, mutation.Nothing)
		if err := s.play(); err != nil {
			t.Fatal(err)
		}
		total.add(s.counts)
	}
	t.Logf("%d schedules: %+v", *simSchedules, total)
	for what, n := range map[string]int{
		"told": total.told, "promises": total.promises, "crashes": total.crashes, "pauses": total.pauses, "killed by the switch": total.switched, "stops": total.stops,
		"snapshots": total.snapshots, "duplicates": total.duplicates, "lost": total.lost, "leases lost": total.leasesLost, "expiries": total.expiries,
	} {
		if n < *simSchedules/20 {
			t.Errorf("%s: only %d in %d schedules; they prove little", what, n, *simSchedules)
		}
	}
}

func TestSimulationFindsEveryMissingRule(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, for a long time: there is no race to detect")
	}
	for _, mutate := range []mutation.Mutation{
		mutation.NoSwitchNoGate, mutation.NoCompare, mutation.ReceiveTime, mutation.LeaveBeforeClose,
		mutation.OpenBeforeClose, mutation.NoDedup, mutation.NoCloseTime, mutation.NoSwitch,
		mutation.LeaveWait, mutation.EndWait, mutation.OpenWait, mutation.StartWait, mutation.NoNote,
	} {
		t.Run(mutate.String(), func(t *testing.T) {
			find(t, func(seed uint64) *sim { return newSim(seed, mutate) })
		})
	}
}

// find plays schedules until one breaks the promise.
func find(t *testing.T, schedule func(seed uint64) *sim) {
	t.Helper()
	for seed := uint64(1); seed <= 4000; seed++ {
		if err := schedule(seed).play(); err != nil {
			t.Logf("found by schedule %d", seed)
			return
		}
	}
	t.Error("not found in 4000 schedules")
}

// Without the dead-man's switch a process that was stopped goes on with open
// connections. The gate still keeps it from writing anything stale.
func TestSimulationWithoutTheSwitchWritesNothingStale(t *testing.T) {
	for seed := uint64(1); seed <= uint64(*simSchedules)/4; seed++ {
		if err := newSim(seed, mutation.NoSwitchGate).play(); err != nil {
			t.Fatal(err)
		}
	}
}

type simCounts struct {
	told, promises, crashes, pauses, switched, stops, snapshots, duplicates, lost, leasesLost, expiries int
}

func (c *simCounts) add(d simCounts) {
	c.told += d.told
	c.promises += d.promises
	c.crashes += d.crashes
	c.pauses += d.pauses
	c.switched += d.switched
	c.stops += d.stops
	c.snapshots += d.snapshots
	c.duplicates += d.duplicates
	c.lost += d.lost
	c.leasesLost += d.leasesLost
	c.expiries += d.expiries
}

type sim struct {
	seed   uint64
	rng    *rand.Rand
	mutate mutation.Mutation
	timing Timing
	now    time.Duration // real time
	calm   bool          // no more faults: everything happens soon
	log    []state.Entry
	flight []*simProposal
	nodes  []*simNode
	conns  []*simConn
	due    []simTimer
	trace  []string
	counts simCounts
	err    error

	// With keyed members; see sim_keyed_test.go.
	mixed  bool // nodes have different timings
	people []*simClient
	truth  *state.State // what is committed; nil: nobody asks
	judged int          // entries in it
	keyed  keyedCounts
}

type simTimer struct {
	at time.Duration
	do func()
}

// simProposal is a batch on its way to the log.
type simProposal struct {
	node   *simNode
	life   int // of the node that waits for its outcome
	ops    []state.Op
	index  int // in the log, once committed
	left   int // how often it may still be committed
	waited bool
}

type simNode struct {
	sim         *sim
	id          state.NodeID
	rate        float64
	timing      Timing
	boot        int
	counter     uint64       // on its disk
	promises    uint64       // on its disk: the counter of the session that has made some
	state       *state.State // on its disk too: it is replayed at a start
	applied     int
	life        int
	up, paused  bool
	frozen      time.Duration // applies nothing until then
	cutOff      time.Duration // nothing of it is committed until then
	roster      *Roster
	dispatch    *Dispatcher
	outstanding []*simProposal
	writing     bool          // the next counter is on its way to the disk
	ending      bool          // has asked for the end of its session
	killAt      time.Duration // the dead-man's switch, by its clock; 0: off
	wake        time.Duration
}

type simConn struct {
	node          *simNode
	m             *Membership
	group, client string
	open          bool // at the server
	told          string
	of            *simClient // the process with a key; nil: a plain client
	ending        bool
	until         time.Duration // its client takes itself for the leader by its clock, whatever becomes of the connection
}

func newSim(seed uint64, mutate mutation.Mutation) *sim {
	s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), mutate: mutate, timing: Normal}
	for i := range 3 {
		n := &simNode{sim: s, id: state.NodeID(fmt.Sprintf("n%d", i+1)), state: state.New()}
		n.rate = 1 + (s.rng.Float64()*2-1)*Rho*0.9
		s.nodes = append(s.nodes, n)
	}
	s.log = []state.Entry{{Ops: []state.Op{state.Found{Cluster: "c", TokenBase: 1000}, state.Activate{}}}}
	for _, n := range s.nodes {
		n.start()
	}
	return s
}

func (s *sim) noSwitch() bool {
	return s.mutate == mutation.NoSwitch || s.mutate == mutation.NoSwitchGate || s.mutate == mutation.NoSwitchNoGate
}

func (s *sim) chance(p float64) bool { return s.rng.Float64() < p }

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d) + 1)) }

func (s *sim) after(d time.Duration, do func()) {
	s.due = append(s.due, simTimer{s.now + d, do})
}

func (s *sim) tracef(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf("%8.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
	if *simSeed == 0 && len(s.trace) > 400 {
		s.trace = slices.Delete(s.trace, 0, 200)
	}
}

func (s *sim) failf(format string, args ...any) {
	if s.err == nil {
		tail := s.trace
		if *simSeed == 0 {
			tail = tail[max(0, len(tail)-60):]
		}
		s.err = fmt.Errorf("seed %d at %.3f s: %s\n%s", s.seed, s.now.Seconds(), fmt.Sprintf(format, args...), strings.Join(tail, "\n"))
	}
}

// play runs a schedule: twenty seconds of faults, then calm in which every
// client must be told the one leader of its group.
func (s *sim) play() error {
	const faults, calm = 20 * time.Second, 15 * time.Second
	for s.now < faults+calm && s.err == nil {
		if s.now > faults && !s.calm {
			s.calm = true
			s.tracef("calm")
			for _, n := range s.nodes {
				n.frozen = 0
				n.resume()
				if !n.up {
					n.boot += s.rng.IntN(2)
					n.start()
				}
				n.roster.Lead(n.clock())
			}
		}
		s.now += s.upTo(8 * time.Millisecond)
		s.timers()
		for _, n := range s.nodes {
			n.run()
		}
		s.network()
		for _, c := range s.people {
			c.act()
		}
		if !s.calm {
			s.clients()
			s.faults()
			s.operator()
		}
		s.check()
	}
	if s.err == nil {
		s.checkCalm()
	}
	return s.err
}

func (s *sim) timers() {
	for i := 0; i < len(s.due); i++ {
		if s.due[i].at <= s.now {
			do := s.due[i].do
			s.due = slices.Delete(s.due, i, i+1)
			i--
			do()
		}
	}
}

// network commits, repeats and loses what is on its way to the log.
func (s *sim) network() {
	for range 1 + s.rng.IntN(3) {
		if len(s.flight) == 0 {
			return
		}
		i := s.rng.IntN(len(s.flight))
		p := s.flight[i]
		switch {
		case !s.calm && s.now < p.node.cutOff:
		case s.calm || s.chance(0.5):
			s.log = append(s.log, state.Entry{Ops: p.ops})
			p.index = len(s.log)
			if p.left--; p.left < 0 || s.calm {
				s.flight = slices.Delete(s.flight, i, i+1)
			} else {
				s.counts.duplicates++
			}
		case s.chance(0.05): // the raft leader was lost: nobody knows what came of it
			s.counts.lost++
			s.outcome(p, true)
			if s.chance(0.5) {
				s.flight = slices.Delete(s.flight, i, i+1)
			}
		}
	}
}

// outcome tells the node that waits for a batch what came of it.
func (s *sim) outcome(p *simProposal, failed bool) {
	n := p.node
	if !p.waited || !n.up || n.life != p.life {
		return
	}
	p.waited = false
	n.outstanding = slices.DeleteFunc(n.outstanding, func(o *simProposal) bool { return o == p })
	if failed {
		n.roster.Lost()
	} else if !n.roster.Settled(uint64(p.index), state.SeqOf(p.ops[len(p.ops)-1])) {
		s.failf("%s: has applied %d, and the roster has not", n.id, p.index)
	}
}

func (s *sim) clients() {
	if s.chance(0.08) {
		n := s.nodes[s.rng.IntN(len(s.nodes))]
		if n.up && !n.paused && !n.roster.Stopping() {
			c := &simConn{node: n, open: true, group: fmt.Sprintf("g%d", s.rng.IntN(2)), client: fmt.Sprintf("c%d", s.rng.IntN(5))}
			if s.mixed && s.chance(0.1) {
				c.client = fmt.Sprintf("k%d", s.rng.IntN(5)) // it has no key
			}
			s.conns = append(s.conns, c)
			s.tracef("%s: JOIN %s %s", n.id, c.group, c.client)
			c.m = n.roster.Join(c.group, c.client, c)
		}
	}
	if len(s.conns) > 0 && s.chance(0.1) {
		if c := s.conns[s.rng.IntN(len(s.conns))]; c.open && c.node.up && !c.node.paused && c.of == nil {
			c.again()
		}
	}
	if len(s.conns) > 0 && s.chance(0.03) {
		c := s.conns[s.rng.IntN(len(s.conns))]
		switch {
		case !c.open || !c.node.up || c.node.paused || c.of != nil && c.ending:
		case s.chance(0.2): // by the client, or in its name
			s.tracef("%s: reset of %s %s", c.node.id, c.group, c.client)
			c.shut()
			c.m.Closed("reset", true)
		case s.chance(0.3): // the node ends it: a stuck reader, a limit
			s.tracef("%s: ends %s %s", c.node.id, c.group, c.client)
			c.Close()
		case c.of != nil: // its own ends are its own
		default:
			s.tracef("%s: EOF of %s %s", c.node.id, c.group, c.client)
			c.until = 0 // it has stopped before
			c.shut()
			c.m.Stopped()
			c.m.Closed("closed", true)
		}
	}
	s.conns = slices.DeleteFunc(s.conns, func(c *simConn) bool { return !c.open && !c.ending && c.until < s.now })
}

func (s *sim) faults() {
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	switch {
	case s.chance(0.0012) && n.up:
		s.counts.crashes++
		n.crash("killed")
		s.after(s.upTo(4*time.Second), n.start)
	case s.chance(0.0012) && n.up && !n.paused:
		s.counts.pauses++
		s.tracef("%s: paused", n.id)
		n.paused = true
		life := n.life
		s.after(s.upTo(5*time.Second), func() {
			if n.life == life {
				n.resume()
			}
		})
	case s.chance(0.0008) && n.up && !n.paused && !n.roster.Stopping():
		s.counts.stops++
		s.tracef("%s: stops", n.id)
		n.stop()
	case s.chance(0.004):
		n.frozen = s.now + s.upTo(4*time.Second)
	case s.chance(0.003):
		n.cutOff = s.now + s.upTo(5*time.Second)
	case s.chance(0.004) && n.up && !n.paused:
		if n.roster.Leading() {
			n.roster.Follow()
		} else {
			n.roster.Lead(n.clock())
		}
	case s.chance(0.01) && n.up && !n.paused && n.applied+5 < len(s.log):
		s.counts.snapshots++
		n.install()
	}
}

// check is the promise of DESIGN.md, word for word.
func (s *sim) check() {
	if s.mutate == mutation.NoSwitchNoGate || s.mutate == mutation.NoSwitchGate {
		return // see checkStale
	}
	leads := map[string]*simConn{}
	for _, c := range s.conns {
		told := c.open && c.node.up && !c.node.paused && c.told == c.client
		if k := c.of; k != nil {
			told = told && k.conn == c && k.hold == 0 // the other ones go by their promises
		}
		if !told && c.until < s.now {
			continue
		}
		if other := leads[c.group]; other != nil {
			s.failf("two lead %s: %s at %s and %s at %s", c.group, other.client, other.node.id, c.client, c.node.id)
		}
		leads[c.group] = c
	}
	if s.truth != nil {
		s.checkPromises()
	}
}

// checkStale: who is being told that it leads is not told so while another one
// leads at a node that may say so.
func (s *sim) checkStale(c *simConn) {
	for _, o := range s.conns {
		if o != c && o.open && o.node.up && !o.node.paused && o.group == c.group && o.told == o.client && o.m.Live() {
			s.failf("%s at %s is told to lead %s while %s at %s does", c.client, c.node.id, c.group, o.client, o.node.id)
		}
	}
}

// checkCalm: when the faults are over, everybody who is connected has been
// told the leader that the log has, or waits for a name that is taken.
func (s *sim) checkCalm() {
	state := state.New()
	for i, e := range s.log {
		state.Apply(uint64(i+1), mutated(s.mutate, state, e), nil)
	}
	for _, c := range s.conns {
		if !c.open || !c.node.up {
			continue
		}
		g, _ := state.Group(c.group)
		switch {
		case state.Holder(c.group, c.client) == "":
			s.failf("%s %s at %s is connected and no member", c.group, c.client, c.node.id)
		case c.m.state == memberHeld, c.of != nil && c.told == "": // it waits, or has just come
		case c.told != g.Leader:
			s.failf("%s %s at %s was told %q, the log says %s", c.group, c.client, c.node.id, c.told, g.Leader)
		}
	}
	for g := range state.Groups() {
		for _, m := range g.Members {
			if !slices.ContainsFunc(s.conns, func(c *simConn) bool { return c.open && c.group == g.Name && c.client == m.Client }) {
				s.failf("%s %s is a member without a connection", g.Name, m.Client)
			}
		}
	}
}

// omits gives the rules that are left out by the node itself.
func omits(mutate mutation.Mutation) Omissions {
	return Omissions{
		Hold: mutate == mutation.NoHold, NodeEnd: mutate == mutation.NoNodeEnd, Acceptance: mutate == mutation.NoAcceptance,
		Stale: mutate == mutation.NoStale, Stepping: mutate == mutation.NoStepping, Since: mutate == mutation.NoSince, Silence: mutate == mutation.NoSilence,
		Leave: mutate == mutation.LeaveWait, End: mutate == mutation.EndWait, Open: mutate == mutation.OpenWait,
		Start: mutate == mutation.StartWait, Note: mutate == mutation.NoNote,
		Sending: mutate == mutation.ReceiveTime, CloseTime: mutate == mutation.NoCloseTime,
	}
}

// mutated is an entry as a state machine without some rule would take it.
func mutated(mutate mutation.Mutation, of *state.State, e state.Entry) state.Entry {
	switch mutate {
	case mutation.NoCompare:
		return statetest.NoCompare(of, e)
	case mutation.NoDedup:
		return statetest.NoDedup(of, e)
	}
	return e
}

// clock is what the node's clocks show.
func (n *simNode) clock() Reading {
	d := time.Duration(float64(n.sim.now) * n.rate)
	return Reading{d, d, d, d}
}

func (n *simNode) start() {
	if n.up {
		return
	}
	s := n.sim
	n.up, n.paused, n.ending, n.writing, n.outstanding = true, false, false, false, nil
	n.life++
	bound := n.timing.Promise() // of the process before
	if n.timing = s.timing; s.mixed && s.chance(0.5) {
		n.timing = Quick
	}
	n.dispatch = NewDispatcher()
	n.roster = New(Config{
		Node: n.id, Boot: fmt.Sprint(n.boot), Timing: n.timing, Reads: state.KeyedLevel, Omit: omits(s.mutate),
		Guard: new(sync.Mutex), Now: n.clock, Dispatch: n.dispatch, Logger: slog.New(slog.DiscardHandler),
		Note: func(counter uint64) {
			n.promises = counter
			n.roster.Promised(counter, true)
		},
		Alive: func(killAt time.Duration) { n.killAt = killAt },
	})
	n.sim.tracef("%s: starts, boot %d", n.id, n.boot)
	n.killAt = 0
	if n.counter > 0 && n.promises == n.counter {
		n.roster.Bind(bound)
	}
	n.roster.Restored(n.state) // its own, from disk
	n.wake = 0
	if n.sim.chance(0.7) || n.sim.calm {
		n.roster.Lead(n.clock())
	}
}

// crash is the death of the process: the kernel closes its sockets.
func (n *simNode) crash(how string) {
	n.sim.tracef("%s: %s", n.id, how)
	for _, c := range n.sim.conns {
		if c.node == n {
			c.shut()
			c.ending = false
		}
	}
	n.up, n.paused = false, false
	n.life++
	if n.sim.chance(0.3) {
		n.boot++
	}
}

func (n *simNode) resume() {
	if n.paused {
		n.sim.tracef("%s: goes on", n.id)
		n.paused = false
	}
}

func (n *simNode) stop() {
	for _, m := range n.roster.Stop() {
		m.Close()
	}
}

// run is what the goroutines of a node do in a moment.
func (n *simNode) run() {
	s := n.sim
	if !n.up {
		return
	}
	if n.paused {
		if n.killAt > 0 && n.clock().Boot >= n.killAt && !s.noSwitch() {
			s.counts.switched++
			n.crash("killed by the switch")
			s.after(s.upTo(4*time.Second), n.start)
		}
		return
	}
	if s.chance(0.3) {
		n.deliver() // the dispatcher may be the first to run after a pause
	}
	if s.now >= n.wake {
		n.step()
		n.wake = s.now + s.upTo(n.timing.Close/3)
	}
	for len(n.outstanding) < MaxOutstanding {
		ops := n.roster.Batch(n.clock())
		if len(ops) == 0 {
			break
		}
		left := 0
		if s.chance(0.1) {
			left = 1
		}
		p := &simProposal{node: n, life: n.life, ops: ops, left: left, waited: true}
		s.flight = append(s.flight, p)
		n.outstanding = append(n.outstanding, p)
	}
	for s.now >= n.frozen && n.applied < len(s.log) && (s.calm || s.chance(0.8)) {
		n.apply()
	}
	for _, p := range slices.Clone(n.outstanding) {
		if p.index > 0 && p.index <= n.applied {
			s.outcome(p, false)
		}
	}
	n.deliver()
	if n.roster.Stopping() {
		switch {
		case !n.roster.Empty():
		case !n.ending:
			n.ending = true
			n.roster.AskEnd(state.ReasonNodeStopped)
		case n.roster.Over():
			n.crash("stopped")
			s.after(s.upTo(2*time.Second), n.start)
		}
	}
}

// deliver is what the dispatcher does in a moment.
func (n *simNode) deliver() {
	for len(n.dispatch.queue) > 0 && (n.sim.calm || n.sim.chance(0.7)) {
		v := n.dispatch.queue[0]
		n.dispatch.queue = n.dispatch.queue[1:]
		n.dispatch.deliver(v, func() (uint64, []Delivery) { return n.roster.Joined(n.state) })
	}
}

func (n *simNode) step() {
	s := n.sim
	what, closing := n.roster.Step(n.clock())
	if what == NeedClose {
		s.counts.leasesLost++
		s.tracef("%s: session lost, %d connections", n.id, len(closing))
		n.killAt = 0 // as when all are closed: their closing, below, needs no process
	}
	for _, m := range closing {
		c := m.(*simConn)
		if s.mutate == mutation.OpenBeforeClose {
			n.roster.session.unheard = 0
		}
		if what == NeedClose {
			// Closing takes its time, within C.
			life := n.life
			s.after(s.upTo(n.timing.Close/3), func() {
				if n.life == life {
					c.Close()
				}
			})
		} else {
			c.Close()
		}
	}
	if what == NeedOpen && !n.roster.Stopping() && !n.writing {
		// The counter is on disk before it is used, and the disk takes its time.
		n.writing = true
		life := n.life
		s.after(s.upTo(100*time.Millisecond), func() {
			if n.life == life {
				n.counter++
				n.writing = false
				s.tracef("%s: opens with counter %d", n.id, n.counter)
				n.roster.Begin(n.counter, n.clock())
			}
		})
	}
	if ops := n.roster.Expiries(n.clock()); len(ops) > 0 {
		s.counts.expiries++
		s.tracef("%s: proposes %v", n.id, ops)
		s.flight = append(s.flight, &simProposal{node: n, ops: ops, left: s.rng.IntN(2)})
	}
}

func (n *simNode) apply() {
	s := n.sim
	e := mutated(s.mutate, n.state, s.log[n.applied])
	n.applied++
	effects := n.state.Apply(uint64(n.applied), e, nil)
	for _, f := range effects {
		switch f.(type) {
		case state.Renewed:
		default:
			s.tracef("%s: applies %d: %T%v", n.id, n.applied, f, f)
		}
	}
	n.roster.Applied(n.state, effects)
}

// install gives the node a snapshot from further on.
func (n *simNode) install() {
	s := n.sim
	to := n.applied + 1 + s.rng.IntN(len(s.log)-n.applied)
	ahead, err := statetest.FromBytes(statetest.Bytes(n.state))
	for i := n.applied; i < to; i++ {
		ahead.Apply(uint64(i+1), mutated(s.mutate, ahead, s.log[i]), nil)
	}
	if err == nil {
		ahead, err = statetest.FromBytes(statetest.Bytes(ahead))
	}
	if err != nil {
		s.failf("%v", err)
		return
	}
	s.tracef("%s: installs a snapshot of %d, had applied %d", n.id, to, n.applied)
	n.state, n.applied = ahead, to
	n.roster.Restored(ahead)
}

// Leader implements Member: the gate and the write, which nothing comes between.
func (c *simConn) Leader(name string, _ uint64) {
	if !c.open {
		return
	}
	if !c.m.Live() && c.node.sim.mutate != mutation.NoSwitchNoGate {
		c.Close()
		return
	}
	c.node.sim.counts.told++
	c.node.sim.tracef("%s: tells %s %s: LEADER %s", c.node.id, c.group, c.client, name)
	c.told = name
	if c.of != nil {
		c.of.told(c, name)
	}
	if name == c.client && c.node.sim.noSwitch() && c.node.sim.mutate != mutation.NoSwitch {
		c.node.sim.checkStale(c)
	}
}

// again is a further JOIN. Upon the answer a leader may go on for S - L by its clock, from
// before it sent the line on. Before the first promise of a session its node notes that.
func (c *simConn) again() {
	s, n := c.node.sim, c.node
	if c.told == "" {
		return
	}
	now, later := c.m.Promise()
	if later {
		now, _ = c.m.Promise()
	}
	if !now {
		c.Close()
		return
	}
	s.counts.promises++
	s.tracef("%s: promises %s %s", n.id, c.group, c.client)
	if c.told == c.client {
		c.until = s.now - s.upTo(3*time.Millisecond) + time.Duration(float64(n.timing.Expiry-n.timing.Lease)*(1+Rho*0.9))
	}
}

// Promised implements Member.
func (*simConn) Waits(string) {}
func (c *simConn) Promised()  {}

// Close implements Member: the node's own end of a connection. The client's
// kernel acknowledges the FIN after a while, or never.
func (c *simConn) Close() {
	if !c.open || c.ending {
		return
	}
	s, n, life := c.node.sim, c.node, c.node.life
	c.ending = true
	gave := func(acknowledged bool) func() {
		return func() {
			if c.ending = false; n.life != life {
				return
			}
			c.m.Closed("", acknowledged)
			if acknowledged && c.of == nil && s.chance(0.5) { // it closes too, when it has stopped
				s.after(s.upTo(300*time.Millisecond), func() {
					if c.until = 0; n.life == life {
						c.m.Stopped()
					}
				})
			}
		}
	}
	if s.mutate == mutation.LeaveBeforeClose {
		gave(true)()
		c.ending = true
		s.after(s.upTo(100*time.Millisecond), func() {
			c.ending = false
			c.shut()
		})
		return
	}
	c.shut()
	if s.chance(0.9) {
		s.after(s.upTo(200*time.Millisecond), gave(true))
	} else {
		s.after(n.timing.Expiry-n.timing.Lease, gave(false))
	}
}

// shut closes the socket: nothing is written any more.
func (c *simConn) shut() { c.open, c.told = false, "" }
