package replica

import (
	"io"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// leads is a node that is the raft leader of term 3, or follows that of term 3.
type leads struct {
	returned chan raft.ServerID
	onDisk   uint64
	follow   bool
}

func (l leads) sendsTo(_ raft.ServerID, term uint64) bool { return !l.follow && term == 3 }
func (l leads) follows(term uint64) bool                  { return l.follow && term == 3 }
func (l leads) flushed() uint64                           { return l.onDisk }
func (l leads) stores(raft.ServerID, uint64, uint64)      {}
func (l leads) ends(raft.ServerID, uint64, uint64)        {}
func (l leads) returns(id raft.ServerID) {
	if l.returned != nil {
		l.returned <- id
	}
}

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
	return &transport{
		NetworkTransport: transports[0], node: l, calls: make(chan raft.RPC), done: done,
		answers: map[raft.ServerID]chan struct{}{}, silent: map[raft.ServerID]time.Time{},
	}, transports[1]
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

// A heartbeat to a process that is just being started comes there as soon as it listens. It is
// repeated while this node is the raft leader of its term, and for a while.
func TestAHeartbeatIsRepeatedAtOnce(t *testing.T) {
	returned := make(chan raft.ServerID, 2)
	own, peer := wire(t, leads{returned: returned})
	address := peer.LocalAddr()
	beat := func(term uint64) error {
		return own.AppendEntries("b", address, &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")}, Term: term}, &raft.AppendEntriesResponse{})
	}
	peer.Close()
	if beat(3) == nil {
		t.Fatal("nobody is there, and a heartbeat is answered")
	}

	own.repeatsWithin = time.Hour
	if beat(2) == nil {
		t.Error("a heartbeat of another term is repeated until it is answered")
	}
	sent := make(chan error)
	go func() { sent <- beat(3) }()
	select {
	case err := <-sent:
		t.Fatalf("a heartbeat is given up: %v", err)
	case <-time.After(20 * repeatEvery):
	}
	again, err := raft.NewTCPTransport(string(address), nil, 1, 10*time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
	if err := <-sent; err != nil {
		t.Errorf("started again, and the heartbeat fails: %v", err)
	}
	if len(own.silent) > 0 {
		t.Error("a node that answers counts as silent")
	}
	if err := beat(3); err != nil {
		t.Error(err)
	}
	if len(returned) != 1 || <-returned != "b" {
		t.Error("the node did not return once")
	}
}

// Entries that a node could not be sent while it was started go there with its first answer.
// They are not sent any more by a node that leads no longer.
func TestAFailedRequestIsRepeatedWhenTheNodeAnswers(t *testing.T) {
	own, peer := wire(t, leads{})
	address := peer.LocalAddr()
	peer.Close()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")}
	send := func(term uint64, answer *raft.AppendEntriesResponse) error {
		return own.AppendEntries("b", address, &raft.AppendEntriesRequest{
			RPCHeader: header, Term: term, PrevLogEntry: 9, PrevLogTerm: 2, Entries: []*raft.Log{{Index: 10, Term: term}},
		}, answer)
	}
	if send(2, &raft.AppendEntriesResponse{}) == nil {
		t.Fatal("nobody is there, and a request is answered")
	}
	sent := make(chan error)
	var answer raft.AppendEntriesResponse
	go func() { sent <- send(3, &answer) }()

	again, err := raft.NewTCPTransport(string(address), nil, 1, 10*time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
	var rpc raft.RPC
	poll(t, "the request comes again", func() bool {
		if err := own.AppendEntries("b", address, &raft.AppendEntriesRequest{RPCHeader: header, Term: 3}, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
		select {
		case rpc = <-again.Consumer():
			return true
		case err := <-sent:
			t.Fatalf("the request is given up: %v", err)
			return false
		default:
			return false
		}
	})
	if req := rpc.Command.(*raft.AppendEntriesRequest); req.PrevLogEntry != 9 || len(req.Entries) != 1 {
		t.Errorf("sent again: %+v", req)
	}
	rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 10}, nil)
	if err := <-sent; err != nil || !answer.Success {
		t.Errorf("repeated: %+v, %v", answer, err)
	}
}
