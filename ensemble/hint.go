package ensemble

import (
	"time"

	"github.com/hashicorp/raft"
)

// Raft tells followers how far the log is committed with the next entry, or
// when none comes for a while (CommitTimeout, once or twice): a follower's
// clients would wait that long for what is decided already, and its lease for what
// prolongs it; and of a raft leader that dies meanwhile it would know a sign of life
// that it takes for a later one. So the raft leader, having applied an entry, sends its followers a hint:
// an ordinary AppendEntries without entries, whose commit index is that entry.
// It is what Raft itself could send at that moment, of the term of that entry,
// and only while this node leads in that term; a follower checks it against its
// log as any other. Its answer moves nothing here. A hint that is lost costs
// only the wait.

// committed is an entry that the raft leader has applied.
type committed struct{ index, term uint64 }

// retryHint is the pause before a hint is sent again to a follower that has not
// stored the entry yet; it doubles each time, maxHints times at most.
const (
	retryHint = 100 * time.Microsecond
	maxHints  = 8
)

// hintFollowers has followers told of an applied entry. It does not block.
func (n *Node) hintFollowers(index, term uint64) {
	if n.leads.Load() == term {
		n.newest.Store(&committed{index, term})
		signal(n.wakeHints)
	}
}

// runHints keeps a goroutine for each other member, which sends it hints.
func (n *Node) runHints() {
	wakes := map[NodeID]chan struct{}{}
	defer func() {
		for _, wake := range wakes {
			close(wake)
		}
	}()
	for {
		select {
		case <-n.done:
			return
		case <-n.wakeHints:
		}
		gone := map[NodeID]chan struct{}{}
		for id, wake := range wakes {
			gone[id] = wake
		}
		for _, s := range n.others() {
			wake := wakes[s.id]
			if wake == nil {
				wake = make(chan struct{}, 1)
				wakes[s.id] = wake
				n.running.Go(func() { n.sendHints(s.id, wake) })
			}
			signal(wake)
			delete(gone, s.id)
		}
		for id, wake := range gone {
			close(wake)
			delete(wakes, id)
		}
	}
}

// sendHints sends a follower the newest hint whenever it is woken, until wake is
// closed.
func (n *Node) sendHints(to NodeID, wake <-chan struct{}) {
	t := n.transport
	header := raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(n.self),
		Addr:            t.EncodePeer(raft.ServerID(n.self), t.LocalAddr()),
	}
	for range wake {
		pause := retryHint
		for range maxHints {
			c := n.newest.Load()
			if c == nil || !n.leadsIn(c.term) {
				break
			}
			var answer raft.AppendEntriesResponse
			err := t.NetworkTransport.AppendEntries(raft.ServerID(to), "", &raft.AppendEntriesRequest{
				RPCHeader:         header,
				Term:              c.term,
				PrevLogEntry:      c.index,
				PrevLogTerm:       c.term,
				LeaderCommitIndex: c.index,
			}, &answer)
			if err != nil || answer.Success || answer.Term != c.term {
				break
			}
			select {
			case <-n.done:
				return
			case <-time.After(pause):
				pause *= 2
			}
		}
	}
}

// leadsIn reports whether this node is the raft leader of a term: it was in the
// role at one moment between two at which the term was that. Raft may ask before its
// start returns.
func (n *Node) leadsIn(term uint64) bool {
	select {
	case <-n.started:
	case <-n.done:
		return false
	}
	return n.raft.CurrentTerm() == term && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}
