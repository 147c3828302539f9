package ensemble

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// Changes of who is a member and who votes. They are the raft leader's to make,
// one at a time, and change Raft's configuration only: the session of a node
// that goes ends by itself or by Expire (DESIGN.md, rule 4).

// applicant is a node that wants to be added.
type applicant struct {
	Node    state.NodeID `json:"node"`
	Name    string       `json:"name"`
	Address string       `json:"address"`
	Reads   uint64       `json:"reads,omitempty"` // the newest level that its program reads; 0: 1, as first programs did not say
}

// removal names a node that is to be removed.
type removal struct {
	Node state.NodeID `json:"node"`
	Ask  bool         `json:"ask,omitempty"` // only say whether it may be
}

// letIn answers askAdd of a node outside the cluster: the raft leader adds it.
func (c *cluster) letIn(ctx context.Context, peer clusterport.Hello, _ json.RawMessage) (any, error) {
	id := c.dir.id()
	if id.Cluster != peer.Cluster || id.Cluster == "" || id.Join != "" {
		return nil, later("%s is not of the cluster that is asked for", c.cfg.Name)
	}
	if id.Recovery != recoveryNone {
		return nil, later("%s: %w", c.cfg.Name, errRecovering) // a new node would not know that it has to be silent
	}
	a := applicant{state.NodeID(peer.Node), peer.Name, peer.Address, uint64(peer.Formats.Newest)}
	ctx, cancel := context.WithTimeout(ctx, replica.ChangeTime)
	defer cancel()
	err := c.askLeader(ctx, askAdd, a, nil, func(ctx context.Context) error { return c.add(ctx, a) })
	if isLater(err) && c.replica.LikelyRaftLeader() == "" {
		err = later("%w", c.noMajority(err))
	}
	return nil, err
}

// answerAdd and those below answer members.
func (c *cluster) answerAdd(ctx context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var a applicant
	if err := json.Unmarshal(with, &a); err != nil {
		return nil, err
	}
	return nil, c.add(ctx, a)
}

func (c *cluster) answerRemove(ctx context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var r removal
	if err := json.Unmarshal(with, &r); err != nil {
		return nil, err
	}
	return nil, c.remove(ctx, r)
}

func (c *cluster) answerCounter(_ context.Context, peer clusterport.Hello, _ json.RawMessage) (any, error) {
	if !c.node.serving() {
		return nil, later("%s is not the raft leader", c.cfg.Name)
	}
	if stored, end, lost := c.replica.Lost(state.NodeID(peer.Node)); lost {
		return nil, lossf("this node had stored the log up to entry %d, and then had it up to %d", stored, end)
	}
	var counter uint64
	c.replica.Read(func(s *state.State) {
		node, _ := s.Node(state.NodeID(peer.Node))
		counter = node.Counter
	})
	return counter, nil
}

func (c *cluster) answerLeave(context.Context, clusterport.Hello, json.RawMessage) (any, error) {
	// The connection of who asked may end because this node is removed: so it decides nothing.
	ctx, cancel := context.WithTimeout(c.life, questionTime)
	defer cancel()
	return nil, c.leave(ctx)
}

// add makes a node a member that does not vote yet. Asked again, it does
// nothing. A member of the same name is replaced if its session is over and it
// does not answer: it was a machine whose folder is lost.
func (c *cluster) add(ctx context.Context, a applicant) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	if !c.node.serving() || c.node.Err() != nil {
		return later("%s is not the raft leader any more", c.cfg.Name)
	}
	if err := ctx.Err(); err != nil {
		return later("nobody waits for that any more: %w", err)
	}
	var removed bool
	var level uint64
	live := map[state.NodeID]bool{}
	c.replica.Read(func(s *state.State) {
		level = s.Level()
		known, _ := s.Node(a.Node)
		removed = known.Removed
		for node := range s.Nodes() {
			live[node.ID] = node.Session
		}
	})
	if removed {
		return fmt.Errorf("%s was removed from this cluster; move its data folder away to let it join as a new node", a.Name)
	}
	if reads := max(a.Reads, state.FirstLevel); reads < level {
		return fmt.Errorf("%s reads formats up to level %d, and this cluster writes level %d; install the release there that runs here, %s", a.Name, reads, level, c.cfg.Version)
	}
	voter := false
	for _, s := range c.replica.Servers() {
		switch {
		case s.ID == a.Node && s.Name == a.Name && s.Address == a.Address:
			return nil
		case s.ID == a.Node:
			voter = s.Voter // of what is there: its address changes
		case s.Name == a.Name && c.answersAt(ctx, s):
			return later("a live node has the name %s; give this one another nodename", a.Name)
		case s.Name == a.Name && live[s.ID]:
			return sessionLasts(a.Name)
		case s.Name == a.Name:
			c.log.Warn("a new node takes the place of one of the same name, which is dead", "node", a.Name, "address", a.Address)
			if err := c.removeServer(s.ID); err != nil {
				return err
			}
		}
	}
	if err := c.replica.Add(replica.Server{ID: a.Node, Name: a.Name, Address: a.Address, Voter: voter}); err != nil {
		return later("add %s: %w", a.Name, err)
	}
	c.log.Info("a node was added", "node", a.Name, "address", a.Address)
	return nil
}

