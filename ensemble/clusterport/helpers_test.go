package clusterport

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long anything may take that happens at once.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if stacks := leaked(); stacks != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind after all tests:\n%s\n", stacks)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of the package's goroutines that do not go away.
func leaked() string {
	var found []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		found = found[:0]
		buf := make([]byte, 1<<20)
		for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "clusterport.(*") {
				found = append(found, stack)
			}
		}
		if len(found) == 0 {
			return ""
		}
	}
	return strings.Join(found, "\n\n")
}

// Keys of two cookies.
var ourKey, otherKey = seededKey(1), seededKey(2)

func seededKey(b byte) *Key {
	k, err := KeyFromSeed([ed25519.SeedSize]byte{b})
	if err != nil {
		panic(err)
	}
	return k
}

// node is a port that serves on a loopback address.
type node struct {
	*Port
	t    testing.TB
	id   string
	addr string
	log  *logBuffer

	mu    sync.Mutex
	hello Hello
	clock time.Time // for notices
	admit func(Hello, Purpose) error
	heard []*RefusedError
}

// start starts a node of the cluster "c1". Every purpose but Raft echoes.
func start(t testing.TB, id string, change ...func(*Config)) *node {
	t.Helper()
	l := listen(t)
	n := &node{
		t: t, id: id, addr: l.Addr().String(), log: new(logBuffer), clock: time.Now(),
		hello: Hello{Cluster: "c1", Node: id, Name: "riak@" + id, Address: l.Addr().String(), Formats: Formats{1, 2, 2}},
		admit: func(Hello, Purpose) error { return nil },
	}
	cfg := Config{
		Key:              holding(ourKey),
		Self:             n.self,
		Admit:            func(h Hello, p Purpose) error { return n.admitter()(h, p) },
		Refused:          n.refusedBy,
		Logger:           slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		HandshakeTimeout: patience, // but for tests of the timeout
		now:              n.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Port = p
	for _, purpose := range []Purpose{Forward, Admin, Join} {
		p.Handle(purpose, func(c net.Conn, peer Hello) { io.Copy(c, c) })
	}
	n.serve(l)
	t.Cleanup(func() { p.Close() })
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) serve(l net.Listener) {
	served := make(chan error, 1)
	go func() { served <- n.Serve(l) }()
	n.t.Cleanup(func() {
		if err := <-served; !errors.Is(err, ErrClosed) {
			n.t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
}

func (n *node) self() Hello {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hello
}

// is changes who the node is.
func (n *node) is(change func(*Hello)) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.hello)
	return n
}

func (n *node) admitter() func(Hello, Purpose) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.admit
}

func (n *node) admits(f func(Hello, Purpose) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.admit = f
}

func (n *node) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clock
}

func (n *node) later(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock = n.clock.Add(d)
}

func (n *node) refusedBy(e *RefusedError) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, e)
}

func (n *node) refusals() []*RefusedError {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard
}

// to dials another node, and fails the test if that fails.
func (n *node) to(other *node, p Purpose) net.Conn {
	n.t.Helper()
	c, peer, err := n.Dial(n.t.Context(), p, other.addr, other.id)
	if err != nil {
		n.t.Fatal(err)
	}
	if want := other.self(); peer != want {
		n.t.Fatalf("%s says that it is %+v, want %+v", other.id, peer, want)
	}
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// wantEcho sends a text and wants it back.
func wantEcho(t testing.TB, c net.Conn) {
	t.Helper()
	const text = "are you there?"
	io.WriteString(c, text)
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("echo is %q, error %v, want %q", buf, err, text)
	}
}

// wantEnd reads until the other side has closed.
func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); timedOut(err) {
		t.Fatal("the connection is still open")
	}
}

// connect opens a plain connection.
func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// clientTLS is the TLS of somebody who has a certificate by a key, and does
// not look at that of others.
func clientTLS(key *Key, node string, change ...func(*tls.Config)) *tls.Config {
	cert, err := key.certificate(node)
	if err != nil {
		panic(err)
	}
	cfg := &tls.Config{
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true,
		NextProtos:         []string{string(Admin)},
		ClientAuth:         tls.RequestClientCert,
	}
	for _, c := range change {
		c(cfg)
	}
	return cfg
}

// speak sends bytes by TLS and returns the answer, or why there is none.
func speak(t testing.TB, addr string, cfg *tls.Config, say []byte) (message, error) {
	t.Helper()
	c := tls.Client(connect(t, addr), cfg)
	defer c.NetConn().Close()
	if err := c.Handshake(); err != nil {
		return message{}, err
	}
	if _, err := c.Write(say); err != nil {
		return message{}, err
	}
	m, err := readMessage(c)
	if err == nil && m.Refusal != nil {
		err = m.Refusal.error(m.Hello, Admin)
	}
	return m, err
}

// encoded is a message as it goes over the wire.
func encoded(t testing.TB, m message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeMessage(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the logged lines that contain what.
func (b *logBuffer) lines(what string) (found []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, what) {
			found = append(found, line)
		}
	}
	return found
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not true after %v: %s", patience, what)
		}
	}
}

// tlsClient performs the client's side of TLS.
func tlsClient(t testing.TB, c net.Conn, cfg *tls.Config) *tls.Conn {
	t.Helper()
	tc := tls.Client(c, cfg)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return tc
}

// holding is what Config wants of a key.
func holding(k *Key) func() (*Key, error) { return func() (*Key, error) { return k, nil } }
