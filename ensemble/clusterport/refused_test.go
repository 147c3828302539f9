package clusterport

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// hello is what a node of cluster "c1" says.
func hello(node string) Hello {
	return Hello{Cluster: "c1", Node: node, Name: "riak@" + node, Formats: Formats{1, 2, 2}}
}

// raw is a message of any bytes.
func raw(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// TestRefused: who does not belong here is told why, and that is logged once
// per interval.
func TestRefused(t *testing.T) {
	refusing := func(err error) func(*node) {
		return func(n *node) { n.admits(func(Hello, Purpose) error { return err }) }
	}
	// node dials as a proper node that is different in one thing.
	dialling := func(change func(*Hello), cfg ...func(*Config)) func(*testing.T, *node) error {
		return func(t *testing.T, server *node) error {
			c, _, err := start(t, "a", cfg...).is(change).Dial(t.Context(), Admin, server.addr, server.id)
			if err == nil {
				c.Close()
			}
			return err
		}
	}
	// saying is somebody else's client, which may send anything.
	saying := func(key *Key, say []byte, change ...func(*tls.Config)) func(*testing.T, *node) error {
		return func(t *testing.T, server *node) error {
			_, err := speak(t, server.addr, clientTLS(key, "a", change...), say)
			return err
		}
	}
	same := func(*Hello) {}

	for _, c := range []struct {
		name   string
		server func(*node) // prepares it
		dial   func(*testing.T, *node) error
		is     error  // wrapped by the dialler's error
		says   string // in its text
		kind   string // in the server's log
	}{
		{
			name: "wrong cookie",
			dial: dialling(same, func(cfg *Config) { cfg.Key = holding(otherKey) }),
			is:   ErrWrongCookie, says: "distributed_cookie", kind: "wrong-cookie",
		}, {
			name: "certificate of another authority",
			dial: saying(otherKey, nil),
			says: alertBadCertificate, kind: "wrong-cookie",
		}, {
			name: "certificate of its own making",
			dial: saying(ourKey, nil, func(cfg *tls.Config) { cfg.Certificates[0] = selfMade(t) }),
			says: alertBadCertificate, kind: "wrong-cookie",
		}, {
			name: "no certificate",
			dial: saying(ourKey, nil, func(cfg *tls.Config) { cfg.Certificates = nil }),
			says: "certificate required", kind: "handshake",
		}, {
			name: "plain text",
			dial: func(t *testing.T, server *node) error {
				c := connect(t, server.addr)
				defer c.Close()
				io.WriteString(c, "JOIN group client\n")
				text, err := io.ReadAll(c)
				if err != nil {
					return err
				}
				return errors.New(string(text))
			},
			says: "ERROR this is the cluster port", kind: "plain-text",
		}, {
			name: "much plain text",
			dial: func(t *testing.T, server *node) error {
				c := connect(t, server.addr)
				defer c.Close()
				io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\n", 2000))
				text, err := io.ReadAll(c)
				if err != nil {
					return err
				}
				return errors.New(string(text))
			},
			says: "ERROR this is the cluster port", kind: "plain-text",
		}, {
			name: "TLS 1.2",
			dial: saying(ourKey, nil, func(cfg *tls.Config) { cfg.MaxVersion = tls.VersionTLS12 }),
			says: "protocol version not supported", kind: "handshake",
		}, {
			name: "purpose of another version",
			dial: saying(ourKey, nil, func(cfg *tls.Config) { cfg.NextProtos = []string{"leader-latch/gossip"} }),
			says: alertNoProtocol, kind: "handshake",
		}, {
			name: "no purpose",
			dial: saying(ourKey, encoded(t, message{Hello: hello("a")}), func(cfg *tls.Config) { cfg.NextProtos = nil }),
			is:   ErrNotServed, kind: "not-served",
		}, {
			name:   "purpose without a handler",
			server: func(n *node) { n.Handle(Admin, nil) },
			dial:   dialling(same),
			is:     ErrNotServed, says: "leader-latch/admin", kind: "not-served",
		}, {
			name: "wrong cluster",
			dial: dialling(func(h *Hello) { h.Cluster = "c2" }),
			is:   ErrWrongCluster, says: "riak@a is of cluster c2, riak@server of cluster c1", kind: "wrong-cluster",
		}, {
			name: "no cluster",
			dial: dialling(func(h *Hello) { h.Cluster = "" }),
			is:   ErrWrongCluster, says: "riak@a has none yet", kind: "wrong-cluster",
		}, {
			name:   "no cluster at the server",
			server: func(n *node) { n.is(func(h *Hello) { h.Cluster = "" }) },
			dial:   dialling(same),
			is:     ErrWrongCluster, says: "riak@server has none yet", kind: "wrong-cluster",
		}, {
			name:   "unknown node",
			server: refusing(fmt.Errorf("riak@a: %w; join it first", ErrUnknownNode)),
			dial:   dialling(same),
			is:     ErrUnknownNode, says: "join it first", kind: "unknown-node",
		}, {
			name:   "removed node",
			server: refusing(fmt.Errorf("riak@a: %w by riak@b", ErrRemoved)),
			dial:   dialling(same),
			is:     ErrRemoved, says: "by riak@b", kind: "removed",
		}, {
			name:   "another reason of the owner",
			server: refusing(errors.New("we are\nfull\x00")),
			dial:   dialling(same),
			says:   "refused by riak@server: we are full ", kind: "refused",
		}, {
			name: "format that only the dialler reads",
			dial: dialling(func(h *Hello) { h.Formats = Formats{2, 3, 3} }),
			is:   ErrFormat, says: "riak@a writes 3 and reads 2 to 3", kind: "format",
		}, {
			name: "format that only the server reads",
			dial: dialling(func(h *Hello) { h.Formats = Formats{1, 1, 1} }),
			is:   ErrFormat, says: "riak@server writes 2 and reads 1 to 2", kind: "format",
		}, {
			name: "id that is not the certificate's",
			dial: saying(ourKey, encoded(t, message{Hello: hello("b")})),
			is:   ErrBadHello, says: "says that it is node b, its certificate is that of a", kind: "bad-hello",
		}, {
			name: "huge hello",
			dial: saying(ourKey, []byte{0xff, 0xff}),
			is:   ErrBadHello, says: "65535 bytes announced", kind: "bad-hello",
		}, {
			name: "hello that is none",
			dial: saying(ourKey, raw("JOIN group client")),
			is:   ErrBadHello, kind: "bad-hello",
		}, {
			name: "hello of no version",
			dial: saying(ourKey, raw(`{"node":"a","formats":{"oldest":1,"newest":1,"writes":1}}`)),
			is:   ErrBadHello, says: "version 0", kind: "bad-hello",
		}, {
			name: "hello with control characters",
			dial: saying(ourKey, raw(`{"version":1,"node":"a","name":"\u001b[31m","formats":{"oldest":1,"newest":1,"writes":1}}`)),
			is:   ErrBadHello, kind: "bad-hello",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := start(t, "server")
			if c.server != nil {
				c.server(server)
			}
			const times = 4
			for range times {
				err := c.dial(t, server)
				if err == nil {
					t.Fatal("not refused")
				}
				if c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("error is %q, want one that wraps %q", err, c.is)
				}
				if !strings.Contains(err.Error(), c.says) || strings.ContainsAny(strings.TrimSpace(err.Error()), "\n\x00") {
					t.Errorf("error is %q, want one line that contains %q", err, c.says)
				}
			}
			kind := "kind=" + c.kind
			eventually(t, "the refusals are counted", func() bool { return server.omitted(c.kind) == times-1 })
			if lines := server.log.lines(""); len(lines) != 1 || !strings.Contains(lines[0], kind) || !strings.Contains(lines[0], "remote=127.0.0.1:") || !strings.Contains(lines[0], "level=WARN") {
				t.Errorf("logged %q, want one warning of %s", lines, kind)
			}
			server.later(noticeInterval)
			c.dial(t, server)
			eventually(t, "a second line", func() bool { return len(server.log.lines(kind)) == 2 })
			if lines := server.log.lines(fmt.Sprintf("omitted=%d", times-1)); len(lines) != 1 {
				t.Errorf("logged %q, want the number of omitted lines", server.log.lines(""))
			}
		})
	}
}

