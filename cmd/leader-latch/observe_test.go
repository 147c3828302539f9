package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// latchAt serves elections at an address of this machine; with extensions, or without.
func latchAt(t *testing.T, e latch.Elections, address string, extensions bool) (*latch.Server, string) {
	t.Helper()
	l, err := latch.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := latch.NewServer(latch.Config{Elections: e, Extensions: extensions})
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s, l.Addr().String()
}

// newElections gives elections without groups.
func newElections(t *testing.T) *latchtest.Elections {
	t.Helper()
	e := latchtest.NewElections()
	t.Cleanup(e.Close)
	return e
}

// haveLead has a client join a group, until it is ended.
func haveLead(t *testing.T, address, group, name string) (end func()) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "JOIN %s %s\n", group, name)
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "LEADER ") {
		t.Fatalf("was answered %q, error %v", b[:n], err)
	}
	return func() { c.Close() }
}

// printed is what a command has written so far.
type printed struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// until waits until what was written matches.
func (p *printed) until(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(20 * time.Second); !re.MatchString(p.String()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q, want %s", p.String(), pattern)
		}
	}
}

// runObserve runs the command until the test ends, or it ends by itself.
func runObserve(t *testing.T, env map[string]string, args ...string) (out, err *printed, code chan int) {
	t.Helper()
	out, err, code = &printed{}, &printed{}, make(chan int, 1)
	e := &world{out, err, env}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		code <- e.run(ctx, append([]string{"observe"}, args...))
	}()
	return out, err, code
}

// world is the world of a command under test.
type world struct {
	out, err *printed
	vars     map[string]string
}

func (w *world) run(ctx context.Context, args []string) int {
	return run(ctx, &env{stdout: w.out, stderr: w.err, getenv: func(k string) string { return w.vars[k] }}, args)
}

// Each change is printed, of all groups that were named, and nothing twice.
func TestObservePrintsEachChange(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	out, _, _ := runObserve(t, nil, "--server", at, "spark", "other", "spark")
	out.until(t, `(?m)^other NO_LEADER \d+$`)
	out.until(t, `(?m)^spark NO_LEADER \d+$`)
	end := haveLead(t, at, "spark", "a")
	out.until(t, `(?m)^spark LEADER a \d+$`)
	haveLead(t, at, "spark", "b")
	end()
	out.until(t, `(?m)^spark LEADER b \d+$`)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Errorf("printed %q", lines)
	}
}

