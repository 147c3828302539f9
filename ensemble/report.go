package ensemble

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"leaderlatch/ensemble/state"
)

// ClusterMember is a node of the cluster.
type ClusterMember struct {
	Name       string `json:"node"`
	ID         string `json:"id"`
	Address    string `json:"address"`      // of its cluster port
	Up         bool   `json:"up"`           // it answers
	Silent     string `json:"silent"`       // why it does not answer
	Session    bool   `json:"session"`      // it may have members: it opened a session that has not ended
	Voter      bool   `json:"voter"`        // its vote counts towards the majority
	RaftLeader bool   `json:"raft_leader"`  // a majority follows it
	Timing     string `json:"timing"`       // empty: not known
	Reads      uint64 `json:"reads_level"`  // the newest level of formats that it reads; 0: not known
	Allows     uint64 `json:"allows_level"` // up to which it lets the cluster rise, as it announced with its last session; 0: it had none
	Version    string `json:"version"`      // of its program; empty: not known, as of one that is down, or of the first version

	// Of one that is up.
	Role    string `json:"-"` // what it is in Raft, in Riak's words for a peer: leading, following, election, probe
	Term    uint64 `json:"-"` // Raft's
	Follows bool   `json:"-"` // it is a voter of the majority that follows one raft leader, or is that one
	Serving bool   `json:"-"` // it is the raft leader, and caught up as such
	Agrees  bool   `json:"-"` // it knows the same members as this node
}

// Cluster is the cluster as a node sees it.
type Cluster struct {
	ID       string          `json:"cluster_id"` // empty: none yet
	Joining  string          `json:"joining"`    // the node through which this one still has to be added; empty: none
	Waits    string          `json:"waits_for"`  // what keeps it from being a member, or from electing; empty: nothing that it knows of
	Active   bool            `json:"active"`     // elections have begun
	Majority bool            `json:"majority"`   // a majority of the voters follows one raft leader
	Members  []ClusterMember `json:"members"`    // in order of their names

	// What nodes write has a level. While that is not the newest, every node can go back to
	// an older version of the program, one that reads it.
	Level   uint64   `json:"format_level"`
	Newest  uint64   `json:"newest_format_level"` // that this node reads
	Holding []string `json:"format_held_by"`      // members because of which the level does not rise

	// How many keyed members have not come back yet, by the names of the nodes where they were.
	// Their sessions are over, as these nodes were stopped or started again. Missing: none.
	Away map[string]int `json:"members_away,omitempty"`
}

// awayFrom gives [Cluster].Away.
func awayFrom(s *state.State) map[string]int {
	away := map[string]int{}
	for ses := range s.Sessions() {
		if ses.Orphaned && ses.Members > 0 {
			away[ses.Name] += ses.Members
		}
	}
	return away
}

// Report is what a node tells operators of groups, their members and their leaders. Its
// methods may be called from any goroutine. They wait for nothing but the state.
type Report struct{ node *Node }

// Report gives what the node tells of groups. It tells it also where the node has failed.
func (n *Node) Report() Report { return Report{n} }

// names gives the nodes' names by their ids.
func (r Report) names() map[state.NodeID]string {
	names := map[state.NodeID]string{r.node.self: r.node.cfg.Name}
	r.node.replica.Read(func(s *state.State) {
		for node := range s.Nodes() {
			if node.Name != "" {
				names[node.ID] = node.Name
			}
		}
	})
	return names
}

// Confirmed is whether what a node knows of groups is so now: a majority has accepted its
// last renewal, and its state was as new as that.
type Confirmed struct {
	Missing string     `json:"missing"` // why it may be otherwise by now; empty: it is so
	Last    *time.Time `json:"last"`    // when it was known to be so, by the node's clock; nil: not since its start
}

// Confirmed says whether what Groups and Changes give is so now.
func (r Report) Confirmed() (c Confirmed) {
	n := r.node
	n.mu.Lock()
	defer n.mu.Unlock()
	live := n.roster.Live()
	if err := n.missing(); err != nil && !live { // elections may be off where all is known
		c.Missing = strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": ")
	}
	if !n.heard.IsZero() {
		heard := n.heard
		c.Last = &heard
	}
	return c
}

// Group is a group of clients that elects a leader.
type Group struct {
	Name    string        `json:"group"`
	Leader  string        `json:"leader"` // empty: only waiting clients are known
	Token   uint64        `json:"token"`  // rises with every change of the leader
	Since   time.Time     `json:"since"`  // when the leader became it, by the clock of the node that proposed it
	Why     string        `json:"why"`    // why the leader before leads no more, as [Change].Reason; empty: nobody led before, or that is not kept
	Next    string        `json:"next"`   // who would lead next; empty: nobody
	Members []GroupMember `json:"members"`
	Waiting []Waiting     `json:"waiting,omitempty"`
	Stale   bool          `json:"stale"` // it was so once, and nobody knows whether it is; see [Report.Confirmed]
}

// GroupMember is a member of a group, in order of succession.
type GroupMember struct {
	Client string    `json:"client"`
	Node   string    `json:"node"`
	Since  time.Time `json:"since"`

	// Of a keyed member. Its key is nowhere.
	Keyed bool  `json:"keyed,omitempty"`
	Hold  int64 `json:"hold_ms,omitempty"` // how long it stays without a connection
	Away  bool  `json:"away,omitempty"`    // its node was stopped or started again, and it has not come back yet
	Held  int64 `json:"held_ms,omitempty"` // its connection to this node has ended, and it stays for so long yet

	id state.MemberID
}

// Waiting is a client of this node that has asked to join under a name that a
// member has.
type Waiting struct {
	Client string `json:"client"`
	Holder string `json:"held_through"` // the node of the member that has the name
}

