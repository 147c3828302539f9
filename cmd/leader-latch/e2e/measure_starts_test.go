//go:build bench

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

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

// largeNode prepares the folder of one node with a large state, on which no process has run.
// What it gives starts the node on a copy of it, and tells after how long a JOIN was answered,
// and how much of the processors the node had taken by then.
func largeNode(t *testing.T, exe string) (start func() (took, cpu time.Duration)) {
	t.Helper()
	m := newMember(t, "leader_latch.minimum_nodes = 1", "leader_latch.timing = normal")
	lines := m.lines
	m.lines = append(slices.Clone(lines), "leader_latch.format_level = 1") // which older programs read
	m.run().ready()
	m.signal(syscall.SIGTERM)
	m.wantExit(exitOK)
	m.lines = lines
	folder, made := filepath.Join(m.dir, "data"), filepath.Join(m.dir, "made")
	// With 64 MiB a snapshot would be taken at once.
	if err := ensemble.MakeLarge(filepath.Join(folder, "leader_latch"), fewer(1_000_000), fewer(63<<20)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder, made); err != nil {
		t.Fatal(err)
	}
	return func() (took, cpu time.Duration) {
		t.Helper()
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(folder, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		syscall.Sync() // what was copied is not to be written while the node starts
		took = answersAfter(t, m, exe, 5*patience)
		cpu = pidsOf([]*member{m}).cpu(t)
		m.kill()
		return took, cpu
	}
}

func measureStartLarge(t *testing.T) {
	start := largeNode(t, "")
	var l, cpus latencies
	for range fewer(10) {
		took, cpu := start()
		l, cpus = append(l, took), append(cpus, cpu)
	}
	row(fmt.Sprintf("one node started with %d MiB of log and a snapshot of %d members, JOIN answered", fewer(63), fewer(1_000_000)), "%v; server CPU %v", l, cpus)
}

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
