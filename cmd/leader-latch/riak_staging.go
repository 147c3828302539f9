package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/status"
	"leaderlatch/riakconf"
)

// clusterOperator is what staged changes need of the node.
type clusterOperator interface {
	// Ring is the cluster as it is now.
	Ring() status.Ring
	// Joinable gives the cluster of another node, if this node could join it.
	// The error wraps errUnreachable if that node does not answer.
	Joinable(ctx context.Context, node string) (status.Ring, error)
	// Apply carries a change out and returns when it is committed.
	Apply(ctx context.Context, c status.Change) error
}

// errUnreachable is that another node does not answer.
var errUnreachable = errors.New("not reachable")

// staging keeps the changes of the membership that riak-admin cluster has
// staged on this node, until they are committed, cleared, or the node ends.
// Riak shows a plan before it lets anybody commit it; so does this. The texts
// are Riak's.
type staging struct {
	node    string
	cluster clusterOperator

	mu      sync.Mutex // held by one command at a time
	changes []status.Change
	joining status.Ring // the cluster that a staged join leads to
	planned string      // what the last plan showed
}

// stagingAnswer is what the command prints and exits with.
type stagingAnswer struct {
	Text   string `json:"text"`
	Code   int    `json:"code"`
	Reason string `json:"reason"` // for stderr, where Riak's text has none
}

func say(code int, format string, args ...any) stagingAnswer {
	return stagingAnswer{Text: fmt.Sprintf(format, args...) + "\n", Code: code}
}

// ServeHTTP answers POST /staging/{what}?node=N.
func (s *staging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := r.FormValue("node")
	var a stagingAnswer
	switch r.PathValue("what") {
	case "join":
		a = s.join(r.Context(), node)
	case "leave":
		a = s.leave(node)
	case "force-remove":
		a = s.remove(node)
	case "plan":
		a = s.plan()
	case "commit":
		a = s.commit(r.Context())
	case "clear":
		s.clear()
		a = say(exitOK, "Cleared staged cluster changes")
	default:
		http.NotFound(w, r)
		return
	}
	writeJSON(w, a)
}

func (s *staging) join(ctx context.Context, other string) stagingAnswer {
	ring := s.cluster.Ring()
	switch {
	case other == s.node:
		return say(exitFailed, "Failed: This node cannot join itself in a cluster")
	case len(ring.Members) > 1:
		return say(exitFailed, "Failed: This node is already a member of a cluster")
	}
	joining, err := s.cluster.Joinable(ctx, other)
	switch {
	case errors.Is(err, errUnreachable):
		return say(exitFailed, "Node %s is not reachable!", other)
	case err != nil:
		return say(exitFailed, "Failed: %v", err)
	}
	s.joining = joining
	s.add(status.Change{Action: "join", Node: s.node, To: other})
	return say(exitOK, "Success: staged join request for %s to %s", status.Atom(s.node), status.Atom(other))
}

func (s *staging) leave(node string) stagingAnswer {
	if node == "" {
		node = s.node
	}
	ring := s.cluster.Ring()
	switch m := ring.Member(node); {
	case m == nil:
		return say(exitFailed, "Failed: %s is not a member of the cluster.", status.Atom(node))
	case len(ring.Members) == 1:
		return say(exitFailed, "Failed: %s is the only member.", status.Atom(node))
	case m.Status == "leaving":
		return say(exitOK, "%s is already in the process of leaving the cluster.", status.Atom(node))
	}
	s.add(status.Change{Action: "leave", Node: node})
	return say(exitOK, "Success: staged leave request for %s", status.Atom(node))
}

func (s *staging) remove(node string) stagingAnswer {
	ring := s.cluster.Ring()
	switch {
	case ring.Member(node) == nil:
		return say(exitFailed, "Failed: %s is not a member of the cluster.", status.Atom(node))
	case len(ring.Members) == 1:
		return say(exitFailed, "Failed: %s is the only member.", status.Atom(node))
	}
	s.add(status.Change{Action: "force-remove", Node: node})
	return say(exitOK, "Success: staged remove request for %s", status.Atom(node))
}

// add stages a change in place of what was staged for that node.
func (s *staging) add(c status.Change) {
	s.changes = slices.DeleteFunc(s.changes, func(old status.Change) bool { return old.Node == c.Node })
	s.changes = append(s.changes, c)
}

func (s *staging) clear() { s.changes, s.planned = nil, "" }

const notConverged = `until cluster state has converged.
Check 'Ring Ready' in 'riak-admin ring_status'`

