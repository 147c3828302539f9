package clusterport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Dial connects to the cluster port at an address, host:port, which is resolved
// anew each time. node is the id of the node that has to answer there; if it is
// empty, any may. Dial also returns how that node has introduced itself.
//
// It takes at most HandshakeTimeout. Errors wrap those of this package; if the
// other node refused, there is a [RefusedError] among them.
func (p *Port) Dial(ctx context.Context, purpose Purpose, address, node string) (net.Conn, Hello, error) {
	c, err := p.dial(ctx, purpose, address, node)
	if err != nil {
		return nil, Hello{}, fmt.Errorf("cluster port %s: %w", address, err)
	}
	return c, c.peer, nil
}

func (p *Port) dial(ctx context.Context, purpose Purpose, address, node string) (*conn, error) {
	if err := p.findKey(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()

	raw, err := p.cfg.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, p.because(ctx, err)
	}
	c, ok := p.track(raw)
	if !ok {
		return nil, ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	err = p.introduce(c, purpose, node)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err == nil {
		return c, nil
	}
	c.Close()
	if errors.Is(err, ErrWrongCookie) { // Raft would keep that to itself, too
		p.notices.note(slog.LevelWarn, "other-cookie", hostOf(raw), "a node has another cookie",
			slog.String("remote", raw.RemoteAddr().String()), slog.String("reason", err.Error()))
	}
	if refused := (*RefusedError)(nil); p.cfg.Refused != nil && errors.As(err, &refused) {
		p.cfg.Refused(refused)
	}
	return nil, p.because(ctx, err)
}

// because names the reason of an error that came of the context's end.
func (p *Port) because(ctx context.Context, err error) error {
	switch {
	case p.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil && (errors.Is(err, ctx.Err()) || silent(err)):
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	return err
}

// introduce performs the dialler's side of the handshake.
func (p *Port) introduce(c *conn, purpose Purpose, node string) error {
	if err := setOptions(c.raw); err != nil {
		return err
	}
	self, secure, err := p.self(string(purpose))
	if err != nil {
		return err
	}
	if purpose == Join {
		// It only asks, and whom it joins it joins as a new node, whatever it writes now.
		self.Formats.Writes = self.Formats.Oldest
	}
	t := tls.Client(c.raw, secure)
	if err := t.Handshake(); err != nil {
		return explain(err)
	}
	if err := c.secured(t); err != nil {
		return err
	}
	if err := writeMessage(t, message{Hello: self}); err != nil {
		return explain(err)
	}
	answer, err := readMessage(t)
	if err != nil {
		return explain(err)
	}
	peer := answer.Hello
	if peer.Node != c.peer.Node {
		return fmt.Errorf("%w: it says that it is node %s, its certificate is that of %s", ErrBadHello, peer.Node, c.peer.Node)
	}
	c.met(peer)
	// The cluster comes first: what another one thinks of this node, say that
	// it was removed, is of no concern.
	if err := related(self, peer, purpose); err != nil {
		if answer.Refusal != nil {
			return &RefusedError{Peer: peer, Purpose: purpose, Reason: line(err.Error()), kind: ErrWrongCluster}
		}
		return err
	}
	if answer.Refusal != nil {
		return answer.Refusal.error(peer, purpose)
	}
	if node != "" && peer.Node != node {
		return fmt.Errorf("%w: %v (node %s), not node %s", ErrWrongNode, peer, peer.Node, node)
	}
	if t.ConnectionState().NegotiatedProtocol != string(purpose) {
		return fmt.Errorf("%w: %s", ErrNotServed, purpose)
	}
	return agree(self, peer)
}

// explain finds the reason in an error of TLS.
func explain(err error) error {
	switch {
	case plainText(err):
		return ErrNotTLS
	case alert(err) == alertBadCertificate:
		return ErrWrongCookie
	case alert(err) == alertNoProtocol:
		return fmt.Errorf("%w: the node is of another version", ErrNotServed)
	case !timedOut(err) && hungUp(err):
		return fmt.Errorf("closed during the handshake: %w", err)
	}
	return err
}
