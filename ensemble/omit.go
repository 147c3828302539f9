package ensemble

// omissions are rules. One that is true is left out, which shows in tests that it is needed.
type omissions struct {
	leave bool // rule 10: before a Leave, of a connection that has ended
	end   bool // rule 10: before the End, of a node that stops
	open  bool // rule 10: before the Open that ends a session which was lost
	start bool // rule 10: before the first Open of a process
	note  bool // rule 10: for the note on disk, before the first promise of a session

	acknowledgement bool // rule 3: the lease counts from now, whether renewals are accepted or not
	sending         bool // rule 3: the lease counts from the acceptance of a renewal, not from its sending
	grace           bool // a new raft leader takes others for silent that it could not have heard
}

// omitted are the rules that nodes leave out: none, but in tests of faults.
var omitted omissions
