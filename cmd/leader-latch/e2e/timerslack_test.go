package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every thread counts, above all the one that Go's runtime starts before main.
func TestAllThreadsHaveTheTimerSlack(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("the kernel tells of other processes' slack only to root")
	}
	p := start(t, t.TempDir())
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + filepath.Base(thread) + "/timerslack_ns")
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if got := strings.TrimSpace(string(slack)); err != nil || got != "1000000" {
			t.Errorf("thread %s has a slack of %s ns, %v; want 1 ms", filepath.Base(thread), got, err)
		}
	}
}

// Where the program cannot be executed anew, it serves as it is, and with all the open
// files that it may have.
func TestWithoutTimerSlack(t *testing.T) { // no parallel test: what is real-time pushes all others aside
	realTime := exec.Command("chrt", "--fifo", "1", "true").Run()
	for _, c := range []struct {
		why        string
		impossible error // here
		launch     string
	}{
		{"its file has gone", nil, `cp "$1" "$2/gone"; exec 3<"$2/gone"; rm "$2/gone"; ulimit -Sn 300; exec /proc/self/fd/3 serve`},
		{"its threads are real-time", realTime, `ulimit -Sn 300; exec chrt --fifo 1 "$1" serve`},
	} {
		t.Run(c.why, func(t *testing.T) {
			if c.impossible != nil {
				t.Skip("not possible here: ", c.impossible)
			}
			dir := t.TempDir()
			p := launchBy(t, dir, nil, func(p *proc) *exec.Cmd {
				cmd := exec.Command("/bin/sh", "-e", "-c", c.launch, "sh", leaderLatch(), dir)
				cmd.Env = append(p.program().Env, "GOMAXPROCS=1") // one processor is left to the others
				return cmd
			})
			p.join("g", "a", "a")
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			files := regexp.MustCompile(`Max open files +(\d+) +(\d+)`).FindSubmatch(limits)
			if files == nil || string(files[1]) == "300" {
				t.Errorf("open files, soft and hard limit: %q", files)
			}
		})
	}
}
