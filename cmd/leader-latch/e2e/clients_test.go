package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clients by the thousand: each is one goroutine that does what a client does, with a
// buffer of its own and nothing else.

// caller is the connection of one of many clients.
type caller struct {
	net.Conn
	name string
	buf  [64]byte // names of tests are short
	n    int      // bytes in buf that are no whole line yet
}

// errRefused is that a JOIN was answered JOIN_FAILED.
var errRefused = errors.New("JOIN_FAILED SERVICE_UNAVAILABLE")

// call connects to a node.
func call(addr, name string) (*caller, error) { return callWith(manyDialer(), addr, name) }

func callWith(d net.Dialer, addr, name string) (*caller, error) {
	nc, err := d.Dial("tcp4", addr)
	if err != nil {
		return nil, err
	}
	return &caller{Conn: nc, name: name}, nil
}

// manyDialer is for thousands of connections within a minute: their source addresses
// rotate, and their ports are chosen for the destination, so that ports do not run out.
func manyDialer() net.Dialer {
	return net.Dialer{
		Timeout:   patience,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+sources.Add(1)%64))},
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return err
		},
	}
}

var sources atomic.Uint32

// join asks to join and gives the leader that it is told. Beside errRefused an error
// means that there was no answer.
func (c *caller) join(group string) (leader string, err error) {
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "JOIN %s %s\n", group, c.name); err != nil {
		return "", err
	}
	leader, err = c.told()
	c.SetDeadline(time.Time{})
	return leader, err
}

// told reads the next line, and gives the leader that it names.
func (c *caller) told() (leader string, err error) {
	for {
		if line, rest, ok := bytes.Cut(c.buf[:c.n], []byte("\n")); ok {
			leader, isLeader := bytes.CutPrefix(line, []byte("LEADER "))
			text := string(leader)
			c.n = copy(c.buf[:], rest)
			switch {
			case isLeader:
				return text, nil
			case text == errRefused.Error():
				return "", errRefused
			}
			return "", fmt.Errorf("was sent %q", text)
		}
		n, err := c.Read(c.buf[c.n:])
		if c.n += n; n == 0 && err != nil {
			return "", err
		}
	}
}

// inParallel calls f for 0 to n-1, so many at a time, and gives the first error.
func inParallel(n, workers int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
