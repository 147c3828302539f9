//go:build faults

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// onHosts prepares nodes of one cluster, one on each of these hosts, on its disk if
// it has one. They do not run yet.
func onHosts(hosts []*host, timing string, lines ...string) (all []*member) {
	var names []string
	for _, h := range hosts {
		names = append(names, "riak@"+h.ip)
	}
	for _, h := range hosts {
		dir := filepath.Join(h.dir, fmt.Sprint("node-", h.n))
		data := dir
		if h.disk != "" {
			data = h.disk
		}
		if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
			h.t.Fatal(err)
		}
		h.setWallClock(0)
		all = append(all, &member{t: h.t, dir: dir, ip: h.ip, name: "riak@" + h.ip, lines: append([]string{
			"nodename = riak@" + h.ip,
			"listener.leader_latch.internal = " + h.ip + ":5323",
			"leader_latch.cluster_listener = " + h.ip + ":5324",
			"leader_latch.minimum_nodes = 3",
			"leader_latch.timing = " + timing,
			"leader_latch.join = " + strings.Join(names, ", "),
			"platform_data_dir = " + filepath.Join(data, "data"),
			"platform_log_dir = " + filepath.Join(data, "log"),
		}, lines...)})
	}
	return all
}

// setWallClock has the host's node take its wall clock for set by so much: see
// ensemble's clock_faults.go.
func (h *host) setWallClock(by time.Duration) {
	name := filepath.Join(h.dir, fmt.Sprint("node-", h.n), "etc", "wall-clock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by)), 0)
		f.Close()
	}
	if err != nil {
		h.t.Error(err)
	}
}

// node is a node under a supervisor, which starts it again whenever it has ended, as
// the unit of the package does.
type node struct {
	*member
	*host
	stopping chan struct{}
	ended    chan struct{} // closed when the supervisor is done

	mu       sync.Mutex
	change   sync.Cond   // of what follows
	running  *os.Process // nil: none
	held     int         // not started while this is more than 0
	sick     int         // disk faults that are on: the node may fail
	endings  map[string]int
	begins   int         // where in the log the present process begins
	stops    *os.Process // that was told to end in order
	sentKill bool
	atOnce   bool // it is started again without the wait of the unit
	removed  bool // it may end for good
	final    bool // it has
}

// supervise starts a node, with this in its environment.
func supervise(m *member, h *host, env ...string) *node {
	n := &node{member: m, host: h, stopping: make(chan struct{}), ended: make(chan struct{}), endings: map[string]int{}}
	n.change.L = &n.mu
	conf := writeConf(m.t, m.dir, m.lines...)
	n.proc = &proc{t: m.t, conf: conf, log: filepath.Join(m.dir, "stderr"), env: env}
	go n.supervise()
	return n
}

func (n *node) supervise() {
	defer close(n.ended)
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.host.t.Error(err)
		return
	}
	defer log.Close()
	for {
		n.mu.Lock()
		for n.held > 0 && !n.stopped() {
			n.change.Wait()
		}
		if n.stopped() {
			n.mu.Unlock()
			return
		}
		n.begins = len(n.logText())
		cmd := n.program("serve")
		cmd.Stderr = log
		n.do(func() { err = cmd.Start() })
		if err != nil {
			n.mu.Unlock()
			n.host.t.Error(err)
			return
		}
		n.running, n.sentKill = cmd.Process, false
		n.mu.Unlock()

		cmd.Wait()
		n.mu.Lock()
		n.running = nil
		n.note(cmd.ProcessState.Sys().(syscall.WaitStatus))
		atOnce := n.atOnce
		n.atOnce = false
		n.change.Broadcast()
		n.mu.Unlock()
		if !atOnce {
			time.Sleep(300 * time.Millisecond) // as the unit waits
		}
	}
}

