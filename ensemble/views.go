package ensemble

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
)

// view is how a node sees itself and the cluster at a moment.
type view struct {
	Name    string         `json:"name"`
	State   string         `json:"state"`   // of its peer, in Riak's words
	Term    uint64         `json:"term"`    // Raft's
	Leader  state.NodeID   `json:"leader"`  // the raft leader that it follows or is; empty: none
	Serving bool           `json:"serving"` // it is the raft leader, and caught up as such
	Members []state.NodeID `json:"members"` // in order
	Timing  string         `json:"timing"`
	Version string         `json:"version,omitempty"` // of its program; the first ones did not say
	Reads   uint64         `json:"reads,omitempty"`   // the newest level that its program reads; likewise
}

// viewTime bounds the wait for the views of others. Who lives answers sooner.
const viewTime = time.Second

func (c *cluster) view() view {
	v := view{
		Name: c.cfg.Name, State: c.replica.Role(), Term: c.replica.Term(), Leader: c.replica.RaftLeader(),
		Serving: c.node.serving(), Timing: c.cfg.Timing.Name, Version: c.cfg.Version, Reads: state.NewestLevel,
	}
	for _, s := range c.replica.Servers() {
		v.Members = append(v.Members, s.ID)
	}
	return v
}

func (c *cluster) answerView(context.Context, clusterport.Hello, json.RawMessage) (any, error) {
	return c.view(), nil
}

// views asks all members for their views, and gives those that answer before
// ctx is done, with this node's own.
func (c *cluster) views(ctx context.Context) map[state.NodeID]view {
	views, _ := c.look(ctx)
	return views
}

// look is views, with why the others did not answer.
func (c *cluster) look(ctx context.Context) (views map[state.NodeID]view, silent map[state.NodeID]error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	views, silent = map[state.NodeID]view{c.self: c.view()}, map[state.NodeID]error{}
	for _, s := range c.replica.Others() {
		all.Go(func() {
			var v view
			_, err := c.ask(ctx, clusterport.Admin, c.replica.AddressOf(s), s.ID, askView, nil, &v)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent[s.ID] = err
				return
			}
			views[s.ID] = v
		})
	}
	all.Wait()
	return views, silent
}

// quorum gives the raft leader that a majority of the voters follows, and which
// voters do; "" if there is none.
func quorum(servers []replica.Server, views map[state.NodeID]view) (leader state.NodeID, with []state.NodeID) {
	voters := 0
	followers := map[state.NodeID][]state.NodeID{}
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if v, ok := views[s.ID]; ok && v.Leader != "" && v.Term == views[v.Leader].Term && views[v.Leader].State == "leading" {
			followers[v.Leader] = append(followers[v.Leader], s.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(followers)) {
		if len(followers[id]) > voters/2 {
			return id, followers[id]
		}
	}
	return "", nil
}
