package session

import (
	"maps"
	"slices"
	"time"

	"leaderlatch/ensemble/state"
)

// expirer ends the sessions of silent nodes (DESIGN.md, rule 4). Every
// node keeps stamps of its own clock; only the raft leader acts on them. Like
// [session] it is pure code over readings that its caller passes in.
type expirer struct {
	renew  time.Duration // R of the local timing: the grace after a change of raft leader is twice that
	stamps map[state.NodeID]stamp

	leading bool
	since   Reading // of leading
	checked Reading // last look at the stamps
	excused bool    // that one was late, and acted on nothing
}

// stamp is when the node's own state machine last accepted a sign of life.
type stamp struct {
	incarnation state.Incarnation
	renewal     uint64
	expiry      time.Duration // S of that session
	at          Reading
	asked       Reading // when its expiry was proposed last
	due         bool
}

// stallLimit is how long after the one before a look at the stamps may come before the
// expirer takes itself for the one that was away: renewals may wait unread.
const stallLimit = 100 * time.Millisecond

// AskAgain is how long an Expire may be under way before it is proposed anew.
const AskAgain = 500 * time.Millisecond

func newExpirer(renew time.Duration) *expirer {
	return &expirer{renew: renew, stamps: make(map[state.NodeID]stamp)}
}

// opened and renewed note a sign of life.
func (x *expirer) opened(node state.NodeID, inc state.Incarnation, expiry time.Duration, now Reading) {
	x.stamps[node] = stamp{incarnation: inc, expiry: expiry, at: now}
}

func (x *expirer) renewed(node state.NodeID, inc state.Incarnation, seq uint64, now Reading) {
	if st, ok := x.stamps[node]; ok && st.incarnation == inc {
		x.stamps[node] = stamp{incarnation: inc, renewal: seq, expiry: st.expiry, at: now}
	}
}

func (x *expirer) ended(node state.NodeID) { delete(x.stamps, node) }

// reset takes the sessions of a restored state as heard of just now: later is
// always safe.
func (x *expirer) reset(s *state.State, now Reading) {
	clear(x.stamps)
	for ses := range s.Sessions() {
		x.stamps[ses.Node] = stamp{incarnation: ses.Incarnation, renewal: ses.Renewal, expiry: ses.Expiry, at: now}
	}
}

// lead makes the expirer act from a grace after now, when this node's state
// machine is known to be up to date as the raft leader's; follow stops it.
func (x *expirer) lead(now Reading) {
	x.leading, x.since, x.checked, x.excused = true, now, now, false
}

// blame has all have been silent for that much longer than they were; see omissions.
func (x *expirer) blame(longer time.Duration) {
	x.since = x.since.Later(-longer)
	for id, st := range x.stamps {
		st.at = st.at.Later(-longer)
		x.stamps[id] = st
	}
}

func (x *expirer) follow() { x.leading = false }

// due gives the Expires to propose. A look that is late gives none, for what came in
// meanwhile to be applied before the next one, and for who leads no more to learn of it. The
// next one counts, late or not: a raft leader that is always late acts too.
func (x *expirer) due(now Reading) []state.Op {
	if !x.leading {
		return nil
	}
	x.excused = !x.excused && now.AtMost(x.checked) > stallLimit
	x.checked = now
	if x.excused || now.AtLeast(x.since) < 2*x.renew {
		return nil
	}
	var ops []state.Op
	for _, id := range slices.Sorted(maps.Keys(x.stamps)) {
		st := x.stamps[id]
		if now.AtLeast(st.at) < st.expiry || st.due && now.AtMost(st.asked) < AskAgain {
			continue
		}
		st.due, st.asked = true, now
		x.stamps[id] = st
		ops = append(ops, state.Expire{Incarnation: st.incarnation, Renewal: st.renewal})
	}
	return ops
}
