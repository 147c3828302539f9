// Package latchtest helps to test what serves, or uses, the latch protocol:
// [Elections] is a fake of the replicated state, in memory and on one node, and
// [Play] plays the transcripts of testdata/protocol against any server.
package latchtest

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"leaderlatch/latch"
)

// Elections implements [latch.Elections] in memory: members succeed in the order
// of joining, and a name that is taken is waited for. A keyed member moves to the connection
// that JOINs with its key, and the one before is closed. It stays for its hold when its
// connection has ended, or for [Expiry] if that is longer and the node ended it; its hold is
// what it asked for first, or more if it did since. Its methods may be called
// from any goroutine. Members are called from one goroutine, in order, without a
// lock held.
type Elections struct {
	mu          sync.Mutex
	groups      map[string]*group
	token       uint64
	unavailable bool
	missing     error
	holding     bool
	held        []*membership // in the order of joining
	noting      bool
	asking      []*membership // who wait for a promise
	holdsPings  bool
	pings       []*membership // whose PINGs wait
	bound       []*membership // closed, with a promise, or a hold
	closings    []Closing
	stops       int

	observations []*observation

	calls chan struct{} // wakes the dispatcher
	queue []func()
	idle  *sync.Cond
	busy  bool
	done  chan struct{}
	over  chan struct{}
}

type group struct {
	members []*membership
	waiting []*membership // for their names
	token   uint64        // of the leader
}

// membership is one Join: held, waiting for its name, or a member.
type membership struct {
	e             *Elections
	group, client string
	conn          latch.Member
	live          atomic.Bool
	key           string        // of a keyed member
	hold          time.Duration // likewise; guarded by e.mu, like what follows
	moved         bool          // another connection has the place
	said          time.Time     // when ALREADY_JOINED was answered last
	stopped       bool
}

// Closing is one call of Membership.Closed.
type Closing struct {
	Group, Client string
	Why           string
	Acknowledged  bool
}

// Bound is how long a membership goes on after ALREADY_JOINED, whose connection has ended
// without a FIN of its client.
const Bound = 400 * time.Millisecond

// Expiry is how long a keyed member stays at least whose connection the node has ended, and
// the longest that it is promised to.
const Expiry = 2400 * time.Millisecond

// NewElections returns an Elections without groups. Close ends its goroutine.
func NewElections() *Elections {
	e := &Elections{
		groups: make(map[string]*group),
		calls:  make(chan struct{}, 1),
		done:   make(chan struct{}),
		over:   make(chan struct{}),
	}
	e.idle = sync.NewCond(&e.mu)
	go e.dispatch()
	return e
}

// Close ends the goroutine that calls the members, and waits for it.
func (e *Elections) Close() {
	close(e.done)
	<-e.over
}

// Join implements [latch.Elections].
func (e *Elections) Join(group, client string, m latch.Member) (latch.Membership, error) {
	return e.join(&membership{e: e, group: group, client: client, conn: m})
}

// JoinKeyed implements [latch.Elections].
func (e *Elections) JoinKeyed(group, client string, k latch.Keyed, m latch.Member) (latch.Membership, error) {
	return e.join(&membership{e: e, group: group, client: client, conn: m, key: k.Key, hold: k.Hold})
}

func (e *Elections) join(ms *membership) (latch.Membership, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unavailable {
		return nil, latch.ErrUnavailable
	}
	ms.live.Store(true)
	if e.holding {
		e.held = append(e.held, ms)
	} else {
		e.enter(ms)
	}
	return ms, nil
}

// Missing implements [latch.Elections].
func (e *Elections) Missing() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.missing
}

// SetMissing says why Joins have no outcome.
func (e *Elections) SetMissing(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missing = why
}

// Live implements [latch.Membership].
func (ms *membership) Live() bool { return ms.live.Load() }

// Promise implements [latch.Membership].
func (ms *membership) Promise() (now, later bool) {
	e := ms.e
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !ms.live.Load():
		return false, false
	case e.noting:
		e.asking = append(e.asking, ms)
		return false, true
	}
	ms.said = time.Now()
	return true, false
}

// Alive implements [latch.Membership].
func (ms *membership) Alive() bool {
	e := ms.e
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !ms.live.Load() || ms.moved:
		return false
	case e.holdsPings:
		e.pings = append(e.pings, ms)
	default:
		e.alive(ms)
	}
	return true
}

