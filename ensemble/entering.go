package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// How a node gets into a cluster. One with an empty folder founds its own, or,
// with leader_latch.join, looks for the cluster of the nodes in that list. One
// that an operator has told to join begins anew and asks to be added.
//
//	no cluster --found--> a cluster of its own
//	           --accepted by a node of one--> waits to be added --added--> a member
//
// Each arrow is on disk (node.json) before anything that depends on it is done,
// so that a start goes on where the one before stopped. No node ever founds a
// cluster because others cannot be reached: two halves would each do so.

// Place is a node that an operator names to be joined: its name, and where its
// cluster port is reached.
type Place struct{ Name, Address string }

func (p Place) String() string { return p.Name }

// inquiry is what a node says of itself that asks another one for its cluster.
type inquiry struct {
	Founders []string `json:"founders,omitempty"` // its leader_latch.join, addresses
}

// invitation is what a node says of its cluster.
type invitation struct {
	Cluster   string   `json:"cluster,omitempty"`    // empty: it has none
	TokenBase uint64   `json:"token_base,omitempty"` // of its founding
	Tokens    uint64   `json:"tokens,omitempty"`     // all that it gives from here on are above these; first programs did not say
	Entering  bool     `json:"entering,omitempty"`   // it has none, and is about to get into one
	Left      bool     `json:"left,omitempty"`       // it has left a cluster, and is alone
	Founders  []string `json:"founders,omitempty"`   // without a cluster: its leader_latch.join
	Nodes     []string `json:"nodes,omitempty"`      // names of the members with a session
	Stalled   string   `json:"stalled,omitempty"`    // why the cluster that it has takes nobody in now
}

// enterEvery is the pause between attempts to get into a cluster.
const enterEvery = 250 * time.Millisecond

// found makes this node the first member of a new cluster. Nothing is served
// before the folder says that it is settled.
func (n *Node) found() error {
	if err := n.replica.found(n.cfg.Name, n.cfg.Address); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return n.change(func(id *identity) { id.Settled = true })
}

// enter gets the node into a cluster, and returns when it is a member, with a
// session, or when the node's life ends.
func (n *Node) enter() {
	var said string // what was logged last: a wait of hours has few reasons
	wait := func(err error) (goesOn bool) {
		if err != nil && err.Error() != said {
			why := err.Error()
			said = why
			n.waits.Store(&why)
			n.log.Warn("this node is in no cluster yet, trying on", "reason", said)
		}
		select {
		case <-time.After(enterEvery):
			return true
		case <-n.life.Done():
			return false
		}
	}
	for n.dir.id().Cluster == "" {
		err := n.seekCluster()
		if err != nil && !wait(err) {
			return
		}
	}
	if !n.dir.id().Settled {
		if err := n.found(); err != nil && n.life.Err() == nil {
			n.failed(err)
		}
		return
	}
	via := placeOf(n.dir.id().Join)
	for !n.entered() {
		var err error
		if _, member := n.replica.server(n.self); !member {
			if err = n.askToBeAdded(via); n.dir.id().Cluster == "" {
				if wait(err) {
					n.enter() // from the beginning
				}
				return
			}
		}
		if !wait(err) {
			return
		}
	}
	if n.change(func(id *identity) { id.Join = "" }) == nil {
		n.waits.Store(nil)
		n.dir.forgetTokens()
		n.log.Info("joined the cluster", "cluster", n.dir.id().Cluster, "through", via.Name)
	}
}

// askToBeAdded asks the node through which this one joins. If that one belongs to
// another cluster by now, and nothing has come of the first, the node looks for
// its cluster once more.
func (n *Node) askToBeAdded(via Place) error {
	peer, err := n.ask(n.life, clusterport.Join, via.Address, "", askAdd, nil, nil)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("ask %s to be added: %w", via, err)
	if peer.Cluster != "" && peer.Cluster != n.dir.id().Cluster && n.replica.lastIndex() == 0 {
		n.change(func(id *identity) { id.Cluster, id.TokenBase, id.Settled = "", 0, false })
	}
	return err
}

// stay forgets that the node wanted to leave, when it is a member all the same.
func (n *Node) stay() {
	if n.WaitMember(n.life) == nil {
		n.change(func(id *identity) { id.Leaving = false })
	}
}

