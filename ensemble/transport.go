package ensemble

import (
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
