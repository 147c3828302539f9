package session

import (
	"slices"
	"time"

	"leaderlatch/ensemble/state"
)

// session is a node's own view of its session (DESIGN.md, the rules of sessions): which
// incarnation it lives in, what it has asked for and not yet seen accepted,
// and when it must fall silent. It is pure code over readings of a clock that
// its caller passes in; it starts nothing and waits for nothing. Its caller
// guards it and tells it what the node's own state machine accepts, which is
// the only acknowledgement that counts.
//
//	idle --begin--> opening --opened--> open --lost--> closing --check--> idle
//	                                      \--end----> ended
type session struct {
	node    state.NodeID
	boot    string
	name    string
	address string
	timing  Timing
	reads   uint64        // what it announces; see Open
	started Reading       // of the node
	silent  time.Duration // for how long from then on it opens no session: the one before has made promises

	phase   phase
	counter uint64  // of the Open under way or accepted last
	began   Reading // t_send of that Open: its first sending
	cutOpen bool    // the Open has been handed out since it was begun or failed

	lease    *lease // of the phases open and closing
	seq      uint64 // of the last operation numbered
	sent     []sentOp
	next     int     // sent[next:] is to be handed out (again)
	renewed  Reading // t_send of the last Renew numbered
	looked   Reading // at the last check
	unheard  int     // closing: connections whose clients are not known to have learned that they ended
	bound    int     // connections of plain members that have ended and were promised something that lasts
	leaves   []leave
	steps    []*Membership // that are to step down
	joins    []*Membership
	gone     int  // of joins: those whose clients have gone
	electing bool // the cluster is active: Joins may be proposed
	level    uint64
	endAsked bool
	endsFor  state.Reason // of the End
}

// leave is the end of a membership, to be asked for.
type leave struct {
	join   uint64 // the number of its Join
	reason state.Reason
}

type phase int

const (
	phaseIdle phase = iota
	phaseOpening
	phaseOpen
	phaseClosing
	phaseEnded
)

// sentOp is an operation that has its number and has not been accepted yet.
type sentOp struct {
	op     state.Op
	at     Reading     // t_send: when it was numbered; never refreshed by sending it again
	member *Membership // of a Join
}

// Need is what a session needs its node to do.
type Need int

const (
	NeedNothing Need = iota
	NeedClose        // close all connections of the incarnation, leaders first
	NeedOpen         // write down the next counter, then begin
)

// jumpLimit is how far the wall clock may move by itself between two looks
// before the other clocks are doubted.
const jumpLimit = 500 * time.Millisecond

// check says what has to be done at this time. early is how much before the
// lease's end closing must start to be done in time.
func (s *session) check(now Reading, early time.Duration) Need {
	if s.phase == phaseOpen && s.looked != (Reading{}) && now.Jump(s.looked) > jumpLimit {
		s.lease.doubt(now)
		s.renewed = Reading{} // renew at once
	}
	s.looked = now
	switch s.phase {
	case phaseIdle:
		if s.silentFor(now) == 0 {
			return NeedOpen
		}
	case phaseOpening:
		// An Open that took so long would be born dead; a fresh one will do.
		// Until that has its counter on disk, the old one must not be taken
		// for its own any more: begin would overwrite a living incarnation.
		if now.AtMost(s.began) >= s.timing.Lease {
			s.phase = phaseIdle
			return NeedOpen
		}
	case phaseOpen:
		if s.lease.left() <= early {
			s.lost()
			return NeedClose
		}
	case phaseClosing:
		// Rule 6b: every client knows, or nobody can still believe. Rule 10: nor is
		// anybody promised anything; the last promise was made before the lease's end.
		if s.unheard == 0 && s.bound == 0 || now.AtLeast(*s.lease.sent.Load()) >= s.timing.Lease+s.timing.Promise() {
			s.phase = phaseIdle
			return NeedOpen
		}
	}
	return NeedNothing
}