// change changes the node's identity. If that fails, so does the node: nobody
// knows what is on disk.
func (n *Node) change(f func(*identity)) error {
	err := n.dir.change(n.dirLife, f)
	if err != nil && err != errFormerLife {
		n.failed(err)
	}
	return err
}

// entered reports whether the node has had a session: then the entry that added
// it is committed.
func (n *Node) entered() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster.Known()
}

// WaitMember returns nil as soon as the node is a member of a cluster, with a
// session, or an error when ctx is done or the node has failed.
func (n *Node) WaitMember(ctx context.Context) error {
	for {
		if id := n.dir.id(); id.Settled && id.Join == "" && n.entered() {
			return nil
		}
		select {
		case <-time.After(enterEvery / 10):
		case <-n.failing:
			return n.failure
		case <-ctx.Done():
			return fmt.Errorf("%s is not a member yet, and goes on asking (leader-latch cluster leave gives that up): %s", n.cfg.Name, cmp.Or(n.waitsFor(), ctx.Err().Error()))
		}
	}
}

// text is a place as the folder has it.
func (p Place) text() string { return p.Name + " " + p.Address }

func placeOf(text string) Place {
	name, address, _ := strings.Cut(text, " ")
	return Place{name, address}
}

// seekCluster finds out which cluster the node belongs into, and writes that
// down: the one of the node that an operator named; else the first one that a
// node of leader_latch.join has; else a new one, if this node is the first of
// the list and all others have answered, with the same list, that they have
// none either. An error says what it waits for.
func (n *Node) seekCluster() error {
	if via := n.dir.id().Join; via != "" {
		in, _, err := n.inquire(n.life, placeOf(via))
		if err != nil {
			return err
		}
		if in.Cluster == "" && in.Stalled != "" {
			return fmt.Errorf("%s has had a cluster, which takes nobody in: %s", placeOf(via), in.Stalled)
		}
		if in.Cluster == "" {
			return fmt.Errorf("%s has no cluster itself", placeOf(via))
		}
		return n.accept(placeOf(via), in)
	}

	var waits error
	first := false
	var through Place
	var cluster invitation
	for i, p := range n.cfg.Join {
		in, peer, err := n.inquire(n.life, p)
		switch {
		case err != nil:
			waits = errors.Join(waits, err)
		case state.NodeID(peer.Node) == n.self:
			first = first || i == 0
		case in.Cluster == "" && in.Stalled != "":
			waits = errors.Join(waits, fmt.Errorf("%s has had a cluster, which takes nobody in: %s", p, in.Stalled))
		case in.Left:
			waits = errors.Join(waits, fmt.Errorf("%s has left its cluster; have it join again, or take it off leader_latch.join", p))
		case in.Cluster != "" && cluster.Cluster == "":
			through, cluster = p, in
		case in.Cluster != "" && in.Cluster != cluster.Cluster:
			return fmt.Errorf("%s and %s of leader_latch.join are of different clusters; have one of them leave, or tell this node which to join (cluster join)", through, p)
		case in.Cluster != "":
		case in.Entering:
			waits = errors.Join(waits, fmt.Errorf("%s is just getting into a cluster", p))
		case !slices.Equal(in.Founders, n.founders()):
			waits = errors.Join(waits, fmt.Errorf("%s has another leader_latch.join than this node; make it the same on all", p))
		}
	}
	switch {
	case cluster.Cluster != "":
		return n.accept(through, cluster)
	case waits != nil:
		return waits
	case !first:
		return fmt.Errorf("%s, the first of leader_latch.join, has not founded the cluster yet", n.cfg.Join[0])
	}
	n.log.Info("founding the cluster: no node of leader_latch.join has one")
	return n.foundCluster()
}

// waitsFor is what keeps the node from being a member, or one that elects; empty: nothing that
// it knows of.
func (n *Node) waitsFor() string {
	if why := n.waits.Load(); why != nil {
		return *why
	}
	return ""
}

