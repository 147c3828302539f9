//go:build bench

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble"
)

func init() { outsiders["map"] = beMap }

// usedNode prepares one node on a folder that has been used. What it gives ends the node
// by that signal, starts it, and tells after how long a JOIN was answered.
func usedNode(t *testing.T, exe string, end syscall.Signal) (restart func() time.Duration) {
	t.Helper()
	m := newMember(t, "leader_latch.minimum_nodes = 1", "leader_latch.timing = normal")
	m.runAs(exe)
	m.ready()
	if err := inParallel(fewer(5000), 64, func(int) error {
		c, err := elected(m.addr)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return func() time.Duration {
		t.Helper()
		m.signal(end)
		<-m.gone
		return answersAfter(t, m, exe, patience)
	}
}

// restartOf kills a node, which the leader of a group is connected to, starts it at once, and
// tells after how long the next leader was told, at another node.
func restartOf(t *testing.T, victim, other *member, exe string) time.Duration {
	t.Helper()
	a, b := pair(t, victim.addr, other.addr, unique("restart"))
	defer a.Close()
	defer b.Close()
	time.Sleep(time.Second) // nothing of the joining, or of a start before, is under way
	b.SetDeadline(time.Now().Add(patience))
	told := make(chan time.Time, 1)
	began := time.Now()
	go func() {
		if leader, err := b.told(); err != nil || leader != "b" {
			t.Errorf("told %q, %v", leader, err)
		}
		told <- time.Now()
	}()
	victim.kill()
	victim.runAs(exe)
	return (<-told).Sub(began)
}

// restartOfAll kills all nodes, starts them at once, and tells after how long a JOIN was
// answered at each.
func restartOfAll(t *testing.T, all []*member, exe string) time.Duration {
	t.Helper()
	began := time.Now()
	for _, m := range all {
		m.signal(syscall.SIGKILL)
	}
	for _, m := range all {
		<-m.gone
	}
	gone := time.Since(began)
	took := make([]time.Duration, len(all))
	var running sync.WaitGroup
	for i, m := range all {
		running.Go(func() { took[i] = answersAfter(t, m, exe, patience) })
	}
	running.Wait()
	return gone + slices.Max(took)
}

// electedAfterDeath kills the raft leader's node, and tells after how long the first client
// was elected at another one. Then it starts that node.
func electedAfterDeath(t *testing.T, all []*member) time.Duration {
	t.Helper()
	victim, rest := raftLeader(t, all)
	time.Sleep(time.Second) // nothing of a start before is under way
	o := killAndElect(t, victim, rest)
	victim.run()
	return o.first
}

func measureRestart(t *testing.T) {
	all := timed(t, 3, "normal")
	for _, r := range []struct {
		what string
		take func() time.Duration
	}{
		{"kill -9 and start of a follower's node, next told elsewhere", func() time.Duration {
			_, rest := raftLeader(t, all)
			return restartOf(t, rest[0], rest[1], "")
		}},
		{"kill -9 and start of the raft leader's node, next told elsewhere", func() time.Duration {
			leader, rest := raftLeader(t, all)
			return restartOf(t, leader, rest[0], "")
		}},
		{"kill -9 of the raft leader's node, which is not started: first election elsewhere", func() time.Duration {
			return electedAfterDeath(t, all)
		}},
		{"kill -9 and start of all three, JOINs answered", func() time.Duration {
			return restartOfAll(t, all, "")
		}},
	} {
		withAndWithoutBuild(t, r.what, func() time.Duration {
			took := r.take()
			wantWhole(all)
			return took
		})
	}
}

// answersAfter starts a node, and tells after how long a JOIN was answered.
func answersAfter(t *testing.T, m *member, exe string, limit time.Duration) time.Duration {
	t.Helper()
	addr := m.ip + ":5323"
	answered := make(chan time.Duration, 1)
	began := time.Now()
	go func() {
		defer close(answered)
		for time.Since(began) < limit {
			c, err := elected(addr)
			if err == nil {
				answered <- time.Since(began)
				c.Close()
				return
			}
			time.Sleep(time.Millisecond) // it does not listen yet, or refuses
		}
	}()
	m.runAs(exe)
	took, ok := <-answered
	if !ok {
		t.Fatalf("no JOIN is answered after %v", limit)
	}
	return took
}

// largeNode is one node with a large state, and the folder that it is started on copies of.
type largeNode struct {
	*member
	exe          string
	folder, made string // which it uses; on which no process has run
	members      int    // in its snapshot
	changes      int    // in its log: so often one leaves and comes back
}

func newLargeNode(t *testing.T, exe string) *largeNode {
	t.Helper()
	m := newMember(t, "leader_latch.minimum_nodes = 1", "leader_latch.timing = normal")
	lines := m.lines
	m.lines = append(slices.Clone(lines), "leader_latch.format_level = 1") // which older programs read
	m.run().ready()
	m.signal(syscall.SIGTERM)
	m.wantExit(exitOK)
	m.lines = lines
	n := &largeNode{member: m, exe: exe, folder: filepath.Join(m.dir, "data"), made: filepath.Join(m.dir, "made"), members: fewer(1_000_000)}
	var err error
	if n.changes, err = ensemble.MakeLarge(filepath.Join(n.folder, "leader_latch"), n.members, largeLog()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.folder, n.made); err != nil {
		t.Fatal(err)
	}
	return n
}

// largeLog is how many bytes of log it has. With 64 MiB a snapshot would be taken at once.
func largeLog() int { return fewer(63 << 20) }

// renew gives the node a new copy of the folder. Cached says whether the page cache keeps it.
func (n *largeNode) renew(cached bool) {
	n.t.Helper()
	if err := os.RemoveAll(n.folder); err != nil {
		n.t.Fatal(err)
	}
	if err := os.CopyFS(n.folder, os.DirFS(n.made)); err != nil {
		n.t.Fatal(err)
	}
	syscall.Sync() // what was copied is not to be written while the node starts
	if cached {
		return
	}
	if err := eachFile(n.folder, func(f *os.File) error {
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}); err != nil {
		n.t.Fatal(err)
	}
}

// eachFile calls use for every file of a folder, and of those in it.
func eachFile(folder string, use func(*os.File) error) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return use(f)
	})
}

