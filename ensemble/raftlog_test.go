package ensemble

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

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
			for _, s := range m.replica.servers() {
				if s.voter {
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

// What Raft logs of nodes has their names too; its formats are filled in, and what is empty
// is left out.
func TestWhatRaftLogsHasNamesOfNodes(t *testing.T) {
	var log nightLog
	h := slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	l := raftLogger(slog.New(h), func(id state.NodeID) string { return map[state.NodeID]string{"4711": "riak@one"}[id] })
	one := raft.Server{ID: "4711", Address: raftAddress("riak@one", "192.0.2.1:5324")}
	l.Error("failed to install snapshot", "peer", one.ID, "id", "7-9-11")
	l.Debug("entering follower state", "leader-address", one.Address, "leader-id", one.ID)
	l.Debug("heartbeat timeout reached", "last-leader-addr", raft.ServerAddress(""), "last-leader-id", raft.ServerID(""), "term", 2)
	l.Error("failed to heartbeat to", "peer", one)
	l.Info("initial configuration", "index", 1, "servers", hclog.Fmt("%+v", []raft.Server{one}))
	l.Info("snapshot restore progress", "percent-complete", hclog.Fmt("%0.2f%%", 12.5))
	l.Warn("of nobody known", "peer", raft.ServerID("4712"))
	want := []string{
		`msg="raft: failed to install snapshot" peer=riak@one id=7-9-11`,
		`msg="raft: entering follower state" leader-address=riak@one leader-id=riak@one`,
		`msg="raft: heartbeat timeout reached" term=2`,
		`msg="raft: failed to heartbeat to" peer=riak@one`,
		`msg="raft: initial configuration" index=1 servers=[riak@one]`,
		`msg="raft: snapshot restore progress" percent-complete=12.50%`,
		`msg="raft: of nobody known" peer=4712`,
	}
	lines := log.lines()
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		if !strings.HasSuffix(strings.TrimSpace(line), want[i]) {
			t.Errorf("logged %q, want %q", line, want[i])
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
