package ensemble

import (
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// A log of few, large entries is shortened by its bytes, and what it held is in the
// snapshot.
func TestTheLogIsBoundedInBytes(t *testing.T) {
	const most, keep = 64 << 10, 32 << 10
	path := t.TempDir()
	n := startNode(t, path, nil)
	n.replica.Inside().Bound(most, keep)
	a := join(t, n, "g", "a")
	a.wantTold("a")

	large := make([]state.Op, 64) // of no effect
	for i := range large {
		large[i] = state.Renew{Incarnation: 1, Seq: 1 << 60}
	}
	entry := len(state.Encode(state.NewestLevel, state.Entry{At: time.Now(), Ops: large}))
	first := func() uint64 {
		index, err := n.store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	for range 3 { // the log is shortened again and again
		before := first()
		for range (most + keep) / entry {
			if err := n.replica.Propose(large...); err != nil {
				t.Fatal(err)
			}
		}
		poll(t, "the log is shortened", func() bool { return first() > before })
	}
	last, err := n.store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	var l raft.Log
	for index := first(); index <= last; index++ {
		if err := n.store.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
		size += len(l.Data)
	}
	if limit := most + keep + (most + keep); size > limit {
		t.Errorf("%d bytes in %d entries, more than %d", size, last-first()+1, limit)
	}
	if left := last - first() + 1; int(left)*entry < keep/2 {
		t.Errorf("only %d entries are left for those that are behind", left)
	}

	kill(n)
	n = startNode(t, path, nil)
	join(t, n, "g", "b").wantTold("b") // a has gone with the session before
}

// A night in the life of a cluster: a machine is replaced under its name, the raft leader
// is killed, its session expires. At no level above debug does the log speak of a node but
// by its name.
func TestTheLogHasNamesOfNodes(t *testing.T) {
	var log nightLog
	all := foundersWith(t, 3, func(_ int, c *Config) {
		c.Timing = session.Normal
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	ids := map[string]state.NodeID{}
	noteIDs := func() {
		for _, m := range all {
			ids[m.name+" "+string(m.self)] = m.self
		}
	}
	noteIDs()
	leader, others := raftLeaderOf(t, all)
	old := others[0]
	kill(old.Node)
	poll(t, "its session has expired", func() bool { return log.has("expiring its session", "node="+old.name) })
	old.path = t.TempDir()
	old.start().ready()
	noteIDs()
	poll(t, "it takes the place of the old one", func() bool {
		return log.has("a new node takes the place", "node="+old.name) && log.has("a node was added", "node="+old.name)
	})
	poll(t, "it follows", func() bool { return log.has("follows the raft leader", "leader="+leader.name) })
	for _, m := range []*machine{leader, old, others[1]} { // a raft leader counts what may go with it
		poll(t, "all vote, as "+m.name+" knows", func() bool {
			voters := 0
			for _, s := range m.replica.Servers() {
				if s.Voter {
					voters++
				}
			}
			return voters == 3
		})
	}
	kill(leader.Node)
	next, _ := raftLeaderOf(t, []*machine{old, others[1]})
	poll(t, "the session of the raft leader has expired", func() bool { return log.has("expiring its session", "node="+leader.name) })
	poll(t, "the other one follows the next", func() bool { return log.has("follows the raft leader", "leader="+next.name) })
	for _, line := range log.lines() {
		for whose, id := range ids {
			if strings.Contains(line, string(id)) {
				t.Errorf("the line has the id of %s: %s", whose, line)
			}
		}
		if strings.Contains(line, "incarnation") {
			t.Errorf("the line has an incarnation: %s", line)
		}
	}
}

// nightLog keeps what several nodes log.
type nightLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *nightLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *nightLog) lines() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all = append(all, line)
	}
	return all
}

// has reports whether there is a line that has all of these.
func (l *nightLog) has(words ...string) bool {
	for _, line := range l.lines() {
		found := 0
		for _, w := range words {
			if strings.Contains(line, w) {
				found++
			}
		}
		if found == len(words) {
			return true
		}
	}
	return false
}

// Raft's goroutine that waits until a node answers again ends when the node is removed.
func TestNobodyWaitsForARemovedNode(t *testing.T) {
	all := founders(t, 3)
	leader, others := raftLeaderOf(t, all)
	dead := others[0]
	waits := func() bool { return leader.replica.Inside().Waits(dead.self) }
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
		self := []byte(leader.place().text())
		inside := leader.replica.Inside()
		term := inside.Raft.CurrentTerm()
		sent <- inside.Transport.InstallSnapshot(raft.ServerID(deaf.self), "", &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.self), Addr: self},
			SnapshotVersion: 1,
			Term:            term,
			Leader:          self,
			LastLogIndex:    inside.Raft.LastIndex(),
			LastLogTerm:     term,
			Size:            1 << 20,
			Configuration:   raft.EncodeConfiguration(inside.Raft.GetConfiguration().Configuration()),
		}, new(raft.InstallSnapshotResponse), stuck(goOn))
	}()
	poll(t, "the snapshot has begun", func() bool {
		begun, err := filepath.Glob(deaf.dir.Path("snapshots") + "/*.tmp")
		return err == nil && len(begun) > 0
	})
	leader.replica.Inside().Raft.Shutdown() // it says nothing any more, and its connections stay
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