// estranged takes note of a refusal by a node of another cluster. If that one is a member of
// this node's, it was recovered, and this one was given up.
func (n *Node) estranged(by clusterport.Hello) {
	if _, member := n.replica.server(state.NodeID(by.Node)); !member {
		return
	}
	why := fmt.Sprintf("%s refuses this node: it was made a new cluster (leader-latch recover), to which this node is a stranger; stop this node, move %s away, start it again and let it join (leader-latch cluster join %s)", by.Name, n.dir.path, by.Name)
	if old := n.waits.Swap(&why); old == nil || *old != why {
		n.log.Warn("this node's cluster has been given up", "reason", why)
	}
}

// foundCluster writes down that the node has a cluster of its own.
func (n *Node) foundCluster() error {
	if err := checkClock(time.Now(), n.cfg.released); err != nil {
		return err
	}
	return n.dir.change(n.dirLife, func(id *identity) { id.found(n.dir.tokens.Load()) })
}

// founders is leader_latch.join in the form in which nodes compare it.
func (n *Node) founders() (all []string) {
	for _, p := range n.cfg.Join {
		all = append(all, p.Address)
	}
	return all
}

func (n *Node) inquire(ctx context.Context, p Place) (in invitation, peer clusterport.Hello, err error) {
	peer, err = n.ask(ctx, clusterport.Join, p.Address, "", askCluster, inquiry{n.founders()}, &in)
	if err != nil {
		err = fmt.Errorf("%s: %w", p, err)
	}
	return in, peer, err
}

// accept writes down to which cluster the node will belong. Raft's state counts
// from then on: the node may be a member before it knows.
func (n *Node) accept(via Place, in invitation) error {
	if err := n.lift(n.life, via, in, n.dir.tokens.Load()); err != nil {
		return err
	}
	return n.change(func(id *identity) {
		id.Cluster, id.TokenBase, id.Settled = in.Cluster, in.TokenBase, true
		id.Join = via.text()
	})
}

// invite answers askCluster.
func (n *Node) invite(ctx context.Context, peer clusterport.Hello, with json.RawMessage) (any, error) {
	if peer.Cluster != "" && peer.Cluster == n.dir.id().Cluster {
		n.replica.meet(peer)
	}
	var of inquiry
	if err := json.Unmarshal(with, &of); err != nil {
		return nil, err
	}
	id := n.dir.id()
	switch {
	case id.Left && len(of.Founders) > 0 && len(n.replica.others()) == 0:
		return invitation{Left: true}, nil
	case id.Cluster == "" && id.Join == "":
		return invitation{Founders: n.founders()}, nil
	case !id.Settled || id.Join != "":
		return invitation{Entering: true}, nil
	case !n.founded.Load() && len(n.replica.others()) > 0: // it has been started again, and others with it have not
		return invitation{Entering: true, Stalled: n.noMajority(errors.New("there is no raft leader")).Error()}, nil // Entering is for older programs
	case !n.founded.Load():
		return nil, later("the cluster is just being founded")
	}
	in := invitation{Cluster: id.Cluster, TokenBase: id.TokenBase}
	var before state.NodeID // has the name of who asks
	n.replica.read(func(s *state.State) {
		in.Tokens = s.Given()
		for node := range s.Nodes() {
			if !node.Session {
				continue
			}
			in.Nodes = append(in.Nodes, node.Name)
			if node.Name == peer.Name && node.ID != state.NodeID(peer.Node) {
				before = node.ID
			}
		}
	})
	slices.Sort(in.Nodes)
	if peer.Cluster != id.Cluster && n.replica.raftLeader() == "" {
		in.Stalled = n.noMajority(errors.New("there is no raft leader")).Error()
		return in, nil // no session expires either
	}
	if before != "" && before != n.self {
		if s, member := n.replica.server(before); !member || !n.answersAt(ctx, s) {
			return nil, sessionLasts(peer.Name)
		}
	}
	return in, nil
}

