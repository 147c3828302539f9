//go:build faults

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch/latchtest"
)

// A network is a switch with hosts around it, each in a network namespace. Nothing of
// it touches the network of the machine. What a run that was killed has left is
// removed by the next.
type network struct {
	t     testing.TB
	name  string // all its namespaces begin with it
	dir   string // of the hosts' disks and whatever else belongs to the run
	hosts []*host
	began time.Time

	mu      sync.Mutex // guards what follows, and the hosts' rules
	trouble map[link][]*latchtest.Trouble
}

// link is two hosts in whatever direction, the lower number first.
type link [2]int

func newLink(a, b *host) link { return link{min(a.n, b.n), max(a.n, b.n)} }

// host is a machine of the network.
type host struct {
	*network
	n    int
	ip   string
	ns   *os.File
	disk string // where it is mounted, if it has one of its own

	image *slowImage // of that disk; nil: none that can be slow

	blocks map[block]int // how many faults ask for each
	loses  int           // percent of all packets that arrive
	slowed int           // how many faults put it behind a thin line
}

// block is what a host does with all packets that come from another one.
type block struct {
	from    *host
	verdict string
}

// The verdicts, as nftables has them. A reset ends the connection for the one who has
// sent the packet, in the name of the one who does not get it.
const (
	dropped = "drop"
	reset   = "meta l4proto tcp reject with tcp reset"
)

// The time after which a client of ours gives its node up, as PROTOCOL.md advises,
// and what is granted to the kernel's timers and ours beyond it.
const (
	clientGivesUp = 6 * time.Second
	clientGrace   = 3 * time.Second
)

// closedFor is how long the node's kernel says again that a connection is closed. Whoever
// is cut off all that time, but for answers to its own probes, hears of it by the next
// probe that arrives, or misses the answers.
const closedFor = 9 * time.Second

var leftover = regexp.MustCompile(`^leader-latch-faults-(\d+)-`)

// faultsAllowed leaves a test out where there can be no namespaces, unless the run
// says that it must not.
func faultsAllowed(t testing.TB) {
	t.Helper()
	missing := missingForFaults()
	if missing == nil {
		return
	}
	message := "no faults without " + strings.Join(missing, ", ") + "; see cmd/leader-latch/e2e/FAULTS.md"
	if os.Getenv("LEADER_LATCH_TEST_FAULTS") == "required" {
		t.Fatal(message)
	}
	t.Skip(message)
}

var missingForFaults = sync.OnceValue(func() (missing []string) {
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, tool := range []string{"ip", "nft", "tc", "mount", "umount", "mkfs.ext4", "fsfreeze"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return missing
	}
	probe := fmt.Sprintf("leader-latch-faults-%d-probe", os.Getpid())
	_, err := sh("", "ip", "netns", "add", probe)
	if err == nil {
		_, err = sh("add table inet probe\n", "ip", "netns", "exec", probe, "nft", "-f", "-")
		sh("", "ip", "netns", "del", probe)
	}
	if err != nil {
		missing = append(missing, err.Error())
	}
	return missing
})

