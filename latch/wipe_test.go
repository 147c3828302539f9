package latch

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// TestKeysAreWiped from the input as soon as they are handed over, in whatever pieces they
// come.
func TestKeysAreWiped(t *testing.T) {
	const key = "8d0c5b7e41f29a36"
	line := "JOIN g a hold=2000 key=" + key
	for name, pieces := range map[string][]string{
		"in one":                 {line + "\n"},
		"in two":                 {line, "\n"},
		"behind others":          {"?\n?\n" + line, "\n"},
		"before others":          {line + "\n?\nJOIN"},
		"behind one that is bad": {line + " now\n" + line + "\n"},
		"in a long line":         {"?\n" + line + strings.Repeat(" ", 200), strings.Repeat(" ", 200), "\n?"},
	} {
		t.Run(name, func(t *testing.T) {
			e := new(keeper)
			c, client := connected(t, Config{Elections: e, Extensions: true})
			defer client.Close()
			c.openInput()
			for _, piece := range pieces {
				client.Write([]byte(piece))
				for end := len(c.in) + len(piece); len(c.in) < end; {
					readOnce(t, c)
				}
				c.answerLines()
			}
			if e.key != key {
				t.Fatalf("the elections have the key %q", e.key)
			}
			if bytes.Contains(c.small[:], []byte(key)) || bytes.Contains(c.in[:cap(c.in)], []byte(key)) {
				t.Error("the key is still there")
			}
		})
	}
	t.Run("what is not handed over, at the end", func(t *testing.T) {
		c, client := connected(t, Config{Elections: new(keeper), Extensions: true})
		defer client.Close()
		c.openInput()
		client.Write([]byte(line))
		readOnce(t, c)
		small := c.small
		c.closeInput()
		if bytes.Contains(small[:], []byte(key)) {
			t.Error("the key is still there")
		}
	})
}

// readOnce reads what has come, however soon the connection is to be parked.
func readOnce(t *testing.T, c *conn) {
	t.Helper()
	c.nc.SetReadDeadline(time.Time{})
	if err := c.read(); err != nil {
		t.Fatal(err)
	}
}

// connected is a connection without a reader, and its client's side.
func connected(t *testing.T, cfg Config) (*conn, net.Conn) {
	t.Helper()
	l, err := Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	sock := nc.(socket)
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return newConn(NewServer(cfg), sock, raw, time.Hour), client
}

// keeper is an Elections that keeps a key, and answers nothing.
type keeper struct{ key string }

func (k *keeper) Join(string, string, Member) (Membership, error) { return k, nil }
func (k *keeper) JoinKeyed(_, _ string, of Keyed, _ Member) (Membership, error) {
	k.key = of.Key
	return k, nil
}
func (*keeper) Observe(string, Observer) (Observation, error) { return nil, ErrUnavailable }
func (*keeper) Missing() error                                { return nil }
func (*keeper) Live() bool                                    { return true }
func (*keeper) Promise() (now, later bool)                    { return true, false }
func (*keeper) Alive() bool                                   { return true }
func (*keeper) Stopped()                                      {}
func (*keeper) Closed(string, bool) time.Duration             { return 0 }
