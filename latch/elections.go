package latch

import (
	"errors"
	"time"
)

// ErrUnavailable is returned by [Elections.Join] when no JOIN can succeed at
// this node now, whatever the client does: consensus is switched off, the
// cluster has not reached its minimum size, or the node is stopping.
var ErrUnavailable = errors.New("elections are unavailable")

// Elections is the replicated election state as a [Server] needs it.
//
// Calls may be made from any goroutine and must not block: one goroutine calls Join for
// all clients that were silent before, and would stand still for all of them. A Server
// calls Join with the connection's lock held, so an implementation calls the methods of a
// [Member] only while it holds no lock that Join, Live or Closed take.
type Elections interface {
	// Join asks that client becomes a member of group on behalf of m. The
	// outcome comes through m; there may be none, for as long as there is no
	// majority or another live member has the name, and then the caller gives
	// up in its own time by closing. An error means that nothing was asked
	// for and that m will never be called.
	Join(group, client string, m Member) (Membership, error)

	// JoinKeyed asks that client becomes, or goes on as, a keyed member of group: one whose
	// membership outlives its connection, and may move to another (PROTOCOL.md, Keyed
	// members). It is Join otherwise. It is called where [Config.Extensions] is set, and
	// only there. The key is a secret, and must be in no error and no log.
	JoinKeyed(group, client string, k Keyed, m Member) (Membership, error)

	// Observe asks that by is told who leads a group, without becoming a member. Like that of a Join
	// the outcome comes through by, or not at all. It is called where [Config.Extensions] is
	// set, and only there.
	Observe(group string, by Observer) (Observation, error)

	// Missing is why a Join has no outcome at this node now, whatever group it is for; nil:
	// that is not known. It is called with the connection's lock held.
	Missing() error
}

// Keyed is what a keyed member has beside its names, as the client wrote it.
type Keyed struct {
	Key  string        // 16 to 64 bytes of printable ASCII
	Hold time.Duration // of whole milliseconds, from 0 to an hour; the Elections bring it into their range
}

// Member is a connection as the elections see it. Its methods return at once.
type Member interface {
	// Leader tells the leader of the member's group and its fencing token.
	// A member's calls come one after the other, in the order in which the leaders
	// were committed; the first says that the membership itself is committed too.
	Leader(name string, token uint64)

	// Waits says that the JOIN has no outcome because another member has the name, through
	// the node that is named; empty: that one has gone, and the JOIN is under way again.
	Waits(holder string)

	// Promised says that the membership may be asked for its Promise again.
	Promised()

	// Alive answers what [Membership.Alive] has asked: for so long from when the client sent
	// its PING the membership stays, and its place gets no worse; 0 or less: for no time. It
	// comes behind each call of Leader that the node knows of. What was not asked is ignored, and so is what comes after the
	// end.
	Alive(lasts time.Duration)

	// Close ends the connection without a further line, but for the refusal of
	// a JOIN that has no answer yet: the membership has ended, or the node may
	// not speak for it any longer. It may come at any time after Join was
	// called, also more than once.
	Close()
}

// Observer is a connection that observes a group, as the elections see it. Its methods return
// at once.
type Observer interface {
	// Leader tells who leads the group, and the fencing token; an empty name: nobody does, with a
	// token that none is above which the group has given, and below all that it will give.
	// Calls come one after the other, with rising tokens; the first answers the OBSERVE.
	Leader(name string, token uint64)

	// Close is [Member.Close].
	Close()
}

// Observation is what a Server holds of an OBSERVE.
type Observation interface {
	// Live is [Membership.Live]: whether the node may speak of leaders at this instant.
	Live() bool

	// Closed says, once, that the connection is closed. It is called with no lock held.
	Closed()
}

// Membership is what a Server holds of a Join that it asked for, pending or
// committed.
type Membership interface {
	// Live reports whether the node may, at this instant, still speak for the
	// membership. A Server asks it under the lock under which it writes,
	// before every write that names a leader, and ends the
	// connection if it may not. It is called with the connection's lock held.
	Live() bool

	// Promise is Live for the answer ALREADY_JOINED, upon which a client may lead for a
	// while by its clock, whatever becomes of its connection; PROTOCOL.md, What a client may
	// believe. If now is true the answer may be written, to a line that was read
	// before. If later is true it may not yet, and the [Member] is told when to ask again.
	// If both are false the connection is ended. It is called with the connection's lock
	// held, and waits for nothing.
	Promise() (now, later bool)

	// Alive has [Member.Alive] called once, from another goroutine, for a client that asks
	// for how long its membership stays. It reports false if the node may not speak for the
	// membership: then the connection is ended. It is called with the connection's lock held,
	// for a keyed member that has joined, and waits for nothing.
	Alive() bool

	// Stopped says that the client has stopped, and relies on no promise: it has sent LEAVE,
	// or a FIN of its own was read that says so. Every FIN of a plain member does, and that of a
	// keyed one whose JOIN said fin=end, if it was read before the node itself began to end the
	// connection. It is called with no lock held, and may come before Closed or after it.
	Stopped()

	// Closed says, once, that the connection is closed and nothing will be written to it any
	// more; the membership ends then, unless it is that of a keyed member and lasts longer.
	// why is a word: "closed" (the client closed it), "reset" (it was reset, perhaps by the
	// client), "silent" (the client's host does not answer any more), "stuck" (the client took
	// nothing), "left" (the client has sent LEAVE), or "" (the node ended it, for a reason of
	// its own). acknowledged reports whether the client's side is known to have learned of it:
	// it closed first, or its kernel has acknowledged the FIN. It gives for how long a plain
	// membership goes on because of a promise, unless Stopped is called. It is called with no
	// lock held.
	Closed(why string, acknowledged bool) (bound time.Duration)
}