// With --once it ends when it has told of each group, and JSON is an object in a line.
func TestObserveOnce(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	haveLead(t, at, "spark", "a")
	out, errs, code := runObserve(t, map[string]string{"LEADER_LATCH_SERVERS": "127.0.0.1:1, " + at}, "--once", "--json", "spark", "other")
	if is := <-code; is != exitOK {
		t.Fatalf("exit %d: %s", is, errs)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(lines)
	const object = `^\{"time":"[^"]+","group":"%s","leader":"%s","token":\d+\}$`
	for i, want := range []string{fmt.Sprintf(object, "other", ""), fmt.Sprintf(object, "spark", "a")} {
		if len(lines) != 2 || !slices.ContainsFunc(lines, regexp.MustCompile(want).MatchString) {
			t.Errorf("printed %q, want %d: %s", lines, i, want)
		}
	}
}

// When its server ends it goes on with the next one, and prints nothing older: the same leader is
// no news, and a change that came meanwhile is.
func TestObserveGoesOnAtTheNextServer(t *testing.T) {
	e := newElections(t)
	first, one := latchAt(t, e, "127.0.0.1:0", true)
	_, two := latchAt(t, e, "127.0.0.1:0", true)
	end := haveLead(t, two, "spark", "a")
	out, errs, _ := runObserve(t, nil, "--server", one+","+two, "spark")
	out.until(t, `^spark LEADER a \d+\n$`)
	first.Close()
	haveLead(t, two, "spark", "b")
	eventually := time.Now().Add(20 * time.Second)
	for e.Observers("spark") != 1 && time.Now().Before(eventually) {
		time.Sleep(5 * time.Millisecond)
	}
	end()
	out.until(t, `^spark LEADER a \d+\nspark LEADER b \d+\n$`)
	if errs.String() != "" {
		t.Errorf("stderr: %s", errs)
	}
}

// While no server tells it says so once, and says when one does again.
func TestObserveSaysThatNoServerTells(t *testing.T) {
	e := newElections(t)
	s, at := latchAt(t, e, "127.0.0.1:0", true)
	out, errs, _ := runObserve(t, nil, "--server", at, "spark")
	out.until(t, `NO_LEADER`)
	s.Close()
	errs.until(t, `no server tells who leads spark; trying on: `+at+` .*\n$`)
	e.SetAvailable(false)
	latchAt(t, e, at, true)
	time.Sleep(2 * observeAgain) // it is refused, and says nothing more
	e.SetAvailable(true)
	errs.until(t, `trying on: .*\nleader-latch: `+at+` tells who leads spark\n$`)
}

// On a listener without extensions it ends, and names the key to switch on.
func TestObserveNamesTheKeyToSwitchOn(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", false)
	_, port, _ := net.SplitHostPort(at)
	conf := filepath.Join(t.TempDir(), "riak.conf")
	if err := os.WriteFile(conf, []byte("nodename = riak@127.0.0.1\nlistener.leader_latch.internal = 0.0.0.0:"+port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--server", at + "," + at}, at + " has no extensions: set leader_latch.extensions.<listener> = on for that listener"},
		{[]string{"--config", conf}, conf + ":2: listener.leader_latch.internal: 127.0.0.1:" + port + " has no extensions: set leader_latch.extensions.internal = on and restart the node"},
	} {
		out, errs, code := runObserve(t, nil, append(c.args, "spark")...)
		if is := <-code; is != exitPermanent || out.String() != "" || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q: exit %d, %s%s, want %s", c.args, is, out, errs, c.want)
		}
	}
}

// Where another server has extensions, and only cannot tell now, it tries on.
func TestObserveTriesOnWhereAServerCannotTellNow(t *testing.T) {
	e := newElections(t)
	e.SetAvailable(false)
	_, plain := latchAt(t, e, "127.0.0.1:0", false)
	_, extended := latchAt(t, e, "127.0.0.1:0", true)
	out, errs, _ := runObserve(t, nil, "--server", extended+","+plain, "spark")
	errs.until(t, "no server tells who leads spark; trying on: "+extended+" cannot tell: .*; "+plain+" has no extensions")
	e.SetAvailable(true)
	out.until(t, `^spark NO_LEADER \d+\n$`)
}

// Of nobody it keeps the newest token too: what is older than that is no news.
func TestObserveGoesBackNowhere(t *testing.T) {
	n := newNews()
	for _, c := range []leaderChange{{Token: 100}, {Token: 200}, {Leader: "x", Token: 120}, {Leader: "y", Token: 300}, {Leader: "y", Token: 300}} {
		n.add(c)
	}
	if c, err := n.next(t.Context()); err != nil || c.Leader != "y" || len(n.fresh) != 0 {
		t.Errorf("%+v, error %v, then %q", c, err, n.fresh)
	}
	n.add(leaderChange{Token: 400})
	n.next(t.Context())
	for _, c := range []leaderChange{{Token: 500}, {Leader: "x", Token: 450}} {
		n.add(c)
	}
	if len(n.fresh) != 0 {
		t.Errorf("%+v is taken for news", n.newest)
	}
}

// A server that is another one sends what it likes: that ends in its time, and takes no memory.
func TestObserveAtAnotherServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for err := error(nil); err == nil; {
					_, err = c.Write(bytes.Repeat([]byte("x"), 1000))
				}
			}()
		}
	}()
	_, errs, _ := runObserve(t, nil, "--server", l.Addr().String(), "spark")
	errs.until(t, "is no leader-latch: it has sent a line that is too long")
}

// What cannot be meant is refused at once.
func TestObserveRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "a group is missing"},
		{[]string{"a group"}, `"a group" is no name of a group`},
		{[]string{""}, `"" is no name of a group`},
		{[]string{"--server", "http://latch-1:5326", "g"}, `"http://latch-1:5326" is no server; write host or host:port`},
		{[]string{"--server", ":5326", "g"}, `":5326" is no server`},
		{[]string{"--server", "latch-1:99999", "g"}, `"latch-1:99999" has no port of 1 to 65535`},
		{[]string{"--server", "", "g"}, "--server is empty"},
		{[]string{"--exec", "", "g"}, "the command of --exec is empty"},
		{[]string{"--exec", "true", "--json", "g"}, "--json has no effect"},
		{[]string{"--timeout", "1s", "g"}, "--timeout is for --once"},
	} {
		_, errs, code := runObserve(t, nil, c.args...)
		if is := <-code; is != exitUsage || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q: exit %d, %s", c.args, is, errs)
		}
	}
}

// A file with the settings that was named has to be there, and right.
func TestObserveRefusesAFileThatWasNamed(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "riak.conf")
	if err := os.WriteFile(wrong, []byte("leader_latch.timing = nope\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{wrong, filepath.Join(t.TempDir(), "none")} {
		_, errs, code := runObserve(t, nil, "-c", file, "g")
		if is := <-code; is != exitPermanent || !strings.Contains(errs.String(), file) {
			t.Errorf("exit %d, %s", is, errs)
		}
	}
}

