//go:build faults

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// starve lets a process run for a little while and stops it for a longer one, in turn, as a
// quota of the processor does, until the end is asked for.
func starve(process interface{ signal(syscall.Signal) }, stopped, running time.Duration) (end func()) {
	over := make(chan struct{})
	var starving sync.WaitGroup
	starving.Go(func() {
		for {
			process.signal(syscall.SIGSTOP)
			time.Sleep(stopped)
			process.signal(syscall.SIGCONT)
			select {
			case <-over:
				return
			case <-time.After(running):
			}
		}
	})
	return sync.OnceFunc(func() { close(over); starving.Wait() })
}

// ration gives a process so much of the processor in each period, by a quota of the kernel,
// and clients that want more, until the end is asked for. Where there can be no quota the test
// is left out.
func (m *member) ration(run, period time.Duration) (end func()) {
	m.t.Helper()
	q, err := newQuota(run, period)
	if err == nil {
		err = q.add(m.cmd.Process.Pid)
	}
	if err != nil {
		q.remove()
		m.t.Skip("no quota of the processor can be had: ", err)
	}
	m.t.Cleanup(q.remove)
	leave := load(8, m)
	return sync.OnceFunc(func() {
		periods, throttled := q.stat("nr_periods"), q.stat("nr_throttled")
		leave()
		q.remove()
		m.t.Logf("the quota was used up in %d of %d periods", throttled, periods) // in the others the machine gave less
	})
}

// quota is a cgroup whose processes together get so much of the processor in each period.
type quota struct{ dir string }

var quotas atomic.Int32

// newQuota makes a cgroup where the controller of the processor is, of version 2 or 1. What a
// run that was killed has left is removed before. A nil quota has nothing to remove.
func newQuota(run, period time.Duration) (*quota, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		root, kind, options := f[1], f[2], strings.Split(f[3], ",")
		var limits []string // files and what they are to have
		switch {
		case kind == "cgroup2":
			os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0) // if it fails there is no cpu.max
			limits = []string{"cpu.max", fmt.Sprint(run.Microseconds(), period.Microseconds())}
		case kind == "cgroup" && slices.Contains(options, "cpu"):
			limits = []string{"cpu.cfs_period_us", fmt.Sprint(period.Microseconds()), "cpu.cfs_quota_us", fmt.Sprint(run.Microseconds())}
		default:
			continue
		}
		old, _ := filepath.Glob(filepath.Join(root, "leader-latch-faults-*"))
		for _, dir := range old {
			if leftBehind(dir) {
				(&quota{dir}).remove()
			}
		}
		q := &quota{filepath.Join(root, fmt.Sprintf("leader-latch-faults-%d-%d", os.Getpid(), quotas.Add(1)))}
		e := os.Mkdir(q.dir, 0o755)
		for l := range slices.Chunk(limits, 2) {
			if e == nil {
				e = os.WriteFile(filepath.Join(q.dir, l[0]), []byte(l[1]), 0)
			}
		}
		if e == nil {
			return q, nil
		}
		q.remove()
		err = errors.Join(err, e)
	}
	if err == nil {
		err = errors.New("no cgroup is mounted that has the processor")
	}
	return nil, err
}

// add puts a process under the quota, with all its threads.
func (q *quota) add(pid int) error {
	return os.WriteFile(filepath.Join(q.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// stat gives a number that the kernel counts.
func (q *quota) stat(name string) (n int) {
	text, _ := os.ReadFile(filepath.Join(q.dir, "cpu.stat"))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return n
}

// remove has the processes go on without the quota.
func (q *quota) remove() {
	if q == nil {
		return
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		pids, _ := os.ReadFile(filepath.Join(q.dir, "cgroup.procs"))
		for _, pid := range strings.Fields(string(pids)) {
			os.WriteFile(filepath.Join(filepath.Dir(q.dir), "cgroup.procs"), []byte(pid), 0)
		}
		if err := os.Remove(q.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}
