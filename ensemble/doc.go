// Package ensemble keeps the groups of an election service by majority: who
// is a member, in which order, and through which node. A [Node] turns the
// JOINs of the clients that are connected to it into entries of a Raft log,
// and what the log commits into calls of its [session.Member]s.
//
// The package promises two things. At any instant at most one member of a group
// is told that it leads by a node that may say so. The tokens of a group rise
// with every change. The package does not promise an answer without a majority:
// a JOIN then stays pending until its caller gives up. DESIGN.md tells why the
// package is built so.
//
// # Words
//
//	leader       the member of a group that clients elected: its first one
//	raft leader  the node that appends to the log; no client ever hears of it
//	member       of a group: a client; of the cluster: a node, also called a server
//	voter        a node that counts towards the majority; others follow
//	session      a node's presence in the cluster: the node's members live in it
//	incarnation  one life of a session, from an Open to the loss of its lease
//	lease        the time for which a node may speak for its members
//	renewal      an entry by which a node shows that it lives
//	expiry       the end of a silent node's session, proposed by the raft leader
//	gate         the question before every line to a client: [session.Membership.Live]
//	token        a number for resources to tell a former leader by
//	level        a number for the versions of all formats that nodes write
//
// # Where to start
//
// Package state is the replicated state machine, plain data and its bytes. Package session
// is the protocol that makes it safe to act on the state, pure code over clock readings.
// Package replica is this node's part in Raft: its role, the other members, and how an entry
// gets into the log and out of it.
//
// The node, which drives all of it:
//
//	node.go       what callers use
//	loop.go       what the node does by the clocks
//	start.go      how a node begins
//	observer.go   how the node hears of what is committed
//	proposer.go   how the operations of the session are committed
//	observers.go  how clients that are no members are told who leads
//	duties.go     what the raft leader has to do for the cluster
//	disk.go       the checks of the disk that end a node in time
//	deadman.go    the timer that ends a paused process in time
//	errors.go     the kinds of failure
//
// The data folder, but for the files of Raft:
//
//	datadir.go    the files, and the lock on them
//	counter.go    what the folder says of sessions and promises
//	cookiekey.go  the keys of cookies that the folder keeps
//
// The members of the cluster:
//
//	cluster.go    who they are, as this node knows it
//	entering.go   how a node gets into a cluster
//	changes.go    how the members change
//	lift.go       how tokens rise when a node joins
//	level.go      how the level rises
//	rekey.go      how the cookie changes
//	ended.go      how a raft leader whose process has ended is replaced
//	recover.go    a cluster of one node that has lost the others
//	stepdown.go   how a leader steps down as an operator wants it
//	ask.go        how nodes talk about all that
//	orders.go     questions of the program that the raft leader's process answers
//	views.go      what the nodes know of the cluster, for operators
//	report.go     what this node tells operators of groups, members and leaders
//	elections.go  what the log tells of elections
//
// # Goroutines
//
// [Node.Stop] ends the goroutines that run as long as the Node:
//
//   - the loop, which looks at the clocks
//   - the proposer, and the dispatcher, which calls members
//   - one that calls observers
//   - those of the replica
//   - one that asks other nodes who leads, and one that accepts on the cluster port
//   - three that look after the folder: its free space, its files, whether it is still there
//   - until the node is in a cluster, one that gets it there
//
// The goroutines of the cluster port's connections end with the connections. Those of the log
// store end when it is closed. One that looks whether the raft leader's process has ended ends
// by itself, and with the node's life at the latest.
//
// # Locks
//
// Locks are taken in this order:
//
//  1. changing
//  2. handOvers
//  3. the replica's fsm's
//  4. the node's
//  5. the dispatcher's, or the dead-man's switch's
//
// Of the other locks, anew is taken before the folder's, and looking is only ever tried.
// Members are called with no lock held.
package ensemble