// sessionLasts is what the successor of a node is told while that one's session lives.
func sessionLasts(name string) error {
	return later("the session of the node that had the name %s is not over yet: it is replaced when that has been silent for long enough (leader_latch.timing), within seconds if it is dead", name)
}

func (c *cluster) answersAt(ctx context.Context, s replica.Server) bool {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	var v view
	_, err := c.ask(ctx, clusterport.Admin, c.replica.AddressOf(s), s.ID, askView, nil, &v)
	return err == nil
}

// remove takes a member out, or, with Ask, says whether it may be taken out. The
// raft leader does not remove itself: it hands over first, and the next one is
// asked.
func (c *cluster) remove(ctx context.Context, r removal) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	_, member := c.replica.Server(r.Node)
	switch {
	case !c.node.serving():
		return later("%s is not the raft leader any more", c.cfg.Name)
	case !member:
		return nil
	case len(c.replica.Servers()) == 1:
		return fmt.Errorf("%s is the only member", c.cfg.Name)
	}
	look, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	if err := mayRemove(c.replica.Servers(), c.views(look), r.Node); err != nil || r.Ask {
		return err
	}
	if ctx.Err() != nil {
		return later("nobody waits for that any more: %w", ctx.Err())
	}
	if r.Node == c.self {
		c.handOver()
		return later("%s is the raft leader and has not handed over yet", c.cfg.Name)
	}
	return c.removeServer(r.Node)
}

// mayRemove refuses a removal after which those voters that are up would be no
// majority any more. A new configuration counts as soon as it is written, so
// that nobody could take it back.
func mayRemove(servers []replica.Server, views map[state.NodeID]view, id state.NodeID) error {
	if err := majorityUp(servers, views); err != nil {
		return err
	}
	left, up := 0, 0
	var down []string
	for _, s := range servers {
		if !s.Voter || s.ID == id {
			continue
		}
		left++
		if _, answers := views[s.ID]; answers {
			up++
		} else {
			down = append(down, s.Name)
		}
	}
	if left > 0 && up <= left/2 {
		return fmt.Errorf("the voters that would be left are no majority, as %s cannot be reached; start it, or remove it first (cluster force-remove)", strings.Join(down, ", "))
	}
	if left == 0 {
		return errors.New("it is the only voter")
	}
	return nil
}

func (c *cluster) removeServer(id state.NodeID) error {
	name := c.replica.NameOf(id)
	if err := c.replica.Remove(id); err != nil {
		return later("remove %s: %w", name, err)
	}
	// Should this one be lost, upkeep says it once more.
	c.replica.Propose(state.Remove{Node: id})
	c.log.Info("a node was removed", "node", name)
	return nil
}

// ForceRemove removes the node of a name from the cluster, dead or alive. Its
// session, if it has one, goes on until its own end or expiry; it is told that
// it was removed when it comes back, and stops for good. Without a majority
// nothing is begun.
func (c *cluster) ForceRemove(ctx context.Context, name string) error {
	s, err := c.named(name)
	if err != nil {
		return err
	}
	if len(c.replica.Others()) == 0 {
		return fmt.Errorf("%s is the only member", name)
	}
	if err := c.mayBeRemoved(ctx, s.ID); err != nil {
		return err
	}
	return c.askRemoval(ctx, removal{Node: s.ID}, 2*replica.ChangeTime)
}

// mayBeRemoved has the raft leader say whether a node may be removed. Where nobody could say
// that, there is no majority, and nobody is asked for more.
func (c *cluster) mayBeRemoved(ctx context.Context, id state.NodeID) error {
	err := c.askRemoval(ctx, removal{Node: id, Ask: true}, mayTime)
	if _, again := errors.AsType[laterError](err); again {
		err = c.noMajority(err)
	}
	if err != nil {
		return fmt.Errorf("nothing was done: %w", err)
	}
	return nil
}

// mayTime is how long the raft leader is looked for; with viewTime after it, it is below 5 s.
const mayTime = 3500 * time.Millisecond

