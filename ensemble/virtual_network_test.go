package ensemble

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// virtualNetwork is a network in memory whose time may be virtual
// (testing/synctest). Hosts are addresses. A way from one host to another may be
// cut: what is sent is then held back, as TCP does, and a connection on which
// something was held back for too long breaks.
type virtualNetwork struct {
	mu        sync.Mutex // guards what follows
	rng       *rand.Rand
	listeners map[string]*virtualListener
	cuts      map[[2]string]bool // ways that are cut
	stopped   map[string]bool    // hosts to and from which nothing goes
	refused   map[[2]string]bool // ways on which a firewall refuses new connections
	changed   chan struct{}      // closed and replaced when cuts changes
	conns     map[*virtualConn]struct{}
	closed    bool
}

// userTimeout is TCP's, as the cluster port sets it.
const userTimeout = 5 * time.Second

func newVirtualNetwork(rng *rand.Rand) *virtualNetwork {
	return &virtualNetwork{
		rng:       rng,
		listeners: make(map[string]*virtualListener),
		cuts:      make(map[[2]string]bool),
		stopped:   make(map[string]bool),
		refused:   make(map[[2]string]bool),
		changed:   make(chan struct{}),
		conns:     make(map[*virtualConn]struct{}),
	}
}

// cut cuts the way between two hosts, or mends it.
func (w *virtualNetwork) cut(from, to string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if is {
		w.cuts[[2]string{from, to}] = true
	} else {
		delete(w.cuts, [2]string{from, to})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// stop cuts all ways from and to a host, or takes that back.
func (w *virtualNetwork) stop(host string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped[host] = is
	close(w.changed)
	w.changed = make(chan struct{})
}

// refuse has a firewall refuse new connections from one host to another, in the name of that
// one's kernel, or has it do so no more.
func (w *virtualNetwork) refuse(from, to string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[[2]string{from, to}] = is
}

// reset ends all connections from and to a host.
func (w *virtualNetwork) reset(host string) {
	w.mu.Lock()
	var all []*virtualConn
	for c := range w.conns {
		if string(c.local) == host || string(c.remote) == host {
			all = append(all, c)
		}
	}
	w.mu.Unlock()
	for _, c := range all {
		c.Conn.Close() // as its owner does later
	}
}

func (w *virtualNetwork) isCut(from, to string) (cut bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cuts[[2]string{from, to}] || w.stopped[from] || w.stopped[to], w.changed
}

// delay is how long something takes on its way.
func (w *virtualNetwork) delay() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.Int64N(int64(2 * time.Millisecond)))
}

// dialer gives what a host dials with.
func (w *virtualNetwork) dialer(from string) func(ctx context.Context, network, to string) (net.Conn, error) {
	return func(ctx context.Context, _, to string) (net.Conn, error) {
		for {
			out, changed := w.isCut(from, to)
			back, _ := w.isCut(to, from)
			if !out && !back {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		w.mu.Lock()
		l, refused := w.listeners[to], w.refused[[2]string{from, to}]
		w.mu.Unlock()
		if l == nil || refused {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		near, far := w.connect(from, to)
		select {
		case l.conns <- far:
			return near, nil
		case <-l.done:
			near.Close()
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		case <-ctx.Done():
			near.Close()
			return nil, ctx.Err()
		}
	}
}

// connect makes a connection between two hosts.
func (w *virtualNetwork) connect(from, to string) (near, far net.Conn) {
	a, aWire := net.Pipe()
	b, bWire := net.Pipe()
	end := make(chan struct{})
	var once sync.Once
	broken := func() {
		once.Do(func() {
			close(end)
			for _, c := range []net.Conn{aWire, bWire} {
				c.Close()
			}
		})
	}
	go w.carry(aWire, bWire, from, to, end, broken)
	go w.carry(bWire, aWire, to, from, end, broken)
	return w.track(a, from, to), w.track(b, to, from)
}

// carry moves bytes one way.
func (w *virtualNetwork) carry(src, dst net.Conn, from, to string, end <-chan struct{}, broken func()) {
	defer broken()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(w.delay())
		patience := time.NewTimer(userTimeout)
		for {
			cut, changed := w.isCut(from, to)
			if !cut {
				break
			}
			select {
			case <-changed:
				continue
			case <-patience.C:
			case <-end:
			}
			patience.Stop()
			return
		}
		patience.Stop()
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *virtualNetwork) track(c net.Conn, local, remote string) net.Conn {
	v := &virtualConn{Conn: c, w: w, local: virtualAddr(local), remote: virtualAddr(remote)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		c.Close()
	}
	w.conns[v] = struct{}{}
	return v
}

// close ends all connections, so that nothing waits for them.
func (w *virtualNetwork) close() {
	w.mu.Lock()
	w.closed = true
	var all []*virtualConn
	for c := range w.conns {
		all = append(all, c)
	}
	w.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

type virtualConn struct {
	net.Conn
	w             *virtualNetwork
	local, remote virtualAddr
}

func (c *virtualConn) LocalAddr() net.Addr  { return c.local }
func (c *virtualConn) RemoteAddr() net.Addr { return c.remote }

func (c *virtualConn) Close() error {
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}

type virtualAddr string

func (virtualAddr) Network() string  { return "tcp" }
func (a virtualAddr) String() string { return string(a) }

// listen opens a host's port.
func (w *virtualNetwork) listen(address string) net.Listener {
	l := &virtualListener{w: w, address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[address] = l
	return l
}

type virtualListener struct {
	w       *virtualNetwork
	address string
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

func (l *virtualListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, errors.New("the listener is closed")
	}
}

func (l *virtualListener) Addr() net.Addr { return virtualAddr(l.address) }

func (l *virtualListener) Close() error {
	l.once.Do(func() {
		l.w.mu.Lock()
		if l.w.listeners[l.address] == l {
			delete(l.w.listeners, l.address)
		}
		l.w.mu.Unlock()
		close(l.done)
	})
	return nil
}