// alive queues the answer to a PING. mu is held.
func (e *Elections) alive(ms *membership) {
	lasts := min(ms.hold, Expiry)
	e.enqueue(func() { ms.conn.Alive(lasts) })
}

// Stopped implements [latch.Membership].
func (ms *membership) Stopped() {
	e := ms.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stops++
	ms.stopped = true
	e.release(ms)
}

// release lets a membership go that only a promise or its hold has kept. mu is held.
func (e *Elections) release(ms *membership) {
	if i := slices.Index(e.bound, ms); i >= 0 {
		e.bound = slices.Delete(e.bound, i, i+1)
		e.leave(ms)
	}
}

// Closed implements [latch.Membership].
func (ms *membership) Closed(why string, acknowledged bool) (bound time.Duration) {
	e := ms.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closings = append(e.closings, Closing{ms.group, ms.client, why, acknowledged})
	ms.live.Store(false)
	kept := Bound - time.Since(ms.said)
	switch {
	case ms.key == "":
		bound = max(kept, 0)
	case why == "" || why == "stuck":
		kept = max(kept, ms.hold, Expiry)
	case ms.hold > 0:
		kept = max(kept, ms.hold)
	case why == "closed":
		kept = 0
	}
	if ms.stopped || kept <= 0 || !e.isMember(ms) && ms.key != "" {
		e.leave(ms)
		return 0
	}
	e.bound = append(e.bound, ms)
	time.AfterFunc(kept, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.release(ms)
	})
	return bound
}

// isMember reports whether ms has a place in its group. mu is held.
func (e *Elections) isMember(ms *membership) bool {
	g := e.groups[ms.group]
	return g != nil && slices.Contains(g.members, ms)
}

// enter makes ms a member, or lets it wait for its name. mu is held.
func (e *Elections) enter(ms *membership) {
	g := e.groups[ms.group]
	if g == nil {
		g = new(group)
		e.groups[ms.group] = g
	}
	if i := slices.IndexFunc(g.members, func(o *membership) bool { return o.client == ms.client }); i >= 0 {
		if before := g.members[i]; ms.key != "" && ms.key == before.key {
			before.moved = true
			ms.hold = max(ms.hold, before.hold)
			g.members[i] = ms
			e.enqueue(before.conn.Close)
			e.tell(ms, g.members[0].client, g.token)
			return
		}
		g.waiting = append(g.waiting, ms)
		e.enqueue(func() { ms.conn.Waits("the only node") })
		return
	}
	g.members = append(g.members, ms)
	if len(g.members) == 1 {
		e.crown(g)
		e.showAll(ms.group)
	}
	e.tell(ms, g.members[0].client, g.token)
}

// leave removes ms, wherever it stands. mu is held.
func (e *Elections) leave(ms *membership) {
	without := func(list []*membership) []*membership {
		return slices.DeleteFunc(list, func(o *membership) bool { return o == ms })
	}
	e.held = without(e.held)
	g := e.groups[ms.group]
	if g == nil {
		return
	}
	g.waiting = without(g.waiting)
	leads := len(g.members) > 0 && g.members[0] == ms
	before := len(g.members)
	g.members = without(g.members)
	if leads && len(g.members) > 0 {
		e.crown(g)
		for _, o := range g.members {
			e.tell(o, g.members[0].client, g.token)
		}
	}
	if leads {
		e.showAll(ms.group)
	}
	if len(g.members) < before {
		if i := slices.IndexFunc(g.waiting, func(o *membership) bool { return o.client == ms.client }); i >= 0 {
			next := g.waiting[i]
			g.waiting = slices.Delete(g.waiting, i, i+1)
			e.enter(next)
		}
	}
	if len(g.members)+len(g.waiting) == 0 {
		delete(e.groups, ms.group)
	}
}

// crown gives the group's leadership a token of its own. mu is held.
func (e *Elections) crown(g *group) {
	e.token++
	g.token = e.token
}

// tell queues a call of Leader. mu is held.
func (e *Elections) tell(ms *membership, leader string, token uint64) {
	e.enqueue(func() { ms.conn.Leader(leader, token) })
}

// SetAvailable says whether Join may succeed at all; at first it may.
func (e *Elections) SetAvailable(available bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unavailable = !available
}

// Hold leaves Joins without an outcome until Release.
func (e *Elections) Hold() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holding = true
}

// Release commits the Joins that were held, in their order.
func (e *Elections) Release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holding = false
	held := e.held
	e.held = nil
	for _, ms := range held {
		e.enter(ms)
	}
	for _, o := range e.observations {
		e.show(o)
	}
}

