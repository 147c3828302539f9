package clusterport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Purpose is what a connection is for. It is told by ALPN, in the first packet.
type Purpose string

const (
	Raft    Purpose = "leader-latch/raft"    // Raft's own; see [Port.Raft]
	Forward Purpose = "leader-latch/forward" // proposals on their way to the raft leader
	Admin   Purpose = "leader-latch/admin"   // questions and orders between nodes of one cluster

	// Join is for nodes that are not of one cluster yet. It is the only
	// purpose for which the cluster ids may differ or be missing.
	Join Purpose = "leader-latch/join"
)

var purposes = []string{string(Raft), string(Forward), string(Admin), string(Join)}

// ErrClosed is returned by the methods of a [Port] that has been closed.
var ErrClosed = errors.New("cluster port closed")

// Config says how a [Port] behaves.
type Config struct {
	// Key gives the key of the cluster's cookie; see [DeriveKey]. It is asked
	// when the first connections come or go, from any goroutine, so that a node
	// that is alone never needs it; then [Port.Rekey] changes it. It must be set.
	Key func() (*Key, error)

	// Self is who this node is now. It is asked at every handshake, from any
	// goroutine, and has to answer at once. It must be set.
	Self func() Hello

	// Admit is asked about every node that connects here and that the port
	// itself has no reason to refuse. nil admits it. An error refuses it, and
	// its text is sent; it should wrap [ErrUnknownNode] or [ErrRemoved] where
	// that is the reason. Called from any goroutine, and has to answer at
	// once. It must be set.
	Admit func(peer Hello, p Purpose) error

	// Refused, if set, is called when another node has refused this one,
	// whoever dialled: Raft would keep the reason to itself, and a node has
	// to learn that it was removed. Called from any goroutine.
	Refused func(*RefusedError)

	// Lost, if set, is called when the last of the connections has ended on which requests of a
	// node to Raft came in, in one of its lives. Who ended it, and why, is not known. Called on a
	// goroutine of its own; Close waits for it, and ends its context.
	Lost func(ctx context.Context, peer Hello)

	// Logger is where the port logs; nil: nowhere.
	Logger *slog.Logger

	// HandshakeTimeout bounds a handshake from the first packet to the
	// admission. Default 5 s.
	HandshakeTimeout time.Duration

	// RequestPause bounds for how long nothing may come in the middle of a request to
	// Raft, such as a snapshot. Default 5 s.
	RequestPause time.Duration

	// MaxHandshakes bounds how many handshakes of accepted connections are
	// under way at once; further ones wait, and slow ones are cut for them.
	// Default 64.
	MaxHandshakes int

	// DialContext opens connections; nil: TCP. Tests put their faults here.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Seams of tests.
	wall func() time.Time // the wall clock, for TLS
	now  func() time.Time // for notices
}

// Port is a node's cluster port. It is safe for concurrent use.
type Port struct {
	cfg        Config
	log        *slog.Logger
	notices    *notices
	handshakes *handshakes
	running    sync.WaitGroup // goroutines of accepted connections, and calls of Serve and of Lost

	ctx    context.Context // done when the port is closed
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows, and the identity of conns
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{} // all that are open
	handlers  map[Purpose]func(*conn)
	layer     *RaftLayer      // the last one
	key       *Key            // nil before the first connection
	cert      tls.Certificate // of the node certNode
	certNode  string
}

