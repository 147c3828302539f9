package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
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
			entries, err := newRaftStore(disk, &snapshots{})
			if err != nil {
				t.Fatal(err)
			}
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

// A follower whose log begins behind an installed snapshot, with entries that never
// were committed, takes those of the next raft leader in their place; also after a
// start, and where it had such entries already when the snapshot came.
func TestEntriesRightBehindASnapshotAreReplaced(t *testing.T) {
	for i := range 8 {
		restarted, before := i%2 == 1, []uint64{0, 99, 100, 103}[i/2] // the log ended there when the snapshot came
		t.Run(fmt.Sprintf("restarted %t, overtaken at %d", restarted, before), func(t *testing.T) {
			restart := false
			folder := testFolder(t)
			c := raft.DefaultConfig()
			c.LocalID = "a"
			c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour // it only follows
			c.LogOutput = io.Discard
			var r *raft.Raft
			var log *logstore.Store
			var leader *raft.InmemTransport
			start := func() {
				t.Helper()
				var err error
				if log, err = logstore.Open(filepath.Join(folder.Path, "raft.db"), logstore.Options{}); err != nil {
					t.Fatal(err)
				}
				s, err := newSnapshots(folder, log, testRaftLog(t))
				if err != nil {
					t.Fatal(err)
				}
				_, own := raft.NewInmemTransport("a")
				_, leader = raft.NewInmemTransport("b")
				leader.Connect("a", own)
				entries, err := newRaftStore(log, s)
				if err != nil {
					t.Fatal(err)
				}
				if r, err = raft.NewRaft(c, &raft.MockFSM{}, entries, entries, s, own); err != nil {
					t.Fatal(err)
				}
				entries.restart = func(error) { restart = true }
				entries.running.Store(true)
			}
			stop := func() {
				t.Helper()
				if err := errors.Join(r.Shutdown().Error(), log.Close()); err != nil {
					t.Error(err)
				}
			}
			header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}
			send := func(term, prev, prevTerm, last uint64) bool {
				t.Helper()
				req := raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: prev}
				for i := prev + 1; i <= last; i++ {
					req.Entries = append(req.Entries, &raft.Log{Index: i, Term: term, Type: raft.LogCommand})
				}
				var resp raft.AppendEntriesResponse
				if err := leader.AppendEntries("a", "a", &req, &resp); err != nil {
					t.Fatal(err)
				}
				return resp.Success
			}

			start()
			defer func() { stop() }()
			if before > 0 && !send(1, 0, 0, before) {
				t.Fatal("the first entries are refused")
			}
			state := []byte("\x90") // MockFSM's, empty
			install := raft.InstallSnapshotRequest{
				RPCHeader: header, Term: 2, SnapshotVersion: 1, LastLogIndex: 100, LastLogTerm: 2, Size: int64(len(state)),
				Configuration:      raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}),
				ConfigurationIndex: 1,
			}
			var installed raft.InstallSnapshotResponse
			if err := leader.InstallSnapshot("a", "a", &install, &installed, bytes.NewReader(state)); err != nil || !installed.Success {
				t.Fatal(installed, err)
			}
			if restart != (before >= 100) { // Raft remembers those entries
				t.Errorf("is to be restarted: %t", restart)
			}
			if before == 0 && !send(2, 100, 2, 104) {
				t.Fatal("the entries of the first raft leader are refused")
			}
			if restarted || restart {
				stop()
				start()
			}
			if send(3, 100, 7, 104) {
				t.Error("entries are taken that follow another entry than the snapshot's last")
			}
			if !send(3, 100, 2, 104) {
				t.Error("the entries of the next raft leader are refused")
			}
			for index, want := range map[uint64]error{1: raft.ErrLogNotFound, 100: raft.ErrLogNotFound, 101: nil, 104: nil} {
				var l raft.Log
				if err := log.GetLog(index, &l); err != want || err == nil && l.Term != 3 {
					t.Errorf("entry %d is of term %d, error %v", index, l.Term, err)
				}
			}
		})
	}
}

// What a crash has left in the log when a snapshot had come is removed at the start, if it
// is not what went into the snapshot.
func TestALogAgreesWithTheNewestSnapshot(t *testing.T) {
	for _, tt := range []struct {
		term        uint64 // of the snapshot with the end 7, the log being of term 2
		first, last uint64
		want        uint64 // the first that stays
	}{
		{term: 2, first: 1, last: 9, want: 1},
		{term: 3, first: 1, last: 9, want: 10},
		{term: 3, first: 1, last: 7, want: 8},
		{term: 3, first: 1, last: 6, want: 7},
		{term: 3, first: 8, last: 9, want: 10}, // as older programs left it
		{term: 1, first: 8, last: 9, want: 8},
	} {
		log := raft.NewInmemStore()
		for i := tt.first; i <= tt.last; i++ {
			if err := log.StoreLog(&raft.Log{Index: i, Term: 2}); err != nil {
				t.Fatal(err)
			}
		}
		of := &snapshots{}
		of.newest.Store(&raft.SnapshotMeta{Index: 7, Term: tt.term})
		if _, err := newRaftStore(log, of); err != nil {
			t.Fatal(err)
		}
		for i := tt.first; i <= tt.last; i++ {
			if err := log.GetLog(i, new(raft.Log)); (err == nil) != (i >= tt.want) {
				t.Errorf("%+v: entry %d: error %v", tt, i, err)
			}
		}
	}
}

