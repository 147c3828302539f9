package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/latch/latchtest"
	"leaderlatch/riakconf"
)

// conn is a client's connection.
type conn struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (p *proc) dial() *conn {
	p.t.Helper()
	nc, err := p.open()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { nc.Close() })
	return &conn{p.t, nc, bufio.NewReader(nc)}
}

// open is dial where it may fail.
func (p *proc) open() (net.Conn, error) {
	if p.connect != nil {
		return p.connect(p.addr)
	}
	return net.Dial("tcp", p.addr)
}

// join connects and joins; the answer must be LEADER leader.
func (p *proc) join(group, client, leader string) *conn {
	p.t.Helper()
	c := p.dial()
	c.send("JOIN %s %s\n", group, client)
	c.want("LEADER " + leader)
	return c
}

func (c *conn) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// patience bounds every wait for a line. It is no expectation.
const patience = 60 * time.Second

func (c *conn) want(line string) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	got, err := c.r.ReadString('\n')
	if err != nil || got != line+"\n" {
		c.t.Fatalf("read %q, %v; want %q", got, err, line)
	}
}

// wantEnd expects the server's FIN and nothing before it.
func (c *conn) wantEnd() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("read %q, %v; want the end", rest, err)
	}
}

func (p *proc) groups() (groups []ensemble.Group) {
	p.t.Helper()
	p.get("/groups", &groups)
	return groups
}

// get asks the node by its admin socket for what is at this path, as the commands do: those
// that poll need no process for each question.
func (p *proc) get(path string, v any) {
	p.t.Helper()
	if err := p.ask(path, v); err != nil {
		p.t.Fatalf("ask the node for %s: %v\n%s", path, err, p.logText())
	}
}

// ask is get for nodes that may be down.
func (p *proc) ask(path string, v any) error { return p.askWithin(patience, path, v) }

// askWithin gives what the node answers: JSON, or text for a *string.
func (p *proc) askWithin(limit time.Duration, path string, v any) error {
	conf, _, err := riakconf.Load(p.conf)
	if err != nil {
		return err
	}
	dir, err := os.Open(conf.DataDir()) // whose name may be too long for a socket's
	if err != nil {
		return err
	}
	defer dir.Close()
	client := http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/admin.sock", dir.Fd()))
		},
	}}
	resp, err := client.Get("http://node" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch text, ok := v.(*string); {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return errors.New(strings.TrimSpace(string(answer)))
	case ok:
		*text = string(answer)
		return nil
	}
	return json.Unmarshal(answer, v)
}

// settled waits until no group is left.
func (p *proc) settled() {
	p.t.Helper()
	for end := time.Now().Add(patience); ; {
		groups := p.groups()
		if len(groups) == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("groups are left: %v", groups)
		}
	}
}

// TestTranscripts plays every transcript of the protocol against a process.
// Those that ask for the same settings share one.
func TestTranscripts(t *testing.T) {
	scripts, err := latchtest.Load("../../../testdata/protocol")
	if err != nil {
		t.Fatal(err)
	}
	bySettings := map[string][]*latchtest.Script{}
	for _, s := range scripts {
		var lines []string
		for _, set := range s.Settings {
			lines = append(lines, set.Key+" = "+set.Value)
		}
		key := strings.Join(lines, "\n")
		bySettings[key] = append(bySettings[key], s)
	}
	for settings, scripts := range bySettings {
		name := strings.ReplaceAll(settings, "\n", ", ")
		if name == "" {
			name = "default"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unready := strings.Contains(settings, "minimum_nodes = 3") || strings.Contains(settings, "strong_consistency = off")
			begin := start
			if unready {
				begin = launch
			}
			p := begin(t, t.TempDir(), settings)
			if strings.Contains(settings, "extensions") {
				p.until("the formats have keyed members", func() bool {
					var c ensemble.Cluster
					p.get("/cluster", &c)
					return c.Level >= state.KeyedLevel
				})
			}
			for _, s := range scripts {
				t.Run(s.Claim, func(t *testing.T) {
					latchtest.Play(t, func() (net.Conn, error) { return net.Dial("tcp", p.addr) }, s)
					p.settled()
				})
			}
		})
	}
}

