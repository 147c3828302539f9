package session

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"leaderlatch/ensemble/state"
)

// Roster is a node's book of its own session and of its clients' memberships:
// what each has asked for, what came of it, who waits for a name. With
// [session] and [expirer], which it has to itself, it is the whole of the protocol on the
// node's side, and like them pure code: its caller guards it, passes in what the clocks
// show, what the state machine applied and which connections closed, and does
// what [Roster.Step] says.
type Roster struct {
	session  session
	expirer  *expirer
	members  []*Membership // all that are not over, each at its place
	held     map[nameKey][]waiting
	keyed    map[uint64]*Membership // keyed ones of the present incarnation that are not over, by the numbers of their Joins
	doomed   []*Membership          // joined once, and not in the state any more, or not to be taken: to be closed
	bound    []*Membership          // closed, and promised something that lasts, or held
	away     int                    // keyed ones of these
	stepping []*Membership          // leaders with a hold that are to step down
	holds    map[nameKey]int        // their names
	next     time.Duration          // until one of them is to be released, from the last look at them; 0: there are none
	freed    Reading                // of that look
	rebound  bool                   // they have to be looked at

	// See mayBeKilled; 0: there are none. Of connections of members that have moved on: that are
	// to be closed, and that are being closed.
	killMoved, killClosing time.Duration

	askers    []*Membership // who wait until a promise of the session is noted
	observers observers
	omit      Omissions

	hungLooked Reading

	index    uint64 // of the log entry up to which all this is
	known    bool   // the state has been seen up to date: it says rightly whether elections are active
	stopping bool
	changed  bool // what a waiter, or step, may wait for has changed; the caller resets it

	guard   sync.Locker
	now     func() Reading
	deliver func(Delivery) // to the dispatcher; does not block
	note    func(counter uint64)
	alive   func(killAt time.Duration)
	log     *slog.Logger
}

// waiting is a membership whose name another member has.
type waiting struct {
	*Membership
	holder string // the name of the node of that one
}

// nameKey is a client's name in a group.
type nameKey struct{ group, client string }

func (k nameKey) compare(o nameKey) int {
	return cmp.Or(cmp.Compare(k.group, o.group), cmp.Compare(k.client, o.client))
}

// Config is what a roster needs to know. All of it must be set, but for Boot, Name,
// Address, Reads, Omit and Watch.
type Config struct {
	Node          state.NodeID
	Boot          string // names the machine's present boot
	Name, Address string // of the node, as its Opens have them
	Reads         uint64 // likewise
	Timing        Timing
	Omit          Omissions // rules that are left out; none: those that tests of faults name

	Guard    sync.Locker // held over all calls of the roster; a Membership takes it itself
	Now      func() Reading
	Dispatch *Dispatcher // is told what is committed for members
	Logger   *slog.Logger

	// Note has it noted on disk that the session with this open counter has made a promise, and
	// then calls Promised. It does not block.
	Note func(counter uint64)

	// Alive is called when a renewal was accepted, with the time by BOOTTIME at which a process
	// that does nothing has to be killed: who closes in time is not killed, and the sockets of
	// who does not are closed in time. With members that join in between it comes a little late
	// for them, until the next renewal. 0: the lease was over by then.
	Alive func(killAt time.Duration)

	// Watch is called when [Roster.Admit] or [Roster.Tell] has something to do. It does not
	// block. nil: nobody observes.
	Watch func()
}

// New returns the roster of a node that starts now.
func New(c Config) *Roster {
	if c.Omit == (Omissions{}) {
		c.Omit = omitted
	}
	if c.Omit.CloseTime {
		c.Timing.Expiry = c.Timing.Lease
	}
	if c.Watch == nil {
		c.Watch = func() {}
	}
	return &Roster{
		observers: observers{groups: make(map[string]*observed), wake: c.Watch},
		session: session{
			node: c.Node, boot: c.Boot, name: c.Name, address: c.Address,
			timing: c.Timing, reads: c.Reads, started: c.Now(),
		},
		expirer: newExpirer(c.Timing.Renew, c.Omit.Silence),
		held:    make(map[nameKey][]waiting),
		keyed:   make(map[uint64]*Membership),
		holds:   make(map[nameKey]int),
		omit:    c.Omit,
		guard:   c.Guard,
		now:     c.Now,
		deliver: c.Dispatch.add,
		note:    c.Note,
		alive:   c.Alive,
		log:     c.Logger,
	}
}

