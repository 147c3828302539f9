package ensemble

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

type host struct {
	w       *world
	name    string
	address string
	path    string
	node    *Node // nil while it is down
	dir     *Dir
	holds   bool // at its next start it does not let the level rise
	clocks  virtualClocks
	flush   atomic.Int64 // what a flush of its disk takes, in nanoseconds
	unplug  func()       // ends the flush that is under way, and takes the time of others

	// Guarded by the world's mutex.
	goesOn   chan struct{} // not nil: the process is paused; closed when it goes on
	stopping bool
	killed   bool // by the switch
}

// slow has the disk take that long for a flush, longer than most.
func (h *host) slow(flush time.Duration) {
	h.w.note("a flush takes %v at %s", flush, h.name)
	h.flush.Store(int64(flush))
}

// virtualClocks are a machine's clocks in virtual time. While it is frozen they stand
// still; then the wall clock is set right, and the others are not. mu is taken last.
type virtualClocks struct {
	began time.Time
	rate  float64
	blind bool // nobody sees the wall clock

	mu     sync.Mutex
	stands bool
	froze  time.Duration // since began, when they stopped
	lost   time.Duration // for how long they stood still
	step   time.Duration // what the wall clock was set by
}

func (c *virtualClocks) read() session.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	real := time.Since(c.began)
	if c.stands {
		real = c.froze
	}
	d := time.Duration(float64(real-c.lost) * c.rate)
	wall := d
	if !c.blind {
		wall += c.lost + c.step
	}
	return session.Reading{Boot: d, Mono: d, Raw: d, Wall: wall}
}

func (c *virtualClocks) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stands, c.froze = true, time.Since(c.began)
}

func (c *virtualClocks) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stands {
		c.stands, c.lost = false, c.lost+time.Since(c.began)-c.froze
	}
}

func (c *virtualClocks) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step += by
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
	dead := make(chan struct{})
	h.unplug = sync.OnceFunc(func() { close(dead) })
	var level uint64
	if h.holds {
		level, h.holds = state.FirstLevel, false
	}
	var runs atomic.Bool
	n, err := Start(dir, Config{
		FormatLevel: level,
		released:    time.Unix(1, 0), // virtual time begins in 2000
		Name:        h.name, Address: h.address, Timing: session.Normal, MinimumNodes: min(3, len(list)), Voters: h.w.voters, Join: list,
		Listener: h.w.net.listen(h.address), Key: testKey, Logger: slog.New(slog.DiscardHandler),
		now: h.clocks.read, bootID: "one boot", dial: h.w.net.dialer(h.address),
		alter: func(s *state.State, e state.Entry) state.Entry { return mutated(h.w.mutate, s, e) },
		omit:  omits(h.w.mutate), omitReplica: omitsOfReplica(h.w.mutate),
		observe: func(o replica.Observer) replica.Observer { return installs{o, h.w, &runs} },
		beforeCommit: func() {
			select {
			case <-time.After(time.Duration(h.flush.Load())):
			case <-dead:
			}
		},
	})
	if err != nil {
		h.w.t.Error(err)
		dir.Close()
		return
	}
	h.node, h.dir = n, dir
	runs.Store(true)
	if *virtualTrailing > 0 {
		n.replica.Inside().Trail(*virtualTrailing)
	}
}

// installs counts the snapshots that are installed on a node that runs.
type installs struct {
	replica.Observer
	w    *world
	runs *atomic.Bool
}

func (i installs) Restored(s *state.State) {
	if i.runs.Load() {
		i.w.mu.Lock()
		i.w.happened["installed snapshots"]++
		i.w.mu.Unlock()
	}
	i.Observer.Restored(s)
}

func (h *host) paused() bool {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.goesOn != nil
}

// pause stops the process for a while: nothing goes in or out of it, over the network
// or to its clients, though within it time goes on. The dead-man's switch kills it
// if it leaves clients behind that believe.
func (h *host) pause(length time.Duration) {
	w, n := h.w, h.node
	n.mu.Lock()
	left := length // until the switch, which is off when all connections are closed
	if at := n.roster.KillAt(); at > 0 && !w.noSwitch && w.mutate != mutation.NoSwitch {
		left = at - n.now().Boot
	}
	n.mu.Unlock()
	w.note("%s is paused for %v", h.name, length)
	goesOn := h.stand(w.noSwitch)
	go func() {
		time.Sleep(min(left, length))
		if left < length && h.die(goesOn) {
			return
		}
		time.Sleep(length - max(0, min(left, length)))
		h.resume(goesOn)
	}()
}

// noticed is how long a machine is frozen at least. A shorter freeze may be the wall clock's own
// moving, moves the lease by as much, and may break a promise (DESIGN.md, Promises to clients, 5).
const noticed = 510 * time.Millisecond

