package clusterport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// RaftLayer is what a [raft.NetworkTransport] stands on. It has to be set as
// both Stream and ServerAddressProvider of the transport's configuration.
//
// The transport dials, and pools its connections, by address; but an RPC must
// never reach another server than meant, whoever has its address now. So as an
// address provider the layer gives the transport "addresses" that are made of
// the server's id alone. When one is dialled, it looks up the real address and
// lets only that server answer.
type RaftLayer struct {
	port   *Port
	lookup func(node string) (address string, err error)
	conns  chan *conn
	ctx    context.Context // done when the layer is closed
	cancel context.CancelFunc
}

var (
	_ raft.StreamLayer           = (*RaftLayer)(nil)
	_ raft.ServerAddressProvider = (*RaftLayer)(nil)
)

// Raft returns a layer for a Raft transport, and has the port serve the purpose
// [Raft] until the layer is closed. lookup gives the address of a node at which
// to dial it now; it is called from any goroutine. There is one layer at a
// time: an older one is closed.
func (p *Port) Raft(lookup func(node string) (address string, err error)) *RaftLayer {
	l := &RaftLayer{port: p, lookup: lookup, conns: make(chan *conn)}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	for {
		p.mu.Lock()
		older := p.layer
		if older == nil {
			p.layer = l
			p.handlers[Raft] = l.hand
			p.mu.Unlock()
			return l
		}
		p.mu.Unlock()
		older.Close()
	}
}

// hand gives an accepted connection to who calls Accept.
func (l *RaftLayer) hand(c *conn) {
	patience := time.NewTimer(l.port.cfg.HandshakeTimeout)
	defer patience.Stop()
	select {
	case l.conns <- c:
	case <-l.ctx.Done():
		c.Close()
	case <-patience.C:
		c.Close()
	}
}

// Accept implements [net.Listener].
func (l *RaftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		if l.ctx.Err() == nil {
			return &requests{Conn: c, pause: l.port.cfg.RequestPause, hangUp: func() {
				l.port.closeAll(func(other *conn) bool { return other.purpose == Raft && other.peer.Node == c.peer.Node })
			}}, nil
		}
		c.Close()
	case <-l.ctx.Done():
	}
	return nil, ErrClosed
}

// requests is a connection on which another node's requests come in, each of which is
// answered before the next one is read. Between two of them it may be silent for ever, but
// not within one: Raft reads a snapshot on its main goroutine, and neither votes nor
// stands for election nor follows anybody before that has ended. The other node may hang
// in its disk, or be frozen, while its kernel goes on to answer. So who stops in the middle
// of a request, for as long as the pause, is hung up on: on all its connections for Raft, as
// it may have tried anew meanwhile, and stopped again, and Raft would wait for each.
type requests struct {
	net.Conn
	pause  time.Duration
	hangUp func()
	within bool // a request has begun, and is not answered. One goroutine at a time reads or writes
}

func (r *requests) Read(b []byte) (int, error) {
	var until time.Time
	if r.within {
		until = time.Now().Add(r.pause)
	}
	if err := r.Conn.SetReadDeadline(until); err != nil {
		return 0, err
	}
	n, err := r.Conn.Read(b)
	r.within = r.within || n > 0
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.hangUp() // else Raft would go on to read what is left of the snapshot
		err = fmt.Errorf("a request stopped in its middle, and nothing came for %v: %w", r.pause, err)
	}
	return n, err
}

func (r *requests) Write(b []byte) (int, error) {
	r.within = false
	return r.Conn.Write(b)
}

// Close implements [net.Listener]. It closes all of Raft's connections, which
// the transport would leave open.
func (l *RaftLayer) Close() error {
	l.cancel()
	l.port.mu.Lock()
	current := l.port.layer == l
	if current {
		l.port.layer = nil
		delete(l.port.handlers, Raft)
	}
	l.port.mu.Unlock()
	if current {
		l.port.ClosePurpose(Raft)
	}
	return nil
}

// Addr implements [net.Listener]: the address that this node tells others.
func (l *RaftLayer) Addr() net.Addr { return advertised(l.port.cfg.Self().Address) }

type advertised string

func (a advertised) Network() string { return "tcp" }
func (a advertised) String() string  { return string(a) }

// serverPrefix marks what is a server's id in place of an address.
const serverPrefix = "node:"

// ServerAddr implements [raft.ServerAddressProvider]. This node's own address,
// which Raft tells to others, stays one.
func (l *RaftLayer) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if self := l.port.cfg.Self(); string(id) == self.Node {
		return raft.ServerAddress(self.Address), nil
	}
	return serverPrefix + raft.ServerAddress(id), nil
}

// Dial implements [raft.StreamLayer]. It dials only what ServerAddr gave.
func (l *RaftLayer) Dial(server raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, ok := strings.CutPrefix(string(server), serverPrefix)
	if !ok || node == "" {
		return nil, fmt.Errorf("raft dials %q, which names no node; the transport needs the RaftLayer as its ServerAddressProvider", server)
	}
	ctx := l.ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	address, err := l.lookup(node)
	if err != nil {
		return nil, fmt.Errorf("address of node %s: %w", node, err)
	}
	c, _, err := l.port.Dial(ctx, Raft, address, node)
	if err == nil && l.ctx.Err() != nil {
		c.Close()
		return nil, ErrClosed
	}
	return c, err
}
