package ensemble

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// worn is a store whose disk fails from a time on.
type worn struct {
	store
	broken atomic.Bool
}

var errWorn = errors.New("the disk has failed")

func (w *worn) SetUint64(key []byte, value uint64) error {
	if w.broken.Load() {
		return errWorn
	}
	return w.store.SetUint64(key, value)
}

func (w *worn) GetLog(index uint64, l *raft.Log) error {
	if w.broken.Load() {
		return errWorn
	}
	return w.store.GetLog(index, l)
}

// A disk that fails when Raft has to save a new term, or to apply an entry, ends Raft
// and not the process: the node has connections to close.
func TestRaftEndsQuietlyWhenTheDiskFails(t *testing.T) {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}
	for name, ask := range map[string]func(*raft.InmemTransport, raft.ServerAddress) (granted bool){
		"save a term": func(other *raft.InmemTransport, to raft.ServerAddress) bool {
			var answer raft.RequestVoteResponse
			other.RequestVote("a", to, &raft.RequestVoteRequest{RPCHeader: header, Term: 10, LastLogIndex: 10, LastLogTerm: 10}, &answer)
			return answer.Granted
		},
		"apply an entry": func(other *raft.InmemTransport, to raft.ServerAddress) bool {
			var answer raft.AppendEntriesResponse
			other.AppendEntries("a", to, &raft.AppendEntriesRequest{RPCHeader: header, Term: 1, LeaderCommitIndex: 1}, &answer)
			return answer.Success
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := &worn{store: raft.NewInmemStore()}
			entries := &raftStore{store: disk}
			c := raft.DefaultConfig()
			c.LocalID = "a"
			c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour // it only follows
			c.LogOutput = io.Discard
			address, transport := raft.NewInmemTransport("")
			members := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: address}, {ID: "b", Address: "b"}}}
			if err := raft.BootstrapCluster(c, entries, entries, raft.NewDiscardSnapshotStore(), transport, members); err != nil {
				t.Fatal(err)
			}
			r, err := raft.NewRaft(c, &raft.MockFSM{}, entries, entries, raft.NewDiscardSnapshotStore(), transport)
			if err != nil {
				t.Fatal(err)
			}
			entries.running.Store(true)
			_, other := raft.NewInmemTransport("b")
			other.Connect(address, transport)

			disk.broken.Store(true)
			if ask(other, address) {
				t.Error("it says yes to what it cannot do")
			}
			ended := make(chan error, 1)
			go func() { ended <- r.Shutdown().Error() }()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Error("Raft does not end")
			}
		})
	}
}
