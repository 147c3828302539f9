package latch

import (
	"time"
)

// answerError answers a line that is no command; PROTOCOL.md, Anything else.
// mu is held.
func (c *conn) answerError() {
	if c.state == joined {
		c.say(appendError)
		return
	}
	if c.bad++; c.bad == maxBadLines {
		c.sayLast(appendError, errBadLines)
		return
	}
	c.say(appendError)
}

// answerAlreadyJoined answers a further JOIN; PROTOCOL.md, Joining twice. It reports false
// if that has to wait for [conn.Promised]. mu is held.
func (c *conn) answerAlreadyJoined() bool {
	now, later := c.membership.Promise()
	switch {
	case now:
		c.say(func(b []byte, crlf bool) []byte {
			return appendAlreadyJoined(b, c.group, c.client, crlf)
		})
	case later:
		c.asks = true
		return false
	default:
		c.end(errNotLive)
	}
	return true
}

// gate reports whether a line that speaks of leadership may be written now. If
// not, it never may again on this connection, and the connection is ended. mu
// is held, and kept until the line is written.
func (c *conn) gate() bool {
	if c.state == joined && !c.membership.Live() {
		c.end(errNotLive)
	}
	return c.state != ended
}

// say writes an answer of the reader's. What the kernel does not take of it is
// drained later, and until then the reader answers nothing further: a client
// that does not read its answers has at most one line of them kept for it. mu
// is held, and nothing is being drained.
func (c *conn) say(line func(b []byte, crlf bool) []byte) {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	w.line = line(w.line[:0], c.crlf)
	c.tail = 0
	n, err := w.write(c.raw)
	if err != nil {
		c.left(err)
	} else if n < len(w.line) {
		c.out = append([]byte(nil), w.line[n:]...)
		c.drainLater()
	}
}

// push writes the newest leader and the answer to a PING, if nothing stands before them. mu
// is held.
func (c *conn) push() {
	if !c.draining && !c.flush() {
		c.drainLater()
	}
}

// flush writes the rest of a line, then the newest leader, and behind it the answer to a
// PING, as far as the kernel takes them. It reports whether nothing is left to write. mu is
// held.
func (c *conn) flush() (done bool) {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	for c.state != ended {
		rest, news := len(c.out) > 0, c.state == joined && c.next != c.told
		answer := c.state == joined && c.keyed != nil && c.keyed.owed
		if !rest && !news && !answer || !c.gate() {
			break
		}
		switch {
		case rest:
			w.line = append(w.line[:0], c.out...)
		case news:
			w.line = c.appendNext(w.line[:0])
		default:
			w.line = appendAlive(w.line[:0], c.keyed.lasts, c.crlf)
		}
		n, err := w.write(c.raw)
		if err != nil {
			c.left(err)
			break
		}
		if n == 0 {
			return false
		}
		switch { // also if only in part: the rest must follow
		case rest:
		case news:
			c.told, c.tail = c.next, 0
		default:
			c.keyed.owed = false
			c.tail = uint16(min(int(c.tail)+n, maxTail))
		}
		c.out = append(c.out[:0], w.line[n:]...)
	}
	c.out = nil
	return true
}

func (c *conn) appendNext(b []byte) []byte {
	if c.next.name == "" {
		return appendNoLeader(b, c.next.token, c.crlf)
	}
	if c.srv.cfg.Fencing {
		return appendFencedLeader(b, c.next.name, c.next.token, c.crlf)
	}
	return appendLeader(b, c.next.name, c.crlf)
}

// maxTail is as much as is worth knowing of the end of a send queue.
const maxTail = 1 << 15

// drainLater starts the goroutine that waits for a stuck client. mu is held.
func (c *conn) drainLater() {
	if c.state != ended {
		c.draining = true
		c.srv.running.Go(c.drain)
	}
}

// stuckChecks is how often in a StuckTimeout it is looked whether the client
// takes anything.
const stuckChecks = 8

// drain writes what is left whenever the client makes room, and ends the
// connection if it takes nothing for StuckTimeout; PROTOCOL.md, When the leader
// changes. It lives until all is written or the connection has ended.
func (c *conn) drain() {
	acked, idle := bytesAcked(c.raw), 0
	for {
		if !c.setDrainDeadline() {
			return
		}
		err := c.raw.Write(func(uintptr) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.flush() {
				return false
			}
			c.drained()
			return true
		})
		if !isTimeout(err) {
			return // drained, or closed
		}
		if n := bytesAcked(c.raw); n != acked {
			acked, idle = n, 0
		} else if idle++; idle == stuckChecks {
			c.mu.Lock()
			c.endStuck()
			c.mu.Unlock()
			return
		}
	}
}

// drained lets the connection go on, or end. mu is held.
func (c *conn) drained() {
	c.draining = false
	switch c.state {
	case ended:
	case leaving:
		c.hangUp()
	default:
		c.stays = false
		c.arm()
	}
}

// setDrainDeadline gives the draining goroutine until its next check. It
// reports false if the connection has ended.
func (c *conn) setDrainDeadline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ended {
		return false
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.StuckTimeout / stuckChecks))
	return true
}
