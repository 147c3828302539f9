package ensemble

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
)

// A raft leader whose process has ended is replaced before it was silent for a timeout:
//
//  1. The kernel of a process that ends closes its connections. So may a firewall, or the raft
//     leader itself. The end of the last one has a follower look, and nothing else.
//  2. It dials the cluster port of the raft leader. If that refuses, or the same node greets in
//     another life, it takes the process for ended. If the node greets in the life that it
//     followed, it does not.
//  3. A firewall may refuse the port of a raft leader that lives. So the follower asks the other
//     voters, and stands for election only if a majority agrees, with itself. A voter agrees
//     that has found the same by itself, or follows nobody: it was just started. So such a
//     majority hears nothing of the raft leader.
//  4. A voter that has found the same agrees with those only that stand before it in one order:
//     those with longer logs, then those with lower ids. So of two that ask each other one
//     stands.
//  5. A node stands so once in standEvery: whatever else resets connections and refuses ports,
//     there are no more elections than that.
//
// What it saves is time. Where it fails, the silence of the raft leader is missed all the same.
// It is safe as any election is: Raft allows one at any time.
type ended struct {
	looking sync.Mutex                        // held by who looks, which is one at a time; guards stood
	found   atomic.Pointer[replica.Following] // whose process was found to have ended; nil: none
	stood   time.Time
}

const (
	standEvery = time.Second
	lookAgain  = 5 * time.Millisecond
)

// endedQuestion asks whether the process of a raft leader has ended, for a node that would
// take its place.
type endedQuestion struct {
	Leader state.NodeID `json:"leader"`
	Term   uint64       `json:"term"`
	Last   uint64       `json:"last"` // entry of the log of the node that asks
}

// lost is told that the last connection has ended on which a node's requests to Raft came in,
// in one of its lives.
func (c *cluster) lost(ctx context.Context, peer clusterport.Hello) {
	f, ok := c.replica.Following()
	if !ok || string(f.Leader) != peer.Node || !c.ended.looking.TryLock() {
		return
	}
	defer c.ended.looking.Unlock()
	if !c.hasEnded(ctx, f, peer.Life) {
		return
	}
	c.ended.found.Store(&f)
	// One after the other: where many vote, two may have a majority agree.
	pause := time.Duration(c.rank(f.Leader)) * c.cfg.Timing.Heartbeat / 5
	for ; sleep(ctx, pause) && c.replica.Misses(f); pause = lookAgain {
		if time.Since(c.ended.stood) >= standEvery && c.othersAgree(ctx, f) && c.replica.Stand(f) {
			c.ended.stood = time.Now()
			c.log.Info("the process of the raft leader has ended: standing for election", "leader", c.replica.NameOf(f.Leader))
			return
		}
	}
}

// sleep returns after a while; false: ctx is done before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// rank is how many other voters have a lower id, but for one.
func (c *cluster) rank(but state.NodeID) (rank int) {
	for _, s := range c.replica.Others() {
		if s.Voter && s.ID != but && s.ID < c.self {
			rank++
		}
	}
	return rank
}

// hasEnded looks, for as long as this node follows a raft leader and hears nothing of it,
// whether the process is there that led, in that life.
func (c *cluster) hasEnded(ctx context.Context, f replica.Following, life string) bool {
	for ; c.replica.Misses(f); sleep(ctx, lookAgain) {
		leader, member := c.replica.Server(f.Leader)
		if !member || ctx.Err() != nil {
			return false
		}
		dialing, cancel := context.WithTimeout(ctx, c.cfg.Timing.Heartbeat)
		conn, greets, err := c.port.Dial(dialing, clusterport.Admin, c.replica.AddressOf(leader), string(f.Leader))
		cancel()
		if err == nil {
			conn.Close()
		}
		if ended, known := judge(f.Leader, life, greets, err); known {
			return ended
		}
	}
	return false
}

// judge reports what dialling a node says about the process that it had in a life: whether it
// has ended, if that is known by it. It may be just going, or coming, or out of reach.
func judge(node state.NodeID, life string, greets clusterport.Hello, err error) (ended, known bool) {
	if refused, is := errors.AsType[*clusterport.RefusedError](err); is {
		greets = refused.Peer
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return true, true
	case greets.Node != string(node):
		return false, false
	}
	return life != "" && greets.Life != "" && greets.Life != life, true // an older program names none
}

// othersAgree reports whether this node and others that agree with it are a majority of the
// voters.
func (c *cluster) othersAgree(ctx context.Context, f replica.Following) bool {
	voters := slices.DeleteFunc(c.replica.Servers(), func(s replica.Server) bool { return !s.Voter })
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Heartbeat)
	defer cancel()
	answers := make(chan bool, len(voters))
	for _, s := range voters {
		if s.ID == c.self {
			answers <- true
			continue
		}
		go func() {
			var agrees bool
			_, err := c.ask(ctx, clusterport.Admin, c.replica.AddressOf(s), s.ID, askEnded, endedQuestion{f.Leader, f.Term, c.replica.LastIndex()}, &agrees)
			answers <- err == nil && agrees
		}()
	}
	agree := 0
	for range voters {
		if <-answers {
			agree++
		}
		if agree > len(voters)/2 {
			return true
		}
	}
	return false
}

// answerEnded answers askEnded.
func (c *cluster) answerEnded(_ context.Context, peer clusterport.Hello, with json.RawMessage) (any, error) {
	var of endedQuestion
	if err := json.Unmarshal(with, &of); err != nil {
		return nil, err
	}
	f, last := c.ended.found.Load(), c.replica.LastIndex()
	switch {
	case of.Last < last:
		return false, nil
	case c.replica.FollowsNobody(of.Term): // it was just started, perhaps as the raft leader that has ended
		return true, nil
	case f == nil || f.Leader != of.Leader || f.Term != of.Term || !c.replica.Misses(*f):
		return false, nil
	}
	return of.Last > last || peer.Node < string(c.self), nil
}