// sh runs a command, with this input, and gives its output.
func sh(input, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (nw *network) must(input, name string, args ...string) {
	nw.t.Helper()
	if _, err := sh(input, name, args...); err != nil {
		nw.t.Fatal(err)
	}
}

var networks atomic.Int32

// newNetwork makes a network of n hosts.
func newNetwork(t testing.TB, n int) *network {
	t.Helper()
	faultsAllowed(t)
	sweep(t)
	nw := &network{t: t, name: fmt.Sprintf("leader-latch-faults-%d-%d-", os.Getpid(), networks.Add(1)), began: time.Now(), trouble: map[link][]*latchtest.Trouble{}}
	var err error
	if nw.dir, err = os.MkdirTemp(faultsDir(), nw.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nw.remove)

	hub := nw.name + "switch"
	commands := []string{"netns add " + hub}
	for i := range n {
		commands = append(commands, fmt.Sprint("netns add ", nw.name, i))
	}
	nw.must(strings.Join(commands, "\n")+"\n", "ip", "-batch", "-")
	nw.must("link add hub type bridge\nlink set hub up\n", "ip", "-n", hub, "-batch", "-")
	for i := range n {
		h := &host{network: nw, n: i, ip: fmt.Sprint("10.99.0.", i+1), blocks: map[block]int{}}
		nw.hosts = append(nw.hosts, h)
		ns := fmt.Sprint(nw.name, i)
		nw.must(fmt.Sprintf("link add port%d type veth peer name eth0 netns %s\nlink set port%d master hub up\n", i, ns, i), "ip", "-n", hub, "-batch", "-")
		nw.must(fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 up\nlink set lo up\n", h.ip), "ip", "-n", ns, "-batch", "-")
		if h.ns, err = os.Open(filepath.Join("/var/run/netns", ns)); err != nil {
			t.Fatal(err)
		}
	}
	return nw
}

// now is the time of histories.
func (nw *network) now() time.Duration { return time.Since(nw.began) }

func (nw *network) remove() {
	for _, h := range nw.hosts {
		if h.ns != nil {
			h.ns.Close()
		}
	}
	if err := removeRun(nw.name, nw.dir); err != nil {
		nw.t.Error(err)
	}
}

// faultsDir is where the disks of the hosts are: in memory, so that what else the
// machine has to write is no fault of a disk, if there is room for some.
var faultsDir = sync.OnceValue(func() string {
	const memory = "/dev/shm"
	var s unix.Statfs_t
	if err := unix.Statfs(memory, &s); err != nil || s.Bavail*uint64(s.Bsize) < 4<<30 {
		return os.TempDir()
	}
	return memory
})

// removeRun removes namespaces of this prefix, and a folder with all that is mounted
// below. Their processes have ended.
func removeRun(prefix, dir string) (err error) {
	spaces, _ := filepath.Glob("/var/run/netns/" + prefix + "*")
	for _, ns := range spaces {
		_, e := sh("", "ip", "netns", "del", filepath.Base(ns))
		err = errors.Join(err, e)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range slices.Backward(slices.Collect(strings.Lines(string(mounts)))) { // one may lie on another
		if at := strings.Fields(line)[1]; dir != "" && strings.HasPrefix(at, dir+"/") {
			sh("", "fsfreeze", "-u", at)       // fails where it is not frozen
			_, e := sh("", "umount", "-l", at) // and its loop device goes, and then what is under that
			err = errors.Join(err, e)
		}
	}
	if dir != "" && err == nil {
		err = os.RemoveAll(dir)
	}
	return err
}

// leftBehind reports whether a file was made by a run that is no more.
func leftBehind(path string) bool {
	m := leftover.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return false
	}
	pid, err := strconv.Atoi(m[1])
	return err == nil && syscall.Kill(pid, 0) == syscall.ESRCH
}

// sweep removes what runs have left that are no more: their nodes too, which it
// knows by the names of their files.
func sweep(t testing.TB) {
	dirs, _ := filepath.Glob(filepath.Join(faultsDir(), "leader-latch-faults-*"))
	for _, dir := range dirs {
		if !leftBehind(dir) {
			continue
		}
		disks, _ := filepath.Glob(filepath.Join(dir, "disk-*"))
		for _, d := range disks { // first thawed, for nobody dies who waits for a frozen disk
			sh("", "fsfreeze", "-u", d)
		}
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, f := range environs {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if env, err := os.ReadFile(f); err != nil || !strings.Contains(string(env), "LEADER_LATCH_CONFIG="+dir+"/") {
				continue
			}
			t.Logf("killing process %d, left by a run that was killed", pid)
			syscall.Kill(pid, syscall.SIGKILL)
			for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
		}
		if err := removeRun(filepath.Base(dir), dir); err != nil {
			t.Logf("left by a run that was killed: %v", err)
		}
	}
	spaces, _ := filepath.Glob("/var/run/netns/leader-latch-faults-*")
	for _, ns := range spaces {
		if leftBehind(ns) {
			sh("", "ip", "netns", "del", filepath.Base(ns))
		}
	}
}

// do calls f in the host's namespace: sockets that it opens and processes that it
// starts are there for good.
func (h *host) do(f func()) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		panic(err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // this thread must not run anything else
		}
		home.Close()
		runtime.UnlockOSThread()
	}()
	f()
}

