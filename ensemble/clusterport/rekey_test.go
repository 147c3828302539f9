package clusterport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The four states of a node while the cookie is changed, in their order.
var rekeying = []*Key{ourKey, ourKey.Accepting(otherKey), otherKey.Accepting(ourKey), otherKey}

// A node lets in, and is let in by, those that are in the same state or one before or behind,
// and no others.
func TestNodesOfTwoCookies(t *testing.T) {
	var nodes []*node
	for i, key := range rekeying {
		nodes = append(nodes, start(t, fmt.Sprint("n", i), func(cfg *Config) { cfg.Key = holding(key) }))
	}
	for i, a := range nodes {
		for j, b := range nodes {
			if i == j {
				continue
			}
			for _, purpose := range []Purpose{Admin, Join} {
				near := max(i, j)-min(i, j) == 1
				c, _, err := a.Dial(t.Context(), purpose, b.addr, b.id)
				switch {
				case err == nil:
					c.Close()
					if !near {
						t.Errorf("%s, state %d, talks to state %d", purpose, i, j)
					}
				case near || !errors.Is(err, ErrWrongCookie):
					t.Errorf("%s, state %d to state %d: %v", purpose, i, j, err)
				}
			}
		}
	}
}

// Who dials a node with another cookie says so itself, once in a while: Raft keeps it to
// itself, and the other node's log is elsewhere.
func TestADiallerNamesAnotherCookie(t *testing.T) {
	for name, keys := range map[string][2]*Key{
		"which it does not accept": {ourKey, otherKey},
		"which does not accept it": {rekeying[2], rekeying[0]}, // found out behind the dialler's own handshake
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, "a", func(cfg *Config) { cfg.Key = holding(keys[0]) })
			b := start(t, "b", func(cfg *Config) { cfg.Key = holding(keys[1]) })
			for range 3 {
				if _, _, err := a.Dial(t.Context(), Admin, b.addr, "b"); !errors.Is(err, ErrWrongCookie) {
					t.Fatalf("error is %v, want ErrWrongCookie", err)
				}
			}
			const line = `level=WARN msg="a node has another cookie"`
			if lines := a.log.lines(""); len(lines) != 1 || !strings.Contains(lines[0], line) || !strings.Contains(lines[0], "remote="+b.addr) {
				t.Errorf("logged %q, want one warning", lines)
			}
			a.later(noticeInterval)
			a.Dial(t.Context(), Admin, b.addr, "b")
			if lines := a.log.lines(line); len(lines) != 2 || !strings.Contains(lines[1], "omitted=2") {
				t.Errorf("logged %q, want a second warning", lines)
			}
		})
	}
}

// Nodes take one step after the other while they are connected: what is open stays open as
// long as the other side's proof is accepted, and what comes later goes by the new keys.
func TestRekey(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	fromA, fromB := a.to(b, Forward), b.to(a, Forward)
	for i, key := range rekeying[1:] {
		for _, n := range []*node{a, b} {
			n.Rekey(key)
			c := a.to(b, Admin)
			wantEcho(t, c)
			c.Close()
		}
		if i < 2 {
			wantEcho(t, fromA)
			wantEcho(t, fromB)
		}
	}
	wantEnd(t, fromA) // each was proved by the old cookie, on both sides
	wantEnd(t, fromB)
	stranger := start(t, "stranger")
	if _, _, err := stranger.Dial(t.Context(), Admin, a.addr, "a"); !errors.Is(err, ErrWrongCookie) {
		t.Errorf("a node with the old cookie: error is %v, want ErrWrongCookie", err)
	}
	eventually(t, "the stranger is named", func() bool { return len(a.log.lines("another distributed_cookie")) == 1 })
	if lines := slices.Concat(a.log.lines(""), b.log.lines("")); len(lines) != 1 {
		t.Errorf("logged %q, want one line about the stranger", lines)
	}
}

// A connection that was just about to be proved by a cookie that is accepted no more is not
// left over.
func TestRekeyDuringAHandshake(t *testing.T) {
	server := start(t, "server")
	began := connect(t, server.addr)
	eventually(t, "the handshake has begun", func() bool {
		server.Port.mu.Lock()
		defer server.Port.mu.Unlock()
		return len(server.conns) == 1
	})
	proved := tlsClient(t, connect(t, server.addr), clientTLS(ourKey, "a"))
	eventually(t, "the other one has proved itself", func() bool {
		server.Port.mu.Lock()
		defer server.Port.mu.Unlock()
		for c := range server.conns {
			if c.proof != nil {
				return true
			}
		}
		return false
	})
	server.Rekey(otherKey)
	wantEnd(t, proved)
	c := tls.Client(began, clientTLS(ourKey, "a"))
	if c.Handshake() == nil {
		c.Write(encoded(t, message{Hello: hello("a")}))
		m, err := readMessage(c)
		if err == nil && m.Refusal == nil {
			t.Error("let in by a cookie that is accepted no more")
		}
	}
}

// A key that is derived while there is a newer one does not take its place.
func TestRekeyWhileTheFirstKeyIsDerived(t *testing.T) {
	deriving, derived := make(chan struct{}), make(chan struct{})
	a := start(t, "a", func(cfg *Config) {
		cfg.Key = func() (*Key, error) {
			close(deriving)
			<-derived
			return ourKey, nil
		}
	})
	b := start(t, "b", func(cfg *Config) { cfg.Key = holding(otherKey) })
	dialled := make(chan error, 1)
	go func() {
		c, _, err := a.Dial(t.Context(), Admin, b.addr, "b")
		if err == nil {
			c.Close()
		}
		dialled <- err
	}()
	<-deriving
	a.Rekey(otherKey)
	close(derived)
	if err := <-dialled; err != nil {
		t.Error(err)
	}
	wantEcho(t, a.to(b, Admin))
}
