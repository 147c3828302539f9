//go:build bench

package e2e

import (
	"fmt"
	"os"
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

func measureRestart(t *testing.T) {
	all := timed(t, 3, "normal")
	for _, role := range []string{"follower", "raft leader"} {
		var l latencies
		for range fewer(30) {
			victim, rest := raftLeader(t, all)
			if role == "follower" {
				victim, rest = rest[0], []*member{rest[1], victim}
			}
			l = append(l, restartOf(t, victim, rest[0], ""))
			wantWhole(all)
		}
		row("kill -9 and start of the "+role+"'s node, next told elsewhere", "%v", l)
	}
	var l latencies
	for range fewer(30) {
		l = append(l, restartOfAll(t, all, ""))
		wantWhole(all)
	}
	row("kill -9 and start of all three, JOINs answered", "%v", l)
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
	for _, end := range []struct {
		how    string
		signal syscall.Signal
	}{{"SIGTERM", syscall.SIGTERM}, {"kill -9", syscall.SIGKILL}} {
		restart := usedNode(t, "", end.signal)
		var l latencies
		for range fewer(30) {
			l = append(l, restart())
		}
		row("one node started after "+end.how+", JOIN answered", "%v", l)
	}
}
