// Package mutation names the rules that tests take away. The simulation of sessions and the runs
// of the real stack in virtual time find each that concerns them.
package mutation

// Mutation takes a rule of the protocol away, to show that a simulation, or a run in virtual
// time, finds its absence.
type Mutation int

// The rules that can be missing.
const (
	Nothing           Mutation = iota
	NoCompare                  // an Expire takes whatever renewal is the last
	ReceiveTime                // the lease counts from the acceptance of a renewal
	LeaveBeforeClose           // the Leave is proposed while the connection is open
	OpenBeforeClose            // the Open is proposed while connections are open
	NoDedup                    // operations are accepted whatever their number
	NoCloseTime                // C = 0: S is as long as L
	NoSwitch                   // a process that was paused goes on when its lease is over
	NoSwitchNoGate             // both: only what is written counts then
	NoSwitchGate               // the switch alone: nothing stale may be written
	AnyCounter                 // an Open is accepted whatever its counter
	NoAcknowledgement          // a node speaks whether its renewals are accepted or not
	NoGrace                    // a new raft leader counts silence from before it could hear
	NoJump                     // a jump of the wall clock shuts nothing
	EndBeforeClose             // a node that stops ends its session while connections are open
	ApplyUnflushed             // a raft leader applies what is not on its disk
	CommitUnflushed            // a raft leader says that what is not on its disk is committed
	FollowUnflushed            // a follower says that it has what is not on its disk
	LeaveWait                  // the Leave does not wait for a promise
	EndWait                    // nor does the End of a node that stops
	OpenWait                   // nor the Open after a session that was lost
	StartWait                  // nor the first Open of a process
	NoNote                     // the first promise of a session is not on disk when it is made
	NoHold                     // a keyed member goes with its connection
	NoNodeEnd                  // it stays for its hold alone when the node has ended the connection
	NoAcceptance               // its hold counts from the end of the connection, accepted or not
	NoStale                    // a member without a hold that has moved may go before its old connection is closed
	NoSince                    // a promise to it is as if a renewal had just been sent
	NoStepping                 // a leader that steps down is promised something
	NoSilence                  // a session is expired after its S, whatever the holds of its members
)

// String says what is taken away.
func (m Mutation) String() string {
	return map[Mutation]string{
		Nothing:           "nothing",
		NoCompare:         "no compare",
		ReceiveTime:       "time of receipt",
		LeaveBeforeClose:  "Leave before close",
		OpenBeforeClose:   "Open before close",
		NoDedup:           "no dedup",
		NoCloseTime:       "C = 0",
		NoSwitch:          "no switch",
		NoSwitchNoGate:    "no gate",
		NoSwitchGate:      "the switch alone",
		AnyCounter:        "any counter opens",
		NoAcknowledgement: "no acknowledgement",
		NoGrace:           "no grace",
		NoJump:            "the wall clock ignored",
		EndBeforeClose:    "End before close",
		ApplyUnflushed:    "applied before the flush",
		CommitUnflushed:   "committed before the flush",
		FollowUnflushed:   "acknowledged before the flush",
		LeaveWait:         "Leave within a promise",
		EndWait:           "End within a promise",
		OpenWait:          "Open within a promise",
		StartWait:         "start within a promise",
		NoNote:            "a promise that is not on disk",
		NoHold:            "no hold",
		NoNodeEnd:         "no longer hold when the node ends it",
		NoAcceptance:      "hold before the acceptance",
		NoStale:           "an old Join",
		NoSince:           "promises from the acceptance",
		NoStepping:        "promised while stepping down",
		NoSilence:         "expired within a hold",
	}[m]
}