// dial connects from the host as a client should: it finds a host that vanished
// after clientGivesUp.
func (h *host) dial(ctx context.Context, addr string) (nc *net.TCPConn, err error) {
	h.do(func() {
		var c net.Conn
		if c, err = clientDialer.DialContext(ctx, "tcp4", addr); err == nil {
			nc = c.(*net.TCPConn)
		}
	})
	return nc, err
}

var clientDialer = net.Dialer{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: clientGivesUp / 2, Interval: time.Second, Count: 3},
	Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(clientGivesUp.Milliseconds()))
		})
		return err
	},
}

// arrow is one direction between two hosts.
type arrow struct{ from, to *host }

// both gives the two directions between each of some hosts and each of others.
func both(some, others []*host) (all []arrow) {
	for _, a := range some {
		for _, b := range others {
			if a != b {
				all = append(all, arrow{a, b}, arrow{b, a})
			}
		}
	}
	return all
}

// cut drops all packets in these directions, until heal is called.
func (nw *network) cut(arrows []arrow) (heal func()) { return nw.block(dropped, arrows) }

// block keeps all packets in these directions from arriving, until heal is called.
func (nw *network) block(verdict string, arrows []arrow) (heal func()) {
	links := map[link]bool{}
	for _, a := range arrows {
		links[newLink(a.from, a.to)] = true
	}
	done := nw.troubled("cut off", links)
	change := func(by int) {
		nw.mu.Lock()
		defer nw.mu.Unlock()
		changed := map[*host]bool{}
		for _, a := range arrows {
			a.to.blocks[block{a.from, verdict}] += by
			changed[a.to] = true
		}
		for h := range changed {
			h.apply()
		}
	}
	change(1)
	return func() { change(-1); done() }
}

// narrow has connections that come from other hosts pass only small packets, when they have
// passed so many bytes, as a path does whose MTU is not what its ends take it for.
func (h *host) narrow(bytes int, from ...*host) (heal func()) {
	h.t.Helper()
	return h.rules(fmt.Sprintf(`set connections { type ipv4_addr . inet_service; flags dynamic; timeout 1h; }
chain in {
type filter hook input priority 0
ip saddr { %s } tcp dport 5324 add @connections { ip saddr . tcp sport quota over %d bytes } meta length > 500 drop
}
`, addressesOf(from), bytes))
}

func addressesOf(hosts []*host) string {
	var ips []string
	for _, h := range hosts {
		ips = append(ips, h.ip)
	}
	return strings.Join(ips, ", ")
}

// rules gives the host a table of rules of its own, until heal is called.
func (h *host) rules(rules string) (heal func()) {
	h.t.Helper()
	table := fmt.Sprintf("inet rules%d", tables.Add(1))
	change := func(input string) {
		h.t.Helper()
		var err error
		h.do(func() { _, err = sh(input, "nft", "-f", "-") })
		if err != nil {
			h.t.Error(err)
		}
	}
	change(fmt.Sprintf("table %s {\n%s}\n", table, rules))
	return func() { change("delete table " + table + "\n") }
}

var tables atomic.Int32

// refuse has a firewall refuse new connections to the cluster port, in the name of the host.
func (h *host) refuse(from []*host) (heal func()) {
	h.t.Helper()
	return h.rules(fmt.Sprintf("chain in {\ntype filter hook input priority 0\nip saddr { %s } tcp dport 5324 tcp flags & (syn | ack) == syn reject with tcp reset\n}\n", addressesOf(from)))
}

