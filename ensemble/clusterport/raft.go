package clusterport

import (
	"context"
	"fmt"
	"net"
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
	conns  chan net.Conn
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
	l := &RaftLayer{port: p, lookup: lookup, conns: make(chan net.Conn)}
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
			return c, nil
		}
		c.Close()
	case <-l.ctx.Done():
	}
	return nil, ErrClosed
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
