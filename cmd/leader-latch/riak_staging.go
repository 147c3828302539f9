package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"leaderlatch/cmd/leader-latch/status"
	"leaderlatch/ensemble"
	"leaderlatch/riakconf"
)

// The changes of the membership that riak-admin cluster stages are kept by the
// process of the raft leader, Riak's claimant, until they are committed or
// cleared, or another node leads: so join may be typed on every new node, and
// plan and commit on any one. Commands are passed to it as orders. A node that is
// to join passes its own to the cluster that it will join. Riak shows a plan
// before it lets anybody commit it; so does this. The texts are Riak's.

// clusterOperator is what staged changes need of the node.
type clusterOperator interface {
	// Here is this node.
	Here() ensemble.Place
	// Ring is the cluster as it is now.
	Ring() status.Ring
	// Joinable reports an error unless this node could join the cluster of
	// another. It wraps [ensemble.ErrUnreachable] if that node does not answer.
	Joinable(ctx context.Context, other string) error
	// Pass has the claimant answer an order: this cluster's, or, with via, that
	// of the cluster of that node.
	Pass(ctx context.Context, via string, o order) (stagingAnswer, error)
	// Enter has this node join the cluster of another, and returns when that is
	// certain to happen.
	Enter(ctx context.Context, via ensemble.Place) error
	// Apply carries a change out and returns when it is committed. With via,
	// the change is that this node joins the cluster of that one.
	Apply(ctx context.Context, c status.Change, via string) error
}

// order is what nodes pass on.
type order struct {
	// What is stage, plan, commit or clear, for the claimant, or enter, for a
	// node whose staged join is committed elsewhere.
	What   string         `json:"what"`
	Change status.Change  `json:"change"` // stage
	Via    ensemble.Place `json:"via"`    // enter: the node through which it joins
}

// staging answers riak-admin cluster, and the orders that come of it.
type staging struct {
	node    string // this one's name
	cluster clusterOperator

	mu      sync.Mutex
	joining string          // the node to whose cluster a join of this one is staged
	changes []status.Change // kept here: of the cluster whose raft leader this is
	planned string          // what the last plan showed
	term    uint64          // in which that was
}

// stagingAnswer is what the command prints and exits with.
type stagingAnswer struct {
	Text    string          `json:"text"`
	Code    int             `json:"code"`
	Reason  string          `json:"reason"`            // for stderr, where Riak's text has none
	Changes []status.Change `json:"changes,omitempty"` // to be made now, by who asked
}

func say(code int, format string, args ...any) stagingAnswer {
	return stagingAnswer{Text: fmt.Sprintf(format, args...) + "\n", Code: code}
}

// ServeHTTP answers POST /staging/{what}?node=N.
func (s *staging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node := r.FormValue("node")
	if node == "" {
		node = s.node
	}
	var a stagingAnswer
	switch what := r.PathValue("what"); what {
	case "join":
		a = s.join(r.Context(), node)
	case "leave", "force-remove":
		a = s.pass(r.Context(), order{What: "stage", Change: status.Change{Action: what, Node: node}})
	case "plan":
		a = s.pass(r.Context(), order{What: what})
	case "commit":
		a = s.commit(r.Context())
	case "clear":
		a = s.pass(r.Context(), order{What: what})
		s.setJoins("")
	default:
		http.NotFound(w, r)
		return
	}
	writeJSON(w, a)
}

// order answers what another node, or this one, has passed on.
func (s *staging) order(ctx context.Context, term uint64, with json.RawMessage) (any, error) {
	var o order
	if err := json.Unmarshal(with, &o); err != nil {
		return nil, err
	}
	return s.answer(ctx, term, o)
}

func (s *staging) answer(ctx context.Context, term uint64, o order) (stagingAnswer, error) {
	if o.What == "enter" {
		return s.enter(ctx, o.Via)
	}
	ring := s.cluster.Ring()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != term { // there may have been another claimant since
		s.clear()
		s.term = term
	}
	switch o.What {
	case "stage":
		return s.stage(ring, o.Change), nil
	case "plan":
		return s.plan(ring), nil
	case "commit":
		return s.release(ring), nil
	case "clear":
		s.clear()
		return say(exitOK, "Cleared staged cluster changes"), nil
	}
	return stagingAnswer{}, fmt.Errorf("%s does not know the order %q; it is of another version", s.node, o.What)
}