// omitted is how many lines of a kind about loopback were not logged so far.
func (n *node) omitted(kind string) int {
	n.notices.mu.Lock()
	defer n.notices.mu.Unlock()
	if v := n.notices.seen[noticeKey{kind, "127.0.0.1"}]; v != nil {
		return v.omitted
	}
	return -1
}

// selfMade is a certificate that claims to be of our authority, but is not.
func selfMade(t *testing.T) tls.Certificate {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "a"}, NotBefore: validFrom, NotAfter: validUntil}
	parent := *ourKey.authority
	parent.PublicKey = public
	leaf, err := sign(template, &parent, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ourKey.authority.Raw}, PrivateKey: private}
}

// TestOwnerLearnsOfRefusal: whoever dialled, and for whatever purpose.
func TestOwnerLearnsOfRefusal(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.Raft(nil)
	b.admits(func(h Hello, _ Purpose) error { return fmt.Errorf("%v: %w", h, ErrRemoved) })
	l := a.Raft(func(string) (string, error) { return b.addr, nil })
	if _, err := l.Dial("node:b", patience); !errors.Is(err, ErrRemoved) {
		t.Errorf("error is %v, want ErrRemoved", err)
	}
	heard := a.refusals()
	if len(heard) != 1 || !errors.Is(heard[0], ErrRemoved) || heard[0].Peer != b.self() || heard[0].Purpose != Raft {
		t.Errorf("the owner heard %+v, want that b refuses raft since a was removed", heard)
	}
}

