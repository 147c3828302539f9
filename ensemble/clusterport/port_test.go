package clusterport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNodesTalk(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	for _, purpose := range []Purpose{Forward, Admin, Join} {
		t.Run(string(purpose), func(t *testing.T) {
			wantEcho(t, a.to(b, purpose))
			wantEcho(t, b.to(a, purpose))
		})
	}
	t.Run(string(Raft), func(t *testing.T) {
		la := a.Raft(func(id string) (string, error) { return b.addr, nil })
		lb := b.Raft(func(id string) (string, error) { return a.addr, nil })
		go func() {
			if c, err := lb.Accept(); err == nil {
				defer c.Close()
				io.Copy(c, c)
			}
		}()
		server, err := la.ServerAddr("b")
		if err != nil {
			t.Fatal(err)
		}
		c, err := la.Dial(server, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wantEcho(t, c)
		if la.Addr().String() != a.addr {
			t.Errorf("Addr is %v, want the advertised address %s", la.Addr(), a.addr)
		}
	})
	if lines := append(a.log.lines(""), b.log.lines("")...); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// TestHandlerKnowsPeer: a handler gets what the dialler introduced itself with.
func TestHandlerKnowsPeer(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	got := make(chan Hello, 1)
	b.Handle(Forward, func(c net.Conn, peer Hello) { got <- peer })
	c := a.to(b, Forward)
	if peer := <-got; peer != a.self() {
		t.Errorf("the handler was told %+v, want %+v", peer, a.self())
	}
	wantEnd(t, c) // since the handler has returned
}

// TestJoinNeedsNoCluster: requests to join are between strangers.
func TestJoinNeedsNoCluster(t *testing.T) {
	for _, clusters := range [][2]string{{"c1", "c2"}, {"", "c2"}, {"c1", ""}, {"", ""}} {
		t.Run(fmt.Sprintf("%q-%q", clusters[0], clusters[1]), func(t *testing.T) {
			a := start(t, "a").is(func(h *Hello) { h.Cluster = clusters[0] })
			b := start(t, "b").is(func(h *Hello) { h.Cluster = clusters[1] })
			wantEcho(t, a.to(b, Join))
		})
	}
}

// TestJoinFromANewerFormat: a node asks another one to be let in, though it writes more,
// alone, than that one reads. The other way round it would not understand what it is sent.
func TestJoinFromANewerFormat(t *testing.T) {
	newer, older := start(t, "newer"), start(t, "older")
	older.is(func(h *Hello) { h.Cluster, h.Formats = "c2", Formats{1, 1, 1} })
	wantEcho(t, newer.to(older, Join))
	if _, _, err := older.Dial(t.Context(), Join, newer.addr, ""); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "install the same release on both") {
		t.Errorf("the older one asks the newer one: %v", err)
	}
	older.is(func(h *Hello) { h.Cluster = "c1" })
	for _, purpose := range []Purpose{Raft, Forward, Admin} {
		if _, _, err := newer.Dial(t.Context(), purpose, older.addr, ""); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", purpose, err)
		}
	}
}

// TestNewIdentity: a node that becomes another one, by joining, has that one's
// certificate from then on.
func TestNewIdentity(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	wantEcho(t, a.to(b, Admin))
	a.is(func(h *Hello) { h.Node = "a2" })
	wantEcho(t, a.to(b, Admin))
	b.is(func(h *Hello) { h.Node = "b2" })
	b.id = "b2"
	wantEcho(t, a.to(b, Admin))
}

// TestWallClockDoesNotMatter: nodes of all times form one cluster.
func TestWallClockDoesNotMatter(t *testing.T) {
	at := func(year int) func(*Config) {
		return func(cfg *Config) {
			cfg.wall = func() time.Time { return time.Date(year, 7, 1, 0, 0, 0, 0, time.UTC) }
		}
	}
	var nodes []*node
	for _, year := range []int{1901, 1970, 2026, 2500, 11000} {
		nodes = append(nodes, start(t, fmt.Sprint("y", year), at(year)))
	}
	for _, a := range nodes {
		for _, b := range nodes {
			wantEcho(t, a.to(b, Forward))
		}
	}
}

