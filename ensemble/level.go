package ensemble

import (
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
)

// nextLevel is the level that a cluster should have: one more than it has, if each of
// the members says so, by the session that it has. Whoever has none may be about to be
// started as an older program, and holds it. holding are the members that do; none at the
// newest level.
func nextLevel(level uint64, servers []replica.Server, nodes map[state.NodeID]known) (next uint64, holding []replica.Server) {
	if level >= state.NewestLevel || len(servers) == 0 {
		return level, nil
	}
	for _, s := range servers {
		if nodes[s.ID].reads <= level {
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
		return state.NewestLevel
	}
	return min(state.NewestLevel, c.FormatLevel)
}

// raised takes note that the state has a level which it had not when the node was
// started. The folder says so from then on, so that an older program refuses it as a
// whole. Until it does, and should the node crash before, such a program stops at the first
// entry or snapshot that it cannot read.
//
// The log store follows, and not before: an older program would take a raft.db that it
// cannot read for a damaged one. Should the node crash in between, the next start has
// the store written as the folder says.
func (c *cluster) raised(level uint64) {
	if c.cfg.reads() < level {
		c.log.Warn("leader_latch.format_level has no effect: the cluster writes a higher level already, and that never falls", "format_level", c.cfg.FormatLevel, "cluster_level", level)
	}
	if c.dir.id().Format >= int(level) {
		return
	}
	if c.change(func(id *identity) {
		if id.Node == c.self { // else the folder is a new node's already
			id.Format = max(id.Format, int(level))
		}
	}) != nil || c.dir.id().Node != c.self || c.dir.id().Format < int(level) {
		return
	}
	c.log.Info("the formats of what nodes write have a new level: older versions of this program cannot go on from here", "cluster_level", level)
	c.replica.Raise(level) // should it fail, so does the node
}
