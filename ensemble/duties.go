package ensemble

import (
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// duties are what the raft leader proposes: to found and activate the cluster,
// and to expire silent nodes. The node's mutex is held.
func (n *Node) duties(now session.Reading) []state.Op {
	if n.Err() != nil {
		return nil
	}
	ops := n.roster.Expiries(now)
	if !n.roster.Leading() || n.askedYet && now.AtLeast(n.asked) < session.AskAgain {
		return ops
	}
	quiet := len(ops)
	if !n.seen.founded.Load() {
		id := n.dir.id()
		ops = append(ops, state.Found{Cluster: id.Cluster, TokenBase: id.TokenBase})
	}
	if !n.seen.active.Load() {
		if size := n.cluster.size(); size >= n.cfg.MinimumNodes {
			ops = append(ops, state.Activate{})
		} else if !n.warned {
			n.warned = true
			n.log.Warn("elections are not active yet: JOINs are refused until the cluster has leader_latch.minimum_nodes", "nodes", size, "minimum", n.cfg.MinimumNodes)
		}
	}
	if len(ops) > quiet {
		n.asked, n.askedYet = now, true
	}
	return ops
}

// tellExpired tells whose sessions are to be expired. No lock is held.
func (n *Node) tellExpired(duties []state.Op) {
	for _, op := range duties {
		e, ok := op.(state.Expire)
		if !ok {
			continue
		}
		var name string // empty: it has ended meanwhile
		n.replica.read(func(s *state.State) {
			ses, _ := s.Session(e.Incarnation)
			name = ses.Name
		})
		if name != "" {
			n.log.Warn("a node has been silent for too long: expiring its session", "node", name)
		}
	}
}

// upkeepDue reports whether the raft leader should look at the configuration.
// The node's mutex is held.
func (n *Node) upkeepDue(now session.Reading) bool {
	if !n.roster.Leading() || n.Err() != nil || now.AtLeast(n.kept) < upkeepEvery {
		return false
	}
	n.kept = now
	return true
}
