// Package replica is a node's copy of the state and of the log that makes it, and the node's
// part in Raft. Three packages know hashicorp/raft: this one, that of the log store and that
// of the cluster port. This one knows no node, no session and no folder but that of its
// snapshots.
//
// A [Replica] promises this to its [Observer]: the observer is told of every entry that is
// committed and on this node's disk, in the order of the log. Instead of entries it may be
// told of a state that was in a snapshot. A replica does not promise that a proposal is
// committed, nor that its proposer hears what became of it.
//
// Raft is used as it is. Where it has to act otherwise, code around it provides that.
// ../DESIGN.md has the table of these repairs.
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
//	recover.go    a new cluster of one member is made out of what is on disk
//	inside.go     what tests see of a replica
//
// # Where to start
//
// [Open] looks at what is on disk, Replica.Start starts Raft on it, and Replica.Run lets it
// act. A proposal goes from Replica.Submit to Raft's log, on this node or at the raft leader
// (forward.go). When it is committed, it comes back to fsm.Apply and the observer.
//
// # Goroutines
//
// Replica.Stop ends these:
//
//   - one that follows Raft's leadership
//   - one that notices a silent raft leader
//   - one that keeps the log small
//   - one that hands Raft what other nodes send
//   - one for each other member that is sent hints
//
// A connection for proposals has two, which end with the connection. Short-lived ones wait for
// Raft's answers. One that gets no answer when Raft shuts down ends with the process. Raft
// calls the fsm from a goroutine of its own.
//
// # Locks
//
// The fsm's lock is held while an observer is told of an entry. It is taken before all locks
// that the observer takes. The forwarder's lock is taken before its link's. The transport's
// lock, and the lock for Raft's settings, are taken alone.
package replica