// note counts how the process ended. Only a sick one may fail. mu is held.
func (n *node) note(s syscall.WaitStatus) {
	how := fmt.Sprint("exit code ", s.ExitStatus())
	switch {
	case s.Signaled() && s.Signal() == syscall.SIGKILL && n.sentKill:
		how = "killed"
	case s.Signaled() && s.Signal() == syscall.SIGKILL:
		how = "killed by its switch"
	case s.Signaled():
		how = s.Signal().String()
	}
	if s.Exited() && s.ExitStatus() == exitPermanent {
		n.held++ // nobody starts it again, but who removed it
		n.final = true
	}
	n.endings[how]++
	if s.Exited() && s.ExitStatus() == 0 || s.Signaled() && s.Signal() == syscall.SIGKILL {
		return
	}
	if n.removed && n.final || s.Signaled() && s.Signal() == syscall.SIGTERM && !n.served() {
		return
	}
	if n.sick == 0 || n.final || s.Signaled() {
		n.host.t.Errorf("%v: node %d ended: %s; end of its log:\n%s", n.now(), n.n, how, n.tail())
	}
}

// served reports whether the process that ended last had come so far as to serve.
// Before that a signal just ends it.
func (n *node) served() bool {
	text := n.logText()
	return strings.LastIndex(text, "[info] started ") > n.begins
}

func (n *node) tail() string {
	text := n.logText()
	if i := strings.Index(text, "\npanic: "); i >= 0 {
		return text[max(0, i-1000):min(i+3000, len(text))]
	}
	if i := strings.Index(text, "\nSIGQUIT"); i >= 0 {
		return text[max(0, i-3000):min(i+100_000, len(text))]
	}
	return text[max(0, len(text)-3000):]
}

func (n *node) stopped() bool {
	select {
	case <-n.stopping:
		return true
	default:
		return false
	}
}

// signal sends a signal to the process that runs, if one does.
func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		n.sentKill = n.sentKill || s == syscall.SIGKILL
		n.running.Signal(s)
	}
}

// killToRestart kills the process that runs, if one does; the next one starts at once.
func (n *node) killToRestart() {
	n.mu.Lock()
	n.atOnce = n.running != nil
	n.mu.Unlock()
	n.signal(syscall.SIGKILL)
}

// terminate has the process end in order. If it takes almost as long as the node's own
// patience of 15 s, though the disk is well, it has to say what it waits for.
func (n *node) terminate() {
	n.mu.Lock()
	process := n.running
	again := process == n.stops
	n.stops = process
	n.mu.Unlock()
	if again { // a second signal would end it at once
		return
	}
	n.signal(syscall.SIGTERM)
	time.AfterFunc(12*time.Second, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if process != nil && n.running == process && n.sick == 0 {
			process.Signal(syscall.SIGQUIT)
		}
	})
}

func (n *node) mayBeRemoved(may bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = may
}

// beginAnew has a node that was removed, or is just being told so, lose its disk and
// start again.
func (n *node) beginAnew() {
	release := n.hold()
	n.signal(syscall.SIGKILL)
	n.awaitEnd(30 * time.Second)
	if err := os.RemoveAll(filepath.Join(n.disk, "data")); err != nil {
		n.host.t.Error(err)
	}
	n.mayStart()
	release()
}

// mayStart has a node that may have ended for good be started again.
func (n *node) mayStart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.final {
		n.held--
	}
	n.removed, n.final = false, false
	n.change.Broadcast()
}

// hold keeps the node from being started again, until release is called.
func (n *node) hold() (release func()) {
	n.count(&n.held, 1)
	return func() { n.count(&n.held, -1) }
}

func (n *node) count(field *int, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*field += by
	n.change.Broadcast()
}

// awaitEnd waits until no process runs, and at most so long.
func (n *node) awaitEnd(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		n.mu.Lock()
		running := n.running
		n.mu.Unlock()
		if running == nil {
			return
		}
	}
}

// within runs a command beside the node, which may fail.
func (n *node) within(limit time.Duration, args ...string) {
	cmd := n.program(args...)
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		n.host.t.Logf("%v: node %d: %s: %v: %s", n.now().Round(time.Millisecond), n.n, strings.Join(args, " "), err, out)
	}
}

// stop ends the supervisor and the process.
func (n *node) stop() {
	close(n.stopping)
	n.mu.Lock()
	n.change.Broadcast()
	n.mu.Unlock()
	n.signal(syscall.SIGKILL)
	<-n.ended
}
