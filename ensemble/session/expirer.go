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
	renew  time.Duration               // R of the local timing: the grace after a change of raft leader is twice that
	stamps map[state.Incarnation]stamp // of all sessions, orphaned ones too

	unsure   map[state.Incarnation]bool // sessions that may have to be silent for less long than before
	refound  Reading                    // when that was found out last
	byExpiry bool                       // the omission Silence

	leading bool
	since   Reading // of leading
	checked Reading // last look at the stamps
	excused bool    // that one was late, and acted on nothing
}

// stamp is when the node's own state machine last accepted a sign of life.
type stamp struct {
	sign     uint64 // its number
	at       Reading
	expiry   time.Duration // S of that session
	silence  time.Duration // for how long it has to be silent: S, or the longest hold of its members
	orphaned bool
	asked    Reading // when its expiry was proposed last
	due      bool
}

// stallLimit is how long after the one before a look at the stamps may come before the
// expirer takes itself for the one that was away: renewals may wait unread.
const stallLimit = 100 * time.Millisecond

// AskAgain is how long an Expire may be under way before it is proposed anew.
const AskAgain = 500 * time.Millisecond

func newExpirer(renew time.Duration, byExpiry bool) *expirer {
	return &expirer{renew: renew, byExpiry: byExpiry, unsure: make(map[state.Incarnation]bool), stamps: make(map[state.Incarnation]stamp)}
}

// opened and renewed note a sign of life: that of a member that has moved to the session
// counts as one.
func (x *expirer) opened(inc state.Incarnation, expiry time.Duration, now Reading) {
	x.stamps[inc] = stamp{at: now, expiry: expiry, silence: expiry}
}

func (x *expirer) renewed(inc state.Incarnation, seq uint64, now Reading) {
	if st, ok := x.stamps[inc]; ok {
		st.sign, st.at, st.due = seq, now, false
		x.stamps[inc] = st
	}
}

func (x *expirer) ended(inc state.Incarnation) { delete(x.stamps, inc) }

func (x *expirer) orphaned(inc state.Incarnation) {
	if st, ok := x.stamps[inc]; ok {
		st.orphaned = true
		x.stamps[inc] = st
	}
}

// joined and left note that a session has a member with a hold, or one less. Most holds are
// not above S.
func (x *expirer) joined(inc state.Incarnation, hold time.Duration) {
	if st, ok := x.stamps[inc]; ok && hold > st.silence {
		st.silence = hold
		x.stamps[inc] = st
	}
}

func (x *expirer) left(inc state.Incarnation) {
	if st, ok := x.stamps[inc]; ok && st.silence > st.expiry {
		x.unsure[inc] = true
	}
}

// findSilences finds how long sessions have to be silent from which members have gone. Each has all its
// members looked at, so it is done once in a second: until then an Expire waits longer.
func (x *expirer) findSilences(s *state.State, now Reading) {
	if len(x.unsure) == 0 || now.AtLeast(x.refound) < time.Second {
		return
	}
	x.refound = now
	for inc := range x.unsure {
		if st, ok := x.stamps[inc]; ok {
			ses, _ := s.Session(inc)
			st.silence = max(st.expiry, ses.Silence)
			x.stamps[inc] = st
		}
	}
	clear(x.unsure)
}

// reset takes the sessions of a restored state as heard of just now: later is
// always safe.
func (x *expirer) reset(s *state.State, now Reading) {
	clear(x.stamps)
	for ses := range s.Sessions() {
		x.stamps[ses.Incarnation] = stamp{sign: ses.Sign, at: now, expiry: ses.Expiry, silence: ses.Silence, orphaned: ses.Orphaned}
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
	for inc, st := range x.stamps {
		st.at = st.at.Later(-longer)
		x.stamps[inc] = st
	}
}

func (x *expirer) follow() { x.leading = false }

// due gives the Expires to propose. A look that is late gives none, for what came in
// meanwhile to be applied before the next one, and for who leads no more to learn of it. The
// next one counts, late or not: a raft leader that is always late acts too.
func (x *expirer) due(now Reading) []state.Expire {
	if !x.leading {
		return nil
	}
	x.excused = !x.excused && now.AtMost(x.checked) > stallLimit
	x.checked = now
	if x.excused || now.AtLeast(x.since) < 2*x.renew {
		return nil
	}
	var ops []state.Expire
	for _, inc := range slices.Sorted(maps.Keys(x.stamps)) {
		st := x.stamps[inc]
		silence := st.silence
		if x.byExpiry {
			silence = st.expiry
		}
		if now.AtLeast(st.at) < silence || st.due && now.AtMost(st.asked) < AskAgain {
			continue
		}
		st.due, st.asked = true, now
		x.stamps[inc] = st
		why := state.ReasonNodeLost
		if st.orphaned {
			why = state.ReasonHoldOver
		}
		ops = append(ops, state.Expire{Incarnation: inc, Renewal: st.sign, Reason: why})
	}
	return ops
}
