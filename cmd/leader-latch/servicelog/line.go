package servicelog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// An entry is a record as it is written, whatever the place:
//
//	[info] session opened node=riak@192.0.2.1
//
// with its time for the places that print one.
type entry struct {
	at    time.Time
	level slog.Level
	text  string // one line, without its end
	json  string // the same as an object, with its time; "" unless leader_latch.log.format = json
}

const timeFormat = "2006-01-02 15:04:05.000"

// line is the entry like a line of Riak's log files (riak.conf rule 62).
// With leader_latch.log.format = json it is an object.
func (e entry) line() string {
	if e.json != "" {
		return e.json + "\n"
	}
	return e.at.Format(timeFormat) + " " + e.text + "\n"
}

// severity is the level as syslog and the journal number it.
func (e entry) severity() int {
	_, n := levelOf(e.level)
	return n
}

// lineHandler makes records entries of the queues that want their level.
type lineHandler struct {
	queues []*queue
	json   *objects // nil unless entries are wanted as objects, too
	attrs  string   // of With, ready to print
	group  string   // prefix of keys
}

// Enabled implements [slog.Handler].
func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool {
	return slices.ContainsFunc(h.queues, func(q *queue) bool { return l >= q.level })
}

// Handle implements [slog.Handler].
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	e := h.entry(r)
	for _, q := range h.queues {
		if r.Level >= q.level {
			q.add(e)
		}
	}
	return nil
}

func (h *lineHandler) entry(r slog.Record) entry {
	var b strings.Builder
	name, _ := levelOf(r.Level)
	b.WriteString("[" + name + "] ")
	b.WriteString(oneLine(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	return entry{r.Time, r.Level, b.String(), h.json.object(r)}
}

// WithAttrs implements [slog.Handler].
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		appendAttr(&b, h.group, a)
	}
	with := *h
	with.attrs += b.String()
	with.json = h.json.with(attrs)
	return &with
}

// WithGroup implements [slog.Handler].
func (h *lineHandler) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.group += name + "."
		with.json = h.json.within(name)
	}
	return &with
}

// levelOf gives a level's name, as Riak has it, and its number in syslog.
func levelOf(l slog.Level) (name string, severity int) {
	switch {
	case l < slog.LevelInfo:
		return "debug", 7
	case l < slog.LevelWarn:
		return "info", 6
	case l < slog.LevelError:
		return "warning", 4
	}
	return "error", 3
}

func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			appendAttr(b, prefix, sub)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := v.String()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	fmt.Fprintf(b, " %s%s=%s", prefix, a.Key, text)
}

// oneLine keeps a message from looking like more than one record.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
