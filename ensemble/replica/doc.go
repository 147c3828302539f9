// Package replica is a node's copy of the state and of the log that makes it, and the node's
// part in Raft. Beside the packages of its log store and of the cluster port it alone knows
// hashicorp/raft; it knows no node, no session and no folder but that of its snapshots.
//
// What a [Replica] promises: its [Observer] is told of every entry that is committed and on
// this node's disk, in their order, or of a state that was in a snapshot in their place. What
// it does not: that a proposal is committed, or that its proposer hears what became of it.
// Raft is used as it is. What has to be otherwise is put right around it; ../DESIGN.md has the
// table of these repairs.
//
//	replica.go    what begins and ends it, who leads, proposals and changes of the members
//	servers.go    who the members are, by Raft's configuration
//	fsm.go        the state as Raft drives it
//	forward.go    proposals of a node that is not the raft leader
//	hint.go       followers hear of a commit at once
//	silence.go    a raft leader that is silent, or has ended, is missed in time
//	transport.go  Raft's transport
//	store.go      the log store as Raft sees it
//	snapshots.go  Raft's snapshots on disk
//	logsize.go    when a snapshot is due
//	logger.go     what Raft logs
//	recover.go    the only member of a new cluster, out of what is on disk
//	inside.go     for tests
//
// # Where to start
//
// [Open] looks at what is on disk, Replica.Start starts Raft on it, and Replica.Run lets it
// act. A proposal goes from Replica.Submit to Raft's log, here or at the raft leader
// (forward.go), and comes back, committed, to fsm.Apply and the observer.
//
// # Goroutines
//
// Replica.Stop ends one that follows Raft's leadership, one that finds a raft leader missing,
// one that keeps the log small, one that hands Raft what other nodes send, and one for each
// other member that is sent hints. A connection for proposals has two, which end with it.
// Short-lived ones wait for Raft's answers; one that gets none when Raft shuts down ends with
// the process. Raft calls the fsm from a goroutine of its own.
//
// # Locks
//
// The fsm's is held while an observer is told of an entry, and is taken before all that the
// observer takes. The forwarder's comes before its link's. The transport's, and the one for
// Raft's settings, are taken alone.
package replica
