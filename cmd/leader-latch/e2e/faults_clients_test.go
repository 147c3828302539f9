//go:build faults

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/latch/latchtest"
)

// A crowd is clients that join groups, again whenever their connection has ended,
// and a record of all that they were told.
type crowd struct {
	*network
	nodes   []*host // where they find nodes, on port 5323
	clients []*client
	groups  []*groupRecord
	base    time.Duration // what clock showed when the network's time began

	processes []*clientProcess
	bounded   []*boundedClient
	keyed     []*keyedSeat
	stopping  chan struct{}
	running   sync.WaitGroup
	refused   atomic.Int64 // JOINs
}

// groupRecord is what the connections of one group saw. All that is noted of a group
// is noted under its lock, and what arrives is read under it: so when one of its
// clients is told that it leads, it is certain what the others could know.
type groupRecord struct {
	name string

	mu    sync.Mutex
	views []*latchtest.View
	ends  map[*latchtest.View]arrow // from the client's host to the node's
	open  []*client                 // with a connection
}

// client is one program that joins one group.
type client struct {
	*crowd
	name string
	home *host
	g    *groupRecord
	rnd  *rand.Rand // used by run alone
	key  string     // it asks to go on with it, without a hold; empty: it is a plain client

	observes bool // it is no member, and has no name

	// Guarded by g.mu.
	conn   *net.TCPConn // nil: none
	raw    syscall.RawConn
	view   *latchtest.View
	in     []byte        // the beginning of a line
	unread time.Duration // since when something is there that it has not read; 0: nothing is known to be
	resume chan struct{} // not nil: it is paused until this is closed
}

// newCrowd starts clients: those of a group sit on different hosts, beside the
// nodes and alone.
func newCrowd(nw *network, nodes []*host, groups int, rnd *rand.Rand) *crowd {
	c := &crowd{network: nw, nodes: nodes, stopping: make(chan struct{}), base: clock() - nw.now()}
	for i := range groups {
		g := &groupRecord{name: fmt.Sprint("g", i), ends: map[*latchtest.View]arrow{}}
		c.groups = append(c.groups, g)
		for j := range 3 + rnd.IntN(3) {
			c.clients = append(c.clients, &client{
				crowd: c, g: g, name: fmt.Sprintf("%d-%d", i, j), home: nw.hosts[(i+j)%len(nw.hosts)],
				rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64())),
			})
		}
	}
	for _, cl := range c.clients {
		c.running.Go(cl.run)
	}
	return c
}

func (c *crowd) stop() {
	close(c.stopping)
	for _, cl := range c.clients {
		cl.wake()
		cl.leave(func(nc *net.TCPConn) { nc.Close() })
	}
	for _, p := range c.processes {
		p.signal(syscall.SIGKILL)
	}
	for _, s := range c.keyed {
		s.end(false)
	}
	c.running.Wait()
}

// size is how many clients there are.
func (c *crowd) size() int { return len(c.clients) + len(c.processes) + len(c.bounded) + len(c.keyed) }

// views gives all that was seen until now, with the trouble of the links.
func (c *crowd) views() (all []*latchtest.View) {
	for _, g := range c.groups {
		g.mu.Lock()
		for _, v := range g.views {
			copied := *v
			copied.Told = slices.Clone(v.Told)
			copied.Trouble = slices.Clone(v.Trouble)
			if len(v.Told) > 0 {
				copied.Trouble = append(copied.Trouble, c.troubleOf(g.ends[v].from, g.ends[v].to, v.Told[0].At)...)
			}
			all = append(all, &copied)
		}
		g.mu.Unlock()
	}
	for _, s := range c.keyed {
		all = append(all, s.views()...)
	}
	return all
}

// node chooses where a client connects: mostly to the node beside it, if there is one.
func (c *crowd) node(home *host, rnd *rand.Rand) *host {
	if !slices.Contains(c.nodes, home) || rnd.IntN(8) == 0 {
		return c.nodes[rnd.IntN(len(c.nodes))]
	}
	return home
}

