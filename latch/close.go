package latch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"syscall"
	"time"
)

// way is how a connection ended, which decides what is left to be done before
// its membership is given back.
type way uint8

const (
	byClient way = iota // the client closed or reset it
	byLoss              // the kernel gave up on the client
	byFIN               // we closed it, with no leader in the send queue
	byLine              // we closed it behind a last line, which must arrive
	byLeave             // the client has sent LEAVE
	byReset             // we closed it with a leader in the send queue, which must not
)

// How long a client may take to close its side, when its kernel has acknowledged our
// FIN. Some never do, and never tell who started them; then a reset tells them, with
// which the kernel lets go of what it has not sent. lastLineGrace is for those that have
// a last line to read. They go on sending until they have; unread input would turn our
// close into a reset and eat the line.
const (
	closeGrace    = 250 * time.Millisecond
	lastLineGrace = 2 * time.Second
)

// reason is why a membership's connection ended, in a word that the Elections know.
type reason uint8

const (
	whyOurs   reason = iota // the node ended it
	whyClosed               // the client did, by a FIN
	whyReset                // it was reset, perhaps not by the client
	whySilent               // the kernel gave up on the client
	whyStuck                // the client took nothing
	whyLeft                 // the client has sent LEAVE
)

func (r reason) String() string {
	return [...]string{"", "closed", "reset", "silent", "stuck", "left"}[r]
}

// left records that a read or a write found the connection at its end. mu is
// held; nothing is written from here on. A client that has only half closed could
// still read what is queued, and would take it for news: those bytes die with
// the descriptor.
func (c *conn) left(err error) {
	c.noteEnd(err)
	if c.state == ended {
		return
	}
	c.finished(byClient, err)
	switch {
	case err == io.EOF:
		c.why = whyClosed
	case clientEnded(err):
		c.why = whyReset
	case c.draining && errors.Is(err, syscall.ETIMEDOUT): // the kernel's own limit was the first to pass
		c.way, c.why, c.cause = byLoss, whyStuck, errStuck
	default:
		c.way, c.why = byLoss, whySilent
	}
	if c.unread() {
		resetOnClose(c.raw)
	}
}

// unread reports whether a line that speaks of leadership may be on its way to
// the client. What is queued before the first LEADER does not matter, and no whole ALIVE
// behind the last: it promises from when the client asked, however late it is. mu is held.
func (c *conn) unread() bool {
	return c.told != (leader{}) && (len(c.out) > 0 || queued(c.raw) > int(c.tail))
}

// end ends the connection without a further line, at once: by a FIN, which the
// kernel repeats until it arrives; or by a reset where a LEADER is queued that must
// not arrive any more, because the node may not speak for the membership now or has
// only written a part of it. As long as it may speak, the FIN goes behind the line:
// a client that has both knows of its end, and acknowledges a FIN at once where it
// would keep a line waiting for 40 ms. mu is held.
func (c *conn) end(cause error) {
	if c.state == ended {
		return
	}
	if c.unread() && (len(c.out) > 0 || !c.membership.Live()) {
		abort(c.raw)
		c.finished(byReset, cause)
		return
	}
	shutdownWrite(c.raw)
	c.tail++
	c.finished(byFIN, cause)
}

// endStuck ends the connection of a client that takes nothing. mu is held.
func (c *conn) endStuck() {
	if c.state != ended {
		c.end(errStuck)
		c.why = whyStuck
	}
}

// refuse answers a JOIN that cannot succeed; PROTOCOL.md, Without a majority.
// mu is held. The line is not gated: it speaks of no leadership.
func (c *conn) refuse(cause error) { c.sayLast(appendJoinFailed, cause) }

// sayLast writes a line and, when the kernel has taken all of it, a FIN behind
// it. mu is held, and nothing is being drained: a line is only answered when the
// answers before it are written.
func (c *conn) sayLast(line func(b []byte, crlf bool) []byte, cause error) {
	c.state, c.cause = leaving, cause
	c.say(line)
	c.tail = uint16(len(line(nil, c.crlf)) + 1)
	if c.state == leaving && !c.draining {
		c.hangUp()
	}
}

// hangUp ends the connection behind its last line. mu is held.
func (c *conn) hangUp() {
	shutdownWrite(c.raw)
	c.finished(byLine, c.cause)
}

// finished marks the connection as ended and wakes whoever waits for it.
func (c *conn) finished(w way, cause error) {
	c.state, c.way, c.cause = ended, w, cause
	c.nc.SetDeadline(past)
	c.setTimer(time.Time{})
	c.unpark()
}

// finish is the reader's last act, after the end was decided: it sees to it that
// the client learns of it, closes the descriptor, and gives back the membership.
// No lock is held; state, way, why and cause do not change any more.
func (c *conn) finish() {
	switch c.way {
	case byClient:
		c.nc.Close()
		c.giveBack(true)
	case byLoss, byReset:
		c.nc.Close()
		if c.membership != nil {
			time.Sleep(c.srv.cfg.CloseGrace) // nothing acknowledges a reset
		}
		c.giveBack(false)
	case byFIN:
		acked := c.awaitAck()
		if bound := c.giveBack(acked); acked {
			c.linger(max(bound, c.srv.closeGrace()))
		}
		c.nc.Close()
	case byLeave:
		c.giveBack(true) // first: whoever sees the FIN finds the place free
		shutdownWrite(c.raw)
		c.linger(c.srv.closeGrace())
		c.nc.Close()
	case byLine:
		bound := c.giveBack(c.awaitAck())
		c.logRefusal() // not when the client has closed, which may take a while
		c.linger(max(bound, lastLineGrace))
		c.nc.Close()
	}
	c.closeInput()
	c.srv.forget(c)
	c.logEnd() // the last of all: a log may wait for its disk
}