// DESIGN.md: a killed process takes its members with it. Restarted on
// the same boot it has no old member, old names are free at once, and tokens
// go on rising.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var token uint64
	for round := range 4 {
		p := start(t, dir)
		if groups := p.groups(); len(groups) != 0 {
			t.Fatalf("round %d: old groups are there: %v", round, groups)
		}
		// The old leader's own name leads again only because it joins again.
		b := p.join("g", "b", "b")
		a := p.join("g", "a", "b")
		groups := p.groups()
		if len(groups) != 1 || len(groups[0].Members) != 2 || groups[0].Leader != "b" {
			t.Fatalf("round %d: groups %v", round, groups)
		}
		if groups[0].Token <= token {
			t.Fatalf("round %d: token %d after %d", round, groups[0].Token, token)
		}
		token = groups[0].Token
		p.signal(syscall.SIGKILL)
		<-p.gone
		for _, c := range []*conn{a, b} {
			c.SetReadDeadline(time.Now().Add(patience))
			if line, err := c.r.ReadString('\n'); err == nil {
				t.Fatalf("round %d: read %q from a killed node", round, line)
			}
		}
	}
}

// A JOIN that waits for the restarted node's session is answered, and within
// the time in which the old session could not have expired.
func TestOldNamesAreFreeAtOnceAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	p.join("g", "a", "a")
	p.signal(syscall.SIGKILL)
	<-p.gone
	p = launch(t, dir) // calm: an old session would live for 7 s
	c := p.dial()
	joined := time.Now()
	c.send("JOIN g a\n")
	c.want("LEADER a")
	if d := time.Since(joined); d >= session.Calm.Expiry {
		t.Errorf("answered after %v: the old session was waited for", d)
	}
}

// DESIGN.md, rule 9: connections are closed, by FIN, leaders' first,
// without a line to anybody; then the members leave; exit 0.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := t.TempDir()
			p := start(t, dir)
			var all []*conn
			for g := range 5 {
				for m := range 5 {
					all = append(all, p.join(fmt.Sprint("g", g), fmt.Sprint("m", m), "m0"))
				}
			}
			fresh := p.dial() // has not joined
			fresh.send("HELLO\n")
			fresh.want("ERROR")
			p.signal(sig)
			for _, c := range all {
				c.wantEnd() // in particular no LEADER m1
			}
			fresh.wantEnd()
			p.wantExit(exitOK)

			log := p.logText()
			closing := strings.Index(log, "[info] stopping: closing all connections count=25")
			ended := strings.Index(log, "[info] session ended")
			stopped := strings.Index(log, "[info] stopped")
			if closing < 0 || ended < closing || stopped < ended {
				t.Errorf("not in the order closing, session ended, stopped:\n%s", log)
			}
			if strings.Contains(log, "[error]") {
				t.Errorf("something went wrong:\n%s", log)
			}
			p = start(t, dir)
			p.join("g0", "m0", "m0")
			p.signal(sig)
			p.wantExit(exitOK)
		})
	}
}

// The second signal does not wait: here for a client that takes nothing, to
// whom a reset was sent that nobody acknowledges.
func TestASecondSignalEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	stuck := p.dial()
	stuck.Conn.(*net.TCPConn).SetReadBuffer(2048)
	stuck.send("JOIN g stuck\n")
	for range 100000 { // until its answers back up
		stuck.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := stuck.Write([]byte(strings.Repeat("JOIN g stuck\n", 50))); err != nil {
			break
		}
	}
	p.signal(syscall.SIGTERM)
	p.until("it is stopping", func() bool { return strings.Contains(p.logText(), "[info] stopping") })
	p.signal(syscall.SIGTERM)
	p.wantExit(exitFailed)
	if strings.Contains(p.logText(), "[info] stopped") {
		t.Error("it waited")
	}
}

// The clients that a server on a network gets to see: the others notice
// nothing, and the memory is the same after the third time as after the first.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	watcher := p.join("calm", "watcher", "watcher")
	var rss []int
	for range 3 {
		p.halfCloseAndReset()
		p.twoCommandsInOnePacket()
		p.megabytesWithoutALineEnd()
		p.membersThatReadNothing()
		p.until("all have left", func() bool { return len(p.groups()) == 1 })
		rss = append(rss, p.rss())
	}
	// Rule 13: the watcher got no byte of all this.
	watcher.send("?\n")
	watcher.want("ERROR")
	if !raceEnabled && rss[2] > rss[0]+8<<20 {
		t.Errorf("resident memory grew: %d bytes", rss)
	}
}

// Rule 3: a half close ends the membership though the client still reads, and
// so does a reset.
func (p *proc) halfCloseAndReset() {
	half := p.join("g", "half", "half")
	next := p.join("g", "next", "half")
	half.Conn.(*net.TCPConn).CloseWrite()
	half.wantEnd()
	next.want("LEADER next")
	heir := p.join("g", "heir", "next")
	next.Conn.(*net.TCPConn).SetLinger(0)
	next.Close()
	heir.want("LEADER heir")
	heir.Close()
}