// boundedClient is a client that goes by its clock. Its group has such clients only.
type boundedClient struct {
	*crowd
	name   string
	home   *host
	g      *groupRecord
	window time.Duration
	rnd    *rand.Rand    // used by live alone
	stops  chan struct{} // it is to stop leading; room for one

	// Guarded by g.mu.
	conn *witness // nil: none
	at   *host    // of its node
}

// addBounded adds groups of three clients that go by their clocks, with the window of the
// nodes' timing.
func (c *crowd) addBounded(groups int, window time.Duration, rnd *rand.Rand) {
	for i := range groups {
		g := &groupRecord{name: fmt.Sprint("bounded", i), ends: map[*latchtest.View]arrow{}}
		c.groups = append(c.groups, g)
		for j := range 3 {
			b := &boundedClient{crowd: c, g: g, name: fmt.Sprintf("b%d-%d", i, j), home: c.hosts[(i+2*j)%len(c.hosts)], window: window, stops: make(chan struct{}, 1), rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))}
			c.bounded = append(c.bounded, b)
			c.running.Go(func() {
				for !c.stopped() {
					b.live()
					c.rest(b.rnd)
				}
			})
		}
	}
}

// live joins, and asks again and again, until it is told to stop. Where its connection ends
// before, it leads on for as long as it was promised.
func (b *boundedClient) live() {
	node := b.node(b.home, b.rnd)
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	nc, err := b.home.dial(ctx, node.ip+":5323")
	if err != nil {
		return
	}
	w := newWitness(b.network, nc, &b.g.mu, latchtest.Witness{Window: b.window, View: latchtest.View{
		Group: b.g.name, Client: b.name, Bounded: true, Where: fmt.Sprintf("bounded, host %d, node %d, %v", b.home.n, node.n, nc.LocalAddr()),
	}})
	b.g.mu.Lock()
	b.g.views = append(b.g.views, &w.View)
	b.g.ends[&w.View] = arrow{b.home, node}
	b.conn, b.at = w, node
	b.g.mu.Unlock()
	defer w.leave()
	w.join()
	b.running.Go(func() { b.renew(w) })
	select {
	case <-b.stopping:
	case <-b.stops:
		w.stop()
	case <-w.ended:
		time.Sleep(w.promised() - w.now())
	}
	b.g.mu.Lock()
	b.conn = nil
	b.g.mu.Unlock()
}

// renew asks again and again while it leads, soon after it was told that it does: so its
// promise is young whenever something befalls it.
func (b *boundedClient) renew(w *witness) {
	for {
		select {
		case <-w.ended:
			return
		case <-time.After(10*time.Millisecond + rand.N(20*time.Millisecond)):
			if w.knows(b.name) {
				w.ask()
			}
		}
	}
}

// keyedSeat is a client with a key, and whoever comes after it under its name.
type keyedSeat struct {
	*crowd
	g    *groupRecord
	home *host

	mu   sync.Mutex // guards what follows
	all  []*keyedClient
	last *keyedClient
}

// addKeyed adds groups of clients with keys and holds, with fin=end and without, of one that
// has no hold, and of one that is plain: all kinds in one group.
func (c *crowd) addKeyed(groups int, rnd *rand.Rand) {
	for i := range groups {
		g := &groupRecord{name: fmt.Sprint("keyed", i), ends: map[*latchtest.View]arrow{}}
		c.groups = append(c.groups, g)
		plain := &client{crowd: c, g: g, name: fmt.Sprintf("p%d", i), home: c.hosts[i%len(c.hosts)], rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))}
		none := &client{crowd: c, g: g, name: fmt.Sprintf("n%d", i), home: c.hosts[(i+3)%len(c.hosts)], rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))}
		none.key = newKey(none.rnd)
		for _, cl := range []*client{plain, none} {
			c.clients = append(c.clients, cl)
			c.running.Go(cl.run)
		}
		for j := range 3 {
			s := &keyedSeat{crowd: c, g: g, home: c.hosts[(i+2*j)%len(c.hosts)]}
			c.keyed = append(c.keyed, s)
			rnd := rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))
			c.running.Go(func() {
				for !c.stopped() {
					k := s.begin(fmt.Sprintf("k%d-%d", i, j), j == 0, rnd)
					<-k.done
					c.rest(rnd)
				}
			})
		}
	}
}