func (s *staging) plan() stagingAnswer {
	if len(s.changes) == 0 {
		return say(exitOK, "There are no staged changes")
	}
	text, ready := s.planText()
	if !ready {
		return say(exitOK, "Cannot plan %s", notConverged)
	}
	s.planned = text
	return stagingAnswer{Text: text, Code: exitOK}
}

// planText is what plan prints, and whether the cluster is fit for a plan.
func (s *staging) planText() (text string, ready bool) {
	ring := s.cluster.Ring()
	if ring.Ready == nil || !*ring.Ready {
		return "", false
	}
	if slices.ContainsFunc(s.changes, func(c status.Change) bool { return c.Action == "join" }) {
		ring = s.joining
	}
	var b strings.Builder
	p := status.Plan{Changes: s.changes, After: []status.Ring{after(ring, s.changes)}}
	p.Print(&b) // a Builder does not fail
	return b.String(), true
}

// after is a cluster with the changes made: who leaves is gone; who joins has
// no share yet, and all have their new ones pending.
func after(ring status.Ring, changes []status.Change) status.Ring {
	members, joins := slices.Clone(ring.Members), false
	for _, c := range changes {
		members = slices.DeleteFunc(members, func(m status.Member) bool { return m.Name == c.Node })
		if c.Action == "join" {
			members, joins = append(members, status.Member{Name: c.Node, Status: "valid", Up: true}), true
		}
	}
	share := 1000 / max(1, len(members))
	for i := range members {
		members[i].Pending = nil
		if joins {
			members[i].Pending = &share
		} else {
			members[i].Share = share
		}
	}
	ring.Members = members
	return ring
}

func (s *staging) commit(ctx context.Context) stagingAnswer {
	if s.planned == "" {
		return say(exitOK, "You must verify the plan with 'riak-admin cluster plan' before committing")
	}
	text, ready := s.planText()
	switch {
	case !ready:
		return say(exitOK, "Cannot commit %s", notConverged)
	case text != s.planned:
		return say(exitOK, "The plan has changed. Verify with 'riak-admin cluster plan' before committing")
	}
	for len(s.changes) > 0 {
		if err := s.cluster.Apply(ctx, s.changes[0]); err != nil {
			s.planned = ""
			a := say(exitOK, "Unable to commit cluster changes. Plan may have changed, please verify the\nplan and try to commit again")
			a.Reason = fmt.Sprintf("%s %s: %v", s.changes[0].Action, s.changes[0].Node, err)
			return a
		}
		s.changes = s.changes[1:]
	}
	s.clear()
	return say(exitOK, "Cluster changes committed")
}

// realCluster is the cluster of the node that runs.
type realCluster struct{ *adminServer }

// Ring implements clusterOperator.
func (c realCluster) Ring() status.Ring {
	ctx := context.Background() // the questions have limits of their own
	return ringOf(c.node.now().Cluster(ctx), c.status(ctx).Report.RingReady)
}

// Joinable implements clusterOperator.
func (c realCluster) Joinable(ctx context.Context, node string) (status.Ring, error) {
	via, err := c.place(node)
	if err != nil {
		return status.Ring{}, err
	}
	names, err := c.node.now().Joinable(ctx, via)
	if errors.Is(err, ensemble.ErrUnreachable) {
		err = fmt.Errorf("%w: %w", errUnreachable, err)
	}
	ready := true
	ring := status.Ring{Ready: &ready}
	for _, name := range names {
		ring.Members = append(ring.Members, status.Member{Name: name, Status: "valid", Up: true, Share: 1000 / len(names)})
	}
	return ring, err
}

// Apply implements clusterOperator.
func (c realCluster) Apply(ctx context.Context, change status.Change) error {
	switch change.Action {
	case "join":
		via, err := c.place(change.To)
		if err != nil {
			return err
		}
		return c.join(ctx, via)
	case "leave":
		return c.node.now().Leave(ctx, change.Node)
	default:
		return c.node.now().ForceRemove(ctx, change.Node)
	}
}

// place is a node as an operator names it; without a port it has this one's.
func (c realCluster) place(node string) (ensemble.Place, error) {
	n, err := riakconf.ParseNode(node)
	if n.Port == 0 {
		n.Port = c.conf.ClusterListener.Port
	}
	return placeOf(n), err
}

// ringOf is a cluster as Riak would print it: every member has an equal share of
// a ring that there is not, and the raft leader is the claimant.
func ringOf(c ensemble.Cluster, ready bool) status.Ring {
	ring := status.Ring{Ready: &ready}
	for _, m := range c.Members {
		ring.Members = append(ring.Members, status.Member{Name: m.Name, Status: "valid", Up: m.Up, Share: 1000 / len(c.Members)})
		if m.RaftLeader {
			ring.Claimant = m.Name
		}
	}
	return ring
}
