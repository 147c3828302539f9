// Package e2e tests the program as its users have it: real processes, on real disks and
// connections, with real clients. It is built once for all of them, and what these tests
// know of it is what the documents and its commands say.
//
// [start] gives a node of its own, [cluster] several, which are members (three_test.go).
// FAULTS.md is on what is broken in the files faults_*, which "make faults" runs, and SPEED.md
// on the files measure_*, which "make bench" does.
package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if f := strings.Fields(os.Getenv(asClients)); len(f) > 0 {
		beClients(f[0], f[1:]...)
	}
	// Tests of real processes wait more than they work. Said on the command line, it counts.
	flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "leader-latch-e2e"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(builds)
	defer rows.print()
	go machine.watch()
	return m.Run()
}

// builds is the folder of the programs that tests build.
var builds string

// leaderLatch gives the path of the program, in a folder of its own with Riak's names for it.
// Every user may run it there. The first test that needs it builds it as the tests themselves
// are built: by the same tags, and with the race detector if they have it.
var leaderLatch = sync.OnceValue(func() string {
	const source = "leaderlatch/cmd/leader-latch"
	args := []string{"build", "-buildvcs=false"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" || s.Key == "-race" {
				args = append(args, s.Key+"="+s.Value)
			}
		}
	}
	exe := filepath.Join(builds, "bin", "leader-latch")
	_, err := outputOf("", "go", append(args, "-o", exe, source)...)
	for _, name := range []string{"riak", "riak-admin"} {
		err = errors.Join(err, os.Symlink("leader-latch", filepath.Join(builds, "bin", name)))
	}
	for _, path := range []string{builds, filepath.Dir(exe), exe} {
		err = errors.Join(err, os.Chmod(path, 0o755))
	}
	if err := errors.Join(err, openSource(source)); err != nil {
		panic(fmt.Sprint("the program cannot be built: ", err))
	}
	return exe
})

// openSource opens the folders that the program is built from. What tests open is part of
// them for "go test", which runs them again when that has changed.
func openSource(source string) error {
	folders, err := outputOf("", "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", source)
	for dir := range strings.Lines(folders) {
		_, e := os.ReadDir(strings.TrimSuffix(dir, "\n"))
		err = errors.Join(err, e)
	}
	_, e := os.Stat(filepath.Join(repository, "go.mod"))
	return errors.Join(err, e)
}

// The exit codes of packaging/OPERATING.md.
const (
	exitOK        = 0
	exitFailed    = 1
	exitPermanent = 3
)

// TestCommandLine plays the scripts of testdata/cli. Beside testscript's own
// commands they have
//
//	exits CODE PROGRAM ARGS...  run it and expect this exit code
//	freeport NAME               set $NAME to a port that nobody uses
//	listens NAME                the same, and listen on it until the script ends
//	asnobody CODE PROGRAM ARGS...  run as a user without rights, and expect this exit code
//	oneline FILE                expect exactly one line in stdout or stderr
//	modes PATH=MODE...          expect these permissions
//	running CONFIG              wait until the node answers a ping
//	shows PATTERN PROGRAM ARGS...  run it until its stdout matches
//	joins CLIENT PORT LINE  connect a client to this port of 127.0.0.1, send the line, and wait for LEADER
//	sends CLIENT LINE       have the client send a line
//	hears CLIENT LINE       expect that it is sent this line next
//	closes CLIENT           have it close its connection, as it does at the end of the script
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "../../../testdata/cli",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Values[scriptClients{}] = map[string]*conn{}
			e.Setenv("TMPDIR", e.WorkDir)
			e.Setenv("PATH", filepath.Dir(leaderLatch())+":"+os.Getenv("PATH"))
			e.Defer(func() { killLeft(filepath.Join(e.WorkDir, "riak", "data", "leader_latch", "lock")) })
			// For asnobody: the scripts' folder is the test's own otherwise.
			return errors.Join(os.Chmod(filepath.Dir(e.WorkDir), 0o755), os.Chmod(e.WorkDir, 0o755))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":    exits,
			"freeport": freeport,
			"listens":  listens,
			"asnobody": asNobody,
			"oneline":  oneLineOnly,
			"modes":    modes,
			"running":  running,
			"shows":    shows,
			"joins":    joins,
			"sends":    sends,
			"hears":    hears,
			"closes":   closes,
		},
	})
}

