package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asOperator is a configuration as Riak's package installs it, with lines
// that an operator has uncommented in it, or appended where it has no such.
// Its folders are in a temporary place.
func asOperator(t *testing.T, lines ...string) (conf, dir string) {
	t.Helper()
	shipped, err := os.ReadFile("../../../testdata/riakconf/real/kv211-generated-deb.conf")
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

// A collector finds an object in each line of a node's life.
func TestANodeLogsObjects(t *testing.T) {
	t.Parallel()
	conf, dir := asOperator(t, "strong_consistency = on", anyPort, "leader_latch.log.format = json")
	p := &proc{t: t, conf: conf, log: filepath.Join(dir, "log", "console.log")}
	p.cmd = p.program("serve")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	p.until("it has started", func() bool {
		return strings.Contains(p.logText(), `"level":"info","msg":"started","node":"riak@127.0.0.1",`)
	})
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	text := p.logText()
	for line := range strings.Lines(text) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no object: %s", line)
		}
	}
	if last := `"msg":"stopped"}` + "\n"; !strings.HasSuffix(text, last) {
		t.Errorf("the log does not end with %s:\n%s", last, text)
	}
}

// What root would leave in the folder of the service's user, the service could
// not open.
func TestRootDoesNotLogInTheFolderOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root is refused")
	}
	theirs := t.TempDir()
	if err := os.Chown(theirs, 65534, -1); err != nil {
		t.Fatal(err)
	}
	conf, _ := asOperator(t, "log.error.file = "+filepath.Join(theirs, "error.log"), anyPort)
	var stderr bytes.Buffer
	cmd := (&proc{conf: conf}).program("serve")
	cmd.Stderr = &stderr
	cmd.Run()
	nobody := "'#65534'"
	if u, err := user.LookupId("65534"); err == nil {
		nobody = u.Username
	}
	want := "log.error.file: " + theirs + " belongs to user 65534 and this process runs as root; start it as that user (sudo -u " + nobody + " leader-latch serve), "
	if code := cmd.ProcessState.ExitCode(); code != exitPermanent || !strings.Contains(stderr.String(), want) {
		t.Errorf("exit code %d, and it said\n%swant %s", code, &stderr, want)
	}
	if files, _ := os.ReadDir(theirs); len(files) > 0 {
		t.Errorf("there is %v in %s", files[0], theirs)
	}
}