// Rules 6, 7 and 10.
func (p *proc) twoCommandsInOnePacket() {
	c := p.dial()
	c.send("JOIN two c\nJOIN other d\nNONSENSE\n")
	c.want("LEADER c")
	c.want("ALREADY_JOINED two c")
	c.want("ERROR")
	c.Close()
}

// Rule 9, from 20 clients at once.
func (p *proc) megabytesWithoutALineEnd() {
	var all []*conn
	for range 20 {
		c := p.dial()
		all = append(all, c)
		go c.Conn.Write([]byte(strings.Repeat("x", 1<<20))) // fails when the server has had enough
	}
	for _, c := range all {
		c.SetReadDeadline(time.Now().Add(patience))
		if got, err := c.r.ReadString('\n'); got != "ERROR\n" {
			p.t.Errorf("a megabyte without a line end: read %q, %v", got, err)
		}
		if _, err := c.r.ReadByte(); err == nil {
			p.t.Error("the connection goes on after a line that is too long")
		}
		c.Close()
	}
}

// Rule 2: 20 members read nothing while the leader changes 100 times.
func (p *proc) membersThatReadNothing() {
	leader := func(i int) string { return fmt.Sprintf("%s-%03d", strings.Repeat("l", 250), i) }
	var leaders, deaf []*conn
	for i := range 101 {
		leaders = append(leaders, p.join("churn", leader(i), leader(0)))
	}
	for i := range 20 {
		nc, err := (&net.Dialer{Control: smallReceiveBuffer}).Dial("tcp", p.addr)
		if err != nil {
			p.t.Fatal(err)
		}
		defer nc.Close()
		c := &conn{p.t, nc, bufio.NewReader(nc)}
		c.send("JOIN churn deaf-%d\n", i)
		deaf = append(deaf, c)
	}
	p.until("the deaf have joined", func() bool { return len(p.group("churn").Members) == 121 })
	for i, c := range leaders[:100] {
		c.Close()
		leaders[100].want("LEADER " + leader(i+1)) // one who reads misses none
	}
	for _, c := range deaf {
		// They may miss some, never the last, and see none twice or too late.
		for seen := -1; seen < 100; {
			c.SetReadDeadline(time.Now().Add(patience))
			line, err := c.r.ReadString('\n')
			if err != nil {
				p.t.Fatalf("after leader %d: %v", seen, err)
			}
			i, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "LEADER "+strings.Repeat("l", 250)+"-"))
			if err != nil || i <= seen {
				p.t.Fatalf("after leader %d: read %q", seen, line)
			}
			seen = i
		}
	}
	leaders[100].Close()
}

// Rule 15: over the limit the first line is refused in words.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "leader_latch.max_connections = 2")
	a, b := p.join("g", "a", "a"), p.join("g", "b", "a")
	c := p.dial()
	c.send("JOIN g c\n")
	c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
	c.wantEnd()
	a.Close()
	b.want("LEADER b")
	p.until("there is room again", func() bool {
		c := p.dial()
		defer c.Close()
		c.send("JOIN h c\n")
		line, _ := c.r.ReadString('\n')
		return line == "LEADER c\n"
	})
}

// Rule 16: a listener that is told to adds the token that groups shows, and so does one with
// extensions.
func TestFencingTokens(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"leader_latch.fencing.internal = on", "leader_latch.extensions.internal = on"} {
		p := start(t, t.TempDir(), setting)
		c := p.dial()
		c.send("JOIN g a\n")
		line, err := c.r.ReadString('\n')
		if want := fmt.Sprintf("LEADER a %d\n", p.group("g").Token); line != want {
			t.Errorf("%s: read %q, %v; want %q", setting, line, err, want)
		}
	}
}

func smallReceiveBuffer(_, _ string, r syscall.RawConn) error {
	return r.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
}

func (p *proc) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// group is a group as the node knows it, with nobody in it where it knows of none: it may
// be behind the node at which somebody has joined.
func (p *proc) group(name string) ensemble.Group {
	p.t.Helper()
	all := p.groups()
	if i := slices.IndexFunc(all, func(g ensemble.Group) bool { return g.Name == name }); i >= 0 {
		return all[i]
	}
	return ensemble.Group{Name: name}
}

