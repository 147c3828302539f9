package replica

import (
	"sync/atomic"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// Raft tells followers how far the log is committed with the next entry or, if none
// comes, after CommitTimeout, once or twice. Until then a follower does not know of the
// newest commit:
//
//  1. Its clients wait for what is decided already.
//  2. Its lease is not prolonged by a renewal that is committed.
//  3. It applies a renewal of the raft leader late. If the raft leader dies, the follower
//     takes that renewal for a later sign of life than it was, and expires its session later.
//
// So the raft leader, when it has applied an entry, sends a hint to each follower that has
// stored it: an ordinary AppendEntries without entries, whose commit index is that entry. A
// hint is safe. Raft itself could send it at that moment: it is of the term of that entry,
// and is sent only while this node leads in that term. A follower checks it against its log
// as any other. Its answer changes nothing here. A lost hint costs only the wait.
//
// A node whose process is a new one knows of no commit, and so opens no session. So it gets a
// hint when it answers heartbeats again.

// entryID names an entry of the log for ever (Raft's thesis, 3.5).
type entryID struct{ index, term uint64 }

// covers reports whether a log of e's term that has e has o too.
func (e *entryID) covers(o *entryID) bool { return e != nil && e.term == o.term && e.index >= o.index }

// follower is a node to which this one, as the raft leader, sends hints.
type follower struct {
	id     state.NodeID
	wake   chan struct{}           // it may have stored what is committed; room for one
	gone   chan struct{}           // closed: it is no member any more
	stored atomic.Pointer[entryID] // it has the log of that term up to there; nil: not known
	told   atomic.Pointer[entryID] // the newest hint sent
	lost   atomic.Pointer[loss]    // what it had stored and has no more; nil: nothing that is known
}

// loss is that the log of a node ended before an entry that it had stored. By itself a node
// cuts off only what a newer raft leader has otherwise.
type loss struct {
	stored entryID
	end    uint64
}

// stores notes how far the follower has the log, unless more is known already.
func (f *follower) stores(upTo entryID) {
	for {
		before := f.stored.Load()
		if before != nil && (before.term > upTo.term || before.covers(&upTo)) || f.stored.CompareAndSwap(before, &upTo) {
			return
		}
	}
}

// ends notes where the log of the follower has ended in a term.
func (f *follower) ends(at, term uint64) {
	if stored := f.stored.Load(); stored != nil && stored.term == term && at < stored.index {
		f.lost.Store(&loss{*stored, at})
	}
}

// needs reports whether the follower has stored an entry, and has no hint of it yet.
func (f *follower) needs(c *entryID) bool {
	return c != nil && f.stored.Load().covers(c) && f.told.Load() != c
}

// tell has the follower told of c, if it needs that. It does not block.
func (f *follower) tell(c *entryID) {
	if f.needs(c) {
		signal(f.wake)
	}
}

// hintFollowers has followers told of an applied entry. It does not block.
func (r *Replica) hintFollowers(index, term uint64) {
	if r.leads.Load() != term {
		return
	}
	c := &entryID{index, term}
	r.newest.Store(c)
	r.followers.Range(func(_, v any) bool {
		v.(*follower).tell(c)
		return true
	})
}

// stores notes how far a member has said that it has stored the log of a term in which
// this node leads. It does not block, once the node is started.
func (r *Replica) stores(id raft.ServerID, index, term uint64) {
	v, ok := r.followers.Load(id)
	if !ok {
		if !r.sendsTo(id, term) { // it waits for the start, which Raft does not
			return
		}
		f := &follower{id: state.NodeID(id), wake: make(chan struct{}, 1), gone: make(chan struct{})}
		if v, ok = r.followers.LoadOrStore(id, f); !ok {
			r.running.Go(func() { r.sendHints(f) })
		}
	}
	f := v.(*follower)
	f.stores(entryID{index, term})
	f.tell(r.newest.Load()) // what is applied later finds it stored
}

// returns has a node told anew of what is committed, which answers again after it was silent: its
// process may be another, which has the log and was told nothing.
func (r *Replica) returns(id raft.ServerID) {
	v, ok := r.followers.Load(id)
	if !ok {
		return
	}
	f := v.(*follower)
	f.told.Store(nil)
	f.tell(r.newest.Load())
}

// ends notes where the log of a node ended that knew of no later term than this.
func (r *Replica) ends(id raft.ServerID, at, term uint64) {
	if f, ok := r.followers.Load(id); ok {
		f.(*follower).ends(at, term)
	}
}

// sendHints sends a follower the newest hint whenever it is woken, for as long as it is
// a member.
func (r *Replica) sendHints(f *follower) {
	t := r.transport
	header := raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(r.self),
		Addr:            t.EncodePeer(raft.ServerID(r.self), t.LocalAddr()),
	}
	for {
		select {
		case <-r.done:
			return
		case <-f.gone:
			return
		case <-f.wake:
		}
		c := r.newest.Load()
		if !f.needs(c) || !r.leadsIn(c.term) {
			continue
		}
		f.told.Store(c)
		err := t.NetworkTransport.AppendEntries(raft.ServerID(f.id), "", &raft.AppendEntriesRequest{
			RPCHeader:         header,
			Term:              c.term,
			PrevLogEntry:      c.index,
			PrevLogTerm:       c.term,
			LeaderCommitIndex: c.index,
		}, &raft.AppendEntriesResponse{})
		if err != nil {
			f.told.CompareAndSwap(c, nil) // it goes with the next answer
		}
	}
}

// leadsIn reports whether this node is the raft leader of a term: it was in the
// role at one moment between two at which the term was that. Raft may ask before its
// start returns.
func (r *Replica) leadsIn(term uint64) bool {
	select {
	case <-r.started:
	case <-r.done:
		return false
	}
	return r.raft.CurrentTerm() == term && r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term
}

// sendsTo reports whether this node is the raft leader of a term, and another one a member.
func (r *Replica) sendsTo(id raft.ServerID, term uint64) bool {
	if !r.leadsIn(term) {
		return false
	}
	_, member := r.Server(state.NodeID(id))
	return member
}