// noMajority says why nobody can change the cluster now, and what helps.
func (c *cluster) noMajority(why error) error {
	ctx, cancel := context.WithTimeout(c.life, viewTime)
	defer cancel()
	return cmp.Or(majorityUp(c.replica.Servers(), c.views(ctx)), fmt.Errorf("%w; a majority of the nodes is up, so try again", why))
}

// majorityUp reports an error unless a majority of the voters answers.
func majorityUp(servers []replica.Server, views map[state.NodeID]view) error {
	voters, down, verb := 0, []string{}, "do"
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if _, up := views[s.ID]; !up {
			down = append(down, s.Name)
		}
	}
	if voters-len(down) > voters/2 {
		return nil
	}
	slices.Sort(down)
	if len(down) == 1 {
		verb = "does"
	}
	return fmt.Errorf("there is no majority of the nodes, as %s %s not answer; start what is down, or, if that is lost for good, run leader-latch recover on the node that was up last", strings.Join(down, ", "), verb)
}

func (c *cluster) askRemoval(ctx context.Context, r removal, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.askLeader(ctx, askRemove, r, nil, func(ctx context.Context) error { return c.remove(ctx, r) })
}

// named gives the member of a name.
func (c *cluster) named(name string) (replica.Server, error) {
	all := c.replica.Servers()
	i := slices.IndexFunc(all, func(s replica.Server) bool { return s.Name == name })
	if i < 0 {
		return replica.Server{}, fmt.Errorf("%s is not a member of the cluster", name)
	}
	return all[i], nil
}

// Leave has the node of a name leave the cluster in order; an empty name is this
// node's. When that is done it begins anew, alone; of this node [Node.Failed]
// tells so, with [ErrAnew].
func (c *cluster) Leave(ctx context.Context, name string) error {
	if name == "" || name == c.cfg.Name {
		return c.leave(ctx)
	}
	s, err := c.named(name)
	if err != nil {
		return err
	}
	look, cancel := context.WithTimeout(ctx, mayTime)
	defer cancel()
	if _, err = c.ask(look, clusterport.Admin, c.replica.AddressOf(s), s.ID, askView, nil, nil); err == nil {
		_, err = c.ask(ctx, clusterport.Admin, c.replica.AddressOf(s), s.ID, askLeave, nil, nil)
	}
	if _, refused := errors.AsType[*refusal](err); refused {
		return err
	}
	if _, member := c.replica.Server(s.ID); err != nil && member { // else its answer was lost with its life
		return fmt.Errorf("%s cannot be asked to leave (%w); if it is dead: cluster force-remove %s", name, err, name)
	}
	return c.awaitAlone(ctx, s)
}

// awaitAlone waits until a node that has left answers as one with a cluster of its own.
func (c *cluster) awaitAlone(ctx context.Context, s replica.Server) error {
	ctx, cancel := context.WithTimeout(ctx, 2*replica.ChangeTime)
	defer cancel()
	for {
		var in invitation
		_, err := c.ask(ctx, clusterport.Join, c.replica.AddressOf(s), "", askCluster, inquiry{}, &in)
		if err == nil && in.Cluster != "" && in.Cluster != c.dir.id().Cluster {
			return nil
		}
		select {
		case <-time.After(askAnew):
		case <-c.node.Failed():
			return c.node.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s has left the cluster, but does not answer yet as a node that is alone: %w", s.Name, cmp.Or(err, ctx.Err()))
		}
	}
}

// leave closes the connections and ends the session as a stop does, and only
// then has the node removed. Should the removal fail, the next life goes on as
// the member that it was.
func (c *cluster) leave(ctx context.Context) error {
	// Whoever has left has a cluster of its own.
	if err := checkClock(time.Now(), c.cfg.released); err != nil {
		return fmt.Errorf("nothing was done: %w", err)
	}
	id := c.dir.id()
	if _, member := c.replica.Server(c.self); !member && (id.Join != "" || id.Cluster == "") {
		_, err := c.beginAnew("") // it gives up asking to be let in
		return err
	}
	if len(c.replica.Others()) == 0 {
		return fmt.Errorf("%s is the only member", c.cfg.Name)
	}
	if err := c.mayBeRemoved(ctx, c.self); err != nil {
		return err
	}
	if err := c.change(func(id *identity) { id.Leaving = true }); err != nil {
		return err
	}
	err := c.node.retire(ctx)
	if err == nil {
		err = c.askRemoval(ctx, removal{Node: c.self}, 2*replica.ChangeTime)
	}
	switch {
	case err == nil || errors.Is(err, clusterport.ErrRemoved):
		_, err = c.beginAnew("")
	case c.hasBegunAnew():
		err = nil // the raft leader's answer went with its connections to this node; the others have told since
	default:
		c.node.failed(ErrAnew)
	}
	if err == nil {
		c.log.Info("left the cluster")
	}
	return err
}

