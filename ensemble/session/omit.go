package session

// Omissions are rules of DESIGN.md. One that is true is left out, which shows in tests that
// it is needed.
type Omissions struct {
	Leave bool // rule 10: before a Leave, of a connection that has ended
	End   bool // rule 10: before the End, of a node that stops
	Open  bool // rule 10: before the Open that ends a session which was lost
	Start bool // rule 10: before the first Open of a process
	Note  bool // rule 10: for the note on disk, before the first promise of a session

	Acknowledgement bool // rule 3: the lease counts from now, whether renewals are accepted or not
	Sending         bool // rule 3: the lease counts from the acceptance of a renewal, not from its sending
	CloseTime       bool // rule 7: S is as long as L
	Grace           bool // a new raft leader takes others for silent that it could not have heard
}

// omitted are the rules that are left out: none, but in tests of faults.
var omitted Omissions
