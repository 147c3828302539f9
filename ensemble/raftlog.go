package ensemble

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives Raft a logger that ends in l. What Raft finds worth an
// Info is detail to an operator, who is told of changes by the node itself.
func raftLogger(l *slog.Logger) hclog.Logger {
	h := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	h.RegisterSink(raftSink{l})
	return h
}

type raftSink struct{ log *slog.Logger }

// Accept implements [hclog.SinkAdapter].
func (s raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case hclog.Error:
		l = slog.LevelError
	case hclog.Warn:
		l = slog.LevelWarn
		if strings.HasPrefix(msg, "heartbeat timeout reached") {
			l = slog.LevelDebug // every start has one
		}
	}
	s.log.Log(context.Background(), l, "raft: "+msg, args...)
}