// Join takes a membership in and has it asked for.
func (r *Roster) Join(group, client string, member Member) *Membership {
	return r.join(group, client, nil, member)
}

func (r *Roster) join(group, client string, k *keyed, member Member) *Membership {
	m := &Membership{roster: r, member: member, group: group, client: client, keyed: k, inRoster: len(r.members)}
	r.members = append(r.members, m)
	r.session.join(m)
	return m
}

// remove takes a membership out of those that are not over.
func (r *Roster) remove(m *Membership) { r.members = without(r.members, m) }

// without takes a membership out of a list in which each knows its place; the last one
// gets that.
func without(all []*Membership, m *Membership) []*Membership {
	last := len(all) - 1
	moved := all[last]
	all[m.inRoster], moved.inRoster = moved, m.inRoster
	all[last] = nil
	return all[:last]
}

// closed takes note that a connection is closed, why, and whether its client is
// known to have learned of it. It gives for how long the node is bound to the client, unless
// that says that it has stopped: by a promise to a plain member.
func (r *Roster) closed(m *Membership, why state.Reason, acknowledged bool) (bound time.Duration) {
	was := m.state
	if was >= memberBound {
		return 0
	}
	m.state, m.why = memberOver, why
	r.remove(m)
	switch was {
	case memberQueued:
		r.forgetKeyed(m) // of a Join that was refused
		r.session.forget()
	case memberHeld:
		r.forgetKeyed(m)
		r.unhold(m)
	case memberProposed, memberJoined:
		r.deliver(Delivery{what: deliverGone, member: m})
		m.counted, m.knows = r.session.phase == phaseClosing, m.knows || acknowledged
		now := r.now()
		if m.keyed != nil {
			m.keyed.ended = now
		}
		stays := r.stays(m, now)
		if stays == 0 {
			r.gone(m)
			break
		}
		m.state, m.inRoster = memberBound, len(r.bound)
		r.bound = append(r.bound, m)
		if m.keyed != nil {
			r.away++
			r.holds[nameKey{m.group, m.client}]++
		} else {
			r.session.bound++
			bound = stays
		}
		r.changed, r.rebound = true, true // there is a time to look at
	}
	if r.stopping {
		r.changed = true
	}
	return bound
}

// gone ends a membership whose connection is closed, and to whose client the node is not
// bound.
func (r *Roster) gone(m *Membership) {
	m.state = memberOver
	if m.keyed != nil {
		r.forgetKeyed(m)
	}
	switch {
	case m.lease.Load() != r.session.lease: // it has ended with its session, or goes on without it
	case r.session.phase == phaseOpen && r.leaves(m):
		r.session.leave(m.seq, m.reason())
	case r.session.phase == phaseClosing && m.counted && m.knows:
		r.session.unheard--
	}
}

// leaves reports whether a membership is ended by a Leave. A node that stops leaves with one
// End for all: no leader is named here that closes in the next moment. Keyed members stay then,
// but those that have stopped. Of one that has moved on nothing is here to be ended.
func (r *Roster) leaves(m *Membership) bool {
	if k := m.keyed; k != nil {
		return !k.moved.Load() && (!r.stopping || m.stopped)
	}
	return !r.stopping
}

// promised gives for how long the node is bound by what it has promised to a client.
func (r *Roster) promised(m *Membership, now Reading) time.Duration {
	said := m.said.Load()
	if said == nil || m.stopped || m.lease.Load() != r.session.lease || r.omits() {
		return 0
	}
	return max(0, r.session.timing.Promise()-now.AtLeast(*said))
}

// omits reports whether the wait for promises is left out that stands before what the
// session does next.
func (r *Roster) omits() bool {
	switch {
	case r.session.phase != phaseOpen:
		return r.omit.Open
	case r.stopping:
		return r.omit.End
	}
	return r.omit.Leave
}

// stopped takes note that a client has stopped by itself.
func (r *Roster) stopped(m *Membership) {
	m.stopped, m.knows = true, true
	if m.state == memberBound {
		r.release(m)
	}
}

// release ends a membership to whose client the node is not bound any more.
func (r *Roster) release(m *Membership) {
	r.bound = without(r.bound, m)
	if m.keyed != nil {
		r.away--
		key := nameKey{m.group, m.client}
		if r.holds[key]--; r.holds[key] == 0 {
			delete(r.holds, key)
		}
	} else {
		r.session.bound--
	}
	r.changed = true
	r.gone(m)
}

