package session

import "time"

// The client rule (DESIGN.md, rule 10). A client that sends JOIN again at time t of its
// own clock may lead, upon ALREADY_JOINED, for a while from t on, whatever becomes of its
// connection and its node. So the node is bound by that answer: it names nobody else in
// the client's place before as much has passed, unless the client's own FIN says that it
// has stopped.

// Promise is for how long a node is bound by an ALREADY_JOINED, by the slowest of its
// clocks: not shorter than S - L by the client's, however the two run.
func (t Timing) Promise() time.Duration {
	return time.Duration(float64(t.Expiry-t.Lease) * (1 + 2*Rho))
}

// Promise reports whether ALREADY_JOINED may be written at this instant, and binds the
// node to it: it does not propose the end of the membership before the promise is over,
// unless [Membership.Stopped] is called. The line that is answered must have been read
// before. If later is true, the member's Promised is called when it may be asked again: the
// first promise of a session has to be noted on disk. If both are false the node may not
// speak for the membership any more. It waits for nothing.
func (m *Membership) Promise() (now, later bool) {
	l := m.lease.Load()
	if l == nil {
		return false, false
	}
	said := l.now() // before the lease is looked at: a promise is made within it
	switch {
	case !l.live() || m.hasMoved():
		return false, false
	case !l.noted.Load() && !m.roster.omit.Note:
		return false, m.roster.askToNote(m, l)
	}
	m.said.Store(&said)
	return true, false
}

// Stopped says that the client has said that it has stopped, and relies on no promise: by a
// FIN of its own that was read, if that means so, or by a LEAVE. It may be called at any
// time, before or after Closed.
func (m *Membership) Stopped() {
	m.roster.guard.Lock()
	defer m.roster.guard.Unlock()
	m.roster.stopped(m)
}

// askToNote has it noted that the session has made a promise. It reports false if the
// lease is not that of the present session.
func (r *Roster) askToNote(m *Membership, l *lease) bool {
	r.guard.Lock()
	defer r.guard.Unlock()
	if r.session.phase != phaseOpen || r.session.lease != l {
		return false
	}
	if r.askers = append(r.askers, m); len(r.askers) == 1 {
		r.note(r.session.counter)
	}
	return true
}

// Promised takes note that it is on disk, or not to be had there, that the session with an
// open counter has made a promise. It gives those who may ask for theirs again.
func (r *Roster) Promised(counter uint64, onDisk bool) (again []Member) {
	if onDisk {
		if r.session.counter == counter {
			r.session.lease.noted.Store(true)
		}
		for _, m := range r.askers {
			again = append(again, m.member)
		}
	}
	r.askers = nil
	return again
}