// killLeft kills the node that a script has started in the background, by riak
// start, and not stopped.
func killLeft(lock string) {
	b, err := os.ReadFile(lock)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(cmdline), filepath.Dir(filepath.Dir(filepath.Dir(lock)))) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s\nstdout: %s\nstderr: %s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func freeport(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], port(l))
	ts.Check(l.Close())
}

func listens(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], port(l))
}

func port(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// asNobody runs a program as user 65534 where the test runs as root, to whom
// permissions mean nothing.
func asNobody(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(filepath.Join(filepath.Dir(leaderLatch()), args[1]), args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "LEADER_LATCH_CONFIG=" + ts.Getenv("LEADER_LATCH_CONFIG")}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	ts.Check(os.WriteFile(ts.MkAbs("output"), out, 0o644))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || fmt.Sprint(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v, want exit code %s\n%s", err, args[0], out)
	}
}

func oneLineOnly(ts *testscript.TestScript, _ bool, args []string) {
	if text := ts.ReadFile(args[0]); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%s is not one line:\n%s", args[0], text)
	}
}

func running(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(30 * time.Second); ts.Exec("leader-latch", "ping", "-c", args[0]) != nil; {
		if time.Now().After(end) {
			ts.Fatalf("the node of %s does not answer", args[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func shows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: shows PATTERN PROGRAM ARGS...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not match %s", args[1:], args[0])
		}
	}
}

// scriptClients is by what a script keeps the connections of its clients, by their names.
type scriptClients struct{}

func clientsOf(ts *testscript.TestScript) map[string]*conn {
	return ts.Value(scriptClients{}).(map[string]*conn)
}

func joins(ts *testscript.TestScript, _ bool, args []string) {
	nc, err := net.Dial("tcp", "127.0.0.1:"+args[1])
	ts.Check(err)
	ts.Defer(func() { nc.Close() })
	_, err = fmt.Fprintln(nc, args[2])
	ts.Check(err)
	c := &conn{Conn: nc, r: bufio.NewReader(nc)}
	if line := c.line(); !strings.HasPrefix(line, "LEADER ") {
		ts.Fatalf("%s was told %q", args[0], line)
	}
	clientsOf(ts)[args[0]] = c
}

func sends(ts *testscript.TestScript, _ bool, args []string) {
	_, err := fmt.Fprintln(clientsOf(ts)[args[0]], args[1])
	ts.Check(err)
}

func hears(ts *testscript.TestScript, _ bool, args []string) {
	if line := clientsOf(ts)[args[0]].line(); line != args[1] {
		ts.Fatalf("%s was told %q, want %q", args[0], line, args[1])
	}
}

func closes(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(clientsOf(ts)[args[0]].Close())
}

func modes(ts *testscript.TestScript, _ bool, args []string) {
	for _, arg := range args {
		path, want, _ := strings.Cut(arg, "=")
		info, err := os.Stat(ts.MkAbs(path))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != want {
			ts.Fatalf("%s: mode %s, want %s", path, got, want)
		}
	}
}

// proc is a real process of the service.
type proc struct {
	t    testing.TB
	cmd  *exec.Cmd
	conf string
	exe  string   // another program than [leaderLatch]
	env  []string // beyond that of the tests
	addr string
	log  string // file with its stderr
	gone chan struct{}
	err  error // of Wait; set when gone is closed

	connect func(addr string) (net.Conn, error) // how clients do; nil: by net.Dial
}

// start starts a node on a folder, with lines added to its configuration, and
// waits until it serves. Its timing is calm, so that a stall of a busy
// machine is no fault, unless the lines say otherwise.
func start(t testing.TB, dir string, lines ...string) *proc {
	t.Helper()
	p := launch(t, dir, lines...)
	p.ready()
	return p
}

// ready waits until a JOIN would succeed.
func (p *proc) ready() {
	p.t.Helper()
	if out, err := p.command("wait", "--timeout", "60s"); err != nil {
		p.t.Fatalf("wait: %v: %s\n%s", err, out, p.logText())
	}
}

// launch starts a node and waits until its listener is bound.
func launch(t testing.TB, dir string, lines ...string) *proc {
	t.Helper()
	return launchAs(t, "", dir, lines...)
}

// launchAs is launch with another program.
func launchAs(t testing.TB, exe, dir string, lines ...string) *proc {
	t.Helper()
	return launchBy(t, dir, lines, func(p *proc) *exec.Cmd {
		p.exe = exe
		return p.program("serve")
	})
}

// launchBy is launch with the command that starts the node.
func launchBy(t testing.TB, dir string, lines []string, command func(p *proc) *exec.Cmd) *proc {
	t.Helper()
	conf := writeConf(t, dir, lines...)
	log := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	return serveBy(t, conf, log, out, command)
}

// writeConf writes the riak.conf of a node on a folder, and gives its name.
func writeConf(t testing.TB, dir string, lines ...string) string {
	t.Helper()
	conf := filepath.Join(dir, "etc", "riak.conf")
	text := ""
	for _, line := range slices.Concat([]string{
		"nodename = riak@127.0.0.1",
		"distributed_cookie = only-for-this-test",
		"strong_consistency = on",
		"listener.leader_latch.internal = 127.0.0.1:0",
		"leader_latch.cluster_listener = 127.0.0.1:0",
		"platform_data_dir = ./data",
		"platform_log_dir = ./log",
		"log.console = console",
		"leader_latch.timing = calm",
	}, lines) {
		key, _, _ := strings.Cut(line, " =")
		text = regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(key)+` = .*\n`).ReplaceAllString(text, "") + line + "\n" // the later line counts
	}
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return conf
}

// serveFile starts a node on a configuration that is there, with its log in
// the file of that name, and waits until its listener is bound.
func serveFile(t testing.TB, conf, log string, stderr io.Writer) *proc {
	t.Helper()
	return serveBy(t, conf, log, stderr, func(p *proc) *exec.Cmd { return p.program("serve") })
}

// serveBy is serveFile with the command that starts the node.
func serveBy(t testing.TB, conf, log string, stderr io.Writer, command func(p *proc) *exec.Cmd) *proc {
	t.Helper()
	p := &proc{t: t, conf: conf, log: log, gone: make(chan struct{})}
	p.cmd = command(p)
	p.cmd.Stderr = stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.gone
		if t.Failed() {
			t.Logf("log of the node:\n%s", p.logText())
		}
	})
	listening := regexp.MustCompile(`\[info\] started .* listeners="?(\S*?)[" ]`)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if m := listening.FindStringSubmatch(p.logText()); m != nil {
			p.addr = m[1]
			return p
		}
		select {
		case <-p.gone:
			t.Fatalf("the node ended: %v\n%s", p.err, p.logText())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("the node does not start\n%s", p.logText())
		}
	}
}

func (p *proc) program(args ...string) *exec.Cmd {
	exe := p.exe
	if exe == "" {
		exe = leaderLatch()
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(append(os.Environ(), "LEADER_LATCH_CONFIG="+p.conf), p.env...)
	return cmd
}

// command runs a command beside the node and gives all it printed.
func (p *proc) command(args ...string) (string, error) {
	out, err := p.program(args...).CombinedOutput()
	return string(out), err
}

func (p *proc) logText() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

func (p *proc) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// wantExit waits for the end of the process.
func (p *proc) wantExit(code int) {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(60 * time.Second):
		p.t.Fatalf("the node does not end\n%s", p.logText())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d (%v), want %d\n%s", got, p.err, code, p.logText())
	}
}