// TestOtherClusterRemovesNobody: two clusters may have the same cookie. What
// another one has removed is of no concern to a node.
func TestOtherClusterRemovesNobody(t *testing.T) {
	a := start(t, "a")
	addr := answering(t, clientTLS(ourKey, "b"), message{
		Hello:   Hello{Cluster: "c2", Node: "b", Formats: Formats{1, 2, 2}},
		Refusal: refuse(ErrRemoved),
	})
	_, _, err := a.Dial(t.Context(), Admin, addr, "")
	if !errors.Is(err, ErrWrongCluster) || errors.Is(err, ErrRemoved) {
		t.Errorf("error is %v, want ErrWrongCluster and not ErrRemoved", err)
	}
	for _, e := range a.refusals() {
		if errors.Is(e, ErrRemoved) {
			t.Error("the owner was told that the node was removed")
		}
	}
}

// answering is the address of a server that gives one answer to all.
func answering(t *testing.T, cfg *tls.Config, answer message) string {
	say := encoded(t, answer)
	return serving(t, func(raw net.Conn) {
		c := tls.Server(raw, cfg)
		if _, err := readMessage(c); err != nil {
			return
		}
		c.Write(say)
		io.Copy(io.Discard, c)
	})
}

// serving is the address of a server that does the same with all.
func serving(t *testing.T, serve func(net.Conn)) string {
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// TestDialRefuses: a dialler looks at who answers, too.
func TestDialRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		addr func(t *testing.T) string
		is   error
		says string
	}{
		{
			name: "another node of the cluster",
			addr: func(t *testing.T) string { return start(t, "c").addr },
			is:   ErrWrongNode, says: "riak@c (node c), not node b",
		}, {
			name: "wrong cookie",
			addr: func(t *testing.T) string {
				return start(t, "b", func(cfg *Config) { cfg.Key = holding(otherKey) }).addr
			},
			is: ErrWrongCookie,
		}, {
			name: "a server of latch clients",
			addr: func(t *testing.T) string {
				return serving(t, func(c net.Conn) {
					c.Read(make([]byte, 1000))
					io.WriteString(c, "ERROR\n")
					io.Copy(io.Discard, c)
				})
			},
			is: ErrNotTLS,
		}, {
			name: "a server that closes",
			addr: func(t *testing.T) string { return serving(t, func(net.Conn) {}) },
			says: "closed during the handshake",
		}, {
			name: "TLS 1.2",
			addr: func(t *testing.T) string {
				cfg := clientTLS(ourKey, "b", func(cfg *tls.Config) { cfg.MaxVersion = tls.VersionTLS12 })
				return answering(t, cfg, message{Hello: hello("b")})
			},
			says: "version",
		}, {
			name: "a server that knows no purposes",
			addr: func(t *testing.T) string {
				cfg := clientTLS(ourKey, "b", func(cfg *tls.Config) { cfg.NextProtos = nil })
				return answering(t, cfg, message{Hello: hello("b")})
			},
			is: ErrNotServed,
		}, {
			name: "a server with other purposes",
			addr: func(t *testing.T) string {
				cfg := clientTLS(ourKey, "b", func(cfg *tls.Config) { cfg.NextProtos = []string{"leader-latch/gossip"} })
				return answering(t, cfg, message{Hello: hello("b")})
			},
			is: ErrNotServed,
		}, {
			name: "an id that is not the certificate's",
			addr: func(t *testing.T) string { return answering(t, clientTLS(ourKey, "c"), message{Hello: hello("b")}) },
			is:   ErrBadHello,
		}, {
			name: "another cluster that lets us in",
			addr: func(t *testing.T) string {
				return answering(t, clientTLS(ourKey, "b"), message{Hello: Hello{Cluster: "c2", Node: "b", Formats: Formats{1, 2, 2}}})
			},
			is: ErrWrongCluster,
		}, {
			name: "a format that we do not read",
			addr: func(t *testing.T) string {
				return answering(t, clientTLS(ourKey, "b"), message{Hello: Hello{Cluster: "c1", Node: "b", Formats: Formats{1, 3, 3}}})
			},
			is: ErrFormat,
		}, {
			name: "a refusal of a later version",
			addr: func(t *testing.T) string {
				return answering(t, clientTLS(ourKey, "b"), message{Hello: hello("b"), Refusal: &refusal{"moon-phase", "the moon is\nnot full"}})
			},
			says: "refused by riak@b: the moon is not full",
		}, {
			name: "nobody",
			addr: func(t *testing.T) string {
				l := listen(t)
				defer l.Close()
				return l.Addr().String()
			},
			says: "connection refused",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := start(t, "a")
			addr := c.addr(t)
			conn, _, err := a.Dial(t.Context(), Admin, addr, "b")
			if err == nil {
				conn.Close()
				t.Fatal("not refused")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is %q, want one that wraps %q", err, c.is)
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %q, want one line that contains %q and %q", err, c.says, addr)
			}
			if a.mu.Lock(); len(a.conns) > 0 {
				t.Error("the port still knows the connection")
			}
			a.mu.Unlock()
		})
	}
}

// TestDialEnds: by its own timeout, and when its caller gives up.
func TestDialEnds(t *testing.T) {
	silent := serving(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	a := start(t, "a", func(cfg *Config) { cfg.HandshakeTimeout = 50 * time.Millisecond })
	if _, _, err := a.Dial(t.Context(), Admin, silent, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want the timeout's", err)
	}
	b := start(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, _, err := b.Dial(ctx, Admin, silent, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want the caller's", err)
	}
}