// start starts the node on a new copy, and tells after how long a JOIN was answered, how much
// of the processors the node had taken by then, and how many bytes it had read from the disk.
func (n *largeNode) start(t *testing.T, cached bool) (took, cpu time.Duration, read int) {
	t.Helper()
	n.renew(cached)
	took = answersAfter(t, n.member, n.exe, 5*patience)
	cpu, read = pidsOf([]*member{n.member}).cpu(t), diskReads(t, n.cmd.Process.Pid)
	n.kill()
	return took, cpu, read
}

// bare starts a process that reads what is in a new copy, and keeps a map of its members. It tells
// after how long that was built, and after how long the map was changed as often as the log says.
func (n *largeNode) bare(t *testing.T, cached bool) (built, changed, reading time.Duration, read int) {
	t.Helper()
	n.renew(cached)
	began := time.Now()
	p := startOutsider(t, "map", n.folder, strconv.Itoa(n.members), strconv.Itoa(n.changes))
	built = time.Since(began)
	line := p.line()
	changed = time.Since(began)
	read = diskReads(t, p.cmd.Process.Pid)
	p.kill()
	reading, err := time.ParseDuration(line)
	if err != nil {
		t.Fatal(err)
	}
	return built, changed, reading, read
}

// beMap is that process.
func beMap(in *bufio.Reader, args []string) error {
	members, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	changes, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	began, buf := time.Now(), make([]byte, 1<<20)
	if err := eachFile(args[0], func(f *os.File) error {
		for {
			if _, err := f.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}); err != nil {
		return err
	}
	reading := time.Since(began)
	// Names as long as those of [ensemble.MakeLarge].
	name := func(n int) string { return "worker-" + strconv.Itoa(n) + ".example.com:7077" }
	groupOf := make(map[string]string, members)
	for n := range members {
		groupOf[name(n)] = "group-" + strconv.Itoa(n/5)
	}
	fmt.Println("ready")
	for i := range changes {
		n := i * 7919 % members
		delete(groupOf, name(n))
		groupOf[name(n)] = "group-" + strconv.Itoa(n/5)
	}
	fmt.Println(reading)
	in.ReadString('\n')
	return nil
}

// diskReads is how many bytes a process has had read from the disk.
func diskReads(t *testing.T, pid int) int {
	t.Helper()
	n, err := strconv.Atoi(procField(fmt.Sprintf("/proc/%d/io", pid), "read_bytes"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func measureStartLarge(t *testing.T) {
	n := newLargeNode(t, "")
	for _, of := range []struct {
		where  string
		cached bool
		times  int
	}{{"nothing of it in the page cache", false, fewer(30)}, {"all of it in the page cache", true, fewer(10)}} {
		var ours, cpus, built, changed, readings latencies
		var read, bareRead spread
		for range of.times { // in turn, so that a disturbance hits both
			took, cpu, r := n.start(t, of.cached)
			ours, cpus, read = append(ours, took), append(cpus, cpu), append(read, mib(r))
			b, ch, reading, r := n.bare(t, of.cached)
			built, changed, readings, bareRead = append(built, b), append(changed, ch), append(readings, reading), append(bareRead, mib(r))
		}
		row(fmt.Sprintf("one node started with %.0f MiB of log and a snapshot of %d members, JOIN answered, %s", mib(largeLog()), n.members, of.where),
			"%v; server CPU %v; MiB from the disk: %v", ours, cpus, read)
		row("a bare process reads the same, and builds a map of the members", "%v; ours: %.1f times that; reading alone: %v; MiB from the disk: %v", built, ratio(ours, built), readings, bareRead)
		row(fmt.Sprintf("the same, and changes the map as often as the log does, %d times", n.changes), "%v; ours: %.1f times that", changed, ratio(ours, changed))
	}
}

// ratio is that of two medians.
func ratio(a, b latencies) float64 { return float64(a.at(0.5)) / float64(b.at(0.5)) }

func measureStart(t *testing.T) {
	withAndWithoutBuild(t, "one node started on a new folder, JOIN answered", func() time.Duration {
		m := newMember(t, "leader_latch.minimum_nodes = 1", "leader_latch.timing = normal")
		took := answersAfter(t, m, "", patience)
		m.kill()
		return took
	})
	for _, end := range []struct {
		how    string
		signal syscall.Signal
	}{{"SIGTERM", syscall.SIGTERM}, {"kill -9", syscall.SIGKILL}} {
		withAndWithoutBuild(t, "one node started after "+end.how+", JOIN answered", usedNode(t, "", end.signal))
	}
}

// withAndWithoutBuild takes a time again and again, on a machine that has nothing else to do
// and on one of which a build keeps one core busy.
func withAndWithoutBuild(t *testing.T, what string, take func() time.Duration) {
	t.Helper()
	var quiet, busy latencies
	var cores spread
	for range repetitions { // in turn, so that a disturbance hits both
		for range fewer(30) / repetitions {
			quiet = append(quiet, take())
		}
		stop := startBuild(t)
		for range fewer(30) / repetitions {
			busy = append(busy, take())
		}
		cores = append(cores, stop())
	}
	row(what, "%v", quiet)
	row("the same beside a build", "%v; max: %.1f times the p50 without; the build: %.1f cores", busy, float64(busy.at(1))/float64(quiet.at(0.5)), cores.median())
}

// startBuild builds the program, with all that it is made of, again and again, one package at a
// time and each on one core, until it is stopped. Then it says how many cores that took.
func startBuild(t *testing.T) (stop func() (cores float64)) {
	t.Helper()
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var used time.Duration
	began, over := time.Now(), make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, "go", "build", "-a", "-p", "1", "-buildvcs=false", "-o", os.DevNull, "leaderlatch/cmd/leader-latch")
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOCACHE="+cache)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) } // the compiler too; go removes what it has made
			out, err := cmd.CombinedOutput()
			if ended := cmd.ProcessState; ended != nil {
				used += ended.UserTime() + ended.SystemTime()
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("%v: %v\n%s", cmd.Args, err, out)
				return
			}
		}
	}()
	stop = sync.OnceValue(func() float64 {
		cancel()
		<-over
		os.RemoveAll(cache) // there are many of them before the test is over
		return used.Seconds() / time.Since(began).Seconds()
	})
	t.Cleanup(func() { stop() })
	return stop
}
