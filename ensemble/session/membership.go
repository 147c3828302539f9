package session

import (
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/state"
)

// Connection is what the node may end.
type Connection interface {
	// Close ends the connection without a further line. It returns at once, and may come more than
	// once. The node calls it while it holds no lock.
	Close()
}

// Member is what speaks for a membership towards its client: a connection.
// Its methods return at once. The node calls them while it holds no lock.
type Member interface {
	Connection

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

	// Alive answers what [Membership.Alive] has asked: for so long from before that was asked
	// the membership and its place stay. It comes behind every Leader that the node knows of,
	// from the goroutine of those.
	Alive(lasts time.Duration)
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
	keyed      *keyed                  // nil: it ends with its connection

	// Guarded by the roster's guard.
	state    memberState
	seq      uint64       // of its Join, once proposed
	why      state.Reason // its connection has ended; 0: for one of the node's own
	stopped  bool         // its client has said that it has stopped
	knows    bool         // its client is known to have learned that its connection has ended
	counted  bool         // it is one of session.unheard
	steps    bool         // it is to step down, and its connection to be closed for that
	inRoster int          // its place there, or, memberBound, among those
}

type memberState uint8

const (
	memberQueued   memberState = iota // waits for a session or the next batch
	memberProposed                    // its Join has a number
	memberHeld                        // its Join was refused: another member has the name; waits for that one to go
	memberJoined                      // committed
	memberBound                       // its connection is closed, and the membership stays for a while
	memberOver                        // its connection is closed
)

// Live reports whether the node may, at this instant, speak for the
// membership: the incarnation that proposed it is current and its lease runs
// (DESIGN.md, rule 5). It takes no lock.
func (m *Membership) Live() bool {
	l := m.lease.Load()
	return l != nil && l.live() && !m.hasMoved()
}

// Closed says that the connection is closed for good, why, and whether its client
// is known to have learned of it. The word for why is one of [state.Reason], or empty: the
// node ended it for a reason of its own. The membership is then left: at once, or after the time
// that is returned, for which the node is bound by a promise unless [Membership.Stopped]
// is called. A keyed one stays for its hold before, of which nothing is returned: its client
// comes back, or does not. Only the first call counts.
func (m *Membership) Closed(why string, acknowledged bool) (bound time.Duration) {
	m.roster.guard.Lock()
	defer m.roster.guard.Unlock()
	return m.roster.closed(m, state.ReasonNamed(why), acknowledged)
}

func (m *Membership) propose(l *lease, seq uint64) {
	if k := m.keyed; k != nil {
		m.roster.forgetKeyed(m) // the Join before was refused
		k.settled, k.stays = false, 0
		m.roster.keyed[seq] = m
	}
	m.state, m.seq = memberProposed, seq
	m.lease.Store(l)
}