// Of what stands for an entry that is in a snapshot nothing is sent.
func TestTheEndOfASnapshotIsNotSent(t *testing.T) {
	of := &snapshots{}
	of.newest.Store(&raft.SnapshotMeta{Index: 7, Term: 3})
	entries, err := newRaftStore(raft.NewInmemStore(), of)
	if err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := entries.GetLog(7, &l); err != nil || l.Index != 7 || l.Term != 3 {
		t.Fatalf("%+v, error %v", l, err)
	}
	for _, index := range []uint64{6, 8} {
		if err := entries.GetLog(index, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Errorf("entry %d: error %v", index, err)
		}
	}
	err = new(transport).AppendEntries("b", "b", &raft.AppendEntriesRequest{Entries: []*raft.Log{{Index: 6}, &l}}, nil)
	if err != errCompacted {
		t.Errorf("sent with error %v", err)
	}
}

// A term does not go back; who wants it to, ends.
func TestTheTermDoesNotGoBack(t *testing.T) {
	log := &countingStore{InmemStore: raft.NewInmemStore()}
	s, err := newRaftStore(log, &snapshots{})
	if err != nil {
		t.Fatal(err)
	}
	s.running.Store(true)
	key := []byte("CurrentTerm")
	for _, term := range []uint64{7, 7, 8} {
		if err := s.SetUint64(key, term); err != nil {
			t.Error(err)
		}
	}
	if log.sets != 2 {
		t.Errorf("of the terms 7, 7 and 8 were %d written, want 2: one that is on the disk needs no flush", log.sets)
	}
	ended := make(chan bool, 1)
	go func() {
		on := false
		defer func() { ended <- !on }()
		s.SetUint64(key, 7)
		on = true
	}()
	if !<-ended {
		t.Error("who sets an older term goes on")
	}
	if err := s.SetUint64([]byte("LastVoteTerm"), 3); err != nil {
		t.Error(err)
	}
	if term, err := log.GetUint64(key); term != 8 || err != nil {
		t.Errorf("the term is %d, error %v", term, err)
	}
	if err := s.SetUint64(key, 9); err != nil {
		t.Error(err)
	}
}

// Only a raft leader's own commands may be on the disk later than Raft thinks.
func TestWhatIsAppendedBeforeItIsOnTheDisk(t *testing.T) {
	command, begins, configuration, barrier := raft.LogCommand, raft.LogNoop, raft.LogConfiguration, raft.LogBarrier
	for _, tt := range []struct {
		running, leads bool
		types          []raft.LogType
		want           bool
	}{
		{true, true, []raft.LogType{command}, true},
		{true, true, []raft.LogType{command, command}, true},
		{true, true, []raft.LogType{begins}, false},
		{true, true, []raft.LogType{configuration}, false},
		{true, true, []raft.LogType{barrier}, false},
		{true, true, []raft.LogType{command, barrier}, false},
		{true, false, []raft.LogType{command}, false},
		{false, true, []raft.LogType{command}, false},
	} {
		log := raft.NewInmemStore()
		s, err := newRaftStore(log, &snapshots{})
		if err != nil {
			t.Fatal(err)
		}
		appended := 0
		s.append = func(logs []*raft.Log) error { appended += len(logs); return log.StoreLogs(logs) }
		s.leads = func() bool {
			if !tt.running {
				t.Error("asked before Raft has started")
			}
			return tt.leads
		}
		s.running.Store(tt.running)
		var logs []*raft.Log
		for i, kind := range tt.types {
			logs = append(logs, &raft.Log{Index: uint64(i + 1), Type: kind})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		if last, _ := log.LastIndex(); last != uint64(len(logs)) || (appended == len(logs)) != tt.want || !tt.want && appended != 0 {
			t.Errorf("%+v: %d entries appended, the log ends at %d", tt, appended, last)
		}
	}
}

// countingStore counts how often a number was written.
type countingStore struct {
	*raft.InmemStore
	sets int
}

func (s *countingStore) SetUint64(key []byte, n uint64) error {
	s.sets++
	return s.InmemStore.SetUint64(key, n)
}
