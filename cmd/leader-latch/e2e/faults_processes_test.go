//go:build faults

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch/latchtest"
)

// asClient makes the test binary be a client: its value is the address of a node, the
// group and the client's name.
const asClient = "LEADER_LATCH_TEST_AS_CLIENT"

func init() {
	if f := strings.Fields(os.Getenv(asClient)); len(f) == 3 {
		beClient(f[0], f[1], f[2])
		os.Exit(0)
	}
}

// clock is one for all processes of the machine.
func clock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// beClient joins, and prints what it is told with the time: of its own leadership
// when it has read of it, and of everything else the last time at which there was
// certainly nothing to read yet. Between these two it takes itself for the leader,
// whenever it was that it could run.
func beClient(addr, group, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	nc, err := clientDialer.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return
	}
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	fmt.Fprintf(nc, "JOIN %s %s\n", group, name)
	raw.Control(func(fd uintptr) {
		leading := false
		var in []byte
		nothing := clock()
		for buf := make([]byte, 512); ; {
			before := clock()
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN && leading:
				nothing = before
				time.Sleep(2 * time.Millisecond)
			case err == unix.EAGAIN:
				nothing = before
				unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			case n <= 0:
				fmt.Printf("%d END\n", nothing)
				return
			default:
				in = append(in, buf[:n]...)
				for {
					line, rest, ok := strings.Cut(string(in), "\n")
					if !ok {
						break
					}
					in = []byte(rest)
					leading = strings.HasPrefix(line, "LEADER "+name+" ")
					at := nothing
					if leading {
						at = clock()
					}
					fmt.Printf("%d %s\n", at, line)
				}
			}
		}
	})
}

// clientProcess is a client in a process of its own, started again whenever it has
// ended. Its group has such clients only.
type clientProcess struct {
	*crowd
	name string
	home *host
	g    *groupRecord
	rnd  *rand.Rand

	mu      sync.Mutex
	process *os.Process // nil: none
	view    *latchtest.View
}

// addProcesses adds groups of three clients in processes of their own.
func (c *crowd) addProcesses(groups int, rnd *rand.Rand) {
	for i := range groups {
		g := &groupRecord{name: fmt.Sprint("process", i), ends: map[*latchtest.View]arrow{}}
		c.groups = append(c.groups, g)
		for j := range 3 {
			p := &clientProcess{crowd: c, g: g, name: fmt.Sprintf("p%d-%d", i, j), home: c.hosts[(i+2*j)%len(c.hosts)], rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))}
			c.processes = append(c.processes, p)
			c.running.Go(func() {
				for !c.stopped() {
					p.live()
					c.rest(p.rnd)
				}
			})
		}
	}
}

// live runs one process.
func (p *clientProcess) live() {
	node := p.node(p.home, p.rnd)
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:5323 %s %s", asClient, node.ip, p.g.name, p.name), "LEADER_LATCH_CONFIG="+p.dir+"/none") // by which a later run knows whose it was
	out, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	view := &latchtest.View{Group: p.g.name, Client: p.name, Where: fmt.Sprintf("process on host %d, node %d", p.home.n, node.n)}
	p.mu.Lock()
	if p.stopped() {
		p.mu.Unlock()
		return
	}
	p.home.do(func() { err = cmd.Start() })
	if err == nil {
		p.process, p.view = cmd.Process, view
	}
	p.mu.Unlock()
	if err != nil {
		p.t.Error(err)
		return
	}
	p.g.mu.Lock()
	p.g.views = append(p.g.views, view)
	p.g.ends[view] = arrow{p.home, node}
	p.g.mu.Unlock()

	for lines := bufio.NewScanner(out); lines.Scan(); {
		f := strings.Fields(lines.Text())
		at, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			p.t.Errorf("%s printed %q", p.name, lines.Text())
		}
		p.g.mu.Lock()
		switch {
		case len(f) == 4 && f[1] == "LEADER":
			token, _ := strconv.ParseUint(f[3], 10, 64)
			view.Told = append(view.Told, latchtest.Told{At: time.Duration(at) - p.base, Leader: f[2], Token: token})
		case f[1] == "JOIN_FAILED":
			p.refused.Add(1)
		case f[1] == "END" && view.End == 0:
			view.End = time.Duration(at) - p.base
		}
		p.g.mu.Unlock()
	}
	p.mu.Lock()
	p.process = nil
	p.mu.Unlock()
	cmd.Wait()
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if view.End == 0 { // it could not say
		view.End = p.now()
	}
}

// signal sends a signal to the process. Who is killed takes itself for nothing from
// before that.
func (p *clientProcess) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return
	}
	if s == syscall.SIGKILL {
		p.g.mu.Lock()
		p.view.End = p.now()
		p.g.mu.Unlock()
	}
	p.process.Signal(s)
}
