package latchtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keyed keeps the account of a client with a key, over all its connections. With a hold it
// takes itself for the leader within the promises of its ALIVEs, while the newest LEADER that
// it has read names it; without one while its connection stands (PROTOCOL.md, Keyed members).
// The caller guards it.
type Keyed struct {
	Group, Client string
	Hold          bool // it asked for one

	whole *View // with a hold: what it was promised, whatever became of its connections
	views []*View
	now   *KeyedConn // nil: none
	leads Told       // the newest leader that it has read
}

// KeyedConn is one connection of it.
type KeyedConn struct {
	*View
	of    *Keyed
	asked []time.Duration // of the PINGs that are not answered yet
}

// Connects begins a connection. The one before, if there is one, ends by that.
func (k *Keyed) Connects(now time.Duration, where string) *KeyedConn {
	k.Ends(now)
	if k.whole == nil && k.Hold {
		k.whole = &View{Group: k.Group, Client: k.Client, Where: "with a key", Bounded: true, Keyed: true, End: 1} // it is no connection
		k.views = append(k.views, k.whole)
	}
	c := &KeyedConn{View: &View{Group: k.Group, Client: k.Client, Where: where, Bounded: k.Hold, Keyed: true}, of: k}
	k.views, k.now = append(k.views, c.View), c
	return c
}

// Ends notes that the client has ended its connection, or knows that it has ended.
func (k *Keyed) Ends(now time.Duration) {
	if k.now != nil {
		k.now.End = now
		k.now = nil
	}
}

// Stops notes that the client leads no more, and begins anew as another process.
func (k *Keyed) Stops(now time.Duration) {
	k.Ends(now)
	if k.whole != nil {
		k.whole.Stopped = now
		k.whole = nil
	}
	k.leads = Told{}
}

// Views gives what it saw.
func (k *Keyed) Views() []*View { return k.views }

// Leads gives until when the client takes itself for the leader by its promises; 0: it does not.
func (k *Keyed) Leads(now time.Duration) (until time.Duration) {
	if k.leads.Leader != k.Client || k.whole == nil {
		return 0
	}
	for _, p := range k.whole.Promises {
		if p.To > now {
			until = max(until, p.To)
		}
	}
	return until
}

// Newest is the newest leader that it has read.
func (k *Keyed) Newest() Told { return k.leads }

// Asks notes that the client has taken the time, and is about to send a PING.
func (c *KeyedConn) Asks(now time.Duration) { c.asked = append(c.asked, now) }

// Waits gives since when the client waits for an ALIVE; 0: it does not.
func (c *KeyedConn) Waits() time.Duration {
	if len(c.asked) == 0 {
		return 0
	}
	return c.asked[0]
}

// Reads notes a line. The k-th ALIVE belongs to the k-th PING. What is read of a connection that
// the client has ended does not count.
func (c *KeyedConn) Reads(now time.Duration, line string) error {
	k := c.of
	if k.now != c {
		return nil
	}
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "LEADER":
		token, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("was sent %q", line)
		}
		k.leads = Told{now, f[1], token}
		c.Told = append(c.Told, k.leads)
		if f[1] != c.Client && k.whole != nil {
			for i := range k.whole.Promises { // it believes no more
				k.whole.Promises[i].To = min(k.whole.Promises[i].To, now)
			}
		}
	case len(f) == 2 && f[0] == "ALIVE" && len(c.asked) > 0:
		ms, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil || len(c.Told) == 0 {
			return fmt.Errorf("was sent %q", line)
		}
		asked := c.asked[0]
		if c.asked = c.asked[1:]; k.leads.Leader == c.Client && k.whole != nil && ms > 0 {
			k.whole.Promises = append(k.whole.Promises, Promise{now, asked + time.Duration(ms)*time.Millisecond, k.leads.Token})
		}
	default:
		return fmt.Errorf("was sent %q", line)
	}
	return nil
}
