package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// Documents that tests read.
const (
	repository      = "../../.."
	readme          = repository + "/README.md"
	clientsDocument = repository + "/latch/CLIENTS.md"
)

// blocksOf gives the indented blocks of code in a section.
func blocksOf(section string) (blocks []string) {
	for _, b := range regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(section, -1) {
		blocks = append(blocks, regexp.MustCompile(`(?m)^    `).ReplaceAllString(b, ""))
	}
	return blocks
}

// The commands of README.md's cluster of three, as they are, but for folder, network and
// timing. When a node is killed a client of another one leads; an interrupt ends the
// others in order.
func TestREADMEsClusterOfThree(t *testing.T) {
	realClient(t, "make")
	realClient(t, "setsid")
	t.Parallel()
	blocks := blocksOf(doctest.Section(t, readme, "A cluster of three"))
	if len(blocks) < 3 || !strings.HasPrefix(blocks[0], "make cluster ") || !strings.Contains(blocks[1], "cluster status") || !strings.HasPrefix(blocks[2], "kill ") {
		t.Fatalf("README.md does not have the commands: %q", blocks)
	}
	dir := t.TempDir()
	network := loopbackNetwork()
	shell := func(block string) *exec.Cmd {
		settings := fmt.Sprintf("make cluster NETWORK=%s RUN=%s BIN=%[2]s/leader-latch TIMING=calm", network, dir)
		block = strings.NewReplacer("make cluster", settings, "run/", dir+"/", "bin/leader-latch", dir+"/leader-latch").Replace(block)
		cmd := exec.Command("sh", "-ec", block)
		cmd.Dir = repository
		return cmd
	}
	pid := func(n int) int { // 0: the node does not run
		b, _ := os.ReadFile(fmt.Sprintf("%s/node%d/data/leader_latch/lock", dir, n))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if pid == 0 || !bytes.Contains(cmdline, []byte(dir)) {
			return 0
		}
		return pid
	}
	logOf := func(n int) string {
		b, _ := os.ReadFile(fmt.Sprintf("%s/node%d/log/console.log", dir, n))
		return string(b)
	}

	made := shell(blocks[0])
	var said bytes.Buffer
	made.Stdout, made.Stderr = &said, &said
	made.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := made.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- made.Wait() }()
	t.Cleanup(func() {
		syscall.Kill(-made.Process.Pid, syscall.SIGKILL)
		for n := 1; n <= 3; n++ {
			if pid := pid(n); pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})

	node := func(n int) *proc { return &proc{t: t, addr: fmt.Sprintf("%s.%d:5323", network, n)} }
	node(1).until("the first node runs", func() bool { return pid(1) != 0 && strings.Contains(logOf(1), "[info] started ") })
	if out, err := shell(blocks[1]).CombinedOutput(); err != nil || strings.Count(string(out), "riak@"+network) < 3 {
		t.Fatalf("%v: %s\n%s", err, out, said.String())
	}
	first := node(1).join("test_group", "1", "1")
	second := node(2).join("test_group", "2", "1")
	if out, err := shell(blocks[2]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first.wantGone()
	second.want("LEADER 2")

	syscall.Kill(-made.Process.Pid, syscall.SIGINT) // as a terminal does it
	second.wantGone()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("make does not end")
	}
	for n := 2; n <= 3; n++ {
		if pid := pid(n); pid != 0 || !strings.HasSuffix(strings.TrimSpace(logOf(n)), "[info] stopped") {
			t.Errorf("node %d has not ended in order; process %d\n%s", n, pid, logOf(n))
		}
	}
}

// loopbackNetwork gives the first three bytes of addresses that [loopback] does not give.
func loopbackNetwork() string { return fmt.Sprintf("127.%d.200", 1+os.Getpid()%120) }
