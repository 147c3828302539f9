package session

import (
	"slices"

	"leaderlatch/ensemble/state"
)

// A leader steps down as an operator wants it (HOLDS.md, rules 16 and 17). One without a hold goes by
// its connection, so that is closed first, and then the member leaves. One with a hold keeps its connection,
// and goes by promises: it is given no further ones, and when the last one is over it is made the
// last member of its group.

// stepping is a leader with a hold that is to step down.
type stepping struct {
	since Reading
	token uint64 // of its leadership
	asked bool   // the StepDown waits to be proposed, or is
	seq   uint64 // of the StepDown; 0: it is not proposed yet
}

// StepDown has the leader of a group step down that is a member of this node: the one with this id and
// token. It gives the connection that has to be closed for that, if one has. It reports whether there
// is such a member here, and whether it begins to step down by this: a second call changes nothing.
// One without a hold that has just moved here could not leave yet (rule 14). Its client
// would be back before, and have moved again. So it goes on until it can.
func (r *Roster) StepDown(leader state.MemberID, token uint64) (closing Connection, here, begins bool) {
	m := r.find(leader)
	switch {
	case m == nil || r.stopping:
		return nil, false, false
	case m.keyed != nil && m.keyed.hold == 0 && r.now().AtLeast(m.keyed.accepted) < m.keyed.stays:
		return nil, true, false
	case m.keyed == nil || m.keyed.hold == 0:
		begins, m.steps = !m.steps, true
		return m.member, true, begins
	case m.keyed.steps.Load() == nil:
		steps := &stepping{token: token}
		m.keyed.steps.Store(steps)
		steps.since = r.now() // behind the store: what is promised from here on is nothing
		r.stepping = append(r.stepping, m)
		return nil, true, true
	}
	return nil, true, false
}

// find gives a member that has a connection; nil: there is none.
func (r *Roster) find(id state.MemberID) *Membership {
	if !r.session.current(id.Incarnation) {
		return nil
	}
	for _, m := range r.members {
		if m.seq == id.Seq && m.state == memberJoined && m.lease.Load() == r.session.lease && !m.hasMoved() {
			return m
		}
	}
	return nil
}

// stepsDown reports whether a PING is answered by no promise.
func (k *keyed) stepsDown() bool { return k.steps.Load() != nil }

// stepDownDue asks for the StepDowns of those whose promises are over: no ALIVE lasts longer than its
// hold, or than S, and an ALREADY_JOINED binds the node as ever.
func (r *Roster) stepDownDue(now Reading) {
	r.stepping = slices.DeleteFunc(r.stepping, func(m *Membership) bool {
		if m.state != memberJoined || m.hasMoved() || m.lease.Load() != r.session.lease {
			return true // it has no connection any more, on which anything could be promised
		}
		if s := m.keyed.steps.Load(); s.seq == 0 && !s.asked && now.AtLeast(s.since) >= max(m.keyed.hold, r.session.timing.Expiry) && r.promised(m, now) == 0 {
			s.asked = true
			r.session.stepDown(m)
		}
		return false
	})
}

// stepped takes note of the last operation that was accepted. When a StepDown has been applied the
// new leader, if there is one, is with the dispatcher. So promises are about the new place
// from here on (rule 11).
func (r *Roster) stepped(seq uint64) {
	r.stepping = slices.DeleteFunc(r.stepping, func(m *Membership) bool {
		s := m.keyed.steps.Load()
		if s.seq == 0 || s.seq > seq {
			return false
		}
		m.keyed.steps.Store(nil)
		return true
	})
}