// HoldPromises leaves further JOINs of members without an answer until ReleasePromises.
func (e *Elections) HoldPromises() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.noting = true
}

// Asking returns how many members wait for a promise.
func (e *Elections) Asking() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asking)
}

// ReleasePromises has those members ask again that were to be promised something.
func (e *Elections) ReleasePromises() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.noting = false
	for _, ms := range e.asking {
		e.enqueue(ms.conn.Promised)
	}
	e.asking = nil
}

// HoldPings leaves further PINGs without an answer until ReleasePings.
func (e *Elections) HoldPings() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holdsPings = true
}

// Pings returns how many PINGs wait.
func (e *Elections) Pings() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.pings)
}

// ReleasePings answers the PINGs that wait.
func (e *Elections) ReleasePings() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holdsPings = false
	for _, ms := range e.pings {
		e.alive(ms)
	}
	e.pings = nil
}

// EndHolds has the holds and promises be over of those whose connections have ended.
func (e *Elections) EndHolds() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ms := range slices.Clone(e.bound) {
		e.release(ms)
	}
}

// Push tells all members and observers of a group that leader leads, whether it is a member or
// not, as fast as it can be called.
func (e *Elections) Push(group, leader string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g := e.groups[group]; g != nil {
		e.crown(g)
		for _, ms := range g.members {
			e.tell(ms, leader, g.token)
		}
		for _, o := range e.observations {
			if token := g.token; o.group == group {
				e.enqueue(func() { o.conn.Leader(leader, token) })
			}
		}
	}
}

// Lapse ends the node's right to speak for the memberships that there are, and
// says nothing to anybody.
func (e *Elections) Lapse() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ms := range e.all() {
		ms.live.Store(false)
	}
	for _, o := range e.observations {
		o.live.Store(false)
	}
}

// Kill is the loss of the node's lease: Lapse, and all connections are closed,
// the leaders' first.
func (e *Elections) Kill() {
	e.Lapse()
	e.EndAll()
}

// EndAll closes all connections, the leaders' first, as a node does that stops.
func (e *Elections) EndAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ms := range e.all() {
		e.enqueue(ms.conn.Close)
	}
	for _, o := range e.observations {
		e.enqueue(o.conn.Close)
	}
}

// End closes the connections that have joined a group under a name, or wait to.
func (e *Elections) End(group, client string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ms := range e.all() {
		if ms.group == group && ms.client == client {
			e.enqueue(ms.conn.Close)
		}
	}
}

// all returns all memberships, those that lead first. mu is held.
func (e *Elections) all() []*membership {
	var leaders, others []*membership
	for _, g := range e.groups {
		if len(g.members) > 0 {
			leaders = append(leaders, g.members[0])
			others = append(others, g.members[1:]...)
		}
		others = append(others, g.waiting...)
	}
	return slices.Concat(leaders, others, e.held)
}

// Members returns the names of a group's members in the order of joining.
func (e *Elections) Members(group string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	if g := e.groups[group]; g != nil {
		for _, ms := range g.members {
			names = append(names, ms.client)
		}
	}
	return names
}

// Pending returns how many Joins are held or wait for their names.
func (e *Elections) Pending() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.held)
	for _, g := range e.groups {
		n += len(g.waiting)
	}
	return n
}

// Closings returns the calls of Membership.Closed so far, in their order.
func (e *Elections) Closings() []Closing {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.closings)
}

// Stops returns how often a client's own FIN was told of.
func (e *Elections) Stops() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stops
}

// Sync waits until every call of a member that is due has returned.
func (e *Elections) Sync() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.busy || len(e.queue) > 0 {
		e.idle.Wait()
	}
}

// enqueue queues a call for the dispatcher. mu is held.
func (e *Elections) enqueue(call func()) {
	e.queue = append(e.queue, call)
	select {
	case e.calls <- struct{}{}:
	default:
	}
}

func (e *Elections) dispatch() {
	defer close(e.over)
	for {
		select {
		case <-e.calls:
		case <-e.done:
			return
		}
		e.mu.Lock()
		for len(e.queue) > 0 {
			queue := e.queue
			e.queue, e.busy = nil, true
			e.mu.Unlock()
			for _, call := range queue {
				call()
			}
			e.mu.Lock()
		}
		e.busy = false
		e.idle.Broadcast()
		e.mu.Unlock()
	}
}
