//go:build faults

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// holed is the verdict of a path whose packets are smaller than its ends believe: what is
// large vanishes, and heartbeats pass. The handshake of TLS, whose records do not begin
// with 0x17, passes too, or no transfer would begin. (A TCP header has 32 bytes.)
const holed = "meta l4proto tcp meta length > 1200 @th,256,8 0x17 drop"

// What happens while a snapshot is written, or sent.
func (a *attacker) snapshotFaults() []fault {
	return []fault{
		{"stalled transfer", func(r *rand.Rand) (func(), string) { // of a snapshot to a node that was away for long
			n, release, done := a.killOne(r)
			if n == nil {
				return nil, ""
			}
			others := a.others(n)
			from := newestSnapshot(others...)
			end := a.load(8, others...)
			a.awaits("the others have left the log of node "+fmt.Sprint(n.n)+" behind", func() bool {
				return !slices.ContainsFunc(others, func(o *node) bool { return newestSnapshot(o) < from+3*snapshotEntries })
			})
			end()
			heal := a.block(holed, arrowsTo(n.host, a.hosts))
			release()
			a.awaits("node "+fmt.Sprint(n.n)+" is sent a snapshot", func() bool { return unfinished(n) > 0 })
			a.tally("transfer of a snapshot that stalled")
			back, what := func() {}, ""
			if leader := a.raftLeader(); leader != nil && leader != n && r.IntN(2) == 0 {
				back, what = leader.hold(), fmt.Sprintf(", and the raft leader, node %d, is killed", leader.n)
				leader.signal(syscall.SIGKILL)
			}
			return func() {
				heal()
				back()
				done()
			}, fmt.Sprintf("to node %d%s", n.n, what)
		}, 12 * time.Second}, // it is given up after 5 s
		{"full disk in a snapshot", func(r *rand.Rand) (func(), string) { // with room for less than that
			n := a.nodes[2*r.IntN((len(a.nodes)+1)/2)] // which goes on until a write fails
			done, ok := a.changeMembers()
			if !ok {
				return nil, ""
			}
			lighten := a.ballast(2000, a.others(n))
			const free = 512 << 10 // of which the snapshot needs twice as much
			well := n.sicken()
			heal, err := n.fillDisk(free)
			if err != nil {
				well()
				lighten()
				done()
				a.t.Error(err)
				return nil, ""
			}
			process, begins := n.process(), len(n.logText())
			end := a.load(4, a.others(n)...)
			failed := func() bool { return strings.Contains(n.logText()[begins:], "failed to take snapshot") }
			a.awaits("node "+fmt.Sprint(n.n)+" cannot write a snapshot", func() bool { return failed() || n.process() != process })
			end()
			what := ", which ends by that"
			if n.process() == process {
				a.tally("snapshot that found no room")
				what = ""
				a.awaits("nothing of it is left", func() bool {
					room, err := freeSpace(n.disk)
					return n.process() != process || unfinished(n) == 0 && err == nil && room >= free-128<<10
				})
			}
			return func() {
				heal()
				well()
				lighten()
				done()
			}, fmt.Sprintf("of node %d%s", n.n, what)
		}, 2 * time.Second},
	}
}

// awaits waits for what is bound to come.
func (a *attacker) awaits(what string, cond func() bool) {
	for end := time.Now().Add(patience); !cond() && !a.t.Failed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Errorf("%v: never: %s", a.now().Round(time.Millisecond), what)
		}
	}
}

func (a *attacker) others(but *node) []*node {
	return slices.DeleteFunc(slices.Clone(a.nodes), func(n *node) bool { return n == but })
}

// arrowsTo gives the ways to a host from others.
func arrowsTo(h *host, from []*host) []arrow {
	return slices.DeleteFunc(both([]*host{h}, from), func(w arrow) bool { return w.to != h })
}

// load has clients join and leave at nodes, as the load of members does. They go on when
// their node cannot be reached.
func (a *attacker) load(clients int, at ...*node) (end func()) {
	return joinAndLeave(clients, func(i int, group string) (net.Conn, bool) {
		return at[i%len(at)].guest(group, "a"), true
	})
}

// ballast has so many members with long names, each the leader of its group, join at nodes,
// until they are told to leave.
func (a *attacker) ballast(members int, at []*node) (leave func()) {
	long := strings.Repeat("x", 240)
	all := make([]net.Conn, members)
	var joining sync.WaitGroup
	const hands = 32
	for hand := range hands {
		joining.Go(func() {
			for i := hand; i < members; i += hands {
				all[i] = at[i%len(at)].guest(fmt.Sprint("ballast-", i, long), long)
			}
		})
	}
	joining.Wait()
	return func() {
		for _, nc := range all {
			if nc != nil {
				nc.Close()
			}
		}
	}
}

// guest joins at the node, from its host. nil: that has failed.
func (n *node) guest(group, client string) net.Conn {
	nc, err := n.host.connect(n.host.ip + ":5323")
	if err != nil {
		return nil
	}
	if err := joinOn(nc, group, client); err != nil {
		nc.Close()
		return nil
	}
	return nc
}

// newestSnapshot is of which entry the newest snapshot of some nodes is that is finished.
func newestSnapshot(nodes ...*node) (index int) {
	for _, n := range nodes {
		names, _ := filepath.Glob(filepath.Join(n.state(), "snapshots", "*-*-*"))
		for _, name := range names { // term-index-time
			if strings.HasSuffix(name, ".tmp") {
				continue
			}
			i, _ := strconv.Atoi(strings.Split(filepath.Base(name), "-")[1])
			index = max(index, i)
		}
	}
	return index
}

// unfinished is how many snapshots the node has begun to write, or to receive, and not finished.
func unfinished(n *node) int {
	names, _ := filepath.Glob(filepath.Join(n.state(), "snapshots", "*.tmp"))
	return len(names)
}

func freeSpace(path string) (uint64, error) {
	var is unix.Statfs_t
	err := unix.Statfs(path, &is)
	return is.Bavail * uint64(is.Bsize), err
}

// process is that of the node; nil: none.
func (n *node) process() *os.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}
