package clusterport

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
)

// conn is a connection that its port knows of, from the first packet to the
// end.
type conn struct {
	net.Conn // TLS, once that is there
	raw      net.Conn
	port     *Port
	once     sync.Once

	// Set under the port's mutex when the other side's certificate is known,
	// and for good before the connection is handed out.
	peer    Hello
	purpose Purpose
	proof   *x509.Certificate // by which the other side has proved itself; nil: it has not yet
	serves  bool              // it was accepted, and handed out
}

// track makes a connection known to the port, so that it is closed with it.
// false: the port is closed, and so is the connection now.
func (p *Port) track(raw net.Conn) (*conn, bool) {
	c := &conn{Conn: raw, raw: raw, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		raw.Close()
		return nil, false
	}
	p.conns[c] = struct{}{}
	return c, true
}

// secured notes that TLS is there, and with whom. From here on CloseNode and Rekey
// find the connection. The key may have been changed meanwhile.
func (c *conn) secured(t *tls.Conn) error {
	cs := t.ConnectionState()
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	c.Conn = t
	c.peer = Hello{Node: certified(cs)}
	c.purpose = Purpose(cs.NegotiatedProtocol)
	c.proof = cs.PeerCertificates[0]
	return c.port.key.accepts(c.proof)
}

// met notes who the other side is.
func (c *conn) met(peer Hello) {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	c.peer = peer
}

// handedOut notes that the connection was accepted, and goes to who serves its purpose.
func (c *conn) handedOut() {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	c.serves = true
}

// Close closes the socket itself and never waits. TLS would announce the end,
// and wait 5 s for a peer that does not read; those who have to know whether
// something is complete have lengths for that.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.raw.Close()
		c.port.mu.Lock()
		defer c.port.mu.Unlock()
		delete(c.port.conns, c)
		if lost := c.port.cfg.Lost; lost != nil && c.serves && c.purpose == Raft && !c.port.closed && !c.port.hears(c.peer) {
			peer := c.peer
			c.port.running.Go(func() { lost(c.port.ctx, peer) })
		}
	})
	return nil
}

// hears reports whether requests of a node to Raft, in the same life, may still come in. The
// mutex is held.
func (p *Port) hears(peer Hello) bool {
	for c := range p.conns {
		if c.serves && c.purpose == Raft && c.peer.Node == peer.Node && c.peer.Life == peer.Life {
			return true
		}
	}
	return false
}
