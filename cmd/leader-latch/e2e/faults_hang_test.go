//go:build faults

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
)

// mountOnDisk gives the host a disk that lies on another disk of its own. Where that
// one is frozen, the device of this one hangs: whatever is asked of it, also reading.
func (h *host) mountOnDisk() (outer *host) {
	h.t.Helper()
	h.mountDisk()
	o := *h
	image := filepath.Join(h.disk, "image")
	h.disk = filepath.Join(h.dir, fmt.Sprint("device-", h.n))
	if err := os.Mkdir(h.disk, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.must("", "truncate", "-s", "128M", image)
	h.must("", "mkfs.ext4", "-q", "-m", "0", image)
	h.must("", "mount", "-o", "loop", image, h.disk)
	return &o
}

// hangs reports whether a thread of the data folder waits in the kernel for its disk,
// where no signal ends it, and has not run for a while.
func (m *member) hangs() bool {
	return hang(m.cmd.Process.Pid, func(file string) bool { return strings.HasSuffix(file, "/leader_latch/lock") })
}

// hang reports whether a thread of the process waits like that that has such a file open.
func hang(pid int, has func(file string) bool) bool {
	waiting := func() (all []string) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, task := range tasks {
			status, _ := os.ReadFile(task + "/status")
			files, _ := filepath.Glob(task + "/fd/*")
			if strings.Contains(string(status), "\nState:\tD") && slices.ContainsFunc(files, func(fd string) bool {
				to, _ := os.Readlink(fd)
				return has(to)
			}) {
				_, switches, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
				all = append(all, task+switches)
			}
		}
		return all
	}
	before := waiting()
	time.Sleep(100 * time.Millisecond)
	return slices.ContainsFunc(waiting(), func(w string) bool { return slices.Contains(before, w) })
}

// wantRefused expects that another process does not start on the node's folder: it says
// who has it, or waits for the disk as well, where what it looks at is not in memory
// any more. It can end only when the disk answers: ended waits for that.
func (s *site) wantRefused(m *member) (ended func()) {
	m.t.Helper()
	name := filepath.Join(m.dir, "another-process")
	out, err := os.Create(name)
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close()
	cmd := m.program("serve")
	cmd.Stderr = out
	s.host(m).do(func() { err = cmd.Start() })
	if err != nil {
		m.t.Fatal(err)
	}
	said := func() string {
		b, _ := os.ReadFile(name)
		return string(b)
	}
	refused := func() bool { return strings.Contains(said(), "cannot serve") }
	code := exitFailed
	began := time.Now() // it waits for the lock for 5 s, and its log may hang meanwhile
	m.until("another process is refused, or hangs", func() bool {
		return refused() || time.Since(began) > 10*time.Second && hang(cmd.Process.Pid, func(string) bool { return true })
	})
	if !refused() {
		m.t.Logf("another process hangs after it said %q", said())
		cmd.Process.Kill()
		code = -1
	} else if !strings.Contains(said(), ensemble.ErrLocked.Error()) {
		m.t.Errorf("another process said\n%s", said())
	}
	return func() {
		m.t.Helper()
		if cmd.Wait(); cmd.ProcessState.ExitCode() != code || strings.Contains(said(), "started") {
			m.t.Errorf("another process ended: %v\n%s", cmd.ProcessState, said())
		}
	}
}

// A node whose disk hangs, with its log on it too, is killed: by somebody, by its own
// switch when it is stopped, by a crash. All its connections end then, and not only when
// the disk answers; its members are replaced as if the disk were well. While a write of
// it may still reach the disk, no other process starts there.
func TestFaultANodeIsKilledWhileItsDiskHangs(t *testing.T) {
	const hang = 60 * time.Second
	tm := clusterTiming
	for _, disk := range []string{"frozen", "a dead device"} {
		t.Run(disk, func(t *testing.T) {
			t.Parallel()
			s := &site{network: newNetwork(t, 3)}
			s.hosts = s.network.hosts
			stalls := map[*host]*host{}
			for _, h := range s.hosts {
				if stalls[h] = h; disk == "frozen" {
					h.mountDisk()
				} else {
					stalls[h] = h.mountOnDisk()
				}
			}
			s.all = onHosts(s.hosts, tm.Name, "log.console = both", "log.console.level = debug", "log.crash = off", "leader_latch.minimum_free_space = 8MB")
			for _, m := range s.all {
				s.run(m)
			}
			wantWhole(s.all)
			for _, end := range []struct {
				name   string
				signal syscall.Signal
				bound  time.Duration // from the signal to the end of all connections
			}{
				{"killed", syscall.SIGKILL, 300 * time.Millisecond},
				{"stopped", syscall.SIGSTOP, tm.Lease + tm.Close},
				{"crashed", syscall.SIGABRT, tm.Lease + tm.Close},
			} {
				for _, role := range roles {
					what := fmt.Sprintf("%s, %s while its disk hangs (%s)", role, end.name, disk)
					sc := newScene(t, s.all, role == "the raft leader")
					if role == "the raft leader" {
						sc.bound += 2 * clusterTiming.Renew // what it proposes until then is sent, and renews its session
					}
					heal, err := stalls[s.host(sc.victim)].stallDisk(hang)
					if err != nil {
						t.Fatal(err)
					}
					sc.victim.until("a thread hangs in the disk", sc.victim.hangs)
					began := time.Now()
					sc.victim.signal(end.signal)
					wantClosed(what, began, end.bound, sc.lead, sc.guest)
					sc.wantReplaced(what, began, sc.lead, sc.guest)
					select {
					case <-sc.victim.gone:
						t.Errorf("%s: nothing hung any more: the process has ended", what)
					default:
					}
					if !sc.victim.hangs() {
						t.Errorf("%s: no thread hangs", what)
					}
					refused := s.wantRefused(sc.victim)
					heal()
					<-sc.victim.gone
					refused()
					s.run(sc.victim)
					wantWhole(s.all)
				}
			}
		})
	}
}
