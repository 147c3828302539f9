package session

import (
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/state"
)

// Keyed members (DESIGN.md, Keyed members). Their memberships outlive their connections, and
// what the state keeps of them outlives their node.

// keyed is what a keyed member has beyond a plain one.
type keyed struct {
	key  state.Key
	hold time.Duration // as this node grants it; from the acceptance of its Join on as the state has it

	asked atomic.Int64             // what a PING is to be answered, in nanoseconds and one more; 0: none waits
	heard atomic.Pointer[Reading]  // of the last PING, or when it was told that it leads
	steps atomic.Pointer[stepping] // it is to step down: nothing is promised to it; nil: it is not

	// Guarded by the roster's guard.
	ended    Reading       // of its connection
	settled  bool          // its Join was accepted, as an own member or not
	accepted Reading       // of that
	stays    time.Duration // from then on, whatever becomes of its connection: it has moved here
	hung     bool          // it leads, and does not ask for promises any more

	moved atomic.Bool // it has moved on: nothing is left to be ended here, nor to be said
}

// Hold is a hold as a node with this timing grants it: none, or between 3 R and S.
func (t Timing) Hold(asked time.Duration) time.Duration {
	if asked <= 0 {
		return 0
	}
	return min(max(asked, 3*t.Renew), t.Expiry)
}

// hungAfter is how long a leader with a hold may send no PING.
func hungAfter(hold time.Duration) time.Duration { return max(3*hold, 6*time.Second) }

// hungLook is how often the roster looks for such.
const hungLook = 250 * time.Millisecond

// JoinKeyed is Join for a keyed member: of that key, and with a hold as this node grants it. It
// takes nothing in and reports false below the level of the formats that has keyed members.
func (r *Roster) JoinKeyed(group, client string, key state.Key, hold time.Duration, member Member) (*Membership, bool) {
	if r.known && r.session.level < state.KeyedLevel {
		return nil, false
	}
	return r.join(group, client, &keyed{key: key, hold: r.session.timing.Hold(hold)}, member), true
}

// Holds reports whether a member of that name is held here, which a JOIN may take up again.
func (r *Roster) Holds(group, client string) bool { return r.holds[nameKey{group, client}] > 0 }

// Away is how many keyed members are held here whose connections have ended.
func (r *Roster) Away() int { return r.away }

// Held gives the keyed members that are held here, with how long yet.
func (r *Roster) Held(now Reading) map[state.MemberID]time.Duration {
	held := make(map[state.MemberID]time.Duration)
	for _, m := range r.bound {
		if m.keyed != nil && m.lease.Load() == r.session.lease {
			held[state.MemberID{Incarnation: r.session.lease.incarnation, Seq: m.seq}] = r.stays(m, now)
		}
	}
	return held
}

// Alive asks for a promise, which the member's Alive tells: for how long from now on, at
// least, the membership and its place stay, whatever becomes of the connection and of the node.
// It reports false if the node may not speak for the membership, or it is not a keyed one.
// It waits for nothing. The line that is answered must have been read before.
func (m *Membership) Alive() bool {
	l, k := m.lease.Load(), m.keyed
	if l == nil || k == nil {
		return false
	}
	now := l.now() // before the lease is looked at: a promise is made within it
	if !l.live() || m.hasMoved() {
		return false
	}
	k.heard.Store(&now)
	since := now.AtMost(*l.sent.Load())
	if m.roster.omit.Since {
		since = 0
	}
	lasts := m.roster.session.timing.alive(k.hold, since)
	if k.stepsDown() && !m.roster.omit.Stepping {
		lasts = 0
	}
	k.asked.Store(int64(lasts) + 1)
	m.roster.deliver(Delivery{what: deliverAlive, member: m})
	return true
}

// alive is for how long a member with a hold is promised its place, so long after the sending
// of the last renewal that was accepted, by the slowest and the fastest clock (HOLDS.md, rule 10).
func (t Timing) alive(hold, since time.Duration) time.Duration {
	lasts := time.Duration(float64(min(hold, t.Expiry)) * (1 - Rho) / (1 + Rho))
	return max(0, lasts-max(0, since))
}

// answer tells what was asked for, once.
func (m *Membership) answer() {
	if m.keyed == nil {
		return
	}
	if asked := m.keyed.asked.Swap(0); asked > 0 {
		m.member.Alive(time.Duration(asked - 1))
	}
}

// leadsFrom has the time begin within which a leader has to send a PING.
func (k *keyed) leadsFrom(now Reading) {
	if k.hold > 0 {
		k.heard.Store(&now)
	}
}

// hasMoved reports whether the membership goes on elsewhere. Its connection here, which stands
// until the loop has closed it, is not spoken to any more.
func (m *Membership) hasMoved() bool { return m.keyed != nil && m.keyed.moved.Load() }

// byNode reports whether the node has ended the connection, and not for a step-down: by that one without a hold
// leaves as a plain member does (HOLDS.md, rule 17).
func (m *Membership) byNode() bool {
	return m.why == 0 && !m.steps || m.why == state.ReasonStuck
}

