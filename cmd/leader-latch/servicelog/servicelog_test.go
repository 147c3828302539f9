package servicelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leaderlatch/riakconf"
)

// console is a stderr that tests can read while it is written.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// patience bounds the waits for what has to happen.
const patience = 20 * time.Second

// anyFolder refuses none.
func anyFolder(string) error { return nil }

// quietly fails the test if a place of the log is in trouble.
func quietly(t *testing.T) func(string, error) {
	return func(msg string, err error) { t.Errorf("warned: %s: %v", msg, err) }
}

// runQueue gives a log with one place, and what closes it.
func runQueue(t *testing.T, level slog.Level, s sink) (*slog.Logger, func()) {
	q := newQueue(level, s, quietly(t))
	go q.run()
	return slog.New(&lineHandler{queues: []*queue{q}}), func() {
		close(q.quit)
		<-q.done
	}
}

var logStamp = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} `)

// wantLines compares the lines of a log, without their times.
func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	text := strings.Join(append(want, ""), "\n")
	if logStamp.ReplaceAllString(got, "") != text {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
	if n := len(logStamp.FindAllString(got, -1)); n != len(want) {
		t.Errorf("%d lines have a time, want %d:\n%s", n, len(want), got)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLogLines(t *testing.T) {
	var b strings.Builder
	log, stop := runQueue(t, slog.LevelInfo, &consoleSink{w: &b})
	log.Debug("unseen")
	log.Info("plain")
	log.Warn("with facts", "group", "g", "empty", "", "text", `two "words"`, "lines", "a\nb", "pair", "a=b")
	log.With("listener", "internal").WithGroup("raft").Error("nested", "term", 3, slog.Group("peer", "id", 7))
	log.Info("not\ntwo records")
	stop()
	wantLines(t, b.String(),
		`[info] plain`,
		`[warning] with facts group=g empty="" text="two \"words\"" lines="a\nb" pair="a=b"`,
		`[error] nested listener=internal raft.term=3 raft.peer.id=7`,
		`[info] not two records`,
	)
}

// Under systemd the console is the journal, which has the time itself and
// knows the level by its number (sd-daemon(3)).
func TestTheJournalGetsThePriority(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	info, err := w.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for other, w := range map[string]io.Writer{"": w, "1:2": w, stream: io.Discard} {
		if isJournal(w, other) {
			t.Errorf("%T is taken for the journal %q", w, other)
		}
	}
	log, stop := runQueue(t, slog.LevelDebug, &consoleSink{w, isJournal(w, stream)})
	log.Debug("a")
	log.Info("b", "k", "v")
	log.Warn("c")
	log.Error("d")
	stop()
	w.Close()
	got, _ := io.ReadAll(r)
	if want := "<7>[debug] a\n<6>[info] b k=v\n<4>[warning] c\n<3>[error] d\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// riak.conf rules 57 and 58: who gets which lines.
func TestLogPlaces(t *testing.T) {
	const none, missing = "", "missing"
	info := "[info] i\n[warning] w\n[error] e\n"
	for _, c := range []struct {
		console, level string
		onConsole      string // what is there, without times
		inFile         string
	}{
		{"off", "debug", none, missing},
		{"file", "info", none, info},
		{"console", "info", info, missing},
		{"both", "info", info, info},
		{"both", "debug", "[debug] d\n" + info, "[debug] d\n" + info},
		{"both", "notice", "[warning] w\n[error] e\n", "[warning] w\n[error] e\n"},
		{"both", "warning", "[warning] w\n[error] e\n", "[warning] w\n[error] e\n"},
		{"both", "error", "[error] e\n", "[error] e\n"},
		{"both", "critical", "[error] e\n", "[error] e\n"},
		{"both", "none", none, missing},
		{"console", "none", none, missing},
	} {
		t.Run(c.console+" "+c.level, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "var", "log")
			conf := riakconf.Log{
				Console: c.console, ConsoleLevel: c.level,
				ConsoleFile: filepath.Join(dir, "console.log"), ErrorFile: filepath.Join(dir, "error.log"),
			}
			var stderr console
			l, err := Open(conf, Places{Check: anyFolder, Console: &stderr})
			if err != nil {
				t.Fatal(err)
			}
			l.Debug("d")
			l.Info("i")
			l.Warn("w")
			l.Error("e")
			l.Close()
			if got := logStamp.ReplaceAllString(stderr.String(), ""); got != c.onConsole {
				t.Errorf("on the console %q, want %q", got, c.onConsole)
			}
			if want := c.onConsole != none; l.OnConsole != want {
				t.Errorf("OnConsole is %v", l.OnConsole)
			}
			file, err := os.ReadFile(conf.ConsoleFile)
			got := logStamp.ReplaceAllString(string(file), "")
			if errors.Is(err, os.ErrNotExist) {
				got = missing
			}
			if got != c.inFile {
				t.Errorf("in the file %q, want %q", got, c.inFile)
			}
			file, _ = os.ReadFile(conf.ErrorFile)
			wantLines(t, string(file), "[error] e") // whatever log.console says
		})
	}
}

// A file that cannot be opened is an error that names the key and the cure.
func TestOpenLogNamesKeyAndCure(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "file", "x.log")
	if err := os.WriteFile(filepath.Dir(bad), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.log")
	for key, c := range map[string]riakconf.Log{
		"log.console.file": {Console: "file", ConsoleLevel: "info", ConsoleFile: bad, ErrorFile: good},
		"log.error.file":   {Console: "file", ConsoleLevel: "info", ConsoleFile: good, ErrorFile: bad},
		"log.crash.file":   {Console: "off", ErrorFile: good, Crash: true, CrashFile: bad},
	} {
		_, err := Open(c, Places{Check: anyFolder, Console: io.Discard})
		if err == nil {
			t.Errorf("%s: no error", key)
			continue
		}
		want := key + ": open " + bad + ": not a directory; make it writable for the user that the service runs as, " +
			"or set " + key + " or platform_log_dir to a place that is"
		if err.Error() != want {
			t.Errorf("\n got %v\nwant %s", err, want)
		}
	}
}

// Each file's folder is checked before a file is made in it.
func TestNoFileIsMadeInAFolderThatIsRefused(t *testing.T) {
	theirs := t.TempDir()
	refuse := func(folder string) error {
		if folder == theirs {
			return errors.New("not there")
		}
		return nil
	}
	bad, good := filepath.Join(theirs, "x.log"), filepath.Join(t.TempDir(), "good.log")
	for key, c := range map[string]riakconf.Log{
		"log.console.file": {Console: "file", ConsoleLevel: "info", ConsoleFile: bad, ErrorFile: good},
		"log.error.file":   {Console: "off", ErrorFile: bad},
		"log.crash.file":   {Console: "off", ErrorFile: good, Crash: true, CrashFile: bad},
	} {
		_, err := Open(c, Places{Check: refuse, Console: io.Discard})
		if want := key + ": not there"; err == nil || err.Error() != want {
			t.Errorf("\n got %v\nwant %s", err, want)
		}
		if _, err := os.Stat(bad); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a file is there: %v", key, err)
		}
	}
}

// Logging does not wait for a place that stalls; what is lost is counted. If
// it waited, this test would never end.
func TestAStalledLogHoldsNobodyUp(t *testing.T) {
	r, w := io.Pipe() // takes nothing until it is read
	log, stop := runQueue(t, slog.LevelInfo, &consoleSink{w: w})
	const all = 2*queueLength + 100
	for range all {
		log.Info("line")
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	stop()
	w.Close()
	got := <-text
	if n := strings.Count(got, "[info] line"); n < queueLength || n == all {
		t.Errorf("%d lines written of %d, with room for %d", n, all, queueLength)
	} else if want := fmt.Sprintf("[warning] the log could not be written in time lines_lost=%d\n", all-n); !strings.Contains(got, want) {
		t.Errorf("the log does not say %s", want)
	}
}

// A place that stalls holds up no other place either.
func TestAStalledPlaceHoldsUpNoOther(t *testing.T) {
	r, w := io.Pipe()
	var b console
	stalled := newQueue(slog.LevelInfo, &consoleSink{w: w}, quietly(t))
	free := newQueue(slog.LevelInfo, &consoleSink{w: &b}, quietly(t))
	queues := []*queue{stalled, free}
	for _, q := range queues {
		go q.run()
	}
	log := slog.New(&lineHandler{queues: queues})
	for range 100 {
		log.Info("line")
	}
	eventually(t, "all lines are in the other place", func() bool { return strings.Count(b.String(), "\n") == 100 })
	go io.Copy(io.Discard, r)
	for _, q := range queues {
		close(q.quit)
		<-q.done
	}
}

// A full disk loses lines, and the other places say so, once; the service
// does not notice.
func TestAFullDisk(t *testing.T) {
	var stderr console
	l, err := Open(riakconf.Log{Console: "console", ConsoleLevel: "info", ErrorFile: "/dev/full"},
		Places{Check: anyFolder, Console: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.Error("e")
	}
	eventually(t, "it is told", func() bool { return strings.Contains(stderr.String(), "lost") })
	l.Close()
	const told = `[warning] log lines are lost to=log.error.file error="write /dev/full: no space left on device"`
	if got := stderr.String(); strings.Count(got, told) != 1 || strings.Count(got, "[error] e") != 3 || strings.Count(got, "\n") != 4 {
		t.Errorf("on the console:\n%s\nwant three errors and, once:\n%s", got, told)
	}
}

// scripted is a place that takes nothing while err is set, and only as many
// entries as it has room for.
type scripted struct {
	consoleSink
	err  error
	room int
}

func (s *scripted) write(e entry) error {
	if s.err == nil && s.room == 0 {
		s.err = errors.New("full")
	}
	if s.err != nil {
		return s.err
	}
	s.room--
	return s.consoleSink.write(e)
}

func (s *scripted) tend(reopen bool) { io.WriteString(s.w, fmt.Sprintln("reopen", reopen)) }

// scriptedQueue gives a queue that does not run, what it writes to and what
// it told the other places.
func scriptedQueue() (q *queue, place *scripted, text *strings.Builder, told *[]string) {
	text, told = new(strings.Builder), new([]string)
	place = &scripted{consoleSink: consoleSink{w: text}, room: 100}
	q = newQueue(slog.LevelInfo, place, func(msg string, err error) { *told = append(*told, fmt.Sprint(msg, ": ", err)) })
	return q, place, text, told
}

func info(text string) entry {
	return entry{at: time.Now(), level: slog.LevelInfo, text: "[info] " + text}
}

// What was lost is counted in the place itself as soon as it takes lines
// again.
func TestLostLinesAreCounted(t *testing.T) {
	q, place, text, _ := scriptedQueue()
	q.write(info("one"))
	place.err = errors.New("out of order")
	q.write(info("two"))
	q.write(info("three"))
	place.err, place.room = nil, 1 // none for the number
	q.write(info("four"))
	q.write(info("five"))
	place.err, place.room = nil, 100
	q.write(info("six"))
	q.write(info("seven"))
	wantLines(t, text.String(),
		"[info] one",
		"[info] four",
		"[info] six",
		"[warning] the log could not be written in time lines_lost=3",
		"[info] seven",
	)
}

// An outage is told to the other places once, and a place that comes and goes
// does not fill them.
func TestAnOutageIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, place, _, told := scriptedQueue()
		out := errors.New("out of order")
		step := func(err error, after time.Duration, wantTold int) {
			t.Helper()
			time.Sleep(after)
			place.err, place.room = err, 100
			q.write(info("line"))
			if len(*told) != wantTold {
				t.Errorf("told %d times, want %d", len(*told), wantTold)
			}
		}
		step(nil, 0, 0)
		step(out, 0, 1)
		step(out, time.Hour, 1) // the same outage
		step(nil, 0, 1)
		step(out, 0, 2)
		step(nil, time.Second, 2)
		step(out, time.Second, 2) // too soon
		step(nil, 0, 2)
		step(out, time.Minute, 3)
		if want := "log lines are lost: out of order"; (*told)[0] != want {
			t.Errorf("told %q, want %q", (*told)[0], want)
		}
	})
}

// What is logged after SIGHUP was seen is in the new file.
func TestReopeningComesBeforeTheNextLine(t *testing.T) {
	for range 20 { // the goroutine may take either first
		q, _, text, _ := scriptedQueue()
		q.askToReopen()
		q.askToReopen() // does not wait
		q.add(info("line"))
		go q.run()
		eventually(t, "the line is taken", func() bool { return len(q.entries) == 0 })
		close(q.quit)
		<-q.done
		if got := logStamp.ReplaceAllString(text.String(), ""); got != "reopen true\n[info] line\n" {
			t.Fatalf("got %q", got)
		}
	}
}

func TestLogLevels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "notice": slog.LevelWarn, "warning": slog.LevelWarn,
		"error": slog.LevelError, "critical": slog.LevelError, "alert": slog.LevelError, "emergency": slog.LevelError,
	} {
		if got, on := levelNamed(name); got != want || !on {
			t.Errorf("%s: %v, %v", name, got, on)
		}
	}
	if _, on := levelNamed("none"); on {
		t.Error("none logs")
	}
}