// addObservers adds an observer to each group that there is.
func (c *crowd) addObservers(rnd *rand.Rand) {
	for i, g := range c.groups {
		o := &client{crowd: c, g: g, observes: true, home: c.hosts[i%len(c.hosts)], rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))}
		c.clients = append(c.clients, o)
		c.running.Go(o.run)
	}
}

// begin starts a process with a key of its own.
func (s *keyedSeat) begin(name string, fin bool, rnd *rand.Rand) *keyedClient {
	first := rnd.IntN(len(s.nodes))
	k := &keyedClient{
		group: s.g.name, name: name, key: newKey(rnd), hold: time.Minute, fin: fin, every: 30 * time.Millisecond, now: s.now,
		rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64())), mu: &s.g.mu,
		dial: func(ctx context.Context, attempt int) (*net.TCPConn, string, error) {
			node := s.nodes[(first+attempt)%len(s.nodes)]
			nc, err := s.home.dial(ctx, node.ip+":5323")
			return nc, fmt.Sprintf("with a key, host %d, node %d", s.home.n, node.n), err
		},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.start()
	s.all, s.last = append(s.all, k), k
	if s.stopped() {
		go k.end(false)
	}
	return k
}

// present is the process that there is.
func (s *keyedSeat) present() *keyedClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *keyedSeat) end(leave bool) {
	if k := s.present(); k != nil {
		k.end(leave)
	}
}

func (s *keyedSeat) views() (all []*latchtest.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for _, k := range s.all {
		for _, v := range k.account.Views() {
			copied := *v
			copied.Told, copied.Promises = slices.Clone(v.Told), slices.Clone(v.Promises)
			all = append(all, &copied)
		}
	}
	return all
}

// rest is what a client waits before it connects again.
func (c *crowd) rest(rnd *rand.Rand) {
	select {
	case <-c.stopping:
	case <-time.After(time.Duration(20+rnd.IntN(400)) * time.Millisecond):
	}
}

func (c *crowd) stopped() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

// run connects and listens, until the crowd is stopped.
func (c *client) run() {
	for !c.stopped() {
		if nc := c.connect(); nc != nil {
			c.listen()
			nc.Close()
		}
		c.rest(c.rnd)
	}
}

// connect connects to a node and asks to join.
// It gives nil if there is no connection.
func (c *client) connect() *net.TCPConn {
	node := c.node(c.home, c.rnd)
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	nc, err := c.home.dial(ctx, node.ip+":5323")
	if err != nil {
		return nil
	}
	raw, err := nc.SyscallConn()
	if err != nil {
		panic(err)
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.stopped() {
		nc.Close()
		return nil
	}
	c.conn, c.raw, c.in, c.unread = nc, raw, nil, 0
	c.view = &latchtest.View{Group: c.g.name, Client: c.name, Where: fmt.Sprintf("host %d, node %d, %v", c.home.n, node.n, nc.LocalAddr())}
	c.g.views = append(c.g.views, c.view)
	c.g.ends[c.view] = arrow{c.home, node}
	c.view.Keyed, c.view.Observes = c.key != "", c.observes
	line := fmt.Sprintf("JOIN %s %s%s\n", c.g.name, c.name, c.withKey())
	if c.observes {
		line = fmt.Sprintf("OBSERVE %s\n", c.g.name)
	} else {
		c.g.open = append(c.g.open, c)
	}
	fmt.Fprint(nc, line) // what fails here, the first read tells
	return nc
}

// withKey is what a client with a key and without a hold adds to its JOIN.
func (c *client) withKey() string {
	if c.key == "" {
		return ""
	}
	return " key=" + c.key + " hold=0"
}

// listen reads until the connection has ended.
func (c *client) listen() {
	raw := c.raw
	for {
		var pause chan struct{}
		open := true
		if err := raw.Read(func(fd uintptr) bool {
			c.g.mu.Lock()
			defer c.g.mu.Unlock()
			if c.conn == nil {
				open = false
				return true
			}
			if pause = c.resume; pause != nil {
				return true
			}
			open = c.take(int(fd))
			return !open
		}); err != nil { // closed by this side
			return
		}
		switch {
		case pause != nil:
			<-pause
		case !open:
			return
		}
	}
}

// take reads all that has arrived, and only then believes the last of it, as
// PROTOCOL.md advises. It reports whether the connection goes on. g.mu is held.
func (c *client) take(fd int) (open bool) {
	var news []string
	ended := false
	for buf := make([]byte, 512); ; {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			c.in = append(c.in, buf[:n]...)
			continue
		}
		ended = err != unix.EAGAIN
		break
	}
	for {
		line, rest, ok := bytes.Cut(c.in, []byte("\n"))
		if !ok {
			break
		}
		news, c.in = append(news, string(line)), rest
	}
	if len(news) == 0 && !ended {
		return true
	}
	now := c.now()
	at := now
	if c.unread != 0 {
		at, c.unread = c.unread, 0
	}
	for i, line := range news {
		told := latchtest.Told{At: at}
		at = now // for it is only the first of them that is known to have been there
		switch f := strings.Fields(line); {
		case len(f) == 3 && f[0] == "LEADER":
			told.Leader = f[1]
			if _, err := strconv.ParseUint(f[2], 10, 64); err != nil {
				c.t.Errorf("%s was sent %q", c.name, line)
			}
			told.Token, _ = strconv.ParseUint(f[2], 10, 64)
			c.view.Told = append(c.view.Told, told)
			if told.Leader == c.name && !ended && i == len(news)-1 {
				c.lookAtOthers(told.At)
			}
		case len(f) == 2 && f[0] == "NO_LEADER" && c.observes:
			var err error
			if told.Token, err = strconv.ParseUint(f[1], 10, 64); err != nil {
				c.t.Errorf("an observer was sent %q", line)
			}
			c.view.Told = append(c.view.Told, told)
		case line == "JOIN_FAILED SERVICE_UNAVAILABLE":
			c.refused.Add(1)
		default:
			c.t.Errorf("%s (%s) was sent %q", c.name, c.view.Where, line)
		}
	}
	if ended {
		c.end(at)
	}
	return !ended
}

