package ensemble

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
)

// The real stack in virtual time: three nodes with Raft, the cluster port and its
// TLS, and bbolt on a disk, over a network in memory that is cut, one way and
// both, delays, and loses connections; nodes crash, stop and start again, raft
// leadership moves, snapshots are taken. What every client was told is held
// against the promise at the moment at which it is told. A failure prints its
// seed and its history; -virtual.seed plays a run of that seed again, which is
// not the same one: goroutines are scheduled as they like.
var (
	virtualRuns = flag.Int("virtual.runs", 20, "how many runs to play")
	virtualSeed = flag.Uint64("virtual.seed", 0, "play runs with this seed alone")
)

func TestRealStackInVirtualTime(t *testing.T) {
	if raceEnabled {
		*virtualRuns = min(*virtualRuns, 3)
	}
	for i := range *virtualRuns {
		seed := uint64(time.Now().UnixNano())
		if *virtualSeed != 0 {
			seed = *virtualSeed
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var histories map[string][]porcupine.Operation
			synctest.Test(t, func(t *testing.T) { histories = playVirtual(t, seed) })
			checked, open := checkLinear(t, histories) // in real time
			t.Logf("%d groups in order, %d not decided", checked, open)
		})
	}
}

// world is a cluster in virtual time with its clients.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	began time.Time
	net   *virtualNetwork
	hosts []*host

	mu      sync.Mutex // guards what follows; taken last
	luck    *rand.Rand // of clients
	history []string
	clients []*virtualClient // connected, as of the last JOIN

	everybody []*virtualClient  // who ever joined
	leaders   map[string]string // by group and token: there is one order of leaders, by their tokens
	bad       string
}

type host struct {
	w       *world
	name    string
	address string
	path    string
	node    *Node // nil while it is down
	dir     *Dir
}

func playVirtual(t *testing.T, seed uint64) map[string][]porcupine.Operation {
	base := t.TempDir()
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp("/dev/shm", "leader-latch-test"); err == nil { // time is virtual, the disk is not
			base = dir
			defer os.RemoveAll(dir)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{t: t, seed: seed, rng: rng, luck: rand.New(rand.NewPCG(seed, 3)), leaders: make(map[string]string), began: time.Now(), net: newVirtualNetwork(rand.New(rand.NewPCG(seed, 2)))}
	defer func() {
		w.net.close()
		time.Sleep(time.Minute) // what still waits for something sees its end
	}()
	for i := range 3 {
		name := fmt.Sprintf("riak@n%d", i+1)
		w.hosts = append(w.hosts, &host{w: w, name: name, address: fmt.Sprintf("n%d:5324", i+1), path: filepath.Join(base, name)})
	}
	defer func() {
		for _, h := range w.hosts {
			h.crash()
		}
	}()
	for _, h := range w.hosts {
		h.start()
	}
	w.until("the cluster is whole", time.Minute, func() bool {
		return !slices.ContainsFunc(w.hosts, func(h *host) bool { return h.node == nil || !h.ready() || h.node.size() != 3 })
	})

	const faults = 60 * time.Second
	for end := time.Now().Add(faults); time.Now().Before(end) && w.violation() == ""; {
		time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
		w.happens()
	}
	w.note("the faults are over")
	for _, h := range w.hosts {
		for _, o := range w.hosts {
			w.net.cut(h.address, o.address, false)
		}
		h.start()
	}
	w.until("every group has its leader", 30*time.Second, w.settled)
	told := 0
	for _, line := range w.history {
		if strings.Contains(line, ": LEADER ") {
			told++
		}
	}
	t.Logf("seed %d: %v, %d events, %d lines to clients", seed, time.Since(w.began).Round(time.Second), len(w.history)-told, told)
	if bad := w.violation(); bad != "" {
		t.Errorf("seed %d: %s\n%s", seed, bad, strings.Join(w.history, "\n"))
	}
	return w.orders()
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
			w.mu.Lock()
			w.bad = "never: " + what
			w.mu.Unlock()
		}
	}
}

// happens is one event.
func (w *world) happens() {
	a, b := w.hosts[w.rng.IntN(3)], w.hosts[w.rng.IntN(3)]
	switch p := w.rng.Float64(); {
	case p < 0.45:
		w.join(a)
	case p < 0.65:
		if i := len(w.clients); i > 0 {
			w.clients[w.rng.IntN(i)].hangUp()
		}
	case p < 0.73 && a != b:
		w.note("cut: %s to %s", a.name, b.name)
		w.net.cut(a.address, b.address, true)
	case p < 0.77:
		w.note("cut off: %s", a.name)
		for _, o := range w.hosts {
			w.net.cut(a.address, o.address, o != a)
			w.net.cut(o.address, a.address, o != a)
		}
	case p < 0.90:
		w.note("mended: %s", a.name)
		for _, o := range w.hosts {
			w.net.cut(a.address, o.address, false)
			w.net.cut(o.address, a.address, false)
		}
	case p < 0.92:
		a.crash()
	case p < 0.93:
		a.stop()
	case p < 0.97:
		a.start()
	case p < 0.985 && a.node != nil:
		w.note("%s hands over", a.name)
		a.node.handOver()
	case a.node != nil:
		w.note("%s takes a snapshot", a.name)
		a.node.raft.Snapshot().Error()
	}
}

