package ensemble

import (
	"fmt"
	"slices"
	"time"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/session"
)

// virtualClient is a client and its connection, which is next to the node.
type virtualClient struct {
	w           *world
	host        *host
	group, name string
	membership  *session.Membership

	// Guarded by the world's mutex.
	told    string
	token   uint64
	ending  bool // its node is to end the connection
	closing bool // and does
	closed  bool
	stood   time.Duration // since when it was told nothing, as its node stood still; 0: it did not
	wentOn  time.Duration // when that went on; 0: it stands still
	another bool          // leads, says another node, while this one was believed

	until time.Duration // it may lead by its clock, whatever becomes of its connection

	asked, answered, ended time.Duration
	answer                 string // the first leader it was told
}

// end closes the connection. The world's mutex is held.
func (c *virtualClient) end() {
	if c.closed {
		return
	}
	c.closed, c.ended = true, time.Since(c.w.began)
	late := time.Duration(0)
	if c.wentOn > 0 {
		late = c.ended - c.wentOn
	}
	if c.stood > 0 {
		c.ended = c.stood // its membership may have ended since then
	}
	if !c.another {
		return
	}
	c.w.stale = append(c.w.stale, late)
	if most := session.Normal.Lease + session.Normal.Close; late > most {
		c.w.fail("%s %s at %s was closed only %v after its machine went on, want %v", c.group, c.name, c.host.name, late, most)
	}
}

func (w *world) join(h *host) {
	w.joinAs(h, fmt.Sprint("g", w.rng.IntN(3)), fmt.Sprint("c", w.rng.IntN(5)))
}

func (w *world) joinAs(h *host, group, name string) {
	if h.node == nil {
		return
	}
	c := &virtualClient{w: w, host: h, group: group, name: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := h.node.Join(c.group, c.name, c)
	if err != nil {
		return
	}
	c.membership, c.asked = m, time.Since(w.began)
	w.everybody = append(w.everybody, c)
	w.clients = append(slices.DeleteFunc(w.clients, func(c *virtualClient) bool { return c.closed && c.until < c.asked }), c)
}

// Promised implements Member.
func (*virtualClient) Waits(string) {}

func (c *virtualClient) Promised()         { c.again() }
func (*virtualClient) Alive(time.Duration) {}

// Leader implements Member: the gate, the write and the promise, at one moment.
func (c *virtualClient) Leader(name string, token uint64) {
	if c.w.lucky(0.2) {
		c.host.pass(50 * time.Millisecond)
	} else {
		c.host.pass(1)
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if !c.mayWrite() {
		return
	}
	term := fmt.Sprint(c.group, " ", token)
	switch before := c.w.leaders[term]; {
	case token < c.token || token == c.token && name != c.told:
		c.w.fail("%s %s is told %s with token %d after %s with %d", c.group, c.name, name, token, c.told, c.token)
	case before != "" && before != name:
		c.w.fail("%s has two leaders of token %d: %s and %s", c.group, token, before, name)
	}
	c.w.leaders[term] = name
	if c.told == "" {
		c.answer, c.answered = name, time.Since(c.w.began)
	}
	c.told, c.token = name, token
	c.writes("LEADER " + name)
}

// again is a further JOIN on the connection. ALREADY_JOINED tells a leader that it leads
// still, and for S - L from now on.
func (c *virtualClient) again() {
	c.w.mu.Lock()
	sent := time.Since(c.w.began)
	asks := c.host.goesOn == nil && c.told != "" && c.mayWrite()
	c.w.mu.Unlock()
	if !asks {
		return
	}
	if now, later := c.membership.Promise(); later || !now && c.w.mutate != mutation.NoSwitchNoGate {
		return // it asks again, or its connection is ended by the next line
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.mayWrite() {
		c.writes("ALREADY_JOINED")
		if c.told == c.name {
			c.until = sent + session.Normal.Expiry - session.Normal.Lease
		}
	}
}

// stops is what a client does before it closes its own side.
func (c *virtualClient) stops() {
	c.w.mu.Lock()
	c.until = 0
	c.w.mu.Unlock()
	c.membership.Stopped()
}

// mayWrite is the gate. Where it is shut the connection is ended. The world's mutex is
// held.
func (c *virtualClient) mayWrite() bool {
	switch {
	case c.closed || c.closing:
		return false
	case c.membership.Live() || c.w.mutate == mutation.NoSwitchNoGate:
		return true
	}
	go c.Close()
	return false
}

// writes holds a line against the promise: whoever is told to lead is the only one.
// The world's mutex is held.
func (c *virtualClient) writes(line string) {
	c.stood, c.wentOn = 0, 0
	c.w.told++
	c.w.history = append(c.w.history, fmt.Sprintf("%8.3f %s tells %s %s: %s", time.Since(c.w.began).Seconds(), c.host.name, c.group, c.name, line))
	if c.told != c.name {
		return
	}
	for _, o := range c.w.clients {
		switch {
		case o == c || o.group != c.group || o.told != o.name:
		case o.closed && o.until > time.Since(c.w.began):
			c.w.fail("%s leads %s at %s, and %s at %s may until %v", c.name, c.group, c.host.name, o.name, o.host.name, o.until)
		case o.closed:
		case o.stood > 0:
			o.another = true
		default:
			c.w.fail("two lead %s: %s at %s and %s at %s", c.group, o.name, o.host.name, c.name, c.host.name)
		}
	}
}

// Close implements Member: the node's own end of the connection, which takes its
// time, and which its client sees after a while, or too late to be waited for.
func (c *virtualClient) Close() {
	c.w.mu.Lock()
	was := c.ending || c.closed
	c.ending = true
	before := c.closedBefore()
	c.w.mu.Unlock()
	if was {
		return
	}
	go func() {
		if before {
			c.membership.Closed("closed", true)
		}
		c.host.pass(1)
		c.w.mu.Lock()
		c.closing = true
		c.w.mu.Unlock()
		c.host.pass(session.Normal.Close / 3)
		c.w.mu.Lock()
		was := c.closed
		c.end()
		c.w.mu.Unlock()
		if before || was {
			return
		}
		knows := c.w.lucky(0.9)
		if knows {
			time.Sleep(50 * time.Millisecond)
		} else {
			time.Sleep(session.Normal.Expiry - session.Normal.Lease)
		}
		c.membership.Closed("closed", knows)
		if knows && c.w.lucky(0.5) {
			c.host.pass(300 * time.Millisecond)
			c.stops()
		}
	}()
}

// closedBefore reports whether the missing rule is that the connection has to be
// closed first of all. The world's mutex is held.
func (c *virtualClient) closedBefore() bool {
	switch c.w.mutate {
	case mutation.LeaveBeforeClose:
		return c.membership.Live() && !c.host.stopping
	case mutation.OpenBeforeClose:
		return !c.membership.Live()
	case mutation.EndBeforeClose:
		return c.host.stopping
	}
	return false
}

// hangUp is the client's own end, or a reset, which may come from elsewhere.
func (c *virtualClient) hangUp() {
	c.w.mu.Lock()
	was := c.closed
	c.end()
	c.w.mu.Unlock()
	if !was {
		go func() {
			if c.w.lucky(0.7) {
				c.stops()
			}
			c.host.pass(10 * time.Millisecond)
			c.membership.Closed("closed", true)
		}()
	}
}