// silentFor is for how long yet the node opens no session.
func (s *session) silentFor(now Reading) time.Duration {
	return max(0, s.silent-now.AtLeast(s.started))
}

// due reports whether check has something to do before time itself brings something.
func (s *session) due() bool {
	switch s.phase {
	case phaseIdle:
		return true
	case phaseOpen:
		return s.lease.over.Load()
	case phaseClosing:
		return s.unheard == 0 && s.bound == 0
	}
	return false
}

// unblocked takes note that a session of this node has ended. If that stood in
// the way of the Open under way, the Open was dropped: it is sent again.
func (s *session) unblocked() { s.cutOpen = false }

// lost ends the incarnation on the node's side, for good. The caller closes
// its connections and sets unheard to their number before the next check.
func (s *session) lost() {
	s.phase = phaseClosing
	s.lease.end()
	s.sent, s.next, s.leaves, s.steps = nil, 0, nil, nil
}

// begin starts an Open with a counter that is on disk.
func (s *session) begin(counter uint64, now Reading) {
	s.phase, s.counter, s.began, s.cutOpen = phaseOpening, counter, now, false
}

// opened takes an accepted Open for its own if it is the one under way. The
// lease counts from its first sending.
func (s *session) opened(counter uint64, inc state.Incarnation, now func() Reading) bool {
	if s.phase != phaseOpening || counter != s.counter {
		return false
	}
	s.phase = phaseOpen
	s.lease = newLease(inc, s.timing.Lease, s.began, now)
	s.seq, s.sent, s.next, s.leaves, s.steps, s.renewed = 0, nil, 0, nil, nil, s.began
	s.unheard = 0
	return true
}

// current reports whether an incarnation is the one that the node lives in.
func (s *session) current(inc state.Incarnation) bool {
	return s.phase == phaseOpen && s.lease.incarnation == inc
}

// waiting looks for the operation numbered seq among those that are sent and not
// settled.
func (s *session) waiting(seq uint64) (op sentOp, ok bool) {
	i, ok := s.find(seq)
	if !ok {
		return sentOp{}, false
	}
	return s.sent[i], true
}

// renewedAt prolongs the lease by an accepted Renew, or by the state of a
// snapshot in which it is the last.
func (s *session) renewedAt(seq uint64) {
	if i, ok := s.find(seq); ok {
		s.lease.prolong(s.sent[i].at)
	}
}

// settled forgets the operations up to seq: they have been accepted.
func (s *session) settled(seq uint64) {
	n := 0
	for n < len(s.sent) && state.SeqOf(s.sent[n].op) <= seq {
		n++
	}
	s.sent = slices.Delete(s.sent, 0, n)
	s.next = max(0, s.next-n)
}

// rewind has everything that was not accepted handed out once more: what was
// proposed may have been lost with a raft leader, or not.
func (s *session) rewind() {
	s.next = 0
	s.cutOpen = false
}

// leave asks for the end of the membership that the Join numbered seq began, or moved here.
func (s *session) leave(seq uint64, why state.Reason) { s.leaves = append(s.leaves, leave{seq, why}) }

// stepDown asks for a leader with a hold to be the last member of its group.
func (s *session) stepDown(m *Membership) { s.steps = append(s.steps, m) }

// reason is what an operation says of why, if the level has reasons.
func (s *session) reason(why state.Reason) state.Reason {
	if s.level < state.KeyedLevel {
		return 0
	}
	return why
}

// join asks for a membership.
func (s *session) join(m *Membership) { s.joins = append(s.joins, m) }

// forget takes note that a client has gone whose Join was not proposed yet.
// While there is no session, clients come and go and the queue must not grow.
func (s *session) forget() {
	if s.gone++; s.gone < 64 || s.gone < len(s.joins)/2 {
		return
	}
	s.joins = slices.DeleteFunc(s.joins, func(m *Membership) bool { return m.state != memberQueued })
	s.gone = 0
}

