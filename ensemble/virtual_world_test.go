package ensemble

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/session"
)

// world is a cluster in virtual time with its clients.
type world struct {
	t        *testing.T
	seed     uint64
	mutate   mutation.Mutation
	noSwitch bool // an operator has turned it off: who is paused is believed for longer, and writes nothing stale
	rng      *rand.Rand
	voters   int // how many nodes may vote
	began    time.Time
	took     time.Duration
	net      *virtualNetwork
	hosts    []*host
	late     []lateOps
	then     []then
	flaps    time.Time // until then a link comes and goes, or more

	mu       sync.Mutex // guards what follows; taken last
	luck     *rand.Rand // of clients
	history  []string
	told     int              // lines to clients
	happened map[string]int   // events by kind
	stale    []time.Duration  // how long after its machine went on somebody whom another had replaced was closed
	clients  []*virtualClient // connected, as of the last JOIN

	everybody []*virtualClient  // who ever joined
	leaders   map[string]string // by group and token: there is one order of leaders, by their tokens
	bad       string
}

// newWorld has a cluster in the bubble of a test.
func newWorld(t *testing.T, seed uint64, mutate mutation.Mutation) *world {
	return newWorldOf(t, 3, 3, seed, mutate)
}

// newWorldOf has a cluster of so many nodes, of which so many may vote.
func newWorldOf(t *testing.T, nodes, voters int, seed uint64, mutate mutation.Mutation) *world {
	base := t.TempDir()
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp("/dev/shm", "leader-latch-test"); err == nil { // time is virtual, the disk is not
			base = dir
			t.Cleanup(func() { os.RemoveAll(dir) })
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{
		t: t, seed: seed, mutate: mutate, voters: voters, rng: rng, luck: rand.New(rand.NewPCG(seed, 3)), leaders: make(map[string]string), happened: make(map[string]int),
		began: time.Now(), net: newVirtualNetwork(rand.New(rand.NewPCG(seed, 2))),
	}
	w.noSwitch = mutate == mutation.Nothing && seed%4 == 0 || mutate == mutation.NoSwitchNoGate
	for i := range nodes {
		name := fmt.Sprintf("riak@n%d", i+1)
		h := &host{w: w, name: name, address: fmt.Sprintf("n%d:5324", i+1), path: filepath.Join(base, name)}
		h.clocks.began, h.clocks.rate, h.clocks.blind = w.began, 1+(rng.Float64()*2-1)*session.Rho*0.9, mutate == mutation.NoJump
		h.holds = seed%3 == 0 // so that the level rises among the faults, when each has been started again
		w.hosts = append(w.hosts, h)
	}
	t.Cleanup(func() {
		for _, h := range w.hosts {
			h.crash()
		}
		w.net.close()
		time.Sleep(time.Minute) // what still waits for something sees its end
	})
	for _, h := range w.hosts {
		h.start()
	}
	w.until("the cluster is whole", time.Minute, w.whole)
	return w
}

// whole reports whether all nodes run, in one cluster, and answer JOINs.
func (w *world) whole() bool {
	return !slices.ContainsFunc(w.hosts, func(h *host) bool { return h.node == nil || !h.ready() || h.node.cluster.size() != len(w.hosts) }) && w.raftLeader() != nil
}

// raftLeader is the host of the raft leader, nil while there is none.
func (w *world) raftLeader() *host {
	i := slices.IndexFunc(w.hosts, func(h *host) bool { return h.node != nil && h.node.replica.IsRaftLeader() })
	if i < 0 {
		return nil
	}
	return w.hosts[i]
}

// untilAnotherLeads returns how long it takes until another host has the raft leader.
func (w *world) untilAnotherLeads(lost *host) time.Duration {
	began := time.Now()
	for !slices.ContainsFunc(w.but(lost), func(h *host) bool { return h.node != nil && h.node.replica.IsRaftLeader() }) {
		if time.Since(began) > time.Minute {
			w.t.Fatal("no raft leader any more")
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// follower is a host that is not the raft leader's.
func (w *world) follower() *host {
	leader := w.raftLeader()
	return w.hosts[slices.IndexFunc(w.hosts, func(h *host) bool { return h != leader })]
}

// but gives the hosts other than one.
func (w *world) but(h *host) []*host {
	return slices.DeleteFunc(slices.Clone(w.hosts), func(o *host) bool { return o == h })
}

// apart has two hosts hear nothing of each other, or hear again.
func (w *world) apart(h, o *host, is bool) {
	w.net.cut(h.address, o.address, is)
	w.net.cut(o.address, h.address, is)
}

// orders is what clients saw of joining and leaving, by group.
func (w *world) orders() map[string][]porcupine.Operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	histories := make(map[string][]porcupine.Operation)
	for i, c := range w.everybody {
		join := porcupine.Operation{Input: joinOp{i, c.name}, Output: c.answer, Call: int64(c.asked), Return: math.MaxInt64}
		if c.answer != "" {
			join.Return = int64(c.answered)
		}
		histories[c.group] = append(histories[c.group], join)
		if c.closed {
			histories[c.group] = append(histories[c.group], porcupine.Operation{Input: leaveOp{i}, Output: "", Call: int64(c.ended), Return: math.MaxInt64})
		}
	}
	return histories
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, fmt.Sprintf("%8.3f ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) violation() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bad
}

func (w *world) until(what string, patience time.Duration, cond func() bool) {
	for end := time.Now().Add(patience); !cond() && w.violation() == ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			state := w.state()
			w.mu.Lock()
			w.fail("never: %s\n%s", what, state)
			w.mu.Unlock()
		}
	}
}

// state is what nodes and clients are like now, for a failure.
func (w *world) state() string {
	var b strings.Builder
	for _, h := range w.hosts {
		if h.node == nil {
			fmt.Fprintf(&b, "%s is down\n", h.name)
			continue
		}
		h.node.mu.Lock()
		fmt.Fprintf(&b, "%s: missing %v; raft %v\n", h.name, h.node.missing(), h.node.replica.Inside().Raft.Stats())
		h.node.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		if !c.closed {
			fmt.Fprintf(&b, "%s %s at %s was told %q; its connection is ending: %v\n", c.group, c.name, c.host.name, c.told, c.ending)
		}
	}
	return b.String()
}

// isSettled reports whether every client that is connected has been told the one
// leader of its group.
func (w *world) isSettled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaders := map[string]string{}
	for _, c := range w.clients {
		waits := c.told == "" && slices.ContainsFunc(w.clients, func(o *virtualClient) bool {
			return o != c && !o.closed && o.group == c.group && o.name == c.name && o.told != ""
		})
		if c.closed || c.ending || waits { // for its name to come free
			continue
		}
		if c.told == "" || leaders[c.group] != "" && leaders[c.group] != c.told {
			return false
		}
		leaders[c.group] = c.told
	}
	for group, leader := range leaders {
		if !slices.ContainsFunc(w.clients, func(c *virtualClient) bool { return !c.closed && c.group == group && c.name == leader }) {
			return false
		}
	}
	return true
}

// fail notes what must never be, if it is the first. The world's mutex is held.
func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}
