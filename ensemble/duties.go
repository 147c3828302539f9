package ensemble

import (
	"sync/atomic"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// duties are what the raft leader does for the cluster beside what clients ask for.
type duties struct {
	node   *Node
	onDuty atomic.Bool // some are being proposed

	// Guarded by the node's mutex.
	asked    session.Reading // when Found or Activate was proposed last
	askedYet bool
	warned   bool            // that elections are not active
	kept     session.Reading // when the configuration was looked after last
}

// due gives what the raft leader has to propose: to found and activate the cluster,
// and to expire silent nodes. The node's mutex is held.
func (d *duties) due(now session.Reading) []state.Op {
	if d.node.Err() != nil {
		return nil
	}
	ops := d.node.roster.Expiries(now)
	if !d.node.roster.Leading() || d.askedYet && now.AtLeast(d.asked) < session.AskAgain {
		return ops
	}
	quiet := len(ops)
	if !d.node.seen.founded.Load() {
		id := d.node.dir.id()
		ops = append(ops, state.Found{Cluster: id.Cluster, TokenBase: id.TokenBase})
	}
	if !d.node.seen.active.Load() {
		if size := d.node.cluster.size(); size >= d.node.cfg.MinimumNodes {
			ops = append(ops, state.Activate{})
		} else if !d.warned {
			d.warned = true
			d.node.log.Warn("elections are not active yet: JOINs are refused until the cluster has leader_latch.minimum_nodes", "nodes", size, "minimum", d.node.cfg.MinimumNodes)
		}
	}
	if len(ops) > quiet {
		d.asked, d.askedYet = now, true
	}
	return ops
}

// tell tells whose sessions are to be expired. No lock is held.
func (d *duties) tell(ops []state.Op) {
	for _, op := range ops {
		e, ok := op.(state.Expire)
		if !ok {
			continue
		}
		var ses state.SessionRecord // empty: it has ended meanwhile
		d.node.replica.Read(func(s *state.State) { ses, _ = s.Session(e.Incarnation) })
		switch {
		case ses.Orphaned:
			d.node.log.Info("keyed members have not come back in time", "node", ses.Name, "count", ses.Members)
		case ses.Name != "":
			d.node.log.Warn("a node has been silent for too long: expiring its session", "node", ses.Name)
		}
	}
}

// upkeepDue reports whether the raft leader should look at the configuration.
// The node's mutex is held.
func (d *duties) upkeepDue(now session.Reading) bool {
	if !d.node.roster.Leading() || d.node.Err() != nil || now.AtLeast(d.kept) < upkeepEvery {
		return false
	}
	d.kept = now
	return true
}

// carryOut proposes them, unless others are being proposed. It does not wait.
func (d *duties) carryOut(ops []state.Op) {
	if len(ops) == 0 || !d.onDuty.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer d.onDuty.Store(false)
		d.node.replica.Propose(ops...) // its effect is what counts
	}()
}