// JoinCluster has this node leave the cluster that it has for itself and join
// the one of another node. It returns when that is on disk; the node then fails
// with [ErrAnew], and the next one on the folder is added, or goes on asking to
// be.
func (n *Node) JoinCluster(ctx context.Context, via Place) error {
	peer, in, err := n.joinable(ctx, via)
	if err != nil {
		return err
	}
	// A node that has just been started knows its state only when it leads Raft.
	err = n.untilNow(ctx, func() error {
		if id := n.dir.id(); id.Settled && id.Join == "" && !n.serving() {
			return later("%s is just starting", n.cfg.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	given := n.tokensGiven()
	if given > 0 {
		given += tokensMeanwhile
	}
	if err := n.lift(ctx, via, in, given); err != nil {
		return err
	}
	// Nobody is let in from here on: it would be a member of what is given up.
	n.changing.Lock()
	defer n.changing.Unlock()
	if err := n.hasOthers(); err != nil {
		return err
	}
	if n.tokensGiven() > given-min(given, tokensMeanwhile/2) {
		return &refusal{fmt.Sprintf("%s has just begun to elect leaders; try again", n.cfg.Name)}
	}
	begun, err := n.beginAnewAbove(Place{peer, via.Address}.text(), given)
	if err == nil && !begun {
		return &refusal{fmt.Sprintf("%s is already about to leave its cluster or to join another", n.cfg.Name)}
	}
	return err
}

// Joinable reports an error unless this node could join the cluster of another
// one, and gives the names of the nodes that live there.
func (n *Node) Joinable(ctx context.Context, via Place) (nodes []string, err error) {
	_, in, err := n.joinable(ctx, via)
	return in.Nodes, err
}

func (n *Node) joinable(ctx context.Context, via Place) (peer string, in invitation, err error) {
	if err := n.hasOthers(); err != nil {
		return "", in, err
	}
	hello, err := n.askUntilNow(ctx, via, &in)
	_, refused := errors.AsType[*refusal](err)
	_, again := errors.AsType[laterError](err)
	switch {
	case refused || again:
		err = fmt.Errorf("%s: %w", via, err)
	case err != nil:
		err = fmt.Errorf("%s %w: %w", via, ErrUnreachable, err)
	case state.NodeID(hello.Node) == n.self:
		err = &refusal{"a node cannot join itself"}
	case in.Cluster == "":
		err = &refusal{fmt.Sprintf("%s has no cluster itself yet", via)}
	case slices.Contains(in.Nodes, n.cfg.Name):
		err = &refusal{fmt.Sprintf("the cluster of %s has a live node of the name %s; give this one another nodename", via, n.cfg.Name)}
	}
	return hello.Name, in, err
}

// askUntilNow asks a node for its cluster, again while that is just being founded, as nodes
// are told to join others that have just been started; and while this node's predecessor of
// the same name, which is dead, still has its session there. For a majority it does not wait
// long.
func (n *Node) askUntilNow(ctx context.Context, via Place, in *invitation) (hello clusterport.Hello, err error) {
	began := time.Now()
	err = n.untilNow(ctx, func() (err error) {
		*in = invitation{}
		hello, err = n.ask(ctx, clusterport.Join, via.Address, "", askCluster, inquiry{}, in)
		switch {
		case err != nil || in.Stalled == "":
			return err
		case time.Since(began) < mayTime: // a raft leader may be about to be elected
			return later("its cluster takes nobody in now: %s", in.Stalled)
		}
		return &refusal{"its cluster takes nobody in now: " + in.Stalled}
	})
	return hello, err
}

func (n *Node) hasOthers() error {
	if len(n.replica.others()) == 0 {
		return nil
	}
	return &refusal{fmt.Sprintf("%s is already a member of a cluster; let it leave that first (cluster leave)", n.cfg.Name)}
}

// beginAnew ends the node's life on this identity, unless that has been done. The
// next one joins through via, or is alone if via is empty.
func (n *Node) beginAnew(via string) (begun bool, err error) {
	return n.beginAnewAbove(via, n.tokensGiven())
}

func (n *Node) beginAnewAbove(via string, given uint64) (begun bool, err error) {
	n.anew.Lock()
	defer n.anew.Unlock()
	if n.begunAnew {
		return false, nil
	}
	if err := n.dir.beginAnew(n.dirLife, via, given); err != nil {
		n.failed(err) // nobody knows what is on disk
		return false, err
	}
	n.begunAnew = true
	n.failed(ErrAnew)
	return true, nil
}

func (n *Node) beganAnew() bool {
	n.anew.Lock()
	defer n.anew.Unlock()
	return n.begunAnew
}
