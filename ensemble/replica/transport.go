package replica

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's own transport with seven repairs of raft 1.8.0:
//
//  1. It ends ([transport.end]). Raft handles heartbeats on goroutines of the transport. Its
//     Shutdown does not wait for these, and Raft panics in one that finds the store closed.
//  2. A heartbeat of a new raft leader goes to Raft's main goroutine
//     ([transport.SetHeartbeatHandler]). On the heartbeat's goroutine Raft would follow the new
//     raft leader at once. The main goroutine might be storing an entry as the former raft
//     leader just then, and would store it as one of the new term
//     (https://github.com/hashicorp/raft/issues/695). If the main goroutine is busy, the
//     heartbeat is only answered: the sender asks no more of it than whether the node is
//     there. (If Raft stands for election meanwhile, its term does not go back:
//     [raftStore.SetUint64].)
//  3. It names as committed only what the other node has after this request, and what is on
//     this node's disk ([transport.AppendEntries]). Raft names all that is committed,
//     whatever it sends. The other node would apply what its log has at these places.
//  4. It repeats a failed request, once, when the other node answers heartbeats again
//     ([transport.awaitAnswer]). Raft waits after each failure twice as long as before, up to
//     10 s, and then for the next entry or CommitTimeout. A node that was away would get its
//     entries that much later.
//  5. It sends no entry of which only the term is known ([endOfSnapshot]).
//  6. It passes a heartbeat before a snapshot ([transport.pass]).
//  7. It repeats a heartbeat that fails ([transport.heartbeat]). After a failure Raft pauses, each
//     time for longer. A node that was started again would wait for that pause. The first
//     heartbeats go to connections of the process before, and so fail.
type transport struct {
	*raft.NetworkTransport
	node  leadership
	calls chan raft.RPC // to Raft's main goroutine
	done  <-chan struct{}

	repeatsWithin time.Duration // see there

	mu    sync.RWMutex // held, shared, over the handling of a heartbeat
	ended bool

	answering sync.Mutex
	answers   map[raft.ServerID]chan struct{} // closed when the node answers a heartbeat
	silent    map[raft.ServerID]time.Time     // since when heartbeats to it fail
}

// What is repeated of a heartbeat. So many are repeated at once: as many connections may be
// left of a process before. The others are so far apart, and come until the node was silent for
// that long: a process starts in a tenth of it.
const (
	pooledConns   = 3
	repeatEvery   = 5 * time.Millisecond
	repeatsWithin = 500 * time.Millisecond
)

// leadership is what the node knows of its role in Raft.
type leadership interface {
	sendsTo(id raft.ServerID, term uint64) bool // it is the raft leader of the term, and the other a member
	follows(term uint64) bool
	flushed() uint64                             // up to which entry its log is on its disk
	stores(id raft.ServerID, index, term uint64) // is told that another node has its log up to an entry
	ends(id raft.ServerID, at, term uint64)      // is told that the log of another node ended at an entry
	returns(id raft.ServerID)                    // is told that another node, which was silent, answers heartbeats
}

func newTransport(node leadership, done <-chan struct{}, c *raft.NetworkTransportConfig) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(c),
		node:             node,
		calls:            make(chan raft.RPC),
		done:             done,
		repeatsWithin:    repeatsWithin,
		answers:          make(map[raft.ServerID]chan struct{}),
		silent:           make(map[raft.ServerID]time.Time),
	}
	go t.pass()
	return t
}

// Consumer implements [raft.Transport].
func (t *transport) Consumer() <-chan raft.RPC { return t.calls }

// pass passes on what is not for a heartbeat's handler. Before a snapshot it passes a
// heartbeat of its sender: raft 1.8.0, standing for election, would take the snapshot and
// stand on, and, taking the sender for the raft leader, vote for nobody.
func (t *transport) pass() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if req, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
				t.call(raft.RPC{
					Command:  &raft.AppendEntriesRequest{RPCHeader: req.RPCHeader, Term: req.Term},
					RespChan: make(chan raft.RPCResponse, 1),
				})
			}
			t.call(rpc)
		case <-t.done:
			return
		}
	}
}

func (t *transport) call(rpc raft.RPC) {
	select {
	case t.calls <- rpc:
	case <-t.done:
	}
}

