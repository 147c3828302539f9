package session

import (
	"sync/atomic"
	"time"
)

// Member is what speaks for a membership towards its client: a connection.
// Its methods return at once. The node calls them while it holds no lock.
type Member interface {
	// Leader tells the leader of the member's group and its fencing token, in
	// committed order, one after the other. The first call says that the membership is
	// committed. Different members may be called at once.
	Leader(name string, token uint64)

	// Waits says that the Join was refused because another member has the name, through
	// the node that is named, and waits for that one to go; empty: it does not wait for it
	// any more.
	Waits(holder string)

	// Promised says that the membership may be asked for its Promise again.
	Promised()

	// Close ends the connection without a further line. It may come more than
	// once.
	Close()
}

// Membership is one client's place in a group, asked for or committed. It is
// safe for concurrent use.
type Membership struct {
	roster        *Roster
	member        Member
	group, client string

	lease      atomic.Pointer[lease]   // of the incarnation that proposed its Join; nil before
	said       atomic.Pointer[Reading] // when the node promised last; nil: never
	inAudience int                     // its place there; of the dispatcher's goroutine alone
	leads      atomic.Bool             // its connection was handed its own name last

	// Guarded by the roster's guard.
	state    memberState
	seq      uint64 // of its Join, once proposed
	stopped  bool   // its client has said that it has stopped
	knows    bool   // its client is known to have learned that its connection has ended
	counted  bool   // it is one of session.unheard
	holder   string // memberHeld: the name of the node of the member that has the name
	inRoster int    // its place there, or, memberBound, among those
}

type memberState uint8

const (
	memberQueued   memberState = iota // waits for a session or the next batch
	memberProposed                    // its Join has a number
	memberHeld                        // its Join was refused: another member has the name; waits for that one to go
	memberJoined                      // committed
	memberBound                       // its connection is closed, and the node is bound by a promise
	memberOver                        // its connection is closed
)

// Live reports whether the node may, at this instant, speak for the
// membership: the incarnation that proposed it is current and its lease runs
// (DESIGN.md, rule 5). It takes no lock.
func (m *Membership) Live() bool {
	l := m.lease.Load()
	return l != nil && l.live()
}

// Closed says that the connection is closed for good, and whether its client
// is known to have learned of it. The membership is then left: at once, or after the time
// that is returned, for which the node is bound by a promise unless [Membership.Stopped]
// is called. Only the first call counts.
func (m *Membership) Closed(acknowledged bool) (bound time.Duration) {
	m.roster.guard.Lock()
	defer m.roster.guard.Unlock()
	return m.roster.closed(m, acknowledged)
}

func (m *Membership) propose(l *lease, seq uint64) {
	m.state, m.seq = memberProposed, seq
	m.lease.Store(l)
}