// cut hands out the next batch: what is to be sent again, then a Renew if it
// is time, then Leaves, StepDowns and Joins; an End comes when nothing else is left.
// Nil: there is nothing to propose.
func (s *session) cut(now Reading) []state.Op {
	switch s.phase {
	case phaseOpening:
		if s.cutOpen {
			return nil
		}
		s.cutOpen = true
		return []state.Op{state.Open{
			Node: s.node, Counter: s.counter, Boot: s.boot,
			Lease: s.timing.Lease, Expiry: s.timing.Expiry,
			Name: s.name, Address: s.address, Reads: s.reads,
			Reason: s.reason(s.before()),
		}}
	case phaseOpen:
		if s.lease.left() == 0 {
			return nil // what it would ask for is lost with the lease
		}
	default:
		return nil
	}

	inc := s.lease.incarnation
	if now.AtMost(s.renewed) >= s.timing.Renew {
		s.renewed = now
		s.number(now, nil, func(seq uint64) state.Op { return state.Renew{Incarnation: inc, Seq: seq} })
	}
	room := func() bool { return len(s.sent)-s.next < state.MaxOps }
	left := 0
	for ; left < len(s.leaves) && room(); left++ {
		l := s.leaves[left]
		s.number(now, nil, func(seq uint64) state.Op {
			return state.Leave{Incarnation: inc, Seq: seq, Join: l.join, Reason: s.reason(l.reason)}
		})
	}
	s.leaves = slices.Delete(s.leaves, 0, left)
	for len(s.steps) > 0 && room() {
		m := s.steps[0]
		s.steps = s.steps[1:]
		steps := m.keyed.steps.Load()
		s.number(now, nil, func(seq uint64) state.Op {
			steps.seq = seq
			return state.StepDown{Incarnation: inc, Seq: seq, Join: m.seq, Token: steps.token}
		})
	}
	joined := 0
	for ; s.electing && joined < len(s.joins) && room(); joined++ {
		m := s.joins[joined]
		if m.state != memberQueued || m.keyed != nil && s.level < state.KeyedLevel {
			continue // its client has gone, or it is refused: there may be nodes that cannot read it
		}
		s.number(now, m, func(seq uint64) state.Op {
			join := state.Join{Incarnation: inc, Seq: seq, Group: m.group, Client: m.client}
			if m.keyed == nil {
				return join
			}
			return state.KeyedJoin{Join: join, Key: m.keyed.key, Hold: m.keyed.hold}
		})
		m.propose(s.lease, s.seq)
	}
	s.joins = slices.Delete(s.joins, 0, joined)
	if s.endAsked && s.next == len(s.sent) && len(s.leaves) == 0 {
		s.endAsked = false
		s.number(now, nil, func(seq uint64) state.Op {
			return state.End{Incarnation: inc, Seq: seq, Reason: s.reason(s.endsFor)}
		})
	}

	if s.next == len(s.sent) {
		return nil
	}
	batch := make([]state.Op, 0, min(state.MaxOps, len(s.sent)-s.next))
	for size := 0; s.next < len(s.sent) && len(batch) < state.MaxOps && size < state.MaxBytes; s.next++ {
		op := s.sent[s.next].op
		batch = append(batch, op)
		size += state.SizeOf(op)
	}
	return batch
}

// before is why the session before an Open is over.
func (s *session) before() state.Reason {
	if s.lease == nil {
		return state.ReasonNodeRestarted
	}
	return state.ReasonSessionLost
}

func (s *session) number(now Reading, m *Membership, op func(seq uint64) state.Op) {
	s.seq++
	s.sent = append(s.sent, sentOp{op(s.seq), now, m})
}

// find gives the index in sent of an operation; their numbers have no gaps.
func (s *session) find(seq uint64) (int, bool) {
	if len(s.sent) == 0 {
		return 0, false
	}
	i := seq - state.SeqOf(s.sent[0].op)
	if i >= uint64(len(s.sent)) { // also where seq is below the first
		return 0, false
	}
	return int(i), true
}