// releaseDue releases all that are to be released by now.
func (r *Roster) releaseDue(now Reading) {
	if !r.rebound && (r.next == 0 || now.AtLeast(r.freed) < r.next) {
		return // there may be very many
	}
	r.rebound, r.freed, r.next = false, now, 0
	for i := len(r.bound) - 1; i >= 0; i-- { // whoever gets a place has been looked at
		left := r.stays(r.bound[i], now)
		if left == 0 {
			r.release(r.bound[i])
		} else if r.next == 0 || left < r.next {
			r.next = left
		}
	}
}

// unhold takes a membership from those that wait for a name.
func (r *Roster) unhold(m *Membership) {
	key := nameKey{m.group, m.client}
	left := slices.DeleteFunc(r.held[key], func(w waiting) bool { return w.Membership == m })
	if len(left) == 0 {
		delete(r.held, key)
	} else {
		r.held[key] = left
	}
}

// requeue asks again for the memberships that waited for a name.
func (r *Roster) requeue(key nameKey) {
	for _, m := range r.held[key] {
		m.state = memberQueued
		r.session.join(m.Membership)
		r.deliver(Delivery{what: deliverWaits, member: m.Membership})
	}
	delete(r.held, key)
}

// Applied takes note of what an entry changed.
func (r *Roster) Applied(s *state.State, effects []state.Effect) {
	now := r.now()
	r.index = s.Index()
	r.session.electing, r.session.level = s.Active(), s.Level()
	for _, e := range effects {
		switch e := e.(type) {
		case state.Opened:
			r.expirer.opened(e.Incarnation, e.Expiry, now)
			if e.Node == r.session.node && r.session.opened(e.Counter, e.Incarnation, r.now) {
				r.entered()
			}
		case state.Renewed:
			r.expirer.renewed(e.Incarnation, e.Seq, now)
			if r.session.current(e.Incarnation) {
				r.session.renewedAt(e.Seq)
				r.prolonged()
			}
		case state.Ended:
			if e.Orphaned {
				r.expirer.orphaned(e.Incarnation)
			} else {
				r.expirer.ended(e.Incarnation)
			}
			if e.Node == r.session.node {
				r.sessionEnded(e.Incarnation)
			}
		case state.Emptied:
			r.expirer.ended(e.Incarnation)
		case state.Joined:
			r.expirer.joined(e.Member.Incarnation, e.Hold)
			r.settle(e.Member, e.Hold, 0)
			r.joined(e.Member, e.Leader, e.Token)
			if e.Leader == e.Client { // the first one
				r.observers.changed(e.Group, e.Leader, e.Token)
			}
		case state.Moved:
			r.expirer.renewed(e.Member.Incarnation, e.Member.Seq, now)
			r.expirer.joined(e.Member.Incarnation, e.Hold)
			r.expirer.left(e.From.Incarnation)
			r.movedOn(e.From)
			if r.session.current(e.Member.Incarnation) {
				r.settle(e.Member, e.Hold, r.staysAfter(e.From, e.Hold, s))
			}
			r.joined(e.Member, e.Leader, e.Token)
		case state.Refused:
			r.settle(e.Member, 0, 0)
			if m := r.joining(e.Member); m != nil {
				r.hold(m, e.Holder, s)
			}
		case state.Left:
			r.expirer.left(e.Member.Incarnation)
			if key := (nameKey{e.Group, e.Client}); r.held[key] != nil {
				r.requeue(key)
			}
			if e.Last {
				r.observers.changed(e.Group, "", e.Token)
			}
		case state.Led:
			r.deliver(Delivery{what: deliverLed, index: s.Index(), group: e.Group, leader: e.Leader, token: e.Token})
			r.observers.changed(e.Group, e.Leader, e.Token)
		}
	}
	r.expirer.findSilences(s, now)
	if r.session.phase == phaseOpen {
		if seq, _, ok := s.Accepted(r.session.lease.incarnation); ok {
			r.session.settled(seq)
			r.stepped(seq)
		}
	}
}

// joined takes note that a Join was accepted, and of who leads the group.
func (r *Roster) joined(id state.MemberID, leader string, token uint64) {
	if m := r.joining(id); m != nil {
		m.state = memberJoined
		r.deliver(Delivery{what: deliverJoined, index: r.index, member: m, leader: leader, token: token})
	}
}

