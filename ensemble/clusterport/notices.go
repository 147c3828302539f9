package clusterport

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	noticeInterval = 10 * time.Second

	// maxNotices bounds what is remembered. Beyond it all other addresses
	// share one line per kind.
	maxNotices = 1024
)

// notices logs what strangers cause: a line per kind, address and interval,
// however many come. Each line says how many were left out since the one before.
type notices struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	seen map[noticeKey]*noticed
}

type noticeKey struct{ kind, host string }

type noticed struct {
	last    time.Time
	omitted int
}

func (n *notices) note(level slog.Level, kind, host, msg string, attrs ...slog.Attr) {
	omitted, ok := n.due(noticeKey{kind, host})
	if !ok {
		return
	}
	attrs = append(attrs, slog.String("kind", kind))
	if omitted > 0 {
		attrs = append(attrs, slog.Int("omitted", omitted))
	}
	n.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// due reports whether a line is due, and how many were left out before it.
func (n *notices) due(key noticeKey) (omitted int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if n.seen[key] == nil && len(n.seen) >= maxNotices {
		for k, v := range n.seen {
			if now.Sub(v.last) >= noticeInterval {
				delete(n.seen, k)
			}
		}
		if len(n.seen) >= maxNotices {
			key.host = ""
		}
	}
	v := n.seen[key]
	if v == nil {
		n.seen[key] = &noticed{last: now}
		return 0, true
	}
	if now.Sub(v.last) < noticeInterval {
		v.omitted++
		return 0, false
	}
	omitted = v.omitted
	*v = noticed{last: now}
	return omitted, true
}
