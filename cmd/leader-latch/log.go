package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"leaderlatch/riakconf"
)

// openLog opens the log where riak.conf wants it (riak.conf rules 57 and 62).
func openLog(conf *riakconf.Config, console io.Writer) (log *slog.Logger, closeLog func(), err error) {
	closeLog = func() {}
	var to []io.Writer
	if c := conf.Log.Console; c == "console" || c == "both" {
		to = append(to, console)
	}
	if c := conf.Log.Console; c == "file" || c == "both" {
		name := conf.Log.ConsoleFile
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			return nil, nil, fmt.Errorf("log.console.file: %w; make the folder writable for the user that the service runs as", err)
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("log.console.file: %w; give it to the user that the service runs as", err)
		}
		to, closeLog = append(to, f), func() { f.Close() }
	}
	level, on := logLevel(conf.Log.ConsoleLevel)
	if !on || len(to) == 0 {
		return slog.New(slog.DiscardHandler), closeLog, nil
	}
	out := newLogWriter(io.MultiWriter(to...))
	closeFile := closeLog
	return slog.New(&lineHandler{level: level, out: out}), func() { out.close(); closeFile() }, nil
}

// logLevel is a level of Riak's as slog's; false for none.
func logLevel(name string) (slog.Level, bool) {
	switch name {
	case "none":
		return 0, false
	case "debug":
		return slog.LevelDebug, true
	case "info", "notice":
		return slog.LevelInfo, true
	case "warning":
		return slog.LevelWarn, true
	}
	return slog.LevelError, true // error, critical, alert, emergency
}

// lineHandler writes a record as a line like Riak's:
//
//	2026-05-04 19:07:12.123 [info] session opened incarnation=3072
type lineHandler struct {
	level slog.Level
	out   *logWriter
	attrs string // of With, ready to print
	group string // prefix of keys
}

// logWriter writes lines on a goroutine of its own: who logs may hold a lock
// that a client's life hangs on, and must not wait for a disk that stalls.
// Lines that find the queue full are lost, and counted in the log.
type logWriter struct {
	lines chan string
	lost  atomic.Int64
	quit  chan struct{}
	done  chan struct{}
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{lines: make(chan string, 4096), quit: make(chan struct{}), done: make(chan struct{})}
	go l.run(w)
	return l
}

func (l *logWriter) run(w io.Writer) {
	defer close(l.done)
	write := func(line string) {
		io.WriteString(w, line)
		if n := l.lost.Swap(0); n > 0 {
			fmt.Fprintf(w, "%s [warning] the log could not be written fast enough lines_lost=%d\n", time.Now().Format(logTime), n)
		}
	}
	for {
		select {
		case line := <-l.lines:
			write(line)
		case <-l.quit:
			for len(l.lines) > 0 {
				write(<-l.lines)
			}
			return
		}
	}
}

func (l *logWriter) add(line string) {
	select {
	case l.lines <- line:
	default:
		l.lost.Add(1)
	}
}

// close writes what is queued, unless that takes so long that the process
// should rather end. What is added later is lost.
func (l *logWriter) close() {
	close(l.quit)
	select {
	case <-l.done:
	case <-time.After(time.Second):
	}
}

const logTime = "2006-01-02 15:04:05.000"

// Enabled implements [slog.Handler].
func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle implements [slog.Handler].
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Time.Format(logTime))
	b.WriteString(" [" + levelName(r.Level) + "] ")
	b.WriteString(oneLine(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	b.WriteByte('\n')
	h.out.add(b.String())
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		appendAttr(&b, h.group, a)
	}
	with := *h
	with.attrs += b.String()
	return &with
}

// WithGroup implements [slog.Handler].
func (h *lineHandler) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.group += name + "."
	}
	return &with
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	}
	return "error"
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
