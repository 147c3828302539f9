package ensemble

import (
	"io"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// leads is a node that is the raft leader of term 3, or follows that of term 3.
type leads struct {
	onDisk uint64
	follow bool
}

func (l leads) sendsTo(_ raft.ServerID, term uint64) bool { return !l.follow && term == 3 }
func (l leads) follows(term uint64) bool                  { return l.follow && term == 3 }
func (l leads) flushed() uint64                           { return l.onDisk }
func (l leads) stores(raft.ServerID, uint64, uint64)      {}
func (l leads) ends(raft.ServerID, uint64, uint64)        {}

// wire is a transport to a peer on loopback.
func wire(t *testing.T, l leads) (own *transport, peer *raft.NetworkTransport) {
	t.Helper()
	transports := make([]*raft.NetworkTransport, 2)
	for i := range transports {
		tcp, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 10*time.Second, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tcp.Close() })
		transports[i] = tcp
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return &transport{NetworkTransport: transports[0], node: l, calls: make(chan raft.RPC), done: done, answers: map[raft.ServerID]chan struct{}{}}, transports[1]
}

// What a raft leader calls committed is on its disk, and the other node has it by the same
// request.
func TestWhatIsCalledCommitted(t *testing.T) {
	for _, tt := range []struct {
		prev, entries, committed, onDisk, want uint64
	}{
		{prev: 10, entries: 2, committed: 9, onDisk: math.MaxUint64, want: 9},
		{prev: 10, entries: 2, committed: 12, onDisk: math.MaxUint64, want: 12},
		{prev: 10, entries: 2, committed: 12, onDisk: 11, want: 11},
		{prev: 10, entries: 2, committed: 20, onDisk: math.MaxUint64, want: 12},
		{prev: 10, entries: 0, committed: 20, onDisk: math.MaxUint64, want: 10},
		{prev: 10, entries: 0, committed: 20, onDisk: 8, want: 8},
	} {
		own, peer := wire(t, leads{onDisk: tt.onDisk})
		req := raft.AppendEntriesRequest{Term: 3, PrevLogEntry: tt.prev, PrevLogTerm: 3, LeaderCommitIndex: tt.committed}
		for i := range tt.entries {
			req.Entries = append(req.Entries, &raft.Log{Index: tt.prev + 1 + i, Term: 3})
		}
		sent := make(chan error, 1)
		go func() {
			sent <- own.AppendEntries("b", peer.LocalAddr(), &req, &raft.AppendEntriesResponse{})
		}()
		rpc := <-peer.Consumer()
		got := rpc.Command.(*raft.AppendEntriesRequest)
		if got.LeaderCommitIndex != tt.want || len(got.Entries) != int(tt.entries) || req.LeaderCommitIndex != tt.committed {
			t.Errorf("%+v: committed up to %d is sent", tt, got.LeaderCommitIndex)
		}
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// Raft has to do with those heartbeats alone, outside of its main goroutine, that change
// neither its role nor its term. Others go there, or, where it is busy, are answered all
// the same.
func TestHeartbeatsThatWouldChangeSomething(t *testing.T) {
	for _, tt := range []struct {
		follow bool
		term   uint64
		want   bool
	}{
		{true, 3, true},
		{true, 2, false},
		{true, 4, false},
		{false, 3, false},
		{false, 4, false},
	} {
		own, peer := wire(t, leads{follow: tt.follow})
		beside := 0
		own.SetHeartbeatHandler(func(rpc raft.RPC) {
			beside++
			rpc.Respond(&raft.AppendEntriesResponse{}, nil)
		})
		send := func() {
			heartbeat := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}, Term: tt.term}
			if err := peer.AppendEntries("a", own.LocalAddr(), &heartbeat, &raft.AppendEntriesResponse{}); err != nil {
				t.Errorf("%+v: %v", tt, err)
			}
		}
		send() // to a main goroutine that is busy
		if tt.want {
			if beside != 1 {
				t.Errorf("%+v: not handled beside the main goroutine", tt)
			}
			continue
		}
		handled := make(chan struct{})
		go func() {
			rpc := <-own.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			close(handled)
		}()
		poll(t, "the main goroutine has one", func() bool {
			send()
			select {
			case <-handled:
				return true
			default:
				return false
			}
		})
		if beside != 0 {
			t.Errorf("%+v: handled beside the main goroutine", tt)
		}
	}
}

// Raft's goroutine that waits until a node answers again ends when the node is removed.
func TestNobodyWaitsForARemovedNode(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	dead := others[0]
	id := raft.ServerID(dead.self)
	waits := func() bool {
		leader.replica.transport.answering.Lock()
		defer leader.replica.transport.answering.Unlock()
		return leader.replica.transport.answers[id] != nil
	}
	kill(dead.Node)
	poll(t, "the raft leader waits for the dead node", waits)
	if err := leader.ForceRemove(t.Context(), dead.name); err != nil {
		t.Fatal(err)
	}
	poll(t, "it waits no more", func() bool { return !waits() && sending() == 1 })
}

// sending counts the goroutines of Raft that each send to another node.
func sending() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "raft.(*Raft).replicate(")
}

// A raft leader that hangs in the middle of a snapshot, with a kernel that goes on to
// answer, makes the node to which it sends that deaf for no longer than a request may
// pause: of the two that are left, one becomes the raft leader.
func TestASnapshotThatStopsDoesNotHoldUpAnElection(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	deaf, third := others[0], others[1]
	goOn := make(chan struct{})
	sent := make(chan error, 1)
	t.Cleanup(func() { // before its port is closed
		close(goOn)
		if err := <-sent; err == nil {
			t.Error("the snapshot was sent whole")
		}
	})
	go func() {
		self := []byte(raftAddress(leader.name, leader.address))
		term := leader.replica.raft.CurrentTerm()
		sent <- leader.replica.transport.NetworkTransport.InstallSnapshot(raft.ServerID(deaf.self), "", &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.self), Addr: self},
			SnapshotVersion: 1,
			Term:            term,
			Leader:          self,
			LastLogIndex:    leader.replica.raft.LastIndex(),
			LastLogTerm:     term,
			Size:            1 << 20,
			Configuration:   raft.EncodeConfiguration(leader.replica.raft.GetConfiguration().Configuration()),
		}, new(raft.InstallSnapshotResponse), stuck(goOn))
	}()
	poll(t, "the snapshot has begun", func() bool {
		begun, err := filepath.Glob(deaf.dir.Path("snapshots") + "/*.tmp")
		return err == nil && len(begun) > 0
	})
	leader.replica.raft.Shutdown() // it says nothing any more, and its connections stay
	poll(t, "another raft leader", func() bool { return deaf.serving() || third.serving() })
	select {
	case err := <-sent:
		sent <- err
		t.Fatalf("the snapshot ended too early: %v", err)
	default:
	}
}

// stuck is a file on a disk that hangs.
type stuck chan struct{}

func (s stuck) Read([]byte) (int, error) { <-s; return 0, io.ErrUnexpectedEOF }
