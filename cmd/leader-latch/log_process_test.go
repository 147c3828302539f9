package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/riakconf"
)

// asOperator is a configuration as Riak's package installs it, with lines
// that an operator has uncommented in it, or appended where it has no such.
// Its folders are in a temporary place.
func asOperator(t *testing.T, lines ...string) (conf, dir string) {
	t.Helper()
	shipped, err := os.ReadFile("../../testdata/riakconf/real/kv211-generated-deb.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	conf = filepath.Join(dir, "etc", "riak.conf")
	text := string(shipped)
	for _, line := range append([]string{
		"platform_data_dir = " + filepath.Join(dir, "lib"),
		"platform_log_dir = " + filepath.Join(dir, "log"),
		"leader_latch.cluster_listener = 127.0.0.1:0", // tests run side by side
	}, lines...) {
		if before, after, found := strings.Cut(text, "\n## "+line+"\n"); found {
			text = before + "\n" + line + "\n" + after
		} else {
			text += line + "\n"
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Dir(conf), 0o755), os.WriteFile(conf, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return conf, dir
}

// The port of the documentation may be in use where the tests run, so a later
// line, which wins, replaces 5323 by any that is free.
const (
	documentedListener = "listener.leader_latch.internal = 127.0.0.1:5323"
	anyPort            = "listener.leader_latch.internal = 127.0.0.1:0"
)

// Who follows the old documentation changes two lines, and no other.
func TestAsTheOldDocumentationTells(t *testing.T) {
	t.Parallel()
	conf, dir := asOperator(t, "strong_consistency = on", documentedListener, anyPort)
	if text, err := os.ReadFile(conf); err != nil || bytes.Count(text, []byte("strong_consistency = on")) != 1 {
		t.Fatalf("the line is not uncommented, but another one: %v", err)
	}
	var stderr bytes.Buffer
	p := serveFile(t, conf, filepath.Join(dir, "log", "console.log"), &stderr)
	one := p.join("test_group", "1", "1")
	two := p.join("test_group", "2", "1")
	one.Close()
	two.want("LEADER 2")
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	if stderr.Len() > 0 {
		t.Errorf("on stderr, though the log is a file:\n%s", stderr.String())
	}
}

// Who forgets strong_consistency is told which line is missing: by the log,
// by chkconfig and by ensemble-status.
func TestWithTheListenerOnly(t *testing.T) {
	t.Parallel()
	conf, dir := asOperator(t, documentedListener, anyPort)
	p := serveFile(t, conf, filepath.Join(dir, "log", "console.log"), io.Discard)
	c := p.dial()
	c.send("JOIN test_group 1\n")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()

	const missing = "strong_consistency = on"
	if warned := regexp.MustCompile(`(?m)^.* \[warning\] .*` + missing + `$`); !warned.MatchString(p.logText()) {
		t.Errorf("the log does not say %s", missing)
	}
	for command, want := range map[string]string{"chkconfig": "config is OK\n", "ensemble-status": "Enabled:     false\n"} {
		cmd := p.program(command)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		if !strings.Contains(stdout.String(), want) || !strings.Contains(stderr.String(), conf+": ") || !strings.Contains(stderr.String(), missing) {
			t.Errorf("%s: on stdout\n%s\non stderr\n%s", command, stdout.String(), stderr.String())
		}
	}
}

// SIGHUP opens the files again, at once and whether or not anything is
// logged, as logrotate's postrotate expects it; connections stay.
func TestHangupOpensTheLogAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir, "log.console = both")
	c := p.join("g", "a", "a")
	names := []string{"console.log", "error.log", "crash.log"}
	for _, name := range names {
		name = filepath.Join(dir, "log", name)
		if err := os.Rename(name, name+".1"); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(syscall.SIGHUP)
	for _, name := range names {
		p.until(name+" is there again, for the group too", func() bool {
			info, err := os.Stat(filepath.Join(dir, "log", name))
			return err == nil && info.Mode() == 0o640
		})
	}
	content := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, "log", name))
		return string(b)
	}
	p.until("the new file says why it is new", func() bool {
		return strings.Contains(content("console.log"), "[info] log files opened again on a signal signal=hangup\n")
	})
	if old := content("console.log.1"); !strings.Contains(old, "[info] started ") || strings.Contains(old, "opened again") {
		t.Errorf("in the old file:\n%s", old)
	}
	c.send("?\n")
	c.want("ERROR")
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	if text := content("console.log"); !strings.Contains(text, "[info] stopped\n") || strings.Contains(text, "[info] started") {
		t.Errorf("in the new file:\n%s", text)
	}
}

