package logstore

import (
	"bytes"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Entries above a snapshot that the leader sends are acknowledged ones, so they
// must outlive its installation. (A raft.MonotonicLogStore loses them here, and
// raft then panics: https://github.com/hashicorp/raft/issues/697.)
func TestRaftKeepsEntriesAboveAnInstalledSnapshot(t *testing.T) {
	f := newFollower(t, filepath.Join(t.TempDir(), "raft.db"))
	f.append(0, 0, 1, 120, 90)
	f.installSnapshot(100)
	wantBounds(t, f.s, 1, 120)
	f.append(120, 1, 121, 125, 125)
	f.wantApplied(125)
}

// A snapshot that lies beyond the log replaces it. The entries before it go
// with the first one after it: they may be ones that never were committed.
func TestRaftBeginsAnewBehindASnapshotBeyondTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	f := newFollower(t, path)
	f.append(0, 0, 1, 50, 40)
	f.installSnapshot(100)
	f.append(100, 1, 101, 110, 110)
	f.wantApplied(110)
	f.stop()

	f = newFollower(t, path)
	wantBounds(t, f.s, 101, 110)
	f.append(110, 1, 111, 111, 111)
	wantBounds(t, f.s, 101, 111)
}

// The same after a crash between the two, on which raft does not clean up.
func TestRaftBeginsAnewAfterACrashBehindASnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	f := newFollower(t, path)
	f.append(0, 0, 1, 50, 40)
	f.installSnapshot(100)
	f.stop()

	f = newFollower(t, path)
	wantBounds(t, f.s, 1, 50)
	f.append(100, 1, 101, 101, 101)
	wantBounds(t, f.s, 101, 101)
	f.wantApplied(101)
}

// A leader of a newer term overwrites what an older one left behind.
func TestRaftReplacesConflictingEntries(t *testing.T) {
	f := newFollower(t, filepath.Join(t.TempDir(), "raft.db"))
	f.append(0, 0, 1, 20, 10)
	f.term = 2
	f.append(15, 1, 16, 17, 17)
	wantBounds(t, f.s, 1, 17)
	var l raft.Log
	if err := f.s.GetLog(16, &l); err != nil || l.Term != 2 {
		t.Errorf("entry 16 is %+v, error %v", l, err)
	}
	f.wantApplied(17)
}

// A follower is a raft node on a store, and the test is its leader.
type follower struct {
	t       *testing.T
	s       *Store
	r       *raft.Raft
	fsm     *lastApplied
	leader  *raft.InmemTransport
	term    uint64
	stopped bool
}

const followerAddr, leaderAddr = "follower", "leader"

// newFollower starts a node whose snapshots are files beside the store.
func newFollower(t *testing.T, path string) *follower {
	t.Helper()
	f := &follower{t: t, fsm: new(lastApplied), term: 1}
	f.s = mustOpen(t, path, Options{OnError: func(err error) { t.Error(err) }})
	snapshots, err := raft.NewFileSnapshotStore(filepath.Dir(path), 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, own := raft.NewInmemTransport(followerAddr)
	_, f.leader = raft.NewInmemTransport(leaderAddr)
	f.leader.Connect(followerAddr, own)
	c := raft.DefaultConfig()
	c.LocalID = followerAddr
	c.LogOutput = io.Discard
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
	f.r, err = raft.NewRaft(c, f.fsm, f.s, f.s, snapshots, own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}

func (f *follower) stop() {
	if f.stopped {
		return
	}
	f.stopped = true
	if err := f.r.Shutdown().Error(); err != nil {
		f.t.Error(err)
	}
	if err := f.s.Close(); err != nil {
		f.t.Error(err)
	}
}

// append sends the entries from first to last, of the leader's term.
func (f *follower) append(prev, prevTerm, first, last, commit uint64) {
	f.t.Helper()
	req := raft.AppendEntriesRequest{
		RPCHeader: f.header(), Term: f.term, LeaderCommitIndex: commit,
		PrevLogEntry: prev, PrevLogTerm: prevTerm,
	}
	for i := first; i <= last; i++ {
		req.Entries = append(req.Entries, &raft.Log{Index: i, Term: f.term, Type: raft.LogCommand})
	}
	var resp raft.AppendEntriesResponse
	if err := f.leader.AppendEntries(followerAddr, followerAddr, &req, &resp); err != nil || !resp.Success {
		f.t.Fatalf("append %d to %d after %d: %+v, error %v", first, last, prev, resp, err)
	}
}

func (f *follower) installSnapshot(index uint64) {
	f.t.Helper()
	req := raft.InstallSnapshotRequest{
		RPCHeader: f.header(), Term: f.term, SnapshotVersion: 1,
		LastLogIndex: index, LastLogTerm: f.term, Size: 8,
		Configuration:      raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: followerAddr, Address: followerAddr}}}),
		ConfigurationIndex: 1,
	}
	var resp raft.InstallSnapshotResponse
	err := f.leader.InstallSnapshot(followerAddr, followerAddr, &req, &resp, bytes.NewReader(number(index)))
	if err != nil || !resp.Success {
		f.t.Fatalf("install a snapshot at %d: %+v, error %v", index, resp, err)
	}
}

func (f *follower) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(leaderAddr), Addr: []byte(leaderAddr)}
}

func (f *follower) wantApplied(index uint64) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); f.fsm.index.Load() != index; {
		if time.Now().After(deadline) {
			f.t.Fatalf("applied up to %d, want %d", f.fsm.index.Load(), index)
		}
		time.Sleep(time.Millisecond)
	}
}

// lastApplied is a state machine that remembers only how far it is.
type lastApplied struct{ index atomic.Uint64 }

func (a *lastApplied) Apply(l *raft.Log) any {
	a.index.Store(l.Index)
	return nil
}

func (a *lastApplied) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	index, err := parseNumber(b)
	a.index.Store(index)
	return err
}

func (a *lastApplied) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
