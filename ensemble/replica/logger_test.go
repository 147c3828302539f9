package replica

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// What Raft logs of nodes has their names too; its formats are filled in, and what is empty
// is left out.
func TestWhatRaftLogsHasNamesOfNodes(t *testing.T) {
	var log bytes.Buffer
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
	lines := slices.Collect(strings.Lines(log.String()))
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		if !strings.HasSuffix(strings.TrimSpace(line), want[i]) {
			t.Errorf("logged %q, want %q", line, want[i])
		}
	}
}