// freeze stops the whole machine for a while, its clocks too.
func (h *host) freeze(length time.Duration) {
	h.w.note("%s is frozen for %v", h.name, length)
	h.clocks.freeze()
	goesOn := h.stand(true)
	go func() {
		time.Sleep(length)
		h.resume(goesOn)
	}()
}

// stand keeps the process from the world, until goesOn is closed. Those of its
// clients that nothing closes in time are excused until they are told something.
func (h *host) stand(excused bool) (goesOn chan struct{}) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.goesOn = make(chan struct{})
	h.w.net.stop(h.address, true)
	for _, c := range h.w.clients {
		if c.host == h && excused && c.stood == 0 {
			c.stood = time.Since(h.w.began)
		}
	}
	return h.goesOn
}

// die is the work of the switch: the kernel closes the sockets of a process that
// stands still, if there are any. The process itself is buried later.
func (h *host) die(goesOn chan struct{}) (killed bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.goesOn != goesOn || !slices.ContainsFunc(h.w.clients, func(c *virtualClient) bool { return c.host == h && !c.closed }) {
		return false
	}
	h.killed = true
	h.lose()
	return true
}

// lose closes the connections of the host's clients. The world's mutex is held.
func (h *host) lose() {
	for _, c := range h.w.clients {
		if c.host == h {
			c.end()
		}
	}
}

// bury ends a process that the switch has killed, and starts another for one that has
// failed.
func (h *host) bury() {
	h.w.mu.Lock()
	killed := h.killed
	h.killed = false
	h.w.mu.Unlock()
	if killed {
		h.w.mu.Lock()
		h.w.happened["killed by the switch"]++
		h.w.mu.Unlock()
		h.crash()
	}
	if h.node != nil && h.node.Err() != nil {
		h.w.note("%s failed: %v", h.name, h.node.Err())
		h.crash()
		h.start()
	}
}

// resume ends a pause, and its clients, who have sent their JOIN again meanwhile,
// are answered at once.
func (h *host) resume(goesOn chan struct{}) {
	h.w.mu.Lock()
	if h.goesOn != goesOn {
		h.w.mu.Unlock()
		return
	}
	var waiting []*virtualClient
	for _, c := range h.w.clients {
		if c.host == h {
			if c.stood > 0 {
				c.wentOn = time.Since(h.w.began)
			}
			waiting = append(waiting, c)
		}
	}
	h.w.mu.Unlock()
	h.w.note("%s goes on", h.name)
	h.goOn()
	for _, c := range waiting {
		c.again()
	}
}

// goOn lets a process that was paused go on.
func (h *host) goOn() {
	h.clocks.goOn()
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.goesOn != nil {
		close(h.goesOn)
		h.goesOn = nil
		h.w.net.stop(h.address, false)
	}
}

// pass returns when something that the process does for a client would be done: later
// if it has much else to do, or stands still.
func (h *host) pass(most time.Duration) {
	h.w.mu.Lock()
	delay := time.Duration(h.w.luck.Int64N(int64(most)))
	h.w.mu.Unlock()
	time.Sleep(delay)
	for {
		h.w.mu.Lock()
		goesOn := h.goesOn
		h.w.mu.Unlock()
		if goesOn == nil {
			return
		}
		<-goesOn
	}
}

// ready reports whether a JOIN would succeed.
func (h *host) ready() bool {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	return h.node.missing() == nil
}

// crash is the death of the process: nothing is said any more, and its clients
// see that. Its files are what they were, and not what its last flush was to make them.
func (h *host) crash() {
	if h.node == nil {
		return
	}
	h.w.note("%s crashes", h.name)
	h.w.mu.Lock()
	h.lose()
	h.w.mu.Unlock()
	synctest.Wait()
	left := h.path + " left"
	err := os.CopyFS(left, os.DirFS(h.path))
	h.goOn()
	h.node.port.Close()
	h.unplug()
	synctest.Wait() // Raft has no question left that it would not answer
	kill(h.node)
	h.node = nil
	if err := errors.Join(err, os.RemoveAll(h.path), os.Rename(left, h.path)); err != nil {
		h.w.t.Error(err)
	}
}

// stop is a stop in order.
func (h *host) stop() {
	if h.node == nil {
		return
	}
	h.w.note("%s stops", h.name)
	h.flush.Store(0) // Raft leaves questions without an answer that wait for it
	h.setStopping(true)
	defer h.setStopping(false)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	h.node.Stop(ctx)
	h.dir.Close()
	h.node = nil
}

func (h *host) setStopping(is bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.stopping = is
}
