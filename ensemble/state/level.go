package state

// NewestLevel is the newest level that this program reads, and writes. It is what a node
// announces.
//
// A level is one number for the versions of all formats. The cluster has one, which is
// part of its state: nodes write what that level says, and read all levels up to the
// newest that they know. It begins at 1 and rises by [Raise], when every member has
// announced that it reads the next one; it never falls (DESIGN.md, Formats). What [State.Apply]
// makes of an operation is part of the format: where that changes, the level does.
//
// The level itself is the format of the data folder (node.json), and what nodes tell
// each other that they write ([clusterport.Formats]).
const NewestLevel = 3

// FirstLevel is that of a new cluster.
const FirstLevel = 1

// versions are those that a level stands for.
type versions struct {
	entry    byte // of log entries, and of the operations in them
	snapshot byte // of the state
	logstore int  // of raft.db and the segments of the log
}

// levels are the versions by level. What a program has written stays here for as long
// as the level may be met.
var levels = [...]versions{
	1: {entry: 1, snapshot: 1, logstore: 1},
	2: {entry: 2, snapshot: 2, logstore: 2}, // the operations Raise and Lift; the level in snapshots; a checksum in raft.db
	3: {entry: 3, snapshot: 3, logstore: 2}, // KeyedJoin and StepDown; reasons; orphaned sessions, keys and former leaders in snapshots
}

// KeyedLevel is the level from which on the state has keyed members, and keeps the changes
// of leaders with their reasons.
const KeyedLevel = 3

// LogstoreVersion is the version of raft.db and the segments of the log at a level.
func LogstoreVersion(level uint64) int { return levels[level].logstore }
