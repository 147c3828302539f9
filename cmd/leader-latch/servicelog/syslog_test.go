package servicelog

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leaderlatch/riakconf"
)

// fakeSyslog is the socket of a syslog.
type fakeSyslog struct {
	*net.UnixConn
	t    *testing.T
	name string
}

// socketName is a path short enough for a socket.
func socketName(t *testing.T) string {
	dir, err := os.MkdirTemp("", "syslog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "log")
}

func listenSyslog(t *testing.T, name string) *fakeSyslog {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &fakeSyslog{c, t, name}
}

func (s *fakeSyslog) stop() {
	s.Close()
	os.Remove(s.name)
}

func (s *fakeSyslog) read() string {
	s.t.Helper()
	b := make([]byte, 1<<16)
	s.SetReadDeadline(time.Now().Add(patience))
	n, err := s.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

func (s *fakeSyslog) want(line string) {
	s.t.Helper()
	if got := s.read(); got != line {
		s.t.Errorf("got  %q\nwant %q", got, line)
	}
}

// entryAt is an entry of a certain time.
func entryAt(level slog.Level, text string) entry {
	return entry{at: time.Date(2026, 5, 4, 19, 7, 12, 0, time.Local), level: level, text: text}
}

// RFC 3164, section 4.1, as it is on the local socket.
func TestSyslogLines(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	for _, c := range []struct {
		facility string
		level    slog.Level
		pri      int
	}{
		{"daemon", slog.LevelDebug, 31},
		{"daemon", slog.LevelInfo, 30},
		{"daemon", slog.LevelWarn, 28},
		{"daemon", slog.LevelError, 27},
		{"kern", slog.LevelError, 3},
		{"cron", slog.LevelInfo, 78},
		{"clock", slog.LevelInfo, 78},
		{"local7", slog.LevelDebug, 191},
	} {
		s := newSyslog(fake.name, c.facility, "riak")
		if err := s.write(entryAt(c.level, "[level] text k=v")); err != nil {
			t.Fatal(err)
		}
		s.close()
		fake.want(fmt.Sprintf("<%d>May  4 19:07:12 riak[%d]: [level] text k=v", c.pri, os.Getpid()))
	}
}

// Every facility of riak.conf has its number.
func TestSyslogFacilities(t *testing.T) {
	for _, k := range riakconf.Keys() {
		if k.Name != "log.syslog.facility" {
			continue
		}
		words := strings.FieldsFunc(k.Type.String(), func(r rune) bool { return r == ' ' || r == ',' })
		for _, w := range words {
			if _, known := syslogFacility[w]; !known && w != "or" {
				t.Errorf("%s has no number", w)
			}
		}
		if n := len(words) - 1; n != len(syslogFacility) {
			t.Errorf("%d facilities, of which %d have a number", n, len(syslogFacility))
		}
	}
}

func TestALongSyslogLineIsCut(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	s := newSyslog(fake.name, "daemon", "riak\nriak")
	defer s.close()
	if err := s.write(entryAt(slog.LevelInfo, strings.Repeat("é", 1<<16))); err != nil {
		t.Fatal(err)
	}
	got := fake.read()
	if len(got) > syslogLine || len(got) < syslogLine-4 || !strings.HasSuffix(got, "éé...") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-10:])
	}
	if tag := fmt.Sprintf(" riak riak[%d]: ", os.Getpid()); !strings.Contains(got, tag) {
		t.Errorf("no %q in %q", tag, got[:60])
	}
}

// A syslog that is started anew gets the next line.
func TestSyslogIsConnectedAgain(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	s := newSyslog(fake.name, "daemon", "riak")
	defer s.close()
	if err := s.write(entryAt(slog.LevelInfo, "one")); err != nil {
		t.Fatal(err)
	}
	fake.read()
	fake.stop()
	if err := s.write(entryAt(slog.LevelInfo, "lost")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a syslog: %v", err)
	}
	fake = listenSyslog(t, fake.name)
	if err := s.write(entryAt(slog.LevelInfo, "two")); err != nil {
		t.Fatal(err)
	}
	if got := fake.read(); !strings.HasSuffix(got, " two") {
		t.Errorf("got %q", got)
	}
	fake.stop()
	fake = listenSyslog(t, fake.name) // between two lines
	if err := s.write(entryAt(slog.LevelInfo, "three")); err != nil {
		t.Fatal(err)
	}
	if got := fake.read(); !strings.HasSuffix(got, " three") {
		t.Errorf("got %q", got)
	}
}

// A syslog that reads nothing costs lines, each after a while, and no more.
func TestAStuckSyslog(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	s := newSyslog(fake.name, "daemon", "riak")
	defer s.close()
	var err error
	for err == nil { // until its queue is full
		err = s.write(entryAt(slog.LevelInfo, "line"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	fake.read()
	if err := s.write(entryAt(slog.LevelInfo, "line")); err != nil {
		t.Errorf("with room in it again: %v", err)
	}
}

func openSyslog(t *testing.T, name, level string) (*Log, *console) {
	t.Helper()
	var stderr console
	l, err := Open(riakconf.Log{
		Console: "console", ConsoleLevel: "debug", ErrorFile: filepath.Join(t.TempDir(), "error.log"),
		Syslog: true, SyslogIdent: "riak", SyslogFacility: "daemon", SyslogLevel: level,
	}, Places{Check: anyFolder, Console: &stderr, Syslog: name})
	if err != nil {
		t.Fatal(err)
	}
	return l, &stderr
}

// The level of syslog is its own.
func TestSyslogLevel(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	l, _ := openSyslog(t, fake.name, "warning")
	l.Info("i")
	l.Warn("w", "k", "v")
	l.Close()
	if got, want := fake.read(), "]: [warning] w k=v"; !strings.HasPrefix(got, "<28>") || !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want ...%q", got, want)
	}
}

// Without a syslog the service starts, says so once, and the syslog learns
// later what it missed.
func TestWithoutASyslog(t *testing.T) {
	name := socketName(t)
	l, stderr := openSyslog(t, name, "info")
	for range 3 {
		l.Info("line")
	}
	told := fmt.Sprintf(`[warning] log lines are lost to=log.syslog error="dial unixgram %s: connect: no such file or directory"`, name)
	eventually(t, "all is on the console", func() bool { return strings.Count(stderr.String(), "\n") == 4 })
	eventually(t, "all has been tried", func() bool { return l.queues[len(l.queues)-1].lost.Load() == 4 })
	wantLines(t, stderr.String(), told, "[info] line", "[info] line", "[info] line")
	fake := listenSyslog(t, name)
	l.Info("late")
	for _, want := range []string{"]: [info] late", "]: [warning] the log could not be written in time lines_lost=4"} {
		if got := fake.read(); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want ...%q", got, want)
		}
	}
	l.Close()
}

// A syslog that takes nothing holds up nobody else.
func TestAStuckSyslogHoldsUpNoOther(t *testing.T) {
	fake := listenSyslog(t, socketName(t))
	l, stderr := openSyslog(t, fake.name, "info")
	const all = 3000 // more than a socket takes, fewer than a queue
	for range all {
		l.Info("line")
	}
	eventually(t, "all is on the console", func() bool { return strings.Count(stderr.String(), "[info] line") == all })
	fake.stop()
	l.Close()
}
