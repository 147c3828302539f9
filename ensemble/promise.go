package ensemble

import (
	"fmt"
	"time"

	"leaderlatch/ensemble/logstore"
)

// The client rule (DESIGN.md, rule 10). A client that sends JOIN again at time t of its
// own clock may lead, upon ALREADY_JOINED, for a while from t on, whatever becomes of its
// connection and its node. So the node is bound by that answer: it names nobody else in
// the client's place before as much has passed, unless the client's own FIN says that it
// has stopped.

// promise is for how long a node is bound by an ALREADY_JOINED, by the slowest of its
// clocks: not shorter than S - L by the client's, however the two run.
func (t Timing) promise() time.Duration {
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
	case !l.live():
		return false, false
	case !l.noted.Load():
		return false, m.roster.askToNote(m, l)
	}
	m.said.Store(&said)
	return true, false
}

// Stopped says that the client has closed its side itself, by a FIN of its own that was
// read: it has stopped, and is bound by no promise. It may be called at any time, before
// or after Closed.
func (m *Membership) Stopped() {
	m.roster.guard.Lock()
	defer m.roster.guard.Unlock()
	m.roster.stopped(m)
}

// askToNote has it noted that the session has made a promise. It reports false if the
// lease is not that of the present session.
func (r *roster) askToNote(m *Membership, l *lease) bool {
	r.guard.Lock()
	defer r.guard.Unlock()
	if r.session.phase != phaseOpen || r.session.lease != l {
		return false
	}
	if r.askers = append(r.askers, m); len(r.askers) == 1 {
		r.note(l, r.session.counter)
	}
	return true
}

// Promised takes note that it is on disk, or not to be had there, that the session of a
// lease has made a promise. It gives those who may ask for theirs again.
func (r *roster) Promised(l *lease, onDisk bool) (again []Member) {
	if onDisk {
		l.noted.Store(true)
		again = connections(r.askers)
	}
	r.askers = nil
	return again
}

// note writes down that the session with a counter has made a promise, and lets those
// who wait for that ask again. If the disk fails, so does the node, which ends them.
func (n *Node) note(l *lease, counter uint64) {
	var err error
	if !n.cfg.omit.note {
		err = notePromise(n.store, counter, n.cfg.Timing.promise())
	}
	n.mu.Lock()
	again := n.roster.Promised(l, err == nil)
	n.mu.Unlock()
	for _, m := range again {
		m.Promised()
	}
}

// unpromise has the folder say that no promise lasts, where the node has ended its session in
// order: the next process has nothing to wait for. Should that fail, it waits.
func (n *Node) unpromise() {
	n.mu.Lock()
	counter, noted := n.roster.Noted()
	n.mu.Unlock()
	if noted {
		notePromise(n.store, counter, 0)
	}
}

// What a folder says of the promises of its last session, in one transaction with the
// counter of its Open. A process that takes the folder over ends that session as soon as
// it opens one, and waits before for as long as the promises last.
var (
	counterKey    = []byte("leader_latch.open_counter") // of the last Open
	promisesOfKey = []byte("leader_latch.promises_of")  // the counter of the session that the next value is about
	promiseKey    = []byte("leader_latch.promise")      // how long its promises last, ns; 0: it has made none
)

// nextCounter writes the next open counter down and gives it. It is on disk before it is
// used, beside Raft's votes, so that neither goes back alone; and with it, that its
// session has made no promise yet.
func nextCounter(s *logstore.Store) (uint64, error) {
	last, err := s.GetUint64(counterKey)
	if err == nil {
		err = s.SetUint64s(logstore.Number{Key: counterKey, N: last + 1}, logstore.Number{Key: promisesOfKey, N: last + 1}, logstore.Number{Key: promiseKey})
	}
	if err != nil {
		return 0, fmt.Errorf("open counter: %w", err)
	}
	return last + 1, nil
}

// notePromise writes down how long the promises of the session with a counter last; 0: no
// promise does.
func notePromise(s *logstore.Store, counter uint64, lasts time.Duration) error {
	return s.SetUint64s(logstore.Number{Key: promisesOfKey, N: counter}, logstore.Number{Key: promiseKey, N: uint64(lasts)})
}

// boundBy gives for how long a process that takes over a folder is bound by the promises
// of the session with the last counter.
func boundBy(s *logstore.Store) (counter uint64, bound time.Duration, err error) {
	counter, err = s.GetUint64(counterKey)
	var of, lasts uint64
	if err == nil {
		of, err = s.GetUint64(promisesOfKey)
	}
	if err == nil {
		lasts, err = s.GetUint64(promiseKey)
	}
	switch {
	case err != nil || counter == 0:
	case of != counter: // an older program has opened that session, with a timing that it alone knew
		bound = Calm.promise()
	default:
		bound = time.Duration(lasts)
	}
	return counter, bound, err
}
