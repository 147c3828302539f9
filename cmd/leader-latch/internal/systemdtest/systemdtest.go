// Package systemdtest stands in for systemd where a service tells it of its state.
package systemdtest

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// Socket is what services that are started by the test, and the test itself, tell systemd.
type Socket struct {
	t    *testing.T
	conn *net.UnixConn
}

// Listen makes the socket, and names it in the environment.
func Listen(t *testing.T) Socket {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return Socket{t, l}
}

// Told waits for the next thing that systemd is told.
func (s Socket) Told() string {
	s.t.Helper()
	b := make([]byte, 100)
	s.conn.SetReadDeadline(time.Now().Add(60 * time.Second)) // bounds the wait, and is no expectation
	n, err := s.conn.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n])
}
