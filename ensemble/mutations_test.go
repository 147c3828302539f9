package ensemble

import (
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// mutation takes a rule of the protocol away, to show that a run in virtual
// time finds its absence.
type mutation int

const (
	mutateNothing           mutation = iota
	mutateNoCompare                  // an Expire takes whatever renewal is the last
	mutateReceiveTime                // the lease counts from the acceptance of a renewal
	mutateLeaveBeforeClose           // the Leave is proposed while the connection is open
	mutateOpenBeforeClose            // the Open is proposed while connections are open
	mutateNoDedup                    // operations are accepted whatever their number
	mutateNoCloseTime                // C = 0: S is as long as L
	mutateNoSwitch                   // a process that was paused goes on when its lease is over
	mutateNoSwitchNoGate             // both: only what is written counts then
	mutateAnyCounter                 // an Open is accepted whatever its counter
	mutateNoAcknowledgement          // a node speaks whether its renewals are accepted or not
	mutateNoGrace                    // a new raft leader counts silence from before it could hear
	mutateNoJump                     // a jump of the wall clock shuts nothing
	mutateEndBeforeClose             // a node that stops ends its session while connections are open
	mutateApplyUnflushed             // a raft leader applies what is not on its disk
	mutateCommitUnflushed            // a raft leader says that what is not on its disk is committed
	mutateFollowUnflushed            // a follower says that it has what is not on its disk
	mutateLeaveWait                  // the Leave does not wait for a promise
	mutateEndWait                    // nor does the End of a node that stops
	mutateOpenWait                   // nor the Open after a session that was lost
	mutateStartWait                  // nor the first Open of a process
	mutateNoNote                     // the first promise of a session is not on disk when it is made
)

func (m mutation) String() string {
	return map[mutation]string{
		mutateNothing:           "nothing",
		mutateNoCompare:         "no compare",
		mutateReceiveTime:       "time of receipt",
		mutateLeaveBeforeClose:  "Leave before close",
		mutateOpenBeforeClose:   "Open before close",
		mutateNoDedup:           "no dedup",
		mutateNoCloseTime:       "C = 0",
		mutateNoSwitch:          "no switch",
		mutateNoSwitchNoGate:    "no gate",
		mutateAnyCounter:        "any counter opens",
		mutateNoAcknowledgement: "no acknowledgement",
		mutateNoGrace:           "no grace",
		mutateNoJump:            "the wall clock ignored",
		mutateEndBeforeClose:    "End before close",
		mutateApplyUnflushed:    "applied before the flush",
		mutateCommitUnflushed:   "committed before the flush",
		mutateFollowUnflushed:   "acknowledged before the flush",
		mutateLeaveWait:         "Leave within a promise",
		mutateEndWait:           "End within a promise",
		mutateOpenWait:          "Open within a promise",
		mutateStartWait:         "start within a promise",
		mutateNoNote:            "a promise that is not on disk",
	}[m]
}

// omits gives the rules that are left out by the node itself.
func omits(mutate mutation) session.Omissions {
	return session.Omissions{
		Leave: mutate == mutateLeaveWait, End: mutate == mutateEndWait, Open: mutate == mutateOpenWait,
		Start: mutate == mutateStartWait, Note: mutate == mutateNoNote,
		Acknowledgement: mutate == mutateNoAcknowledgement, Sending: mutate == mutateReceiveTime,
		CloseTime: mutate == mutateNoCloseTime, Grace: mutate == mutateNoGrace,
	}
}

// mutated is an entry as a state machine without some rule would take it.
func mutated(mutate mutation, of *state.State, e state.Entry) state.Entry {
	switch mutate {
	case mutateAnyCounter:
		return statetest.AnyCounter(of, e)
	case mutateNoCompare:
		return statetest.NoCompare(of, e)
	case mutateNoDedup:
		return statetest.NoDedup(of, e)
	}
	return e
}
