package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asClients makes the test binary be clients in a process of their own: its value is
// what they do, and words that this takes.
const asClients = "LEADER_LATCH_TEST_AS_CLIENTS"

// roles are what processes of clients do. They print a line when they have joined.
var roles = map[string]func(in *bufio.Reader, args []string) error{
	"lead":       beLeader,
	"hand-overs": beHandOvers,
}

func init() {
	f := strings.Fields(os.Getenv(asClients))
	if len(f) == 0 {
		return
	}
	if err := roles[f[0]](bufio.NewReader(os.Stdin), f[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// clientProcess is such a process.
type clientProcess struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startClients starts a process of clients. It ends with the test at the latest.
func startClients(t testing.TB, role string, args ...string) *clientProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asClients+"="+strings.Join(append([]string{role}, args...), " "))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &clientProcess{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

func (p *clientProcess) say(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *clientProcess) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("a process of clients said %q, then: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *clientProcess) kill() {
	p.cmd.Process.Signal(syscall.SIGKILL)
	p.cmd.Wait()
}

// beLeader leads a group until it is killed, or its parent has ended.
func beLeader(in *bufio.Reader, args []string) error {
	c, err := call(args[0], "a")
	if err != nil {
		return err
	}
	if err := c.lead(args[1]); err != nil {
		return err
	}
	fmt.Println("leads")
	in.ReadString('\n')
	return nil
}

// beHandOvers has groups of two at a node. When it is told to begin, the leaders leave
// one after the other; when it is told to end it prints how long it took until the next
// one knew, each time.
func beHandOvers(in *bufio.Reader, args []string) error {
	pairs, err := pairsAt(args[0], 200)
	if err != nil {
		return err
	}
	fmt.Println("joined")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	end := make(chan error, 1)
	go func() {
		_, err := in.ReadString('\n')
		end <- err
	}()
	var times []string
	for _, p := range pairs {
		select {
		case err := <-end:
			fmt.Println(strings.Join(times, " "))
			return err
		default:
		}
		took, err := handOver(p[0], p[1])
		if err != nil {
			return err
		}
		times = append(times, took.String())
	}
	err = <-end
	fmt.Println(strings.Join(times, " "))
	return err
}

// pairsAt has groups of two at a node, each a leader and the next one.
func pairsAt(addr string, n int) (pairs [][2]*caller, err error) {
	for i := range n {
		group := fmt.Sprintf("pair-%d-%d", os.Getpid(), i)
		var p [2]*caller
		for i, name := range []string{"a", "b"} {
			if p[i], err = call(addr, name); err != nil {
				return nil, err
			}
			if _, err := p[i].join(group); err != nil {
				return nil, err
			}
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// handOver closes a leader's connection, and gives the time until the next one knows.
func handOver(leader, next *caller) (time.Duration, error) {
	next.SetDeadline(time.Now().Add(patience))
	began := time.Now()
	leader.Close()
	told, err := next.told()
	took := time.Since(began)
	if err == nil && told != next.name {
		err = fmt.Errorf("%s, who is next, was told that %s leads", next.name, told)
	}
	return took, err
}
