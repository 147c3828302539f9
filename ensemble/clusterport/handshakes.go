package clusterport

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// handshakes bounds how many handshakes of accepted connections are under way
// at once. When there are as many, a further one waits for a place; and if none
// comes free, because the others are slow or say nothing at all, then the
// oldest one of the address that has most of them is cut. So strangers that
// hold connections open take places from each other, not from nodes.
type handshakes struct {
	max   int
	grace time.Duration // a handshake is not cut before it had so long
	freed chan struct{} // has room for one

	mu    sync.Mutex
	under []*handshake // in the order in which they began
}

// handshake is one that is under way.
type handshake struct {
	conn  net.Conn
	host  string
	began time.Time
	cut   atomic.Bool
}

func newHandshakes(limit int, grace time.Duration) *handshakes {
	return &handshakes{max: limit, grace: grace, freed: make(chan struct{}, 1)}
}

// begin takes a place for the connection, waiting for one if need be.
func (h *handshakes) begin(c net.Conn) *handshake {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.under) >= h.max {
		wait := h.grace
		if v := h.victim(); v != nil {
			if wait -= time.Since(v.began); wait <= 0 {
				v.cut.Store(true)
				v.conn.Close()
				wait = h.grace
			}
		}
		h.mu.Unlock()
		select {
		case <-h.freed:
		case <-time.After(wait):
		}
		h.mu.Lock()
	}
	s := &handshake{conn: c, host: hostOf(c), began: time.Now()}
	h.under = append(h.under, s)
	return s
}

// end gives the place back.
func (h *handshakes) end(s *handshake) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.under, s)
	h.under = slices.Delete(h.under, i, i+1)
	select {
	case h.freed <- struct{}{}:
	default:
	}
}

// victim is the oldest handshake of the address that has most of those that
// are not cut yet; nil if all are.
func (h *handshakes) victim() (v *handshake) {
	count := make(map[string]int)
	for _, s := range h.under {
		if !s.cut.Load() {
			count[s.host]++
		}
	}
	for _, s := range h.under {
		if !s.cut.Load() && (v == nil || count[s.host] > count[v.host]) {
			v = s
		}
	}
	return v
}