// Whoever reads stderr may go away: the service goes on, and its file has all.
func TestTheReaderOfStderrGoesAway(t *testing.T) {
	t.Parallel()
	conf, dir := asOperator(t, "strong_consistency = on", anyPort, "log.console = both")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := serveFile(t, conf, filepath.Join(dir, "log", "console.log"), w)
	w.Close()
	r.Close()
	p.signal(syscall.SIGHUP) // something to log
	p.until("the file tells of it", func() bool {
		return strings.Contains(p.logText(), `[warning] log lines are lost to=log.console error="write /dev/stderr: broken pipe"`)
	})
	p.join("g", "a", "a")
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
}

// riak.conf rule 59: what the Go runtime prints when the process crashes is
// kept, also where nobody keeps stderr. SIGQUIT is a crash that can be asked
// for.
func TestCrashesAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "log", "crash.log")
	for i, set := range []string{"on", "off", "on"} {
		p := launch(t, dir, "log.crash = "+set)
		if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGQUIT)
		<-p.gone
		if text := p.logText(); !strings.Contains(text, "\nSIGQUIT: quit\n") {
			t.Fatalf("no crash:\n%s", text)
		}
		kept, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := []int{1, 1, 2}[i]
		if n := strings.Count(string(kept), "SIGQUIT: quit\n"); n != want || !strings.Contains(string(kept), "\ngoroutine 1 ") {
			t.Errorf("%d crashes are kept, want %d:\n%s", n, want, kept)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// The file of crashes is made anew where it was moved away or removed, though
// nothing is written to it. One that cannot be made is told of once.
func TestTheFileOfCrashesIsMadeAnew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "crash.log")
	var told strings.Builder
	l := &serviceLog{Logger: slog.New(slog.NewTextHandler(&told, nil)), crash: &crashFile{name: name}}
	if err := l.crash.open(); err != nil {
		t.Fatal(err)
	}
	defer diskthread.SetCrashOutput(nil)
	after := func(do error) {
		t.Helper()
		if do != nil {
			t.Fatal(do)
		}
		l.tendCrashes((*crashFile).look)
	}
	uses := func() bool {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return os.SameFile(info, l.crash.file)
	}

	first := l.crash.file
	if after(nil); l.crash.file != first {
		t.Error("opened again for nothing")
	}
	if after(os.Rename(name, name+".1")); !uses() || os.SameFile(l.crash.file, first) {
		t.Error("the new file is not in use")
	}
	after(errors.Join(os.Remove(name), os.Mkdir(name, 0o750)))
	after(nil) // told once
	if after(os.Remove(name)); !uses() {
		t.Error("the newest file is not in use")
	}
	if text := told.String(); strings.Count(text, cannotReopen) != 1 || strings.Count(text, "\n") != 1 {
		t.Errorf("told\n%s\nwant once: %s", text, cannotReopen)
	}
}

// It is looked after from time to time.
func TestTheFileOfCrashesIsTended(t *testing.T) {
	name := filepath.Join(t.TempDir(), "crash.log")
	defer diskthread.SetCrashOutput(nil)
	synctest.Test(t, func(t *testing.T) {
		l := &serviceLog{Logger: slog.New(slog.DiscardHandler), crash: &crashFile{name: name}, hangups: make(chan os.Signal)}
		if err := l.crash.open(); err != nil {
			t.Fatal(err)
		}
		go l.tend()
		defer close(l.hangups)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(logTend)
		synctest.Wait()
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	})
}

// The file of crashes is rotated at a start.
func TestRotationOfCrashes(t *testing.T) {
	today, yesterday := time.Now(), time.Now().Add(-24*time.Hour)
	for _, c := range []struct {
		name     string
		size     int64
		rotation string
		keep     int
		last     time.Time
		want     string // the names that are there afterwards
	}{
		{"it has room", 6, "$D0", 5, today, "crash.log crash.log.0"},
		{"it is full", 5, "$D0", 5, today, "crash.log.0 crash.log.1"},
		{"it may be of any size", 0, "$D0", 5, today, "crash.log crash.log.0"},
		{"it is yesterday's", 6, "$D0", 5, yesterday, "crash.log.0 crash.log.1"},
		{"another schedule is not known", 6, "$W0", 5, yesterday, "crash.log crash.log.0"},
		{"one old one is kept", 5, "$D0", 1, today, "crash.log.0"},
		{"no old one is kept", 5, "$D0", 0, today, "crash.log.0"}, // that one is an older setting's
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "crash.log")
			for _, n := range []string{name, name + ".0"} {
				if err := os.WriteFile(n, []byte("panic"), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chtimes(name, c.last, c.last); err != nil {
				t.Fatal(err)
			}
			f := &crashFile{name: name}
			if err := f.rotate(riakconf.Log{CrashSize: c.size, CrashRotation: c.rotation, CrashKeep: c.keep}); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("there are %s, want %s", got, c.want)
			}
		})
	}
}
