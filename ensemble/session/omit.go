package session

// Omissions are rules of DESIGN.md. One that is true is left out, which shows in tests that
// it is needed.
type Omissions struct {
	Leave bool // rule 10: before a Leave, of a connection that has ended
	End   bool // rule 10: before the End, of a node that stops
	Open  bool // rule 10: before the Open that ends a session which was lost
	Start bool // rule 10: before the first Open of a process
	Note  bool // rule 10: for the note on disk, before the first promise of a session

	Hold       bool // of keyed members (HOLDS.md), rule 12: a member stays for hold when its connection has ended
	NodeEnd    bool // rule 12: for max(hold, S) when the node has ended it
	Stale      bool // rule 14: a member without a hold that has moved stays until its connection before is closed
	Acceptance bool // rule 12: the time counts from the acceptance of the Join, if that is later
	Since      bool // rule 10: a promise is shorter by the time since the last renewal was sent
	Stepping   bool // rule 16: nothing is promised to a leader that steps down
	Silence    bool // rule 7: a session with longer holds has to be silent for longer

	Acknowledgement bool // rule 3: the lease counts from now, whether renewals are accepted or not
	Sending         bool // rule 3: the lease counts from the acceptance of a renewal, not from its sending
	CloseTime       bool // rule 7: S is as long as L
	Grace           bool // a new raft leader takes others for silent that it could not have heard
}

// omitted are the rules that are left out: none, but in tests of faults.
var omitted Omissions