// removed is called when others say that this node was removed.
func (c *cluster) removed(by string) {
	c.anew.Lock()
	begun, leaving := c.begunAnew, c.dir.id().Leaving
	c.anew.Unlock()
	switch {
	case begun || c.life.Err() != nil:
	case leaving:
		c.beginAnew("")
	default:
		c.node.failed(permanent.Errorf("removed from the cluster, says %s; to use this machine again, move %s away and start it as a new node", by, c.dir.path))
	}
}

// handOver has another voter take raft leadership, one that answers and follows
// this node right now, and waits for that as long as an election may take. While
// Raft hands over it takes no entries, and a node that does not answer would keep
// it at that (https://github.com/hashicorp/raft/issues/696): so one is tried, and
// none again for a while.
//
// Where that came to nothing with a node, it is not tried again soon. A question may have
// stayed behind, for as long as the node is busy, and raft 1.8.0 has room for one: should
// it wait for room when the leadership is lost, it would take itself for handing over for
// ever, elected again or not, and take nothing.
func (c *cluster) handOver() {
	if !c.replica.IsRaftLeader() {
		return
	}
	if !c.handOvers.TryLock() { // one is being tried
		return
	}
	defer c.handOvers.Unlock()
	now := time.Now()
	if now.Sub(c.handOvers.last) < handOverPause {
		return
	}
	c.handOvers.last = now
	ctx, cancel := context.WithTimeout(c.life, c.cfg.Timing.Heartbeat)
	defer cancel()
	views := c.views(ctx)
	for _, s := range c.replica.Others() {
		if failed, ok := c.handOvers.failed[s.ID]; !s.Voter || views[s.ID].Leader != c.self || ok && now.Sub(failed) < handOverAgain {
			continue
		}
		if c.replica.HandOver(s) {
			c.handOvers.failed[s.ID] = now
		}
		return
	}
}

// handOvers is what was tried to hand over raft leadership. Its mutex is held over a try.
type handOvers struct {
	sync.Mutex
	last   time.Time
	failed map[state.NodeID]time.Time
}

// handOverPause is how long no other attempt to hand over is made, handOverAgain how long
// none with a node with which one came to nothing: if it is well then, it has long answered.
const (
	handOverPause = time.Second
	handOverAgain = 30 * time.Second
)

// upkeepEvery is how often the raft leader looks whether the configuration is
// as it should be.
const upkeepEvery = 200 * time.Millisecond

// keepUp does the upkeep that is due, unless some is under way. It does not wait.
func (c *cluster) keepUp(now session.Reading) {
	if !c.keepsUp.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer c.keepsUp.Store(false)
		c.upkeep(now)
	}()
}

// upkeep makes at most one change of the configuration that is due, or raises the level.
func (c *cluster) upkeep(now session.Reading) {
	c.changing.Lock()
	defer c.changing.Unlock()
	if !c.node.serving() {
		return
	}
	var nodes map[state.NodeID]known
	var level uint64
	c.replica.Read(func(s *state.State) { nodes, level = knownNodes(s), s.Level() })
	if term := c.replica.Term(); term != c.awayTerm {
		c.awayTerm = term
		clear(c.awaySince) // what was noted as an earlier raft leader is old
	}
	c.noteAway(nodes, now)
	if who := c.timingsDiffer(now); who != "" {
		c.log.Warn("nodes have different leader_latch.timing; make it the same on all", "nodes", who)
	}
	servers := c.replica.Servers()
	next := nextChange(servers, nodes, c.away(now), c.cfg.Voters)
	if next.text == "" {
		// Nobody is added meanwhile; nor by the next raft leader, unless this entry is lost or
		// that one has applied it.
		if to, _ := nextLevel(level, servers, nodes); to > level {
			c.replica.ProposeAs(to, state.Raise{Level: to})
		}
		return
	}
	c.log.Info("the cluster changes", "node", cmp.Or(next.name, c.replica.NameOf(next.node)), "change", next.text)
	var err error
	switch {
	case next.forget:
		c.replica.Propose(state.Remove{Node: next.node})
	case next.demote:
		err = c.replica.Demote(next.node)
	default:
		err = c.replica.Add(next.becomes)
	}
	if err != nil {
		c.log.Debug("the configuration was not changed", "error", err)
	}
}

// known is what the state says of a node that was not removed.
type known struct {
	name, address string
	live          bool
	reads         uint64 // the level that the node has announced, while it has a session
}