// joins is the node to whose cluster a join of this one is staged, "" if none is.
func (s *staging) joins() string {
	if len(s.cluster.Ring().Members) > 1 {
		s.setJoins("") // it has joined, by whatever command
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joining
}

func (s *staging) setJoins(via string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining = via
}

func (s *staging) pass(ctx context.Context, o order) stagingAnswer {
	a, err := s.cluster.Pass(ctx, s.joins(), o)
	if err == nil {
		return a
	}
	switch o.What {
	case "plan", "commit":
		a = say(exitOK, "Cannot %s %s", o.What, notConverged)
	default:
		a = say(exitFailed, "Failed: the raft leader keeps the staged changes, and does not answer")
	}
	a.Reason = err.Error()
	return a
}

func (s *staging) join(ctx context.Context, other string) stagingAnswer {
	switch {
	case other == s.node:
		return say(exitFailed, "Failed: This node cannot join itself in a cluster")
	case len(s.cluster.Ring().Members) > 1:
		return say(exitFailed, "Failed: This node is already a member of a cluster")
	}
	var a stagingAnswer
	err := s.cluster.Joinable(ctx, other)
	if err == nil {
		a, err = s.cluster.Pass(ctx, other, order{What: "stage", Change: status.Change{Action: "join", Node: s.node, Address: s.cluster.Here().Address}})
	}
	switch {
	case errors.Is(err, ensemble.ErrUnreachable):
		return say(exitFailed, "Node %s is not reachable!", other)
	case err != nil:
		return say(exitFailed, "Failed: %v", err)
	case a.Code != exitOK:
		return a
	}
	s.setJoins(other)
	return say(exitOK, "Success: staged join request for %s to %s", status.Atom(s.node), status.Atom(other))
}

// stage keeps a change, in place of what was staged for that node.
func (s *staging) stage(ring status.Ring, c status.Change) stagingAnswer {
	name, m := status.Atom(c.Node), ring.Member(c.Node)
	switch {
	case c.Action == "join":
	case m == nil:
		return say(exitFailed, "Failed: %s is not a member of the cluster.", name)
	case len(ring.Members) == 1:
		return say(exitFailed, "Failed: %s is the only member.", name)
	case c.Action == "leave" && m.Status == "leaving":
		return say(exitOK, "%s is already in the process of leaving the cluster.", name)
	}
	s.changes = slices.DeleteFunc(s.changes, func(old status.Change) bool { return old.Node == c.Node })
	s.changes = append(s.changes, c)
	return say(exitOK, "Success: staged %s request for %s", strings.TrimPrefix(c.Action, "force-"), name)
}

func (s *staging) clear() { s.changes, s.planned = nil, "" }

const notConverged = `until cluster state has converged.
Check 'Ring Ready' in 'riak-admin ring_status'`

func (s *staging) plan(ring status.Ring) stagingAnswer {
	switch {
	case len(s.changes) == 0:
		return say(exitOK, "There are no staged changes")
	case !ready(ring):
		return say(exitOK, "Cannot plan %s", notConverged)
	}
	s.planned = s.planText(ring)
	return stagingAnswer{Text: s.planned, Code: exitOK}
}

// ready reports whether the cluster is fit for a plan.
func ready(ring status.Ring) bool { return ring.Ready != nil && *ring.Ready }

func (s *staging) planText(ring status.Ring) string {
	var b strings.Builder
	p := status.Plan{Changes: s.changes, After: []status.Ring{after(ring, s.changes)}}
	p.Print(&b) // a Builder does not fail
	return b.String()
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

// release gives the changes that were planned, once, to who commits them.
func (s *staging) release(ring status.Ring) stagingAnswer {
	switch {
	case s.planned == "":
		return say(exitOK, "You must verify the plan with 'riak-admin cluster plan' before committing")
	case !ready(ring):
		return say(exitOK, "Cannot commit %s", notConverged)
	case s.planText(ring) != s.planned:
		return say(exitOK, "The plan has changed. Verify with 'riak-admin cluster plan' before committing")
	}
	a := say(exitOK, "Cluster changes committed")
	a.Changes = s.changes
	s.clear()
	return a
}

// commit makes the changes from here, one after the other: that this node joins
// first, as the others take a member, and that it leaves last. What could not be
// made is staged again.
func (s *staging) commit(ctx context.Context) stagingAnswer {
	a := s.pass(ctx, order{What: "commit"})
	via := s.joins()
	own := func(c status.Change) int {
		switch {
		case c.Node != s.node:
			return 0
		case c.Action == "join":
			return -1
		}
		return 1
	}
	slices.SortStableFunc(a.Changes, func(b, c status.Change) int { return own(b) - own(c) })
	for i, c := range a.Changes {
		through := ""
		if own(c) < 0 {
			through = via
		}
		err := s.cluster.Apply(ctx, c, through)
		if err == nil {
			continue
		}
		for _, c := range a.Changes[i:] {
			s.cluster.Pass(context.WithoutCancel(ctx), s.joins(), order{What: "stage", Change: c})
		}
		a = say(exitOK, "Unable to commit cluster changes. Plan may have changed, please verify the\nplan and try to commit again")
		a.Reason = fmt.Sprintf("%s %s: %v", c.Action, c.Node, err)
		return a
	}
	return a
}

// enter has this node join a cluster, if that was asked for here.
func (s *staging) enter(ctx context.Context, via ensemble.Place) (stagingAnswer, error) {
	if s.joins() == "" {
		return stagingAnswer{}, fmt.Errorf("no join is staged on %s any more; type riak-admin cluster join there again", s.node)
	}
	if err := s.cluster.Enter(ctx, via); err != nil {
		return stagingAnswer{}, err
	}
	s.setJoins("")
	return stagingAnswer{}, nil
}

// realCluster is the cluster of the node that runs.
type realCluster struct{ *adminServer }

// Here implements clusterOperator.
func (c realCluster) Here() ensemble.Place { return c.node.current().Here() }

// Ring implements clusterOperator.
func (c realCluster) Ring() status.Ring {
	now := c.node.current().Cluster(context.Background()) // the questions have limits of their own
	return ringOf(now, riakReport(now).RingReady)
}

// Joinable implements clusterOperator.
func (c realCluster) Joinable(ctx context.Context, other string) error {
	via, err := c.place(other)
	if err != nil {
		return err
	}
	_, err = c.node.current().Joinable(ctx, via)
	return err
}

// passTime bounds the wait for the claimant: as long as an election may take.
const passTime = 5 * time.Second

// Pass implements clusterOperator.
func (c realCluster) Pass(ctx context.Context, via string, o order) (a stagingAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	if via == "" {
		return a, c.node.current().Order(ctx, o, &a)
	}
	place, err := c.place(via)
	if err != nil {
		return a, err
	}
	return a, c.node.current().OrderAt(ctx, place, o, &a)
}

// Enter implements clusterOperator.
func (c realCluster) Enter(ctx context.Context, via ensemble.Place) error {
	return c.node.current().JoinCluster(ctx, via)
}

// Apply implements clusterOperator.
func (c realCluster) Apply(ctx context.Context, change status.Change, via string) error {
	switch {
	case change.Action == "leave":
		return c.leave(ctx, change.Node)
	case change.Action == "force-remove":
		return c.node.current().ForceRemove(ctx, change.Node)
	case via == "":
		return c.letIn(ctx, change)
	}
	place, err := c.place(via)
	if err != nil {
		return err
	}
	return c.join(ctx, place)
}

// letInTime bounds the wait for a node to begin anew and be added.
const letInTime = 30 * time.Second

// letIn has another node join this one's cluster, and returns when it is a member.
func (c realCluster) letIn(ctx context.Context, change status.Change) error {
	ctx, cancel := context.WithTimeout(ctx, letInTime)
	defer cancel()
	err := c.node.current().OrderAt(ctx, ensemble.Place{Name: change.Node, Address: change.Address}, order{What: "enter", Via: c.Here()}, nil)
	if err != nil && !errors.Is(err, ensemble.ErrUnreachable) {
		return err
	}
	// Its answer may be lost, as it begins a new life.
	for {
		for _, m := range c.node.current().Cluster(ctx).Members {
			if m.Name == change.Node && m.Session {
				return nil
			}
		}
		select {
		case <-time.After(retryAsking):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
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
// a ring that there is not, and the raft leader is the claimant. As with Riak it is
// the claimant who knows whether the ring is ready: without one nobody does, and any
// other node that is down changes nothing, as if an operator had marked it as down.
func ringOf(c ensemble.Cluster, ready bool) status.Ring {
	var ring status.Ring
	for _, m := range c.Members {
		ring.Members = append(ring.Members, status.Member{Name: m.Name, Status: "valid", Up: m.Up, Share: 1000 / len(c.Members)})
		if m.RaftLeader {
			ring.Claimant, ring.Ready = m.Name, &ready
		}
	}
	return ring
}
