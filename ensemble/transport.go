package ensemble

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// transport is Raft's, with an end: Raft handles heartbeats on goroutines of the
// transport, for which its Shutdown does not wait, and panics in one that finds
// the store closed.
type transport struct {
	*raft.NetworkTransport

	mu    sync.RWMutex // held, shared, over the handling of a heartbeat
	ended bool
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
	return t.NetworkTransport.AppendEntries(id, to, args, answer)
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
		handle(rpc)
	})
}

// end returns when no heartbeat is being handled; none will be any more.
func (t *transport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}