// TestConnectionsOutliveHandshake: its timeout is not theirs.
func TestConnectionsOutliveHandshake(t *testing.T) {
	t.Parallel()
	short := func(cfg *Config) { cfg.HandshakeTimeout = time.Second }
	a, b := start(t, "a", short), start(t, "b", short)
	c, _, err := a.Dial(t.Context(), Admin, b.addr, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.Sleep(a.cfg.HandshakeTimeout + 100*time.Millisecond) // it is time itself that is tested
	wantEcho(t, c)
}

// TestAHandshakeDoesNotWaitForAKey: at either end its time begins when the key is there, which
// takes long the first time.
func TestAHandshakeDoesNotWaitForAKey(t *testing.T) {
	t.Parallel()
	slow := func(cfg *Config) {
		cfg.HandshakeTimeout = 500 * time.Millisecond
		cfg.Key = func() (*Key, error) {
			time.Sleep(2 * cfg.HandshakeTimeout) // it is time itself that is tested
			return ourKey, nil
		}
	}
	a, b := start(t, "a"), start(t, "b", slow)
	wantEcho(t, a.to(b, Admin))
	c := start(t, "c", slow)
	wantEcho(t, c.to(a, Admin))
}

// TestNoResumption: every connection shows its certificate.
func TestNoResumption(t *testing.T) {
	b := start(t, "b")
	cache := new(tickets)
	for range 2 {
		c := tlsClient(t, connect(t, b.addr), clientTLS(ourKey, "a", func(cfg *tls.Config) { cfg.ClientSessionCache = cache; cfg.ServerName = "b" }))
		c.Write(encoded(t, message{Hello: hello("a")}))
		if _, err := readMessage(c); err != nil { // tickets would come before
			t.Fatal(err)
		}
	}
	if cache.put > 0 {
		t.Errorf("%d session tickets were given out", cache.put)
	}
}

// tickets counts session tickets.
type tickets struct{ put int }

func (t *tickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (t *tickets) Put(_ string, cs *tls.ClientSessionState)   { t.put++ }

// TestEavesdropper: of a conversation of two nodes, the wire shows neither who
// they are, nor their cluster, nor what they say, nor the authority that the
// cookie stands for.
func TestEavesdropper(t *testing.T) {
	var mu sync.Mutex
	var seen bytes.Buffer
	a := start(t, "node-of-alice", func(cfg *Config) {
		cfg.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialTCP(ctx, network, address)
			return tapped{c, &mu, &seen}, err
		}
	})
	b := start(t, "node-of-bob")
	for _, n := range []*node{a, b} {
		n.is(func(h *Hello) { h.Cluster = "cluster-of-both" })
	}
	wantEcho(t, a.to(b, Admin))
	mu.Lock()
	defer mu.Unlock()
	if !bytes.Contains(seen.Bytes(), []byte(Admin)) {
		t.Fatal("the tap does not see the purpose, which is in the clear: it does not work")
	}
	for _, secret := range []string{"alice", "bob", "cluster-of-both", "there?", ourKey.authority.Subject.CommonName, string(ourKey.authority.RawSubjectPublicKeyInfo)} {
		if bytes.Contains(seen.Bytes(), []byte(secret)) {
			t.Errorf("%q is in the clear", secret)
		}
	}
}

// tapped is a connection that somebody listens to.
type tapped struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(b[:n])
	return n, err
}

func (c tapped) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.seen.Write(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// TestSocketOptions: both ends of a connection have all options.
func TestSocketOptions(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	accepted := make(chan net.Conn, 1)
	b.Handle(Admin, func(c net.Conn, _ Hello) {
		accepted <- c
		io.Copy(io.Discard, c)
	})
	dialled := a.to(b, Admin)
	for end, c := range map[string]net.Conn{"dialled": dialled, "accepted": <-accepted} {
		raw, err := c.(*conn).raw.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range socketOptions {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.value {
					t.Errorf("%s: %s is %d, error %v, want %d", end, o.name, got, err, o.value)
				}
			}
			if proto, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.IPPROTO_TCP {
				t.Errorf("%s: protocol is %d, error %v, want plain TCP", end, proto, err)
			}
		})
	}
}

