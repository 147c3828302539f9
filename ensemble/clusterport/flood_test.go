package clusterport

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestSlowHandshakesAreCut: whatever a client says, and how slowly, its
// handshake ends in time.
func TestSlowHandshakesAreCut(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, client := range map[string]func(net.Conn){
		"nothing": func(net.Conn) {},
		"a byte now and then": func(c net.Conn) {
			for _, b := range []byte{22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3} {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(timeout / 8)
			}
		},
		"TLS, and then nothing": func(c net.Conn) { tls.Client(c, clientTLS(ourKey, "a")).Handshake() },
		"half a hello": func(c net.Conn) {
			tls.Client(c, clientTLS(ourKey, "a")).Write([]byte{0, 100, '{'})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "server", func(cfg *Config) { cfg.HandshakeTimeout = timeout })
			began := time.Now() // the server's time may begin before connect returns
			c := connect(t, n.addr)
			client(c)
			wantEnd(t, c)
			if took := time.Since(began); took < timeout-10*time.Millisecond {
				t.Errorf("cut after %v, want %v", took, timeout)
			}
			eventually(t, "it is logged", func() bool { return len(n.log.lines("kind=slow")) == 1 })
		})
	}
}

// TestSilentClientsStopNobody: they hold every place, and more are waiting.
func TestSilentClientsStopNobody(t *testing.T) {
	n := start(t, "server", func(cfg *Config) {
		cfg.HandshakeTimeout = 5 * time.Second
		cfg.MaxHandshakes = 8
	})
	for range 24 {
		connect(t, n.addr)
	}
	a := start(t, "a")
	began := time.Now()
	wantEcho(t, a.to(n, Admin))
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a node was kept waiting for %v", took)
	}
	if len(n.log.lines("kind=crowded")) != 1 {
		t.Errorf("logged %q, want one line of kind=crowded", n.log.lines(""))
	}
}

// TestThousandBadConnections take neither goroutines nor memory nor log, and
// nodes get through.
func TestThousandBadConnections(t *testing.T) {
	const limit = 16
	n := start(t, "server", func(cfg *Config) {
		cfg.HandshakeTimeout = 2 * time.Second // so the grace is 40 ms
		cfg.MaxHandshakes = limit
	})
	a := start(t, "a")
	wantEcho(t, a.to(n, Admin))
	cfg := clientTLS(otherKey, "a")
	before, heapBefore := runtime.NumGoroutine(), heap()
	var most int
	var mostHeap uint64
	for i := range 1000 {
		c := connect(t, n.addr)
		switch i % 4 {
		case 0:
			io.WriteString(c, "JOIN group client\n")
		case 1:
			c.Write([]byte{22, 3, 1, 64, 0, 1, 0, 0x3f, 0xfc}) // announces 16 KiB
		case 2:
			if i%40 == 2 { // costs time
				c.SetDeadline(time.Now().Add(50 * time.Millisecond))
				tls.Client(c, cfg).Handshake()
			}
		}
		most = max(most, runtime.NumGoroutine())
		if i%100 == 99 {
			mostHeap = max(mostHeap, heap())
		}
	}
	wantEcho(t, a.to(n, Admin))
	// The two nodes' own: the handler, and what waits for contexts.
	if most > before+limit+6 {
		t.Errorf("%d goroutines, %d before; want at most %d more", most, before, limit+6)
	}
	if grown := int64(mostHeap - heapBefore); grown > 16<<20 {
		t.Errorf("%d MiB more are in use", grown>>20)
	}
	if lines := n.log.lines("level=WARN"); len(lines) > 8 {
		t.Errorf("%d lines are logged: %q", len(lines), lines)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestVictim: it is the oldest of the address that has most.
func TestVictim(t *testing.T) {
	for _, c := range []struct{ hosts, cut, want string }{
		{"a", "", "0"},
		{"ab", "", "0"},
		{"abb", "", "1"},
		{"abbaa", "", "0"},
		{"aabb", "0", "2"},
		{"ab", "0", "1"},
		{"ab", "01", "none"},
		{"", "", "none"},
	} {
		h := newHandshakes(len(c.hosts), time.Second)
		for i, host := range c.hosts {
			s := &handshake{host: string(host)}
			s.cut.Store(strings.Contains(c.cut, fmt.Sprint(i)))
			h.under = append(h.under, s)
		}
		got := "none"
		for i, s := range h.under {
			if s == h.victim() {
				got = fmt.Sprint(i)
			}
		}
		if got != c.want {
			t.Errorf("handshakes of %q, of which %q are cut: the victim is %s, want %s", c.hosts, c.cut, got, c.want)
		}
	}
}

// TestNoticesAreBounded: many addresses get lines of their own, but not any
// number.
func TestNoticesAreBounded(t *testing.T) {
	n := start(t, "server")
	ip := netip.MustParseAddr("fd00::1")
	for range 5 * maxNotices {
		n.notices.note(0, "kind", ip.String(), "text")
		ip = ip.Next()
	}
	if lines := len(n.log.lines("text")); lines != maxNotices+1 {
		t.Errorf("%d lines, want one for each of %d addresses and one for all others", lines, maxNotices)
	}
	n.later(noticeInterval)
	n.notices.note(0, "kind", ip.String(), "text")
	if kept := len(n.notices.seen); kept > 2 {
		t.Errorf("%d addresses are remembered after the interval, want 1", kept)
	}
}
