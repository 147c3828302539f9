package servicelog

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"leaderlatch/riakconf"
)

// openJSON opens a log of objects, whose console file is name.
func openJSON(t *testing.T, dir string, stderr *console, syslog string) *Log {
	t.Helper()
	l, err := Open(riakconf.Log{
		Format: "json", Console: "both", ConsoleLevel: "debug",
		ConsoleFile: filepath.Join(dir, "console.log"), ErrorFile: filepath.Join(dir, "error.log"),
		Syslog: syslog != "", SyslogIdent: "riak", SyslogFacility: "daemon", SyslogLevel: "info",
	}, Places{Check: anyFolder, Console: stderr, Syslog: syslog})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A collector gets an object a line, with the same words as a line of text.
func TestObjectsSayWhatLinesSay(t *testing.T) {
	dir := t.TempDir()
	fake := listenSyslog(t, socketName(t))
	var stderr console
	l := openJSON(t, dir, &stderr, fake.name)
	l.Debug("unseen by syslog")
	l.Warn("with facts", "group", `g "1"`, "n", 3, "on", true, "error", errors.New("a\nb"), "after", 1500*time.Millisecond, "at", []int{1})
	l.With("listener", "internal").WithGroup("raft").Error("nested", "term", 3, slog.Group("peer", "id", uint64(1)<<63))
	l.Close()
	want := []string{
		`"level":"debug","msg":"unseen by syslog"}`,
		`"level":"warning","msg":"with facts","group":"g \"1\"","n":3,"on":true,"error":"a\nb","after":"1.5s","at":"[1]"}`,
		`"level":"error","msg":"nested","listener":"internal","raft":{"term":3,"peer":{"id":9223372036854775808}}}`,
	}
	for where, want := range map[string][]string{"": want, "console.log": want, "error.log": want[2:]} {
		got := stderr.String()
		if where != "" {
			b, err := os.ReadFile(filepath.Join(dir, where))
			if err != nil {
				t.Fatal(err)
			}
			got = string(b)
		}
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(lines) != len(want) {
			t.Errorf("%s: %d lines, want %d:\n%s", where, len(lines), len(want), got)
			continue
		}
		for i, line := range lines {
			var o struct{ Time time.Time }
			if err := json.Unmarshal([]byte(line), &o); err != nil || time.Since(o.Time).Abs() > time.Minute {
				t.Errorf("%s: %v, of %v: %s", where, err, o.Time, line)
			}
			if !strings.HasPrefix(line, `{"time":"`) || !strings.HasSuffix(line, `",`+want[i]) {
				t.Errorf("%s\n got %s\nwant ...%s", where, line, want[i])
			}
		}
	}
	if got, want := fake.read(), `[warning] with facts group="g \"1\"" n=3`; !strings.Contains(got, want) {
		t.Errorf("syslog got %q, want text: %s", got, want)
	}
}

// The number of lines that were lost is an object, too.
func TestLostLinesAreCountedInAnObject(t *testing.T) {
	q, place, text, _ := scriptedQueue()
	q.json = newObjects()
	place.err = errors.New("out of order")
	q.write(info("lost"))
	place.err, place.room = nil, 2
	q.write(info("written"))
	_, last, _ := strings.Cut(text.String(), "written\n")
	if want := `"level":"warning","msg":"the log could not be written in time","lines_lost":1}` + "\n"; !strings.HasSuffix(last, want) || last[0] != '{' {
		t.Errorf("got %s, want %s", last, want)
	}
}

// Under systemd an object has its level by its number, too.
func TestTheJournalGetsObjectsWithThePriority(t *testing.T) {
	var b strings.Builder
	s := &consoleSink{&b, true}
	if err := s.write((&lineHandler{json: newObjects()}).entry(slog.NewRecord(time.Now(), slog.LevelWarn, "w", 0))); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.HasPrefix(got, `<4>{"time":"`) || !strings.HasSuffix(got, `"level":"warning","msg":"w"}`+"\n") {
		t.Errorf("got %q", got)
	}
}

// Records of many goroutines do not get into each other.
func TestObjectsOfManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	l := openJSON(t, dir, new(console), "")
	const writers, each = 8, 200
	var all sync.WaitGroup
	for w := range writers {
		log := l.With("writer", w)
		all.Go(func() {
			for i := range each {
				log.Info("line", "i", i)
			}
		})
	}
	all.Wait()
	l.Close()
	b, err := os.ReadFile(filepath.Join(dir, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		var o struct {
			Msg       string
			Writer, I int
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil || o.Msg != "line" {
			t.Fatalf("%v: %s", err, line)
		}
		seen[fmt.Sprint(o.Writer, o.I)] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d lines of %d", len(seen), writers*each)
	}
}

// No record of the service has a key that an object has already.
func TestNoKeyIsTwiceInAnObject(t *testing.T) {
	calls := 0
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			switch fun.Sel.Name {
			case "Debug", "Info", "Warn", "Error":
			default:
				return true
			}
			calls++
			for i := 1; i < len(call.Args); i += 2 {
				if key, ok := call.Args[i].(*ast.BasicLit); ok {
					switch word, _ := strconv.Unquote(key.Value); word {
					case slog.TimeKey, slog.LevelKey, slog.MessageKey:
						t.Errorf("%s logs with the key %s", path, word)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 50 {
		t.Errorf("only %d calls were found", calls)
	}
}