// errCompacted: what was to be sent has just gone into a snapshot.
var errCompacted = errors.New("an entry that is in a snapshot by now")

// AppendEntries implements [raft.Transport]. It refuses what only stands for an entry:
// one that was compacted away while Raft put the request together. Raft then tries
// again, and sends the snapshot.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	for _, l := range args.Entries {
		if l.Type == endOfSnapshot {
			return errCompacted
		}
	}
	sent := *args
	sent.LeaderCommitIndex = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)), t.node.flushed())
	if args.PrevLogEntry == 0 && args.LeaderCommitIndex == 0 && len(args.Entries) == 0 {
		return t.heartbeat(id, to, &sent, answer)
	}
	err := t.NetworkTransport.AppendEntries(id, to, &sent, answer)
	if err != nil && t.awaitAnswer(id, args.Term) {
		err = t.NetworkTransport.AppendEntries(id, to, &sent, answer)
	}
	switch {
	case err == nil && answer.Success:
		t.node.stores(id, args.PrevLogEntry+uint64(len(args.Entries)), args.Term)
	case err == nil && answer.Term == args.Term:
		t.node.ends(id, answer.LastLog, args.Term)
	}
	return err
}

// heartbeat sends a heartbeat, again where it fails: it asks for nothing that may not be done
// twice. A node that does not answer for long is Raft's to try again, at its own pace.
func (t *transport) heartbeat(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	for failures := 0; ; failures++ {
		err := t.NetworkTransport.AppendEntries(id, to, args, answer)
		if err == nil {
			if t.answered(id) {
				t.node.returns(id)
			}
			return nil
		}
		var pause time.Duration
		if failures >= pooledConns {
			pause = repeatEvery
		}
		if t.silentFor(id) > t.repeatsWithin || !t.node.sendsTo(id, args.Term) {
			return err
		}
		select {
		case <-t.done:
			return err
		case <-time.After(pause):
		}
	}
}

// silentFor is for how long heartbeats to a node have failed, with the one that failed now.
func (t *transport) silentFor(id raft.ServerID) time.Duration {
	t.answering.Lock()
	defer t.answering.Unlock()
	since, silent := t.silent[id]
	if !silent {
		since = time.Now()
		t.silent[id] = since
	}
	return time.Since(since)
}

// InstallSnapshot implements [raft.Transport].
func (t *transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, answer *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, to, args, answer, data)
	if err != nil {
		t.awaitAnswer(id, args.Term)
	}
	return err
}

// answered notes that a node has answered a heartbeat, or never will: it was removed. It reports
// whether the node was silent.
func (t *transport) answered(id raft.ServerID) (wasSilent bool) {
	t.answering.Lock()
	defer t.answering.Unlock()
	_, wasSilent = t.silent[id]
	delete(t.silent, id)
	if answer := t.answers[id]; answer != nil {
		close(answer)
		delete(t.answers, id)
	}
	return wasSilent
}

// answer is closed at the next call of answered.
func (t *transport) answer(id raft.ServerID) <-chan struct{} {
	t.answering.Lock()
	defer t.answering.Unlock()
	if t.answers[id] == nil {
		t.answers[id] = make(chan struct{})
	}
	return t.answers[id]
}

// awaitAnswer waits for an answer to a heartbeat, for as long as this node is the raft
// leader of the term and the other one a member: Raft's goroutine that sends to a node ends,
// when that was removed, only on its way round. It reports whether the node answered.
func (t *transport) awaitAnswer(id raft.ServerID, term uint64) bool {
	for t.node.sendsTo(id, term) {
		select {
		case <-t.answer(id):
			return t.node.sendsTo(id, term)
		case <-t.done:
			return false
		case <-time.After(time.Second):
		}
	}
	return false
}

// SetHeartbeatHandler implements [raft.Transport].
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.mu.RLock()
		defer t.mu.RUnlock()
		if t.ended {
			rpc.Respond(nil, raft.ErrRaftShutdown)
			return
		}
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); !ok || t.node.follows(req.Term) {
			handle(rpc)
			return
		}
		select {
		case t.calls <- rpc:
		default:
			rpc.Respond(&raft.AppendEntriesResponse{}, nil)
		}
	})
}

// end returns when no heartbeat is being handled; none will be any more.
func (t *transport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}