// groupsAtOnce is how many groups are read from one state. Others may be of a later one.
const groupsAtOnce = 256

// Groups gives the groups in order of their names: all, or the one named.
func (r Report) Groups(only string) []Group {
	n, names, stale := r.node, r.names(), r.Confirmed().Missing != ""
	byName := map[string]*Group{}
	wanted := []string{only}
	if only == "" {
		n.replica.Read(func(s *state.State) { wanted = s.GroupNames() })
	}
	for some := range slices.Chunk(wanted, groupsAtOnce) { // no entry waits for all of them
		var read []state.GroupRecord
		n.replica.Read(func(s *state.State) {
			for _, name := range some {
				if g, ok := s.Group(name); ok {
					read = append(read, g)
				}
			}
		})
		for _, g := range read {
			byName[g.Name] = groupWith(g, names)
		}
	}
	n.mu.Lock()
	waiters, held := n.roster.Waiters(), n.roster.Held(n.now())
	n.mu.Unlock()
	for _, g := range byName {
		for i, m := range g.Members {
			g.Members[i].Held = held[m.id].Milliseconds()
		}
	}
	for _, w := range waiters {
		if only != "" && w.Group != only {
			continue
		}
		if byName[w.Group] == nil {
			byName[w.Group] = &Group{Name: w.Group, Members: []GroupMember{}}
		}
		g := byName[w.Group]
		g.Waiting = append(g.Waiting, Waiting{w.Client, w.Holder})
	}
	all := make([]Group, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		byName[name].Stale = stale
		all = append(all, *byName[name])
	}
	return all
}

func groupWith(g state.GroupRecord, names map[state.NodeID]string) *Group {
	out := &Group{Name: g.Name, Leader: g.Leader, Token: g.Token, Since: g.Since, Why: g.Why.String()}
	if len(g.Members) > 1 {
		out.Next = g.Members[1].Client
	}
	for _, m := range g.Members {
		out.Members = append(out.Members, GroupMember{
			Client: m.Client, Node: names[m.Node], Since: m.Since, Keyed: m.Keyed, Hold: m.Hold.Milliseconds(), Away: m.Away, id: m.ID,
		})
	}
	return out
}

// Change is a change of a group's leader, which all nodes tell alike.
type Change struct {
	At     time.Time `json:"time"` // UTC, by the clock of the node that proposed it
	Group  string    `json:"group"`
	From   string    `json:"from"`    // who led before; empty: nobody did
	To     string    `json:"to"`      // who leads; empty: nobody does
	Token  uint64    `json:"token"`   // of To. If nobody leads: above all that the group had, below all that it will have
	Reason string    `json:"reason"`  // why From leads no more, in the word of [state.Reason]; empty: nobody led before
	Node   string    `json:"node"`    // where From was connected, or where To is if nobody led before
	By     string    `json:"seen_by"` // the node that has seen the reason; empty: not told
}

// Changes gives the last changes of leaders, the oldest first: [state.MaxRecent] of all groups
// at most, or [state.MaxPast] of the one named. kept is false below the level of the formats
// from which on changes are kept.
func (r Report) Changes(only string) (changes []Change, kept bool) {
	names := r.names()
	r.node.replica.Read(func(s *state.State) {
		changes, kept = changesIn(s, only, names), s.Level() >= state.KeyedLevel
	})
	return changes, kept
}

func changesIn(s *state.State, only string, names map[state.NodeID]string) []Change {
	all := s.Recent()
	if only != "" {
		all = slices.Values(s.Changes(only))
	}
	changes := []Change{}
	for c := range all {
		changes = append(changes, Change{c.At.UTC(), c.Group, c.From, c.To, c.Token, c.Reason.String(), names[c.Node], names[c.By]})
	}
	return changes
}

// Cluster gives the members, with what those say that answer within a second.
func (c *cluster) Cluster(ctx context.Context) Cluster {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	servers := c.replica.Servers()
	views, silent := c.look(ctx)
	leader, with := quorum(servers, views)
	id := c.dir.id()
	out := Cluster{ID: id.Cluster, Joining: placeOf(id.Join).Name, Waits: c.waitsFor(), Active: c.seen.active.Load(), Majority: leader != "", Members: []ClusterMember{}}
	sessions, allows := map[state.NodeID]bool{}, map[state.NodeID]uint64{}
	out.Newest, out.Holding = state.NewestLevel, []string{}
	c.replica.Read(func(s *state.State) {
		for node := range s.Nodes() {
			sessions[node.ID], allows[node.ID] = node.Session, node.Reads
		}
		out.Level, out.Away = s.Level(), awayFrom(s)
		_, holding := nextLevel(out.Level, servers, knownNodes(s))
		for _, h := range holding {
			out.Holding = append(out.Holding, h.Name)
		}
	})
	slices.Sort(out.Holding)
	for _, s := range servers {
		v, up := views[s.ID]
		why := ""
		if err := silent[s.ID]; err != nil {
			why = err.Error()
		}
		out.Members = append(out.Members, ClusterMember{
			Name: s.Name, ID: string(s.ID), Address: s.Address, Up: up, Silent: why, Session: sessions[s.ID],
			Voter: s.Voter, RaftLeader: s.ID == leader, Timing: v.Timing, Reads: max(v.Reads, allows[s.ID]), Allows: allows[s.ID], Version: v.Version,
			Role: v.State, Term: v.Term, Follows: slices.Contains(with, s.ID), Serving: v.Serving, Agrees: slices.Equal(v.Members, views[c.self].Members),
		})
	}
	slices.SortFunc(out.Members, func(a, b ClusterMember) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