// giveBack gives the membership back, and how long it goes on because of a promise to its
// client, who may say meanwhile that it has stopped.
func (c *conn) giveBack(acknowledged bool) (bound time.Duration) {
	if c.membership == nil {
		return 0
	}
	if c.hasStopped() {
		c.membership.Stopped()
	}
	return c.membership.Closed(c.why.String(), acknowledged)
}

// noteEnd takes note of how a read or a write ended. The kernel tells an error once: who
// reads after somebody who was told reads an end, which is none of the client's. mu is
// held.
func (c *conn) noteEnd(err error) {
	switch {
	case err == nil || isTimeout(err):
	case err == io.EOF:
		c.stopped = c.stopped || !c.broken && c.finStops()
	default:
		c.broken = true
	}
}

// hasStopped reports whether the client has said that it has stopped.
func (c *conn) hasStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// awaitAck waits until the client's kernel has acknowledged the FIN, or the
// client has closed its side too, or for CloseGrace. A leader that is still
// unacknowledged then, or when the node may not speak for the membership any more, must
// not arrive later: it is cut off by a reset.
func (c *conn) awaitAck() bool {
	end := time.Now().Add(c.srv.cfg.CloseGrace)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if finAcked(c.raw) {
			return true
		}
		if c.membership != nil && !c.membership.Live() && c.cutOff() {
			time.Sleep(time.Until(end)) // nothing acknowledges a reset
			return false
		}
		left := time.Until(end)
		if left <= 0 {
			break
		}
		c.nc.SetReadDeadline(time.Now().Add(min(pause, left)))
		if err := c.discard(); !isTimeout(err) {
			if clientEnded(err) {
				c.cutOff() // it may have closed one half only, and read on
				return true
			}
			time.Sleep(time.Until(end)) // lost just now; nothing more can be learned
			return false
		}
	}
	c.cutOff()
	return false
}

// cutOff resets the connection if a leader is among what the client's kernel
// has not acknowledged: it must not arrive any more. It reports whether that was so.
func (c *conn) cutOff() bool {
	if c.told == (leader{}) || queued(c.raw) <= int(c.tail) {
		return false
	}
	abort(c.raw)
	return true
}

// linger gives a client whose kernel has acknowledged our FIN time to close its side, and
// takes note when it does. If it does not, the close of the descriptor resets the
// connection, unless something has not arrived yet.
func (c *conn) linger(d time.Duration) {
	c.mu.Lock()
	stopped := c.stopped
	if c.srv.closed.Load() {
		c.mu.Unlock()
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(d))
	c.mu.Unlock()
	switch err := c.discard(); {
	case isTimeout(err) && finAcked(c.raw):
		resetOnClose(c.raw)
	case c.membership != nil && !stopped && c.hasStopped():
		c.membership.Stopped()
	}
}

// hurry ends the connection, and its lingering too.
func (c *conn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(errStopping)
	c.nc.SetReadDeadline(past)
}

// discard reads and throws away what the client sends, until the deadline or the
// connection's end, and returns the error of the read.
func (c *conn) discard() error {
	for {
		if _, err := c.nc.Read(c.small[:]); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.noteEnd(err)
			return err
		}
	}
}

// logEnd tells the operator why the connection ended, if that is worth a line.
func (c *conn) logEnd() {
	switch {
	case c.cause == errStuck:
		c.log(slog.LevelWarn, "stuck reader closed", slog.Duration("after", c.srv.cfg.StuckTimeout))
	default:
		c.log(slog.LevelDebug, "connection ended", slog.Any("reason", c.cause))
	}
}

// logRefusal tells the operator that a JOIN was refused, of which there may be very many.
func (c *conn) logRefusal() {
	if c.told != (leader{}) || c.group == "" {
		return
	}
	message := "JOIN refused"
	if c.observes {
		message = "OBSERVE refused"
	}
	if write := c.srv.tally.add(message, c.cause.Error(), c.who); write != nil {
		write()
	}
}

// who is whose connection it is.
func (c *conn) who() []slog.Attr {
	if c.observes {
		return []slog.Attr{slog.String("group", c.group), slog.String("remote", c.nc.RemoteAddr().String())}
	}
	return []slog.Attr{
		slog.String("group", c.group), slog.String("client", c.client),
		slog.String("remote", c.nc.RemoteAddr().String()),
	}
}

// logAsked tells that a JOIN was asked for. The goroutine of all that are parked must not
// wait for a log: there the line may come after those about what became of the JOIN.
func (c *conn) logAsked() {
	message := "JOIN asked for"
	if c.observes {
		message = "OBSERVE asked for"
	}
	if !c.attended {
		c.log(slog.LevelDebug, message)
	} else if c.srv.log.Enabled(context.Background(), slog.LevelDebug) {
		c.srv.running.Go(func() { c.log(slog.LevelDebug, message) })
	}
}

// log must not be called with mu held: a log may wait for its disk.
func (c *conn) log(level slog.Level, message string, attrs ...slog.Attr) {
	ctx := context.Background()
	if !c.srv.log.Enabled(ctx, level) {
		return
	}
	c.srv.log.LogAttrs(ctx, level, message, append(attrs, c.who()...)...)
}