// rss is the process's resident memory in bytes.
func (p *proc) rss() int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				p.t.Fatal(err)
			}
			return kb << 10
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// realClient finds a program that people talk to the service with. Where it
// is not installed the test is left out, unless the run says that it must not.
func realClient(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("LEADER_LATCH_TEST_CLIENTS") == "required" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// conversation is a real client program in the place of a connection.
type conversation struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func runClient(t *testing.T, p *proc, name string) *conversation {
	t.Helper()
	host, port, _ := net.SplitHostPort(p.addr)
	cmd := exec.Command(realClient(t, name), host, port)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// A program that hangs is ended, and its output with it.
	time.AfterFunc(patience, func() { cmd.Process.Kill() })
	return &conversation{t, cmd, in, bufio.NewReader(out)}
}

// want reads lines until this one; telnet has some of its own before.
func (s *conversation) want(line string) {
	s.t.Helper()
	for {
		got, err := s.out.ReadString('\n')
		got = strings.TrimRight(got, "\r\n")
		switch {
		case got == line:
			return
		case err != nil:
			s.t.Fatalf("never saw %q: %v", line, err)
		case strings.HasPrefix(got, "LEADER"), strings.HasPrefix(got, "JOIN_FAILED"), strings.HasPrefix(got, "ERROR"):
			s.t.Fatalf("saw %q, want %q", got, line)
		}
	}
}

func (s *conversation) send(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// The example session of Riak's documentation, with the programs that it is
// written for.
func TestDocumentedSessionWithRealClients(t *testing.T) {
	for _, client := range []string{"telnet", "nc"} {
		t.Run(client, func(t *testing.T) {
			realClient(t, client)
			t.Parallel()
			down := launch(t, t.TempDir(), "leader_latch.minimum_nodes = 3")
			one := runClient(t, down, client)
			one.send("JOIN test_group 1")
			one.want("JOIN_FAILED SERVICE_UNAVAILABLE")
			if client == "telnet" {
				one.want("Connection closed by foreign host.")
			}
			one.in.Close()
			one.cmd.Wait() // ends by itself: the server has closed

			p := start(t, t.TempDir())
			two := runClient(t, p, client)
			two.send("JOIN test_group 1")
			two.want("LEADER 1")
			three := runClient(t, p, client)
			three.send("JOIN test_group 2")
			three.want("LEADER 1")
			two.cmd.Process.Kill()
			three.want("LEADER 2")
		})
	}
}

// DESIGN.md: a process that is paused beyond its deadline is killed by
// the kernel's timer, and its clients learn of it although it cannot run.
func TestAPausedProcessIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir, "leader_latch.timing = normal")
	c := p.join("g", "a", "a")
	paused := time.Now()
	p.signal(syscall.SIGSTOP)
	c.SetReadDeadline(time.Now().Add(patience))
	if line, err := c.r.ReadString('\n'); err == nil {
		t.Fatalf("read %q from a paused process", line)
	}
	took := time.Since(paused)
	select {
	case <-p.gone:
	case <-time.After(patience):
		t.Fatal("the process lives")
	}
	if s := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Errorf("ended as %v, want killed", p.err)
	}
	t.Logf("the client knew %v after the stop; the node must be silent by %v", took, session.Normal.Lease+session.Normal.Close)
	p = start(t, dir)
	p.join("g", "a", "a")
}

// Without the switch a paused process goes on: it writes nothing stale and
// closes its connections first of all.
func TestAPausedProcessWithoutTheSwitch(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "leader_latch.timing = normal", "leader_latch.dead_man_switch = off")
	leader, next := p.join("g", "a", "a"), p.join("g", "b", "a")
	p.signal(syscall.SIGSTOP)
	time.Sleep(session.Normal.Expiry) // the pause itself; there is nothing to poll in a process that stands still
	leader.Close()
	p.signal(syscall.SIGCONT)
	next.wantEnd() // and no LEADER b of a session that is over
	p.join("g", "b", "b")
}

// The kernel does not kill the first process of a container for its own timer. A
// node that would be that one says so, and what to do.
func TestAsProcessOneThereIsNoSwitch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		line string
		want string
	}{
		{"leader_latch.dead_man_switch = on", "have an init be process 1"},
		{"leader_latch.dead_man_switch = off", "[info] started "},
	} {
		p := &proc{t: t, conf: writeConf(t, t.TempDir(), tc.line)}
		p.cmd = p.program("serve")
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		if os.Geteuid() != 0 { // in a user namespace anybody may
			p.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			p.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		}
		log, err := p.cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Start(); errors.Is(err, syscall.EPERM) {
			t.Skip("no namespaces here: ", err)
		} else if err != nil {
			t.Fatal(err)
		}
		said := ""
		for lines := bufio.NewScanner(log); lines.Scan() && !strings.Contains(said, tc.want); {
			said += lines.Text() + "\n"
		}
		if !strings.Contains(said, tc.want) {
			t.Errorf("with %s it says\n%swant %q", tc.line, said, tc.want)
		}
		p.signal(syscall.SIGKILL) // from outside it is killed
		p.cmd.Wait()
	}
}