// settled reports whether every client that is connected has been told the one
// leader of its group.
func (w *world) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaders := map[string]string{}
	for _, c := range w.clients {
		waits := c.told == "" && slices.ContainsFunc(w.clients, func(o *virtualClient) bool {
			return o != c && !o.closed && o.group == c.group && o.name == c.name && o.told != ""
		})
		if c.closed || waits { // for its name to come free
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

// virtualClocks are a host's clocks in virtual time.
func virtualClocks(began time.Time) func() reading {
	return func() reading {
		d := time.Since(began)
		return reading{d, d, d, d}
	}
}

func (h *host) start() {
	if h.node != nil {
		return
	}
	dir, err := OpenDir(context.Background(), h.path)
	if err != nil {
		h.w.t.Error(err)
		return
	}
	var list []Place
	for _, o := range h.w.hosts {
		list = append(list, Place{o.name, o.address})
	}
	h.w.note("%s starts", h.name)
	n, err := Start(dir, Config{
		Name: h.name, Address: h.address, Timing: Normal, MinimumNodes: 3, Join: list,
		Listener: h.w.net.listen(h.address), Key: testKey, Logger: slog.New(slog.DiscardHandler),
		now: virtualClocks(h.w.began), bootID: "one boot", dial: h.w.net.dialer(h.address),
	})
	if err != nil {
		h.w.t.Error(err)
		dir.Close()
		return
	}
	h.node, h.dir = n, dir
}

// ready reports whether a JOIN would succeed.
func (h *host) ready() bool {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	return h.node.missing() == nil
}

// crash is the death of the process: nothing is said any more, and its clients
// see that.
func (h *host) crash() {
	if h.node == nil {
		return
	}
	h.w.note("%s crashes", h.name)
	h.w.mu.Lock()
	for _, c := range h.w.clients {
		if c.host == h {
			c.end()
		}
	}
	h.w.mu.Unlock()
	kill(h.node)
	h.node = nil
}

// stop is a stop in order.
func (h *host) stop() {
	if h.node == nil {
		return
	}
	h.w.note("%s stops", h.name)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	h.node.Stop(ctx)
	h.dir.Close()
	h.node = nil
}

// virtualClient is a client and its connection, which is next to the node.
type virtualClient struct {
	w           *world
	host        *host
	group, name string
	membership  *Membership

	// Guarded by the world's mutex.
	told   string
	token  uint64
	closed bool

	asked, answered, ended time.Duration
	answer                 string // the first leader it was told
}

// end closes the connection. The world's mutex is held.
func (c *virtualClient) end() {
	if !c.closed {
		c.closed, c.ended = true, time.Since(c.w.began)
	}
}

func (w *world) join(h *host) {
	if h.node == nil {
		return
	}
	c := &virtualClient{w: w, host: h, group: fmt.Sprint("g", w.rng.IntN(3)), name: fmt.Sprint("c", w.rng.IntN(5))}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := h.node.Join(c.group, c.name, c)
	if err != nil {
		return
	}
	c.membership, c.asked = m, time.Since(w.began)
	w.everybody = append(w.everybody, c)
	w.clients = append(slices.DeleteFunc(w.clients, func(c *virtualClient) bool { return c.closed }), c)
}

// Leader implements Member: the gate, the write and the promise, at one moment.
func (c *virtualClient) Leader(name string, token uint64) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.closed || !c.membership.Live() {
		return
	}
	term := fmt.Sprint(c.group, " ", token)
	switch before := c.w.leaders[term]; {
	case token < c.token || token == c.token && name != c.told:
		c.w.bad = fmt.Sprintf("%s %s is told %s with token %d after %s with %d", c.group, c.name, name, token, c.told, c.token)
	case before != "" && before != name:
		c.w.bad = fmt.Sprintf("%s has two leaders of token %d: %s and %s", c.group, token, before, name)
	}
	c.w.leaders[term] = name
	if c.told == "" {
		c.answer, c.answered = name, time.Since(c.w.began)
	}
	c.told, c.token = name, token
	c.w.history = append(c.w.history, fmt.Sprintf("%8.3f %s tells %s %s: LEADER %s", time.Since(c.w.began).Seconds(), c.host.name, c.group, c.name, name))
	if name != c.name {
		return
	}
	for _, o := range c.w.clients {
		if o != c && !o.closed && o.group == c.group && o.told == o.name && c.w.bad == "" {
			c.w.bad = fmt.Sprintf("two lead %s: %s at %s and %s at %s", c.group, o.name, o.host.name, c.name, c.host.name)
		}
	}
}

// Close implements Member: the node's own end of the connection, which its client
// sees after a while, or too late to be waited for.
func (c *virtualClient) Close() {
	c.w.mu.Lock()
	if c.closed {
		c.w.mu.Unlock()
		return
	}
	c.end()
	knows := c.w.luck.Float64() < 0.9
	c.w.mu.Unlock()
	go func() {
		if knows {
			time.Sleep(50 * time.Millisecond)
		} else {
			time.Sleep(Normal.Expiry - Normal.Lease)
		}
		c.membership.Closed(knows)
	}()
}

// hangUp is the client's own end.
func (c *virtualClient) hangUp() {
	c.w.mu.Lock()
	was := c.closed
	c.end()
	c.w.mu.Unlock()
	if !was {
		c.membership.Closed(true)
	}
}