func TestListenFamilies(t *testing.T) {
	for address, want := range map[string]string{"127.0.0.1:0": "tcp4", "0.0.0.0:0": "tcp4", "[::1]:0": "tcp6", "localhost:0": "tcp"} {
		l, err := Listen(t.Context(), address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		ip := l.Addr().(*net.TCPAddr).IP
		if v4 := ip.To4() != nil; want == "tcp4" && !v4 || want == "tcp6" && v4 {
			t.Errorf("%s: listens on %v, want %s", address, l.Addr(), want)
		}
		l.Close()
	}
}

// TestCloseNode: the connections of one node are closed, those that it dialled
// and those that were dialled to it; no others.
func TestCloseNode(t *testing.T) {
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	gone := []net.Conn{a.to(b, Admin), a.to(b, Forward), b.to(a, Admin)}
	stay := []net.Conn{a.to(c, Admin), c.to(a, Forward), b.to(c, Admin)}
	for _, conn := range append(gone, stay...) {
		wantEcho(t, conn)
	}
	a.CloseNode("b")
	for _, conn := range gone {
		wantEnd(t, conn)
	}
	for _, conn := range stay {
		wantEcho(t, conn)
	}
}

// TestCloseNodeDuringAdmission: a node that is removed while it is being
// admitted does not stay connected.
func TestCloseNodeDuringAdmission(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	asked, answer := make(chan struct{}), make(chan struct{})
	b.admits(func(Hello, Purpose) error {
		close(asked)
		<-answer
		return nil
	})
	over := make(chan error, 1)
	go func() {
		c, _, err := a.Dial(t.Context(), Admin, b.addr, "b")
		if err == nil {
			c.SetReadDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		over <- err
	}()
	<-asked
	b.CloseNode("a")
	close(answer)
	if err := <-over; err == nil || timedOut(err) {
		t.Errorf("error is %v, want the end of the connection", err)
	}
}

// TestClose: whatever is under way ends, and nothing is left.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := start(t, "a"), start(t, "b")
	layer := b.Raft(func(string) (string, error) { return a.addr, nil })
	a.Raft(func(string) (string, error) { return b.addr, nil })

	conns := []net.Conn{a.to(b, Admin), a.to(b, Forward), b.to(a, Admin), connect(t, b.addr)}
	for _, c := range conns[:3] {
		wantEcho(t, c)
	}
	raftConn, err := layer.Dial("node:a", patience)
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan error, 3)
	silent := listen(t)
	defer silent.Close()
	go func() { // a dial under way
		_, _, err := b.Dial(context.Background(), Admin, silent.Addr().String(), "")
		ends <- err
	}()
	go func() {
		_, err := layer.Accept()
		ends <- err
	}()
	a.Handle(Forward, func(c net.Conn, _ Hello) { <-a.ctx.Done() }) // which reads nothing
	stuck := NewFramer(b.to(a, Forward))
	go func() {
		for {
			if err := stuck.Write(make([]byte, MaxFrame)); err != nil {
				ends <- ErrClosed // any error will do
				return
			}
		}
	}()
	if peer, err := silent.Accept(); err != nil {
		t.Fatal(err)
	} else {
		defer peer.Close()
	}

	began := time.Now()
	b.Close()
	if took := time.Since(began); took > 3*time.Second { // TLS would wait for 5 s, or for the user timeout
		t.Errorf("Close took %v", took)
	}
	for _, c := range conns {
		wantEnd(t, c)
	}
	if _, err := raftConn.Read(make([]byte, 1)); err == nil {
		t.Error("Raft's connection is still open")
	}
	for range cap(ends) {
		if err := <-ends; !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v, want ErrClosed", err)
		}
	}
	if _, _, err := b.Dial(t.Context(), Admin, a.addr, ""); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial after Close: %v, want ErrClosed", err)
	}
	l := listen(t)
	if err := b.Serve(l); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve after Close: %v, want ErrClosed", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener of Serve after Close is still open")
	}
	b.Close() // again
	a.Close()
	eventually(t, "all goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
	if len(a.conns)+len(b.conns) > 0 {
		t.Errorf("%d and %d connections are still known", len(a.conns), len(b.conns))
	}
}

// TestCloseDoesNotWait for a peer that takes nothing, as the close of a TLS
// connection would.
func TestCloseDoesNotWait(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.Handle(Forward, func(net.Conn, Hello) { <-b.ctx.Done() })
	c := a.to(b, Forward)
	socket := c.(*conn).raw
	for _, size := range []int{1 << 20, 1} { // until not even a byte has room
		var err error
		for err == nil {
			socket.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			_, err = socket.Write(make([]byte, size))
		}
	}
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > 3*time.Second { // TLS would wait for 5 s, or for the user timeout
		t.Errorf("Close took %v", took)
	}
}

// TestServeAgain: a port whose listener fails goes on with another, and its
// connections stay.
func TestServeAgain(t *testing.T) {
	a := start(t, "a")
	p, err := New(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Handle(Admin, func(c net.Conn, _ Hello) { io.Copy(c, c) })
	served := make(chan error)
	var old net.Conn
	for range 2 {
		l := listen(t)
		go func() { served <- p.Serve(l) }()
		c, _, err := a.Dial(t.Context(), Admin, l.Addr().String(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wantEcho(t, c)
		if old != nil {
			wantEcho(t, old)
		}
		old = c
		l.Close()
		if err := <-served; err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v, want the listener's error", err)
		}
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	good := Config{
		Key:   holding(ourKey),
		Self:  func() Hello { return Hello{Node: "a", Formats: Formats{1, 1, 1}} },
		Admit: func(Hello, Purpose) error { return nil },
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no key":     func(c *Config) { c.Key = nil },
		"no self":    func(c *Config) { c.Self = nil },
		"no admit":   func(c *Config) { c.Admit = nil },
		"no node id": func(c *Config) { c.Self = func() Hello { return Hello{Formats: Formats{1, 1, 1}} } },
		"no formats": func(c *Config) { c.Self = func() Hello { return Hello{Node: "a"} } },
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