// stays gives for how long yet a membership stays whose connection has ended. While it is not
// known what becomes of its Join a keyed one stays: that may be a Move. An End or an Open spares
// it: it stays without its node.
func (r *Roster) stays(m *Membership, now Reading) time.Duration {
	k := m.keyed
	switch {
	case k == nil:
		return r.promised(m, now)
	case m.stopped || k.moved.Load() || m.lease.Load() != r.session.lease || r.session.phase != phaseOpen || r.stopping:
		return 0
	}
	lasts := k.hold
	if r.omit.Hold {
		return 0
	}
	if m.byNode() && !r.omit.NodeEnd {
		lasts = max(lasts, r.session.timing.Expiry)
	}
	switch ended := now.AtLeast(k.ended); {
	case r.omit.Acceptance:
		lasts -= ended
	case !k.settled:
		return max(lasts, longestPromise)
	default:
		accepted := now.AtLeast(k.accepted)
		lasts = max(lasts-min(ended, accepted), k.stays-accepted)
	}
	if k.hold == 0 && m.why == state.ReasonClosed {
		return max(0, lasts) // its FIN ends what an ALREADY_JOINED has promised
	}
	return max(0, lasts, r.promised(m, now))
}

// staysAfter is for how long a member stays that has moved from a session to this one (HOLDS.md, rule 14),
// of which the state that has applied the Move knows what became.
//
//  1. The client may have been promised W at the node before, which may have had another timing.
//  2. Its Join may be an old one, of a connection that it gave up: then it has another, which
//     stands at the node before. With a hold it does not go by that. Without one it does, until
//     that node has seen the Move, or its lease is over and its connections are closed. The
//     last renewal that the node has accepted by then stands before the Move, so that is
//     within S of the Move.
//  3. A session that is orphaned or gone has no connections.
func (r *Roster) staysAfter(from state.MemberID, hold time.Duration, s *state.State) time.Duration {
	if hold > 0 || r.omit.Stale {
		return longestPromise
	}
	expiry, _ := s.Standing(from.Incarnation)
	return max(longestPromise, expiry)
}

// longestPromise and longestExpiry are the longest W and S of all timings.
var (
	longestPromise = max(Quick.Promise(), Normal.Promise(), Calm.Promise())
	longestExpiry  = max(Quick.Expiry, Normal.Expiry, Calm.Expiry)
)

// reason is why a membership ends that stayed behind its connection, or did not.
func (m *Membership) reason() state.Reason {
	k := m.keyed
	switch {
	case m.steps && m.why == 0:
		return state.ReasonSteppedDown
	case k == nil || m.stopped:
	case k.hung:
		return state.ReasonStuck
	case m.why != state.ReasonStuck && (m.why == 0 || k.hold > 0):
		return state.ReasonHoldOver
	}
	return max(m.why, state.ReasonClosed) // the node ends few, as those that send too long lines
}

// settle takes note that the Join of a keyed member was accepted, with the hold that the state
// has for it, and how long it stays from now on whatever becomes of its connection.
func (r *Roster) settle(id state.MemberID, hold, stays time.Duration) {
	if m := r.keyed[id.Seq]; m != nil && r.session.current(id.Incarnation) {
		k := m.keyed
		k.hold, k.settled, k.stays, k.accepted = max(k.hold, hold), true, stays, r.now()
		if m.state == memberBound {
			r.rebound, r.changed = true, true
		}
	}
}

// movedOn takes note that a keyed member has another session or another connection. Its
// connection here, if it stands, has nothing to say any more, and nothing is left to be ended.
func (r *Roster) movedOn(from state.MemberID) {
	m := r.keyed[from.Seq]
	if m == nil || !r.session.current(from.Incarnation) {
		return
	}
	delete(r.keyed, from.Seq)
	m.keyed.moved.Store(true)
	if m.state == memberBound {
		r.release(m)
		return
	}
	if r.killMoved == 0 {
		r.killMoved = r.KillAt()
	}
	r.deliver(Delivery{what: deliverGone, member: m})
	r.doomed = append(r.doomed, m)
}

// hung gives the leaders that are told so and ask for no promises any more: they lead no more,
// by their own rule, and nobody else does. It looks now and then.
func (r *Roster) hung(now Reading) (all []*Membership) {
	if len(r.keyed) == 0 || now.AtMost(r.hungLooked) < hungLook {
		return nil
	}
	r.hungLooked = now
	for _, m := range r.keyed {
		heard := m.keyed.heard.Load()
		if m.state != memberJoined || m.keyed.hold == 0 || m.keyed.hung || !m.leads.Load() || heard == nil {
			continue
		}
		if now.AtLeast(*heard) >= hungAfter(m.keyed.hold) {
			m.keyed.hung = true
			all = append(all, m)
		}
	}
	return all
}

// forgetKeyed takes a membership out of those of the present incarnation.
func (r *Roster) forgetKeyed(m *Membership) {
	if r.keyed[m.seq] == m {
		delete(r.keyed, m.seq)
	}
}

// mayBeKilled is when the switch has to kill a process that does nothing, if the lease would allow it
// to go on until killAt. The connection of a member that has moved on has to be closed by the
// time that held before the Move was seen: its new node counts from the Move (staysAfter, 2).
func (r *Roster) mayBeKilled(killAt time.Duration) time.Duration {
	for _, at := range []time.Duration{r.killMoved, r.killClosing} {
		if at > 0 {
			killAt = min(killAt, at)
		}
	}
	return killAt
}

// refuseKeyed gives the connections of keyed members that are not asked for, as the level of
// the formats has none: that was not known when they came.
func (r *Roster) refuseKeyed() {
	if r.session.level >= state.KeyedLevel {
		return
	}
	for _, m := range r.members {
		if m.keyed != nil && m.state == memberQueued {
			r.doomed = append(r.doomed, m)
		}
	}
}