// knownNodes does without those that were removed: over the years they may be many.
func knownNodes(s *state.State) map[state.NodeID]known {
	nodes := make(map[state.NodeID]known)
	for node := range s.Nodes() {
		if node.Removed {
			continue
		}
		k := known{name: node.Name, address: node.Address}
		if node.Session {
			k.live, k.reads = node.Renewed, node.Reads
		}
		nodes[node.ID] = k
	}
	return nodes
}

// awayTime is how long a voter may have no session before one that follows
// takes its vote: a restart, and even a boot, is no reason.
const awayTime = 60 * time.Second

// noteAway keeps since when nodes have had no session. changing is held.
func (c *cluster) noteAway(nodes map[state.NodeID]known, now session.Reading) {
	maps.DeleteFunc(c.awaySince, func(id state.NodeID, _ session.Reading) bool { return nodes[id].live })
	for _, s := range c.replica.Servers() {
		if _, noted := c.awaySince[s.ID]; !noted && !nodes[s.ID].live {
			c.awaySince[s.ID] = now
		}
	}
}

// timingsDiffer gives, once, the sessions whose timings have differed for a while:
// an operator changes it node by node, and may have forgotten one. changing is held.
func (c *cluster) timingsDiffer(now session.Reading) string {
	expiries := map[time.Duration]state.NodeID{}
	c.replica.Read(func(s *state.State) {
		for ses := range s.Sessions() {
			expiries[ses.Expiry] = ses.Node
		}
	})
	switch {
	case len(expiries) < 2:
		c.differ, c.toldDiffer = nil, false
	case c.differ == nil:
		c.differ = &now
	case !c.toldDiffer && now.AtLeast(*c.differ) >= awayTime:
		c.toldDiffer = true
		var who []string
		for expiry, id := range expiries {
			who = append(who, fmt.Sprintf("%s (replaced after %v)", c.replica.NameOf(id), expiry))
		}
		slices.Sort(who)
		return strings.Join(who, ", ")
	}
	return ""
}

func (c *cluster) away(now session.Reading) map[state.NodeID]bool {
	away := map[state.NodeID]bool{}
	for id, since := range c.awaySince {
		away[id] = now.AtLeast(since) >= awayTime
	}
	return away
}

// change is one step towards the configuration that should be.
type change struct {
	text   string
	node   state.NodeID
	name   string
	forget bool // the state does not know yet that the node is gone

	demote  bool           // it does not vote any more
	becomes replica.Server // neither: what the member is from then on
}

// nextChange decides what the configuration needs next; no text: nothing. Nodes
// that live vote, up to a number of voters; a voter that stays away gives its
// vote to one that follows. A name or address that a node has announced in its
// last Open is taken over.
func nextChange(servers []replica.Server, nodes map[state.NodeID]known, away map[state.NodeID]bool, voters int) change {
	voting := 0
	var absent, follower *replica.Server
	names := map[string]int{}
	for i, s := range servers {
		names[s.Name]++
		switch {
		case s.Voter:
			voting++
			if away[s.ID] && absent == nil {
				absent = &servers[i]
			}
		case nodes[s.ID].live && follower == nil:
			follower = &servers[i]
		}
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		k := nodes[id]
		if !slices.ContainsFunc(servers, func(s replica.Server) bool { return s.ID == id }) {
			return change{text: "is no member any more", node: id, name: k.name, forget: true}
		}
	}
	for _, s := range servers {
		k, ok := nodes[s.ID]
		if !ok || k.name == "" || k.name == s.Name && k.address == s.Address || k.name != s.Name && names[k.name] > 0 {
			continue
		}
		return change{text: "is now " + k.name + " at " + k.address, node: s.ID, name: s.Name, becomes: replica.Server{ID: s.ID, Name: k.name, Address: k.address, Voter: s.Voter}}
	}
	switch {
	case follower != nil && voting < voters:
		s := *follower
		s.Voter = true
		return change{text: "gets a vote", node: s.ID, name: s.Name, becomes: s}
	case follower != nil && absent != nil:
		s := *absent
		return change{text: "loses its vote, as it stays away", node: s.ID, name: s.Name, demote: true}
	}
	return change{}
}

// size is how many nodes count for leader_latch.minimum_nodes: those that vote,
// and where as many vote as may, those that follow too. A node that is still
// catching up does not count.
func (c *cluster) size() int {
	all := c.replica.Servers()
	voters := 0
	for _, s := range all {
		if s.Voter {
			voters++
		}
	}
	if voters >= c.cfg.Voters {
		return len(all)
	}
	return voters
}
