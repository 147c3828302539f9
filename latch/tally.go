package latch

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// tallyInterval is how long lines of one kind are gathered.
const tallyInterval = 10 * time.Second

// tally logs what clients may cause as often as they like: a line for each message and
// reason at once, and then one for each interval in which there was more of it. Each has a
// count, of all since the line before, and one of these as an example.
type tally struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[tallyKind]*tallied // of which there was a line less than an interval ago
}

type tallyKind struct {
	level           slog.Level
	message, reason string
}

type tallied struct {
	count   int
	example []slog.Attr
	timer   *time.Timer
}

func newTally(log *slog.Logger) *tally {
	return &tally{log: log, kinds: make(map[tallyKind]*tallied)}
}

// add counts one. It gives what writes the line that is due at once, nil if none is: a log
// may wait for its disk.
func (t *tally) add(message, reason string, example func() []slog.Attr) (write func()) {
	return t.count(tallyKind{slog.LevelInfo, message, reason}, example)
}

// warn is add for what a person has to see to.
func (t *tally) warn(message, reason string, example func() []slog.Attr) (write func()) {
	return t.count(tallyKind{slog.LevelWarn, message, reason}, example)
}

func (t *tally) count(kind tallyKind, example func() []slog.Attr) (write func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.kinds[kind]; k != nil {
		if k.count++; k.count == 1 {
			k.example = example()
		}
		return nil
	}
	t.kinds[kind] = &tallied{timer: time.AfterFunc(tallyInterval, func() { t.due(kind) })}
	first := example()
	return func() { t.write(kind, 1, first) }
}

// due writes the line of an interval that is over.
func (t *tally) due(kind tallyKind) {
	t.mu.Lock()
	k := t.kinds[kind]
	switch {
	case k == nil: // flushed
	case k.count == 0:
		delete(t.kinds, kind)
		k = nil
	}
	if k == nil {
		t.mu.Unlock()
		return
	}
	count, example := k.count, k.example
	k.count, k.example = 0, nil
	k.timer.Reset(tallyInterval)
	t.mu.Unlock()
	t.write(kind, count, example)
}

// flush writes what is gathered.
func (t *tally) flush() {
	t.mu.Lock()
	kinds := t.kinds
	t.kinds = make(map[tallyKind]*tallied)
	t.mu.Unlock()
	for kind, k := range kinds {
		k.timer.Stop()
		if k.count > 0 {
			t.write(kind, k.count, k.example)
		}
	}
}

func (t *tally) write(kind tallyKind, count int, example []slog.Attr) {
	attrs := append([]slog.Attr{slog.String("reason", kind.reason), slog.Int("count", count)}, example...)
	t.log.LogAttrs(context.Background(), kind.level, kind.message, attrs...)
}
