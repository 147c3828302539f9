package replica

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// chatter has the beginnings of messages of two kinds. Raft logs the first again and again
// while another node cannot be reached. The others belong to an ordinary start, stop or
// election. The node itself says once who does not answer, who leads, and which snapshot
// cannot be read.
var chatter = []string{
	"appendEntries rejected", "clearing log suffix", "Election timeout reached", "failed to appendEntries to", "failed to contact",
	"failed to accept connection", "failed to decode incoming command", "failed to flush response", "failed to get log", "failed to get previous log", "failed to heartbeat to",
	"failed to make requestPreVote RPC", "failed to make requestVote RPC", "failed to open snapshot", "failed to pipeline appendEntries", "failed to send snapshot to",
	"failed to start pipeline replication to", "heartbeat timeout reached", "lost leadership because received a requestVote",
	"no known peers", "not part of stable configuration", "peer has newer term", "previous log term mis-match", "received heartbeat",
	"rejecting appendEntries request", "rejecting pre-vote request", "rejecting vote request", "skipping application of old log",
	"unable to get address for server",
}

// raftLogger gives Raft a logger that ends in l, where nodes have their names. What Raft finds worth an
// Info is detail to an operator, who is told of changes by the node itself.
func raftLogger(l *slog.Logger, nameOf func(state.NodeID) string) hclog.Logger {
	h := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	h.RegisterSink(&raftSink{l, nameOf})
	return h
}

type raftSink struct {
	log    *slog.Logger
	nameOf func(state.NodeID) string // empty: it is not known
}

// Accept implements [hclog.SinkAdapter].
func (s *raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case hclog.Error:
		l = slog.LevelError
	case hclog.Warn:
		l = slog.LevelWarn
	}
	if slices.ContainsFunc(chatter, func(begin string) bool { return strings.HasPrefix(msg, begin) }) {
		l = slog.LevelDebug
	}
	if !s.log.Enabled(context.Background(), l) {
		return
	}
	named := make([]any, 0, len(args))
	for i := 1; i < len(args); i += 2 {
		if value := s.named(args[i]); value != "" { // as of the raft leader, where there is none
			named = append(named, args[i-1], value)
		}
	}
	s.log.Log(context.Background(), l, "raft: "+msg, named...)
}

// named gives what stands for a node in Raft as its name, and other values as they are.
func (s *raftSink) named(value any) any {
	switch v := value.(type) {
	case raft.ServerID:
		return cmp.Or(s.nameOf(state.NodeID(v)), string(v))
	case raft.ServerAddress:
		name, _ := splitRaftAddress(v)
		return name
	case raft.Server:
		return s.named(v.Address)
	case []raft.Server:
		names := make([]string, len(v))
		for i, server := range v {
			names[i], _ = splitRaftAddress(server.Address)
		}
		return names
	case hclog.Format: // a format, and what it is for
		if servers, ok := v[len(v)-1].([]raft.Server); ok {
			return s.named(servers)
		}
		return fmt.Sprintf(v[0].(string), v[1:]...)
	}
	return value
}