// joining gives the membership whose Join was just accepted, unless it is not
// of this node's present life or its connection has gone meanwhile.
func (r *Roster) joining(id state.MemberID) *Membership {
	if !r.session.current(id.Incarnation) {
		return nil
	}
	op, ok := r.session.waiting(id.Seq)
	if !ok || op.member == nil || op.member.state != memberProposed {
		return nil
	}
	return op.member
}

func (r *Roster) hold(m *Membership, holder state.NodeID, s *state.State) {
	of, _ := s.Node(holder)
	m.state = memberHeld
	key := nameKey{m.group, m.client}
	r.held[key] = append(r.held[key], waiting{m, of.Name})
	r.deliver(Delivery{what: deliverWaits, member: m, holder: of.Name})
}

// entered begins the node's life in an incarnation.
func (r *Roster) entered() {
	r.known, r.rebound = true, true
	clear(r.keyed) // those of the incarnation before go on without it
	r.refuseKeyed()
	r.prolonged()
	r.log.Info("session opened", "node", r.session.name)
	for _, key := range slices.SortedFunc(maps.Keys(r.held), nameKey.compare) {
		r.requeue(key) // the names may have come free unseen
	}
	r.changed = true
	r.observers.wake()
}

func (r *Roster) sessionEnded(inc state.Incarnation) {
	switch {
	case r.session.current(inc):
		if r.stopping {
			r.session.phase = phaseEnded
			r.session.lease.end()
			r.log.Info("session ended")
			r.changed = true
		} else {
			r.session.lease.end() // the loop closes the connections
		}
	case r.session.phase == phaseOpening:
		r.session.unblocked()
	}
}

// prolonged tells that a renewal was accepted.
func (r *Roster) prolonged() {
	if r.omit.Sending {
		r.session.lease.prolong(r.now())
	}
	killAt := r.mayBeKilled(r.KillAt())
	if r.session.lease.left() == 0 {
		killAt = 0
	}
	r.alive(killAt)
}

// KillAt is when a process that does nothing has to be killed, by BOOTTIME, unless all its
// connections are closed; 0: there is no session. See [Config2].
func (r *Roster) KillAt() time.Duration {
	if r.session.phase != phaseOpen && r.session.phase != phaseClosing {
		return 0
	}
	return r.session.lease.sent.Load().Boot + r.session.timing.KillAfter(r.toClose())
}

