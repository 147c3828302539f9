package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
	"leaderlatch/latch/latchtest"
)

// Two versions of the program in one cluster: this one and the last that knew no level of
// formats but the first.

// olderCommit is what the older program is built from.
const olderCommit = "67516f8ff55be604fcbaa857a87309e6ec5c5530"

// olderProgram gives the older program. Where the repository is not at hand the test is
// left out; with LEADER_LATCH_TEST_HISTORY=required it fails.
func olderProgram(t *testing.T) string {
	t.Helper()
	exe, err := buildOlder()
	if err != nil {
		if os.Getenv("LEADER_LATCH_TEST_HISTORY") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return exe
}

// buildOlder builds it once for all tests.
var buildOlder = sync.OnceValues(func() (exe string, err error) {
	folder := filepath.Join(builds, "older")
	if err = os.Mkdir(folder, 0o755); err == nil {
		exe, err = buildCommit(olderCommit, folder)
	}
	if err != nil {
		err = fmt.Errorf("the program as it was cannot be built: %w", err)
	}
	return exe, err
})

// buildCommit builds the program of a commit in a folder.
func buildCommit(commit, folder string) (exe string, err error) {
	root, err := outputOf("", "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	archive := filepath.Join(folder, "source.tar")
	if _, err := outputOf(strings.TrimSpace(root), "git", "-c", "safe.directory=*", "archive", "-o", archive, commit); err != nil {
		return "", err
	}
	if _, err := outputOf(folder, "tar", "-xf", archive); err != nil {
		return "", err
	}
	exe = filepath.Join(folder, "older")
	return exe, buildSource(folder, exe)
}

// buildSource builds the program of a source folder.
func buildSource(folder, exe string) error {
	_, err := outputOf(folder, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", exe, "./cmd/leader-latch")
	return err
}

// outputOf runs a command in a folder, and gives what it prints.
func outputOf(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, stderr.Bytes())
	}
	return string(out), err
}

// format is what node.json says that is in the node's folder.
func (m *member) format() (level int) {
	m.t.Helper()
	found := formatInFile.FindSubmatch(m.identity())
	if found == nil {
		m.t.Fatalf("node.json has no format: %s", m.identity())
	}
	level, err := strconv.Atoi(string(found[1]))
	if err != nil {
		m.t.Fatal(err)
	}
	return level
}

var (
	formatInFile = regexp.MustCompile(`"format": ([0-9]+)`)
	sumInFile    = regexp.MustCompile(`,\s*"sum": "[0-9a-f]*"`)
)

func (m *member) identityFile() string {
	return filepath.Join(m.dir, "data", "leader_latch", "node.json")
}

func (m *member) identity() []byte {
	m.t.Helper()
	b, err := os.ReadFile(m.identityFile())
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// forget has the folder look as if the node had crashed before it wrote the level down:
// in node.json first, then in raft.db. What is in that, and in the log, stays.
func (m *member) forget() {
	m.t.Helper()
	m.forgetIdentity()
	folder := filepath.Dir(m.identityFile())
	now, err := logstore.Open(filepath.Join(folder, "raft.db"), logstore.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	before := m.t.TempDir()
	then, err := logstore.Open(filepath.Join(before, "raft.db"), logstore.Options{Format: 1})
	if err != nil {
		m.t.Fatal(err)
	}
	last, err := now.LastIndex()
	first, err1 := now.FirstIndex()
	for err = errors.Join(err, err1); err == nil && last > 0 && first <= last; first++ {
		var l raft.Log
		if err = now.GetLog(first, &l); err == nil {
			err = then.StoreLog(&l)
		}
	}
	for _, k := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", "leader_latch.open_counter", "leader_latch.promises_of", "leader_latch.promise"} {
		v, err1 := now.Get([]byte(k))
		if err1 == nil {
			err1 = then.Set([]byte(k), v)
		} else if err1.Error() == "not found" {
			err1 = nil
		}
		err = errors.Join(err, err1)
	}
	if err := errors.Join(err, now.Close(), then.Close()); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"raft.db", "log"} {
		err := os.RemoveAll(filepath.Join(folder, name))
		if err == nil {
			err = os.Rename(filepath.Join(before, name), filepath.Join(folder, name))
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// forgetIdentity has node.json look so, which no crash leaves.
func (m *member) forgetIdentity() {
	m.t.Helper()
	before := sumInFile.ReplaceAll(formatInFile.ReplaceAll(m.identity(), []byte(`"format": 1`)), nil)
	if err := os.WriteFile(m.identityFile(), before, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// wantTooOld runs the older program on the folder, where nothing runs, and expects that it
// ends by itself, for a person to do what the words say.
func (m *member) wantTooOld(older string, words ...string) {
	m.t.Helper()
	m.wantGivesUp(older, append(words, "install that version again")...)
}

// wantGivesUp is wantTooOld where the older program does not know what it is that it finds.
func (m *member) wantGivesUp(older string, words ...string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, older, "serve")
	cmd.Env = append(os.Environ(), "LEADER_LATCH_CONFIG="+writeConf(m.t, m.dir, m.lines...))
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitPermanent {
		m.t.Fatalf("the older program ended with exit code %d, want %d\n%s", code, exitPermanent, out)
	}
	for _, w := range words {
		wantContains(m.t, string(out), w)
	}
}

// end ends the process in order, or kills it.
func (m *member) end(how syscall.Signal) {
	m.t.Helper()
	m.signal(how)
	if how == syscall.SIGKILL {
		<-m.gone
	} else {
		m.wantExit(exitOK)
	}
}

// An operator upgrades a cluster node by node, goes back, and upgrades it again, while
// clients come and go: no two of a group are ever told that they lead. Below the newest
// level the way back is open, and the level does not rise while one node is of the older
// version, or holds it; then it does by itself, and the older version can do nothing any more.
func TestNodesAreUpgradedAndGoBackOneByOne(t *testing.T) {
	t.Parallel()
	older := olderProgram(t)
	all := founders(t, 3, "leader_latch.fencing.internal = on")
	lines := slices.Clone(all[0].lines)
	for _, m := range all {
		m.runAs(older)
	}
	wantWhole(all)
	visits := newVisits(t, all)

	const holds = "leader_latch.format_level = 1"
	// to has a node ended and run by a program, with lines added to its own.
	to := func(exe string, m *member, how syscall.Signal, added ...string) {
		t.Helper()
		m.end(how)
		m.lines = append(slices.Clone(m.lines[:len(lines)]), added...)
		if exe == "" {
			m.lines = append(m.lines, withKeys)
		}
		m.runAs(exe)
		wantWhole(all)
		visits.check()
	}
	// low expects that the cluster has the first level still, held by some.
	low := func(by *member, holding ...*member) {
		t.Helper()
		var names []string
		for _, h := range holding {
			names = append(names, h.name)
		}
		slices.Sort(names)
		by.until(fmt.Sprintf("%q hold it, and it knows of their sessions", names), func() bool { return slices.Equal(by.cluster().Holding, names) })
		if c := by.cluster(); c.Level != 1 || c.Newest != state.NewestLevel {
			t.Errorf("level %d of %d, held by %q; want 1", c.Level, c.Newest, c.Holding)
		}
		for _, m := range all {
			if f := m.format(); f != 1 {
				t.Errorf("the folder of %s has format %d", m.name, f)
			}
		}
	}

	to("", all[0], syscall.SIGTERM, holds)
	low(all[0], all...)
	status := all[0].order(exitOK, "cluster", "status")
	for _, m := range all {
		version := "older"
		if m == all[0] {
			version = strings.TrimSpace(m.order(exitOK, "version"))
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(m.name) + ` +up .* 1 +` + regexp.QuoteMeta(version) + `$`).MatchString(status) {
			t.Errorf("%s is not shown with version %s:\n%s", m.name, version, status)
		}
	}
	wantContains(t, status, "every node can still go back to a version that has level 1")
	keyed := keyedAt(all, 0, "keyed", "worker", time.Minute) // it tries on, at all nodes
	for m, answer := range map[*member]string{all[0]: "JOIN_FAILED SERVICE_UNAVAILABLE", all[1]: "ERROR"} {
		c := m.dial()
		c.send("JOIN keyed another key=0123456789abcdef hold=0\n")
		c.want(answer)
	}
	to("", all[1], syscall.SIGKILL, holds)
	all[2].signal(syscall.SIGSTOP)
	time.Sleep(clusterTiming.Heartbeat) // shorter than its lease: it goes on
	all[2].signal(syscall.SIGCONT)
	to("", all[2], syscall.SIGTERM, holds)
	low(all[1], all...)

	to(older, all[1], syscall.SIGKILL)
	to(older, all[0], syscall.SIGTERM)
	low(all[2], all...)
	to("", all[1], syscall.SIGTERM) // and none holds it any more but by being older
	to("", all[2], syscall.SIGTERM)
	low(all[1], all[0])
	to(older, all[2], syscall.SIGTERM)
	low(all[1], all[0], all[2])
	to("", all[2], syscall.SIGKILL)
	low(all[1], all[0])

	if n := keyed.joins(); n > 0 {
		t.Errorf("a keyed member was taken %d times below the level", n)
	}
	to("", all[0], syscall.SIGTERM)
	keyed.led(all[0])
	for _, m := range all {
		m.until("the level has risen", func() bool { return m.cluster().Level == state.NewestLevel && m.format() == state.NewestLevel })
	}
	wantContains(t, all[0].order(exitOK, "cluster", "status"), "no node can go back to an older version")

	// The older program refuses the folder. Where that looks as if it were its own, after a
	// crash, the others do not talk to it.
	back := all[1]
	back.end(syscall.SIGTERM)
	back.wantTooOld(older, fmt.Sprintf("data format %d, this program reads up to 1", state.NewestLevel))
	back.forget()
	back.runAs(older)
	back.logs("install the same release on both")
	if c := back.cluster(); c.Majority {
		t.Errorf("it takes part: %+v", c)
	}
	back.end(syscall.SIGKILL)
	back.run()
	wantWhole(all)
	back.until("the folder has the level", func() bool { return back.format() == state.NewestLevel })

	// A fresh node of the older version is not let in, and says why.
	fresh := newMember(t, "leader_latch.join = "+all[0].name).runAs(older)
	fresh.logs("this node is in no cluster yet, trying on reason=")
	fresh.logs("install the same release on both")
	wantContains(t, fresh.order(exitFailed, "cluster", "join", all[2].name), "install the same release on both")
	if c := all[0].cluster(); len(c.Members) != 3 {
		t.Errorf("members %+v", c.Members)
	}
	fresh.end(syscall.SIGKILL)
	visits.finish()

	// A snapshot of the new level stops the older program too; a recovery makes one.
	for _, m := range all {
		m.end(syscall.SIGKILL)
	}
	back.order(exitOK, "recover", "--yes")
	back.forget()
	back.wantTooOld(older, fmt.Sprint("snapshot of version ", state.NewestLevel))
	back.run().ready()
}

// An entry of the new level stops the older program, in a folder that looks as if it were
// its own; this one goes on there.
func TestTheOlderProgramStopsAtANewerEntry(t *testing.T) {
	t.Parallel()
	older := olderProgram(t)
	m := newMember(t, "leader_latch.minimum_nodes = 1").run()
	m.ready()
	m.until("the level has risen", func() bool { return m.format() == state.NewestLevel })
	m.join("g", "a", "a")
	m.end(syscall.SIGTERM)
	m.wantTooOld(older, fmt.Sprint("data format ", state.NewestLevel))
	m.forgetIdentity()
	m.wantGivesUp(older, "raft.db", "not a log store") // and leaves it as it is
	m.forget()
	m.wantTooOld(older, "log entry of version 2") // the Raise to the level before the newest
	m.run().ready()
	m.until("the folder has the level", func() bool { return m.format() == state.NewestLevel })
	m.join("g", "a", "a")
}

// A new machine has the new version, and joins a cluster of the older one, though it wrote
// more than that reads while it was alone. When the old node has been upgraded the level
// rises.
func TestANewNodeJoinsAClusterOfTheOlderVersion(t *testing.T) {
	t.Parallel()
	older := olderProgram(t)
	all := []*member{newMember(t, "leader_latch.minimum_nodes = 2").runAs(older), newMember(t, "leader_latch.minimum_nodes = 2").run()}
	all[1].until("the level has risen", func() bool { return all[1].format() == state.NewestLevel })
	wantContains(t, all[0].order(exitFailed, "cluster", "join", all[1].name), "install the same release on both")
	all[1].order(exitOK, "cluster", "join", all[0].name)
	wantWhole(all)
	if f := all[1].format(); f != 1 {
		t.Errorf("it writes level %d, which the other one does not read", f)
	}
	all[0].join("g", "a", "a")
	all[1].join("g", "b", "a")
	all[0].end(syscall.SIGTERM)
	all[0].run()
	wantWhole(all)
	for _, m := range all {
		m.until("the level has risen", func() bool { return m.format() == state.NewestLevel })
	}
}

// visits are clients of one machine that join groups at whatever node, stay for a while or
// for as long as they can, and come again, and a record of all that they were told. What
// arrives is read, and noted, under its lock: so when one client is told that it leads, it is
// certain what the others could know. Nodes have to answer with tokens.
type visits struct {
	t     testing.TB
	nodes []*member

	mu       sync.Mutex // guards what follows, and the visits
	views    []*latchtest.View
	open     []*visit
	refused  int // JOINs
	stopped  bool
	stopping chan struct{} // closed when stopped
	running  sync.WaitGroup
}

// visit is one connection of a client.
type visit struct {
	*visits
	conn   *net.TCPConn
	raw    syscall.RawConn
	view   *latchtest.View
	in     []byte        // the beginning of a line
	unread time.Duration // since when something is there that it has not read; 0: nothing is known to be
}

// visitsAt are none yet.
func visitsAt(t testing.TB, nodes []*member) *visits {
	v := &visits{t: t, nodes: nodes, stopping: make(chan struct{})}
	t.Cleanup(v.stop)
	return v
}

func newVisits(t testing.TB, nodes []*member) *visits {
	v := visitsAt(t, nodes)
	for group := range 6 {
		for client := range 4 {
			rnd := rand.New(rand.NewPCG(uint64(group), uint64(client)))
			longest := 600 * time.Millisecond
			if group == 0 {
				longest = patience // its leaders change when nodes go
			}
			v.running.Go(func() { v.comeAndGo(fmt.Sprint("v", group), fmt.Sprint("c", client), longest, rnd) })
		}
	}
	return v
}

// epoch is when the time of all histories began.
var epoch = time.Now()

func (v *visits) now() time.Duration { return time.Since(epoch) }

func (v *visits) comeAndGo(group, client string, longest time.Duration, rnd *rand.Rand) {
	for more := true; more; {
		stay := longest
		if rnd.IntN(8) > 0 {
			stay = time.Duration(30+rnd.IntN(400)) * time.Millisecond
		}
		more = v.connects(group, client, "", stay, rnd)
	}
}

// connects has a client make one visit, at any node, and rest. It reports whether there are to be more.
func (v *visits) connects(group, client, words string, stay time.Duration, rnd *rand.Rand) bool {
	nc, err := net.DialTimeout("tcp", v.nodes[rnd.IntN(len(v.nodes))].ip+":5323", time.Second)
	if err == nil {
		v.visit(nc.(*net.TCPConn), group, client, words, stay)
	}
	select {
	case <-v.stopping:
		return false
	case <-time.After(time.Duration(10+rnd.IntN(100)) * time.Millisecond):
		return true
	}
}

// stays has a client join, and again whenever its connection has ended. words are behind the names.
func (v *visits) stays(group, client, words string, rnd *rand.Rand) {
	v.running.Go(func() {
		for v.connects(group, client, words, time.Hour, rnd) {
		}
	})
}

// visit joins, and listens until the connection has ended or the client has stayed so long.
func (v *visits) visit(nc *net.TCPConn, group, client, words string, stay time.Duration) {
	defer nc.Close()
	raw, err := nc.SyscallConn()
	if err != nil {
		panic(err)
	}
	c := &visit{visits: v, conn: nc, raw: raw, view: &latchtest.View{Group: group, Client: client, Keyed: words != "", Where: fmt.Sprintf("%v to %v", nc.LocalAddr(), nc.RemoteAddr())}}
	v.mu.Lock()
	if v.stopped {
		v.mu.Unlock()
		return
	}
	v.views, v.open = append(v.views, c.view), append(v.open, c)
	v.mu.Unlock()
	fmt.Fprintf(nc, "JOIN %s %s%s\n", group, client, words) // what fails here, the first read tells
	nc.SetReadDeadline(time.Now().Add(stay))
	for open := true; open; {
		if raw.Read(func(fd uintptr) bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			open = c.view.End == 0 && c.take(int(fd))
			return !open
		}) != nil {
			break // it goes: before that it takes itself for the leader no more
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	c.end(v.now())
}

// take reads all that has arrived, and only then believes the last of it. It reports whether
// the connection goes on. The lock is held.
func (c *visit) take(fd int) (open bool) {
	ended := false
	for buf := make([]byte, 512); ; {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			ended = err != unix.EAGAIN
			break
		}
		c.in = append(c.in, buf[:n]...)
	}
	end := bytes.LastIndexByte(c.in, '\n') + 1
	news := strings.FieldsFunc(string(c.in[:end]), func(r rune) bool { return r == '\n' })
	c.in = c.in[end:]
	if len(news) == 0 && !ended {
		return true
	}
	at := c.now()
	if c.unread != 0 {
		at, c.unread = c.unread, 0
	}
	for i, line := range news {
		told := latchtest.Told{At: at}
		at = c.now() // for it is only the first of them that is known to have been there
		if line == "JOIN_FAILED SERVICE_UNAVAILABLE" {
			c.refused++
			continue
		}
		if n, err := fmt.Sscanf(line, "LEADER %s %d", &told.Leader, &told.Token); n != 2 || err != nil {
			c.t.Errorf("%s (%s) was sent %q", c.view.Client, c.view.Where, line)
			continue
		}
		c.view.Told = append(c.view.Told, told)
		if told.Leader == c.view.Client && !ended && i == len(news)-1 {
			c.lookAtOthers(c.view.Group, c, told.At)
		}
	}
	if ended {
		c.end(at)
	}
	return !ended
}

// lookAtOthers notes for each client of a group but one that takes itself for the leader
// whether there is something that it has not read, now that another one was told: then it could
// have known. The lock is held.
func (v *visits) lookAtOthers(group string, but *visit, now time.Duration) {
	for _, o := range slices.Clone(v.open) {
		if o == but || o.view.Group != group || o.unread != 0 || len(o.view.Told) == 0 || o.view.Told[len(o.view.Told)-1].Leader != o.view.Client {
			continue
		}
		var n int
		var err error
		o.raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT) })
		switch {
		case n < 0 && err == unix.EAGAIN:
		case n < 0 || err != nil: // the kernel tells an error once, and this was it
			o.end(now)
		default:
			o.unread = now
		}
	}
}

// end notes that the client knows that it does not lead any more. The lock is held.
func (c *visit) end(at time.Duration) {
	if c.view.End == 0 {
		c.view.End = at
		c.open = slices.DeleteFunc(c.open, func(o *visit) bool { return o == c })
	}
}

// seen copies what was seen until now.
func (v *visits) seen() (all []*latchtest.View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, view := range v.views {
		seen := *view
		seen.Told = slices.Clone(view.Told)
		all = append(all, &seen)
	}
	return all
}

// check holds what was seen until now against the promise.
func (v *visits) check() {
	v.t.Helper()
	if bad := latchtest.Check(v.seen()).Violations; len(bad) > 0 {
		v.t.Fatalf("the promise is broken: %s", strings.Join(bad, "\n"))
	}
}

// finish waits until all know one leader, and lets the clients go.
func (v *visits) finish() {
	v.t.Helper()
	v.nodes[0].until("all know one leader", func() bool { return len(latchtest.Unsettled(v.seen())) == 0 })
	v.stop()
	v.check()
	seen := v.seen()
	led := latchtest.Check(seen).Leaderships
	v.t.Logf("%d visits, %d leaderships, %d JOINs refused", len(seen), led, v.refused)
	if led < 50 {
		v.t.Errorf("%d leaderships are too few to prove much", led)
	}
}

func (v *visits) stop() {
	v.mu.Lock()
	if !v.stopped {
		v.stopped = true
		close(v.stopping)
		now := v.now()
		for _, c := range slices.Clone(v.open) {
			c.end(now)
			c.conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
	v.mu.Unlock()
	v.running.Wait()
}
