package latch

import "time"

// keyed is what the connection of a keyed member has beyond that of a plain one;
// PROTOCOL.md, Keyed members. It has no key: that is the Elections'.
type keyed struct {
	finEnds bool          // a FIN of the client's own says that it has stopped
	asked   bool          // a PING is with the Elections
	owed    bool          // its answer waits to be written
	early   bool          // a PING in the buffer is one too many, for now
	lasts   time.Duration // what the answer says
	next    time.Time     // when the next PING may be answered
}

// ping has the Elections answer a PING. It reports false if it came too soon after the one
// before: then it waits in the buffer. mu is held.
func (c *conn) ping() bool {
	k, now := c.keyed, time.Now()
	if k.early = now.Before(k.next); k.early {
		return false
	}
	k.next = now.Add(time.Second / time.Duration(c.srv.cfg.MaxPings))
	if k.asked = c.membership.Alive(); !k.asked {
		c.end(errNotLive)
	}
	return true
}

// Alive implements [Member].
func (c *conn) Alive(lasts time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.keyed
	if c.state != joined || k == nil || !k.asked {
		return
	}
	k.asked, k.owed, k.lasts = false, true, max(lasts, 0)
	if c.push(); c.state != ended {
		c.stays = false
		c.arm() // for what waits behind the PING
	}
}

// leave ends the connection of a client that has sent LEAVE. What is still on its way to it
// does not matter: it believes nothing more that it reads here. mu is held.
func (c *conn) leave() {
	c.stopped = true
	c.finished(byLeave, errLeft)
	c.why = whyLeft
}

// finStops reports whether a FIN of the client's own that is read now says that the client
// has stopped. One with a key may go on elsewhere, unless its JOIN said otherwise, and the node itself has
// not begun to end the connection: the client may be answering that. mu is held.
func (c *conn) finStops() bool {
	k := c.keyed
	return k == nil || k.finEnds && c.state <= joined
}
