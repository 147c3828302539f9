package e2e

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

// outsiders are what such processes do. They print a line when they are ready, and end
// with their stdin at the latest.
var outsiders = map[string]func(in *bufio.Reader, args []string) error{"hand-overs": beHandOvers}

func beClients(role string, args ...string) {
	if err := outsiders[role](bufio.NewReader(os.Stdin), args); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// outsider is such a process: it shares no scheduler with the test.
type outsider struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startOutsider starts a process of clients, and waits until it is ready. It ends with
// the test at the latest.
func startOutsider(t testing.TB, role string, args ...string) *outsider {
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
	p := &outsider{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.kill)
	if line := p.line(); line != "ready" {
		t.Fatalf("clients in a process of their own: %s", line)
	}
	return p
}

func (p *outsider) say(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *outsider) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("a process of clients said %q, then: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *outsider) kill() {
	p.cmd.Process.Signal(syscall.SIGKILL)
	p.cmd.Wait()
}

// beHandOvers has groups of two at a node. When it is told to, the leaders leave one
// after the other, and it takes the times until the next ones know.
func beHandOvers(in *bufio.Reader, args []string) error {
	pairs, err := pairsAt(args[0], 200)
	if err != nil {
		return err
	}
	return takeTimes(in, func() (time.Duration, error) {
		if len(pairs) == 0 {
			return 0, io.EOF
		}
		p := pairs[0]
		pairs = pairs[1:]
		return handOver(p[0], p[1])
	})
}

// takeTimes calls f again and again from a line that says so until the next one, or
// until f gives io.EOF, and prints what it gave; and the same again.
func takeTimes(in *bufio.Reader, f func() (time.Duration, error)) error {
	fmt.Println("ready")
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		end := make(chan error, 1)
		go func() {
			_, err := in.ReadString('\n')
			end <- err
		}()
		var times []string
		for len(end) == 0 {
			took, err := f()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			times = append(times, took.String())
		}
		if err := <-end; err != nil {
			return err
		}
		fmt.Println(strings.Join(times, " "))
	}
}

// timesOf has a process take times while f runs.
func (p *outsider) timesOf(f func()) (times []time.Duration) {
	p.t.Helper()
	p.say("begin")
	f()
	p.say("end")
	for _, text := range strings.Fields(p.line()) {
		d, err := time.ParseDuration(text)
		if err != nil {
			p.t.Fatal(err)
		}
		times = append(times, d)
	}
	return times
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