// Of the listeners in the file, those with extensions are tried alone: a plain one says nothing of
// why these cannot tell now.
func TestObserveTriesListenersWithExtensionsAlone(t *testing.T) {
	e := newElections(t)
	e.SetAvailable(false)
	_, plain := latchAt(t, e, "127.0.0.1:0", false)
	_, extended := latchAt(t, e, "127.0.0.1:0", true)
	conf := filepath.Join(t.TempDir(), "riak.conf")
	lines := "listener.leader_latch.a = " + plain + "\nlistener.leader_latch.b = " + extended + "\nleader_latch.extensions.b = on\n"
	if err := os.WriteFile(conf, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, _ := runObserve(t, nil, "-c", conf, "spark", "other")
	errs.until(t, "^leader-latch: no server tells who leads [a-z]+; trying on: "+extended+" cannot tell: [^;]*\n$")
	e.SetAvailable(true)
	out.until(t, `(?m)^spark NO_LEADER \d+$`)
	out.until(t, `(?m)^other NO_LEADER \d+$`)
	errs.until(t, "trying on: [^\n]*\nleader-latch: "+extended+" tells who leads [a-z]+\n$") // once for both groups
}

// With --once it gives up in time, and a command that fails is a failure.
func TestObserveOnceFails(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	_, errs, code := runObserve(t, nil, "--server", at, "--once", "--exec", "exit 7", "spark")
	if is := <-code; is != exitFailed || !strings.Contains(errs.String(), "the command failed for spark NO_LEADER ") {
		t.Errorf("exit %d, %s", is, errs)
	}
	e.SetAvailable(false)
	_, errs, code = runObserve(t, nil, "--server", at, "--once", "--timeout", "300ms", "spark")
	if is := <-code; is != exitFailed || !strings.Contains(errs.String(), "no server has told who leads within 300ms") {
		t.Errorf("exit %d, %s", is, errs)
	}
}

// What a server calls a leader and cannot be one is no leader: neither a terminal nor a command sees it.
func TestObserveChecksNames(t *testing.T) {
	for _, line := range []string{"LEADER \x1b[31mw 12", "LEADER a\x00b 5", "LEADER  12", "LEADER a -1", "LEADER a", "NO_LEADER x", "NO_LEADER 1 2", ""} {
		if c, err := parseChange(line); err == nil {
			t.Errorf("%q is taken for %+v", line, c)
		}
	}
}

// When observe is ended, so is the command that it runs, with all that this has started.
func TestObserveEndsItsCommand(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	out, errs := &printed{}, &printed{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- (&world{out, errs, nil}).run(ctx, []string{"observe", "--server", at, "--exec", "sh -c 'echo $$; sleep 1000' & wait", "spark"})
	}()
	out.until(t, `^\d+\n$`)
	pid, _ := strconv.Atoi(strings.TrimSpace(out.String()))
	cancel()
	if is := <-ended; is != exitOK {
		t.Errorf("exit %d, %s", is, errs)
	}
	for end := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(stat), ") Z ") {
			break // dead, and nobody has asked yet
		}
		if time.Now().After(end) {
			t.Fatal("what the command has started goes on")
		}
	}
}

// A reader that goes away ends it in order, also where nothing changes.
func TestObserveEndsWithItsReader(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), &env{stdout: w, stderr: &printed{}, getenv: func(string) string { return "" }}, []string{"observe", "--server", at, "spark"})
	}()
	b := make([]byte, 100)
	if n, err := r.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "spark NO_LEADER ") {
		t.Fatalf("%q, error %v", b[:n], err)
	}
	r.Close()
	select {
	case is := <-code:
		if is != exitOK {
			t.Errorf("exit %d", is)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}

// A command of the shell runs at each change, one at a time, and the last change is never left out.
func TestObserveRunsACommand(t *testing.T) {
	e := newElections(t)
	_, at := latchAt(t, e, "127.0.0.1:0", true)
	out, errs, _ := runObserve(t, nil, "--server", at, "--exec", `echo "$LEADER_LATCH_GROUP:$LEADER_LATCH_LEADER:$LEADER_LATCH_TOKEN"; exit 7`, "spark")
	out.until(t, `^spark::\d+\n$`)
	end := haveLead(t, at, "spark", "a")
	out.until(t, `\nspark:a:\d+\n$`)
	end()
	out.until(t, `\nspark::\d+\n$`)
	errs.until(t, `the command failed for spark LEADER a \d+: exit status 7`)
}

// Where servers are named without a port, theirs is that of listeners with extensions.
func TestServerAddresses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"latch-1", "latch-1:5326"}, {"latch-1:5323", "latch-1:5323"}, {"10.0.0.1", "10.0.0.1:5326"},
		{"[::1]:5323", "[::1]:5323"}, {"::1", "[::1]:5326"}, {"[::1]", "[::1]:5326"}, {"", ""}, {":1", ""}, {"a:", ""}, {"a:b:c", ""},
	} {
		if got, err := serverAddress(c.in); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: %q, error %v, want %q", c.in, got, err, c.want)
		}
	}
}