// New returns a Port that serves nothing yet; it can dial.
func New(cfg Config) (*Port, error) {
	if cfg.Key == nil || cfg.Self == nil || cfg.Admit == nil {
		return nil, errors.New("cluster port: Key, Self and Admit must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 5 * time.Second
	}
	if cfg.RequestPause <= 0 {
		cfg.RequestPause = 5 * time.Second
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 64
	}
	if cfg.DialContext == nil {
		cfg.DialContext = dialTCP
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	p := &Port{
		cfg:        cfg,
		log:        cfg.Logger,
		notices:    &notices{log: cfg.Logger, now: cfg.now, seen: make(map[noticeKey]*noticed)},
		handshakes: newHandshakes(cfg.MaxHandshakes, cfg.HandshakeTimeout/50),
		listeners:  make(map[net.Listener]struct{}),
		conns:      make(map[*conn]struct{}),
		handlers:   make(map[Purpose]func(*conn)),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := cfg.Self().check(); err != nil {
		return nil, fmt.Errorf("cluster port: this node's own hello: %w", err)
	}
	return p, nil
}

// self is who this node is, and the TLS configuration, for either side, that
// proves it. There is a key.
func (p *Port) self(protocols ...string) (Hello, *tls.Config, error) {
	h := p.cfg.Self()
	if err := h.check(); err != nil {
		return h, nil, fmt.Errorf("cluster port: this node's own hello: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.certNode != h.Node {
		cert, err := p.key.certificate(h.Node)
		if err != nil {
			return h, nil, fmt.Errorf("cluster port: %w", err)
		}
		p.cert, p.certNode = cert, h.Node
	}
	return h, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{p.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection does it, without names and clock
		VerifyConnection:       p.key.verify,
		NextProtos:             protocols,
		SessionTicketsDisabled: true,
		Time:                   p.cfg.wall,
	}, nil
}

// findKey sees to it that there is a key. The first time it may have to be derived, which a
// busy machine takes seconds for: no handshake's time runs meanwhile.
func (p *Port) findKey() error {
	p.mu.Lock()
	there := p.key != nil
	p.mu.Unlock()
	if there {
		return nil
	}
	key, err := p.cfg.Key() // may take its time, and others need the mutex
	if err != nil {
		return fmt.Errorf("cluster port: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == nil {
		p.key = key
	}
	return nil
}

// Rekey has the node prove itself by another key from here on, and closes all
// connections to and from nodes that have proved themselves by one which that does
// not accept.
func (p *Port) Rekey(key *Key) {
	p.mu.Lock()
	p.key, p.certNode = key, ""
	p.mu.Unlock()
	p.closeAll(func(c *conn) bool { return c.proof != nil && key.accepts(c.proof) != nil })
}

// Handle has f called, on a goroutine of its own, for every connection that is
// admitted for the purpose. The connection is closed when f returns; f has to
// return when the connection is closed. A nil f ends the service, not its
// connections. For the purpose Raft there is [Port.Raft].
func (p *Port) Handle(purpose Purpose, f func(c net.Conn, peer Hello)) {
	if f == nil {
		p.handle(purpose, nil)
		return
	}
	p.handle(purpose, func(c *conn) {
		defer c.Close()
		f(c, c.peer)
	})
}

// handle sets the handler of a purpose; it is the handler's to close what it
// is given.
func (p *Port) handle(purpose Purpose, f func(*conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers[purpose] = f
}

func (p *Port) handler(purpose Purpose) func(*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handlers[purpose]
}

// CloseNode closes all connections to and from a node: it was removed, or it
// has moved. New ones are Admit's to refuse: if that refuses a node before
// CloseNode is called, then no connection of the node is left over.
func (p *Port) CloseNode(node string) {
	p.closeAll(func(c *conn) bool { return c.peer.Node == node })
}

// ClosePurpose closes all connections for a purpose.
func (p *Port) ClosePurpose(purpose Purpose) {
	p.closeAll(func(c *conn) bool { return c.purpose == purpose })
}

// closeAll closes the connections for which which says so, under the mutex.
func (p *Port) closeAll(which func(*conn) bool) {
	p.mu.Lock()
	var chosen []*conn
	for c := range p.conns {
		if which(c) {
			chosen = append(chosen, c)
		}
	}
	p.mu.Unlock()
	for _, c := range chosen {
		c.Close()
	}
}

// Close closes all listeners and all connections at once, fails calls of Dial
// that are under way, and returns when handlers and Serve have returned. It
// must not be called by a handler.
func (p *Port) Close() error {
	p.cancel() // ends the RaftLayer too; before the listeners, so that Serve knows why they end
	p.mu.Lock()
	p.closed = true
	for l := range p.listeners {
		l.Close()
	}
	p.mu.Unlock()
	p.closeAll(func(*conn) bool { return true })
	p.running.Wait()
	return nil
}
