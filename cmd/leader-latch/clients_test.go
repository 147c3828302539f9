package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
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

// lead joins a group that nobody else is in.
func (c *caller) lead(group string) error {
	leader, err := c.join(group)
	if err == nil && leader != c.name {
		err = fmt.Errorf("%s was told that %s leads", c.name, leader)
	}
	return err
}

// elected connects and leads a fresh group.
func elected(addr string) (*caller, error) {
	c, err := call(addr, "a")
	if err != nil {
		return nil, err
	}
	if err := c.lead(unique("e")); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
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

// audience is the members of one group, at many nodes, who all listen.
type audience struct {
	t       testing.TB
	members map[string]*caller
	leader  string // the last one that all were told of
	change  atomic.Pointer[change]
}

// change is a change of the leader, as its audience is told of it.
type change struct {
	mu          sync.Mutex
	leader      string
	left        int
	first, last time.Time
	all         chan struct{} // closed when nobody is left
	err         error
}

func (a *audience) expect(listeners int) *change {
	ch := &change{left: listeners, all: make(chan struct{})}
	a.change.Store(ch)
	return ch
}

// assemble has n clients join a group, spread over the nodes, 32 at a time.
func assemble(t testing.TB, nodes []*member, group string, n int) *audience {
	t.Helper()
	a := &audience{t: t, members: make(map[string]*caller)}
	all := make([]*caller, n)
	t.Cleanup(func() {
		for _, c := range all {
			if c != nil {
				c.Close()
			}
		}
	})
	var leader atomic.Pointer[string]
	if err := inParallel(n, 32, func(i int) error {
		c, err := call(nodes[i%len(nodes)].addr, fmt.Sprint("m", i))
		if err != nil {
			return err
		}
		all[i] = c
		l, err := c.join(group)
		if err == nil && !leader.CompareAndSwap(nil, &l) && *leader.Load() != l {
			err = fmt.Errorf("%s was told that %s leads, others %s", c.name, l, *leader.Load())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	a.leader = *leader.Load()
	for _, c := range all {
		a.members[c.name] = c
		go a.listen(c)
	}
	return a
}

func (a *audience) listen(c *caller) {
	for {
		leader, err := c.told()
		now := time.Now()
		if err != nil {
			return // it has left, or somebody misses it in what it should have been told
		}
		ch := a.change.Load()
		if ch == nil {
			a.t.Errorf("%s was told of %s though nothing had changed", c.name, leader)
			return
		}
		ch.mu.Lock()
		if ch.leader == "" {
			ch.leader, ch.first = leader, now
		}
		if leader != ch.leader && ch.err == nil {
			ch.err = fmt.Errorf("%s was told that %s leads, others %s", c.name, leader, ch.leader)
		}
		if ch.left--; ch.left == 0 {
			ch.last = now
			close(ch.all)
		}
		ch.mu.Unlock()
	}
}

// depose has the leader leave, and waits until all the others are told of the next
// one. while runs meanwhile, if it is set.
func (a *audience) depose(while func(ch *change)) (first, last time.Duration) {
	a.t.Helper()
	c := a.members[a.leader]
	delete(a.members, a.leader)
	ch := a.expect(len(a.members))
	began := time.Now()
	c.Close()
	if while != nil {
		while(ch)
	}
	select {
	case <-ch.all:
	case <-time.After(patience):
		a.t.Fatalf("%d of %d members were not told of the next leader", ch.left, len(a.members))
	}
	if ch.err != nil {
		a.t.Fatal(ch.err)
	}
	a.leader = ch.leader
	return ch.first.Sub(began), ch.last.Sub(began)
}
