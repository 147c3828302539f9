package ensemble

// NewestLevel is the newest level that this program reads, and writes.
//
// A level is one number for the versions of all formats. The cluster has one, which is
// part of its state: nodes write what that level says, and read all levels up to the
// newest that they know. It begins at 1 and rises by [Raise], when every member has
// announced that it reads the next one; it never falls (DESIGN.md, Formats). What [State.Apply]
// makes of an operation is part of the format: where that changes, the level does.
//
// The level itself is the format of the data folder (node.json), and what nodes tell
// each other that they write ([clusterport.Formats]).
const NewestLevel = 2

// firstLevel is that of a new cluster.
const firstLevel = 1

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
}

// nextLevel is the level that a cluster should have: one more than it has, if each of
// the members says so, by the session that it has. Whoever has none may be about to be
// started as an older program, and holds it. holding are the members that do; none at the
// newest level.
func nextLevel(level uint64, servers []server, nodes map[NodeID]known) (next uint64, holding []server) {
	if level >= NewestLevel || len(servers) == 0 {
		return level, nil
	}
	for _, s := range servers {
		if nodes[s.id].reads <= level {
			holding = append(holding, s)
		}
	}
	if holding != nil {
		return level, holding
	}
	return level + 1, nil
}

// reads is what this node announces with its session: the newest level that it reads,
// and lets the cluster rise to.
func (c *Config) reads() uint64 {
	if c.FormatLevel == 0 {
		return NewestLevel
	}
	return min(NewestLevel, c.FormatLevel)
}

// raised takes note that the state has a level which it had not when the node was
// started. The folder says so from then on, so that an older program refuses it as a
// whole. Until it does, and should the node crash before, such a program stops at the first
// entry or snapshot that it cannot read.
//
// The log store follows, and not before: an older program would take a raft.db that it
// cannot read for a damaged one. Should the node crash in between, the next start has
// the store written as the folder says.
func (n *Node) raised(level uint64) {
	if n.cfg.reads() < level {
		n.log.Warn("leader_latch.format_level has no effect: the cluster writes a higher level already, and that never falls", "format_level", n.cfg.FormatLevel, "level", level)
	}
	if n.dir.id().Format >= int(level) {
		return
	}
	if n.change(func(id *identity) {
		if id.Node == n.self { // else the folder is a new node's already
			id.Format = max(id.Format, int(level))
		}
	}) != nil || n.dir.id().Node != n.self || n.dir.id().Format < int(level) {
		return
	}
	n.log.Info("the formats of what nodes write have a new level: older versions of this program cannot go on from here", "level", level)
	n.store.Raise(levels[level].logstore) // should it fail, so does the node
}
