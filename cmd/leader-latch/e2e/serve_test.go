package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The first lines of a start say what it is, and whether the process before ended as it
// should.
func TestAStartSaysHowTheProcessBeforeEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const killed = "[warning] the process before did not end in order: "
	ends := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM}
	for i, end := range ends {
		p := start(t, dir)
		want := []string{"[info] starting node=riak@127.0.0.1 version="}
		if i > 0 && ends[i-1] == syscall.SIGKILL {
			want = append([]string{killed}, want...)
		}
		lines := strings.Split(logStamp.ReplaceAllString(p.logText(), ""), "\n")
		for i, begin := range want {
			if !strings.HasPrefix(lines[i], begin) {
				t.Errorf("line %d is %q, want %q", i+1, lines[i], begin)
			}
		}
		if n := strings.Count(p.logText(), killed); n != len(want)-1 {
			t.Errorf("%d lines of a process before", n)
		}
		p.signal(end)
		<-p.gone
	}
}

// The log says of a connection that it ended because the node was stopped.
func TestConnectionsEndByAStop(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "log.console.level = debug")
	a := p.join("g", "a", "a")
	p.signal(syscall.SIGTERM)
	a.wantEnd()
	p.wantExit(exitOK)
	if want := `[debug] connection ended listener=internal reason="the server is stopping" group=g client=a `; !strings.Contains(p.logText(), want) {
		t.Errorf("no line %s in\n%s", want, p.logText())
	}
}

// Who starts the service by hand, with a log that goes to a file, is told where to look; a
// supervisor is not.
func TestOnATerminalServeSaysWhereItsLogIs(t *testing.T) {
	t.Parallel()
	terminal, name := pseudoTerminal(t)
	stderr, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	dir := t.TempDir()
	p := &proc{t: t, conf: writeConf(t, dir, "log.console = file")}
	cmd := p.program("serve")
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		cmd.Wait()
		close(gone)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-gone
	})
	stderr.Close()
	if out, err := p.command("wait"); err != nil {
		t.Fatalf("wait: %v: %s", err, out)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	<-gone
	said, _ := io.ReadAll(terminal) // up to the error that says that nobody has it any more
	want := fmt.Sprintf("leader-latch: the log goes to %s/log/console.log, the data are in %s/data/leader_latch\r\n", dir, dir)
	if string(said) != want {
		t.Errorf("on the terminal %q, want %q", said, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "log", "console.log")); err != nil {
		t.Error(err)
	}
}

// pseudoTerminal gives the side of a terminal that a person has, and the name of the other.
func pseudoTerminal(t *testing.T) (*os.File, string) {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprintf("/dev/pts/%d", n)
}

var logStamp = regexp.MustCompile(`(?m)^\S+ \S+ `)