// lookAtOthers notes for each other client that takes itself for the leader
// whether there is something that it has not read, now that this one was told: then
// it could have known at that time. g.mu is held.
func (c *client) lookAtOthers(now time.Duration) {
	for _, o := range slices.Clone(c.g.open) { // which gets shorter where one is found to have ended
		if o == c || o.unread != 0 || len(o.view.Told) == 0 || o.view.Told[len(o.view.Told)-1].Leader != o.name {
			continue
		}
		var n int
		var err error
		o.raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT) })
		if n < 0 && err == unix.EAGAIN {
			continue
		}
		if n < 0 || err != nil { // the kernel tells an error once, and this was it
			o.end(now)
			continue
		}
		if o.resume != nil {
			continue
		}
		o.unread = now
	}
}

// end notes that the client knows that its connection has ended. To close it is left
// to run, as a close waits for those who read, and they may wait for g.mu, which is
// held here.
func (c *client) end(at time.Duration) {
	c.view.End = at
	c.conn = nil
	c.g.open = slices.DeleteFunc(c.g.open, func(o *client) bool { return o == c })
}

// leave ends the connection from this side: from before that, the client does not
// take itself for the leader.
func (c *client) leave(how func(*net.TCPConn)) {
	c.g.mu.Lock()
	nc := c.conn
	if nc != nil {
		c.end(c.now())
	}
	c.g.mu.Unlock()
	if nc != nil {
		how(nc)
	}
}

// pause has the client read nothing, as if its process were stopped.
func (c *client) pause() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.resume == nil {
		c.resume = make(chan struct{})
		if c.conn != nil {
			c.view.Trouble = append(c.view.Trouble, latchtest.Trouble{Kind: "paused", From: c.now()})
		}
	}
}

// wake ends the pause: the client reads what is there, if it has a connection, before
// it does anything else.
func (c *client) wake() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.resume == nil {
		return
	}
	close(c.resume)
	c.resume = nil
	if c.conn == nil {
		return
	}
	v := c.view
	c.raw.Control(func(fd uintptr) { c.take(int(fd)) })
	for i := range v.Trouble {
		if v.Trouble[i].To == 0 {
			v.Trouble[i].To = c.now()
		}
	}
}
