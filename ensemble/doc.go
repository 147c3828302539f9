// Package ensemble keeps the groups of an election service by majority: who
// is a member, in which order, and through which node. A [Node] turns the
// JOINs of the clients that are connected to it into entries of a Raft log,
// and what the log commits into calls of its [session.Member]s.
//
// What it promises: at any instant at most one member of a group is told that
// it leads by a node that may say so, and tokens of a group rise with every
// change. What it does not: to answer without a majority; a JOIN then stays
// pending until its caller gives up. DESIGN.md tells why it is built so.
//
// # Words
//
//	leader       the member of a group that clients elected: its first one
//	raft leader  the node that appends to the log; no client ever hears of it
//	member       of a group: a client; of the cluster: a node, also called a server
//	voter        a node that counts towards the majority; others follow
//	session      a node's membership of the cluster: its members live in it
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
// Package replica is this node's part in Raft: what it is in there, which other nodes are, and
// how something gets into the log and out of it; observer.go has the node hear of that.
//
// cluster.go is this node's part in who the nodes are: entering.go is how it gets into a
// cluster, changes.go how that changes, lift.go how tokens rise with it, rekey.go how the
// cookie changes; ask.go is how nodes talk about that, views.go and report.go what they tell
// operators, elections.go what the log tells of elections, level.go how the formats of what
// they write rise. ended.go replaces a raft leader whose process has ended. recover.go makes a
// cluster of one node that has lost the others.
//
// node.go is the door, and drives all of it; start.go has it begin, proposer.go has committed
// what the session wants, duties.go what the raft leader owes the cluster. datadir.go is what
// lies on disk beside Raft's own, counter.go what it says of sessions, disk.go and deadman.go
// what ends a node in time; errors.go the kinds of failure.
//
// # Goroutines
//
// [Node.Stop] ends those that run as long as the Node:
//
//   - the loop, which looks at the clocks
//   - the proposer, and the dispatcher, which calls members
//   - those of the replica
//   - one that asks other nodes who leads, and one that accepts on the cluster port
//   - three that look after the folder: its free space, its files, whether it is still there
//   - until the node is in a cluster, one that sees to that
//
// Those of the cluster port's connections end with the connections, those of the log store
// when it is closed. One that looks whether the raft leader's process has ended ends by itself,
// and with the node's life at the latest.
//
// # Locks
//
// They are taken in the order changing, handOvers, the replica's fsm, node; last the
// dispatcher's or the dead-man switch's. Of the others, anew comes before the folder's, and
// looking is only ever tried. Members are called with no lock held.
package ensemble