// Restored takes note that the state was replaced by a snapshot's. What
// happened in between is found by comparing, by member id and never by name.
func (r *Roster) Restored(s *state.State) {
	r.index = s.Index()
	r.session.electing, r.session.level = s.Active(), s.Level()
	r.rebound = true
	r.expirer.reset(s, r.now())
	if inc, counter, ok := s.Current(r.session.node); ok && r.session.opened(counter, inc, r.now) {
		r.entered()
	}
	if r.session.phase == phaseOpen {
		inc := r.session.lease.incarnation
		seq, _, ok := s.Accepted(inc)
		if !ok {
			r.sessionEnded(inc)
			return
		}
		for _, m := range r.members {
			if m.state != memberProposed && m.state != memberJoined || m.seq > seq || m.lease.Load() != r.session.lease {
				continue
			}
			id := state.MemberID{Incarnation: inc, Seq: m.seq}
			_, _, joined := s.Member(id)
			if _, hold, ok := s.Keyed(id); ok && m.state == memberProposed {
				r.settle(id, hold, longestExpiry) // it may have moved here
			}
			switch holder := s.Holder(m.group, m.client); {
			case joined:
				m.state = memberJoined
			case m.state == memberJoined:
				r.doomed = append(r.doomed, m)
			case holder != "":
				r.hold(m, holder, s)
			default: // was refused, and the name is free by now
				m.state = memberQueued
				r.session.join(m)
			}
		}
		for _, m := range r.bound {
			if m.keyed != nil && m.seq <= seq && !m.keyed.settled && m.lease.Load() == r.session.lease {
				r.settle(state.MemberID{Incarnation: inc, Seq: m.seq}, 0, longestExpiry)
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(r.held), nameKey.compare) {
		if s.Holder(key.group, key.client) == "" {
			r.requeue(key) // came free unseen
		}
	}
	r.deliver(Delivery{what: deliverAll})
	r.observers.restored(s)
	if r.session.phase == phaseOpen {
		// Last: a PING that is answered by this renewal comes behind all that the state says.
		seq, renewal, _ := s.Accepted(r.session.lease.incarnation)
		r.session.renewedAt(renewal)
		r.prolonged()
		r.session.settled(seq)
		r.stepped(seq)
	}
}

// Joined gives the committed memberships with the leaders of their groups, and
// the log index as of which they are.
func (r *Roster) Joined(s *state.State) (index uint64, all []Delivery) {
	for _, m := range r.members {
		l := m.lease.Load()
		if m.state != memberJoined || l == nil {
			continue
		}
		if leader, token, ok := s.Member(state.MemberID{Incarnation: l.incarnation, Seq: m.seq}); ok {
			all = append(all, Delivery{member: m, leader: leader, token: token})
		}
	}
	return s.Index(), all
}

// Step says what has to be done at this time, and which connections have to be
// closed for it, in this order.
func (r *Roster) Step(now Reading) (what Need, closing []Connection) {
	if r.omit.Acknowledgement && r.session.phase == phaseOpen {
		r.session.lease.sent.Store(&now)
	}
	doomed := append(r.doomed, r.hung(now)...)
	r.doomed = nil
	if closed := r.killClosing > 0; closed || r.killMoved > 0 { // those of the step before are closed
		if r.killClosing, r.killMoved = r.killMoved, 0; closed && r.session.phase == phaseOpen {
			r.prolonged()
		}
	}
	r.releaseDue(now)
	r.stepDownDue(now)
	if what = r.session.check(now, r.session.timing.early(r.toClose())); what == NeedClose {
		doomed = r.leadersFirst(func(m *Membership) bool {
			return m.lease.Load() == r.session.lease && (m.state == memberProposed || m.state == memberJoined)
		})
		r.session.unheard = len(doomed)
		r.changed, r.rebound = true, true
		return what, append(connections(doomed), r.observers.lost()...)
	}
	return what, connections(doomed)
}

// toClose is how many connections have to be closed in time, or by the kernel.
func (r *Roster) toClose() int { return len(r.members) + r.observers.count }

// connections gives what speaks for memberships.
func connections(all []*Membership) (members []Connection) {
	for _, m := range all {
		members = append(members, m.member)
	}
	return members
}

// NextLook is how long after a step the next one may come, if nothing happens meanwhile.
func (r *Roster) NextLook() time.Duration {
	again := r.session.timing.lookEvery()
	if !r.expirer.leading && r.timeLeft() > 4*rarelyLook*again {
		again *= rarelyLook
	}
	if r.next > 0 {
		again = min(again, max(0, r.next-r.session.looked.AtLeast(r.freed)))
	}
	return again
}

// Begin asks for a session with an open counter that is on disk, unless the node stops.
func (r *Roster) Begin(counter uint64, now Reading) {
	if !r.stopping {
		r.session.begin(counter, now)
	}
}

// Bind has the node open no session for a while from its start on: the process before it
// has made promises.
func (r *Roster) Bind(lasts time.Duration) {
	if !r.omit.Start {
		r.session.silent = lasts
	}
}

// Fail shuts the gate for good: the node cannot go on. The next step closes the connections.
func (r *Roster) Fail() {
	if r.session.phase == phaseOpen {
		r.session.lease.end()
	}
}

// MaxOutstanding is how many batches of a node are under way at once.
const MaxOutstanding = 2

// Batch gives the operations to propose next, as one entry; none: there is nothing to
// propose. What becomes of them, Settled or Lost is told.
func (r *Roster) Batch(now Reading) []state.Op { return r.session.cut(now) }

// Settled reports whether an entry is applied, that of a batch whose last operation has this
// number. What was applied and not accepted stood behind a gap, left by a batch that was
// lost: it is handed out once more.
func (r *Roster) Settled(index, last uint64) bool {
	if index > r.index {
		return false
	}
	if _, refused := r.session.waiting(last); refused {
		r.session.rewind()
	}
	return true
}

// Lost has everything that was not accepted handed out once more: what was proposed
// may have been lost with a raft leader, or not.
func (r *Roster) Lost() { r.session.rewind() }

// Lead has the expirer act on the silence of others, as this node is the raft leader and its
// state machine is up to date.
func (r *Roster) Lead(now Reading) {
	r.expirer.lead(now)
	if r.omit.Grace {
		r.expirer.blame(time.Hour)
	}
}

// Follow is the opposite of Lead.
func (r *Roster) Follow() { r.expirer.follow() }

// Leading reports whether the node is the raft leader, and caught up as such.
func (r *Roster) Leading() bool { return r.expirer.leading }

// Expiries gives the Expires to propose; see expirer.due.
func (r *Roster) Expiries(now Reading) (ops []state.Op) {
	for _, e := range r.expirer.due(now) {
		if e.Reason = r.session.reason(e.Reason); e.Reason != 0 {
			e.By = r.session.node
		}
		ops = append(ops, e)
	}
	return ops
}

// Due reports whether Step has something to do before time itself brings something.
func (r *Roster) Due() bool { return r.changed || len(r.doomed) > 0 || r.session.due() }

// timeLeft is how long the node has until it must begin to close its connections, if
// nothing prolongs its lease; 0 without a session.
func (r *Roster) timeLeft() time.Duration {
	if r.session.phase != phaseOpen {
		return 0
	}
	return r.session.lease.left() - r.session.timing.early(r.toClose())
}

// Stop refuses further memberships and gives all connections, to be closed in
// this order.
func (r *Roster) Stop() (closing []Connection) {
	r.stopping, r.rebound, r.changed = true, true, true
	for _, waiting := range r.held {
		for _, m := range waiting {
			m.state = memberQueued // nothing waits for names any more
		}
	}
	clear(r.held)
	r.session.joins = nil
	return append(connections(r.leadersFirst(func(*Membership) bool { return true })), r.observers.stop()...)
}

// Empty reports whether all connections are closed and no promise to a client lasts that its
// membership would not outlast.
func (r *Roster) Empty() bool { return len(r.members) == 0 && len(r.bound) == 0 }

// AskEnd has the session end when all that was asked for before is proposed, for a reason.
// The roster stops, and is empty.
func (r *Roster) AskEnd(why state.Reason) { r.session.endAsked, r.session.endsFor = true, why }

// Over reports whether there is no session whose end could be waited for: it has ended, or
// its lease has. An Open that is under way may be accepted yet, and then has to be ended.
func (r *Roster) Over() bool {
	switch r.session.phase {
	case phaseOpening:
		return false
	case phaseOpen:
		return r.session.lease.left() == 0
	}
	return true
}

// Noted gives the counter of a session that has ended in order, if the folder says that it
// has made promises.
func (r *Roster) Noted() (counter uint64, noted bool) {
	return r.session.counter, r.session.phase == phaseEnded && r.session.lease.noted.Load()
}

// Queued gives the connections whose memberships were not asked for yet.
func (r *Roster) Queued() (all []Connection) {
	for _, m := range r.members {
		if m.state == memberQueued {
			all = append(all, m.member)
		}
	}
	return all
}

// Changed reports whether something has changed, since the call before, that a waiter may
// wait for.
func (r *Roster) Changed() bool {
	was := r.changed
	r.changed = false
	return was
}

// Known reports whether the state has been seen up to date: the node has had a session.
func (r *Roster) Known() bool { return r.known }

// Current reports whether the node has a session: what it applies has just been committed.
func (r *Roster) Current() bool { return r.session.phase == phaseOpen }

// Stopping reports whether Stop was called.
func (r *Roster) Stopping() bool { return r.stopping }

// Live reports whether the node may speak for members at this instant.
func (r *Roster) Live() bool { return r.session.phase == phaseOpen && r.session.lease.live() }

// Size is how many connections there are that have to be closed in time, of members and of observers.
func (r *Roster) Size() int { return r.toClose() }

// SilentFor is for how long yet the node opens no session; see Bind.
func (r *Roster) SilentFor(now Reading) time.Duration { return r.session.silentFor(now) }

// Looked is when Step was called last.
func (r *Roster) Looked() Reading { return r.session.looked }

// Waiter is a client that waits for a name that a member of its group has.
type Waiter struct {
	Group, Client string
	Holder        string // the name of the node of that member
}

// Waiters gives the clients that wait for a name, those for one name in order of their coming.
func (r *Roster) Waiters() (all []Waiter) {
	for key, waiting := range r.held {
		for _, m := range waiting {
			all = append(all, Waiter{key.group, key.client, m.holder})
		}
	}
	return all
}

// leadersFirst gives the memberships that are wanted, those that were told that
// they lead before the others.
func (r *Roster) leadersFirst(wanted func(*Membership) bool) []*Membership {
	var leaders, others []*Membership
	for _, m := range r.members {
		switch {
		case !wanted(m):
		case m.leads.Load():
			leaders = append(leaders, m)
		default:
			others = append(others, m)
		}
	}
	return append(leaders, others...)
}
