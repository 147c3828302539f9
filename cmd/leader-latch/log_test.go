package main

import (
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestLogLines(t *testing.T) {
	var b strings.Builder
	out := newLogWriter(&b)
	log := slog.New(&lineHandler{level: slog.LevelInfo, out: out})
	log.Debug("unseen")
	log.Info("plain")
	log.Warn("with facts", "group", "g", "empty", "", "text", `two "words"`, "lines", "a\nb")
	log.With("listener", "internal").WithGroup("raft").Error("nested", "term", 3, slog.Group("peer", "id", 7))
	log.Info("not\ntwo records")
	out.close()
	want := []string{
		`[info] plain`,
		`[warning] with facts group=g empty="" text="two \"words\"" lines="a\nb"`,
		`[error] nested listener=internal raft.term=3 raft.peer.id=7`,
		`[info] not two records`,
	}
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} `)
	got := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), b.String())
	}
	for i, line := range got {
		if !stamp.MatchString(line) || stamp.ReplaceAllString(line, "") != want[i] {
			t.Errorf("\n got %s\nwant %s", line, want[i])
		}
	}
}

// Logging does not wait for a disk that stalls; what is lost is counted.
func TestAStalledLogHoldsNobodyUp(t *testing.T) {
	r, w := io.Pipe() // takes nothing until it is read
	out := newLogWriter(w)
	log := slog.New(&lineHandler{level: slog.LevelInfo, out: out})
	for range 10000 {
		log.Info("line")
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	out.close()
	w.Close()
	got := <-text
	if n := strings.Count(got, "[info] line"); n < 4096 || n == 10000 {
		t.Errorf("%d lines written of 10000, with room for 4096", n)
	}
	if !strings.Contains(got, "[warning] the log could not be written fast enough lines_lost=") {
		t.Error("the loss is not in the log")
	}
}

func TestLogLevels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "notice": slog.LevelInfo, "warning": slog.LevelWarn,
		"error": slog.LevelError, "critical": slog.LevelError, "alert": slog.LevelError, "emergency": slog.LevelError,
	} {
		if got, on := logLevel(name); got != want || !on {
			t.Errorf("%s: %v, %v", name, got, on)
		}
	}
	if _, on := logLevel("none"); on {
		t.Error("none logs")
	}
}