// resetAgain has a firewall reset all connections of the cluster port that there are, for a
// while again and again, until heal is called.
func (h *host) resetAgain(from []*host, on, off time.Duration) (heal func()) {
	const chain = "chain in {\ntype filter hook input priority 0\nip saddr { %s } tcp flags & syn == 0 tcp %s 5324 reject with tcp reset\n}\n"
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			to, of := h.rules(fmt.Sprintf(chain, addressesOf(from), "dport")), h.rules(fmt.Sprintf(chain, addressesOf(from), "sport"))
			over := sleepOr(on, end)
			to()
			of()
			if over || sleepOr(off, end) {
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// sleepOr waits, and reports whether end was closed before.
func sleepOr(d time.Duration, end <-chan struct{}) (over bool) {
	select {
	case <-time.After(d):
		return false
	case <-end:
		return true
	}
}

// lose drops so many of a hundred packets that arrive at these hosts.
func (nw *network) lose(percent int, hosts []*host) (heal func()) {
	links := map[link]bool{}
	for _, h := range hosts {
		for _, other := range nw.hosts {
			if other != h {
				links[newLink(h, other)] = true
			}
		}
	}
	done := nw.troubled("packets lost", links)
	change := func(by int) {
		nw.mu.Lock()
		defer nw.mu.Unlock()
		for _, h := range hosts {
			h.loses += by
			h.apply()
		}
	}
	change(percent)
	return func() { change(-percent); done() }
}

// slow puts these hosts behind a thin line, on which packets queue for up to 400 ms.
func (nw *network) slow(hosts []*host) (heal func()) {
	links := map[link]bool{}
	for _, h := range hosts {
		for _, other := range nw.hosts {
			if other != h {
				links[newLink(h, other)] = true
			}
		}
	}
	done := nw.troubled("slow line", links)
	change := func(by, when int, args ...string) { // args for tc, for hosts that are in so many such faults now
		nw.mu.Lock()
		defer nw.mu.Unlock()
		for _, h := range hosts {
			if h.slowed += by; h.slowed != when {
				continue
			}
			if _, err := sh("", "tc", append([]string{"-n", fmt.Sprint(nw.name, h.n), "qdisc"}, args...)...); err != nil {
				nw.t.Error(err)
			}
		}
	}
	change(1, 1, "add", "dev", "eth0", "root", "tbf", "rate", "64kbit", "latency", "400ms", "burst", "2000")
	return func() { change(-1, 0, "del", "dev", "eth0", "root"); done() }
}

// apply makes the host's rules what its fields say. mu is held.
func (h *host) apply() {
	var rules strings.Builder
	rules.WriteString("add table inet faults\ndelete table inet faults\ntable inet faults {\nchain in {\ntype filter hook input priority 0\niifname lo accept\n")
	for b, n := range h.blocks {
		if n > 0 {
			fmt.Fprintf(&rules, "ip saddr %s %s\n", b.from.ip, b.verdict)
		}
	}
	if h.loses > 0 {
		fmt.Fprintf(&rules, "numgen random mod 100 < %d drop\n", h.loses)
	}
	rules.WriteString("}\n}\n")
	var err error
	h.do(func() { _, err = sh(rules.String(), "nft", "-f", "-") })
	if err != nil {
		h.t.Error(err)
	}
}

// troubled notes that clients at the one end of a link do not hear of the node at
// the other as they should, from now until done is called, and as long as it takes
// them to give up.
func (nw *network) troubled(kind string, links map[link]bool) (done func()) {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	tr := &latchtest.Trouble{Kind: kind, From: nw.now(), Limit: clientGivesUp + clientGrace,
		Again: closedFor + clientGivesUp + clientGrace}
	for l := range links {
		nw.trouble[l] = append(nw.trouble[l], tr)
	}
	return func() {
		nw.mu.Lock()
		defer nw.mu.Unlock()
		tr.Over = nw.now()
		tr.To = tr.Over + clientGivesUp + clientGrace
	}
}

// troubleOf gives the trouble since a time of a client on one host with a node on
// another.
func (nw *network) troubleOf(client, node *host, since time.Duration) (all []latchtest.Trouble) {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	for _, t := range nw.trouble[newLink(client, node)] {
		if t.To == 0 || t.To >= since {
			all = append(all, *t)
		}
	}
	return all
}
