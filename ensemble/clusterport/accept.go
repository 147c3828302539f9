package clusterport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// Serve accepts connections of l, which should come from [Listen], until the
// port is closed; then it returns [ErrClosed]. It closes l. When descriptors run
// out it waits, up to 250 ms, and tries again; any error that will not pass by
// itself it returns, and leaves the connections that there are.
func (p *Port) Serve(l net.Listener) error {
	defer l.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	p.listeners[l] = struct{}{}
	p.running.Add(1)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.listeners, l)
		p.mu.Unlock()
		p.running.Done()
	}()

	var pause time.Duration
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			p.accepted(raw)
		case p.ctx.Err() != nil:
			return ErrClosed
		case !passes(err):
			return err
		default:
			p.notices.note(slog.LevelWarn, "accept", "", "the cluster port cannot accept connections, trying again", slog.Any("error", err))
			pause = min(max(2*pause, 5*time.Millisecond), 250*time.Millisecond)
			select {
			case <-time.After(pause):
			case <-p.ctx.Done():
			}
		}
	}
}

// accepted starts a connection as soon as there is a place for its handshake.
func (p *Port) accepted(raw net.Conn) {
	place := p.handshakes.begin(raw)
	c, ok := p.track(raw)
	if !ok {
		p.handshakes.end(place)
		return
	}
	p.running.Go(func() { p.serveConn(c, place) }) // Serve, which counts too, is still running
}

func (p *Port) serveConn(c *conn, place *handshake) {
	handler, err := p.welcome(c)
	if err != nil {
		p.failed(c, err, place.cut.Load())
		if !silent(err) {
			farewell(c.raw)
		}
		c.Close()
	}
	p.handshakes.end(place)
	if err == nil {
		c.handedOut()
		handler(c)
	}
}

// welcome performs the server's side of the handshake, up to the answer.
func (p *Port) welcome(c *conn) (handler func(*conn), err error) {
	if err := p.findKey(); err != nil {
		return nil, err
	}
	if err := c.raw.SetDeadline(time.Now().Add(p.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	if err := setOptions(c.raw); err != nil {
		return nil, err
	}
	self, secure, err := p.self(purposes...)
	if err != nil {
		return nil, err
	}
	t := tls.Server(c.raw, secure)
	if err := t.Handshake(); err != nil {
		if plainText(err) {
			io.WriteString(c.raw, "ERROR this is the cluster port of leader-latch, for its nodes only; clients use the address of listener.leader_latch\r\n")
		}
		return nil, err
	}
	if err := c.secured(t); err != nil {
		return nil, err
	}
	hello, err := readMessage(t)
	if err == nil {
		handler, err = p.judge(self, hello.Hello, c)
	}
	if err != nil {
		if !silent(err) {
			writeMessage(t, message{Hello: self, Refusal: refuse(err)}) // err is what counts
		}
		return nil, err
	}
	if err := writeMessage(t, message{Hello: self}); err != nil {
		return nil, err
	}
	return handler, c.raw.SetDeadline(time.Time{})
}

// judge decides about a node that has introduced itself on c.
func (p *Port) judge(self, peer Hello, c *conn) (handler func(*conn), err error) {
	if peer.Node != c.peer.Node {
		return nil, fmt.Errorf("%w: it says that it is node %s, its certificate is that of %s", ErrBadHello, peer.Node, c.peer.Node)
	}
	c.met(peer)
	if err := related(self, peer, c.purpose); err != nil {
		return nil, err
	}
	if err := agree(self, peer); err != nil {
		return nil, err
	}
	if handler = p.handler(c.purpose); handler == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotServed, c.purpose)
	}
	if err := p.cfg.Admit(peer, c.purpose); err != nil {
		return nil, err
	}
	return handler, nil
}

// related reports an error if two nodes may not talk for a purpose because of
// their clusters.
func related(a, b Hello, p Purpose) error {
	switch {
	case p == Join:
		return nil
	case a.Cluster == "":
		return fmt.Errorf("%w: %v has none yet", ErrWrongCluster, a)
	case b.Cluster == "":
		return fmt.Errorf("%w: %v has none yet", ErrWrongCluster, b)
	case a.Cluster != b.Cluster:
		return fmt.Errorf("%w: %v is of cluster %s, %v of cluster %s", ErrWrongCluster, a, a.Cluster, b, b.Cluster)
	}
	return nil
}

// silent reports whether an error says that the other side went away or said
// nothing, and so wants no answer.
func silent(err error) bool { return timedOut(err) || hungUp(err) }

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// plainText reports whether an error says that the other side's first bytes
// were not TLS.
func plainText(err error) bool {
	var e tls.RecordHeaderError
	return errors.As(err, &e) && e.Conn != nil
}

// failed logs a handshake that failed.
func (p *Port) failed(c *conn, err error, cut bool) {
	if p.ctx.Err() != nil {
		return
	}
	level, kind, reason := slog.LevelWarn, codeOf(err), line(err.Error())
	switch {
	case cut:
		kind, reason = "crowded", "too many handshakes at once: the oldest one of this address was cut"
	case plainText(err):
		kind, reason = "plain-text", "it does not speak TLS; clients use the address of listener.leader_latch"
	case errors.Is(err, ErrWrongCookie) || alert(err) == alertBadCertificate:
		kind, reason = "wrong-cookie", ErrWrongCookie.Error()
	case timedOut(err):
		kind, reason = "slow", fmt.Sprintf("no complete handshake within %v", p.cfg.HandshakeTimeout)
	case hungUp(err): // a port scan, or a load balancer that looks whether we live
		level, kind = slog.LevelDebug, "hung-up"
	case c.peer.Node == "":
		kind = "handshake"
	}
	attrs := []slog.Attr{slog.String("remote", c.raw.RemoteAddr().String()), slog.String("reason", reason)}
	if c.peer.Node != "" {
		attrs = append(attrs, slog.String("node", c.peer.String()), slog.String("purpose", string(c.purpose)))
	}
	p.notices.note(level, kind, hostOf(c.raw), "refused a connection to the cluster port", attrs...)
}

// Texts of TLS alerts by the other side, which package tls has no values for.
const (
	alertBadCertificate = "tls: bad certificate"
	alertNoProtocol     = "tls: no application protocol"
)

// alert is the text of the alert by the other side that err is about, if any.
func alert(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}
