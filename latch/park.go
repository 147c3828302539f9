package latch

import (
	"cmp"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parkAfter is how long a joined client has to be silent for its connection to be
// parked. Who joins and leaves at once is read by one goroutine all the time, as that
// is cheaper; one that waits has no goroutine, as that is smaller, by more than half.
var parkAfter = 100 * time.Millisecond

// lot watches parked connections for their readers. It is an epoll instance of its own,
// beside that of package net, which wakes only goroutines that wait.
type lot struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
}

// newLot makes a lot. Without one no connection is parked, which costs memory only.
func newLot() (*lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that package os waits for it as for a socket
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &lot{file: os.NewFile(uintptr(fd), "epoll")}
	if err := l.file.SetDeadline(time.Time{}); err != nil { // package os cannot wait for it
		l.close()
		return nil, err
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lot) close() {
	l.closed.Store(true)
	l.file.Close()
}

// watch has run tell of a connection, once, when there is something to read: input, its end, or an
// error. again says that the connection has been watched before.
func (l *lot) watch(c *conn, again bool) error {
	op := unix.EPOLL_CTL_ADD
	if again {
		op = unix.EPOLL_CTL_MOD
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(c.id)), Pad: int32(uint32(c.id >> 32))}
	var closed, failed error
	err := l.raw.Control(func(lot uintptr) {
		closed = c.raw.Control(func(fd uintptr) { failed = unix.EpollCtl(int(lot), op, int(fd), &event) })
	})
	return cmp.Or(err, closed, failed)
}

// run calls tell with the ids of connections from which there is something to read,
// until the lot is closed.
func (l *lot) run(tell func(id uint64)) {
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := l.raw.Read(func(fd uintptr) bool {
			var err error
			if n, err = unix.EpollWait(int(fd), events, 0); err != nil && err != unix.EINTR {
				panic("latch: connections cannot be watched: " + err.Error())
			}
			return n > 0 || err != nil
		})
		switch {
		case l.closed.Load():
			return
		case err != nil: // nobody would see the ends of those that are parked
			panic("latch: connections cannot be watched: " + err.Error())
		}
		for _, e := range events[:max(n, 0)] {
			tell(uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd)))
		}
	}
}

const tooMuchMemory = "idle connections take more memory than they need: they cannot be watched by an epoll instance"

// openLot has connections parked from here on. mu is held.
func (s *Server) openLot() {
	var err error
	if s.lot, err = newLot(); err != nil {
		s.log.Warn(tooMuchMemory, "error", err)
		return
	}
	go s.unpark()
}

// unpark gives parked connections their readers again, until the lot is closed.
func (s *Server) unpark() {
	s.lot.run(func(id uint64) {
		s.mu.Lock()
		c := s.conns[id]
		s.mu.Unlock()
		if c != nil { // else it has ended meanwhile
			c.mu.Lock()
			c.unpark()
			c.mu.Unlock()
		}
	})
}

// park lets the reader go, if the client has joined and nothing of it waits for more, and
// if the connection is watched from here on. Then the reader must not touch it any more.
// mu is held.
func (c *conn) park() bool {
	if c.state != joined || c.stays {
		return false
	}
	l := c.srv.lot
	if l == nil || len(c.in) > 0 {
		c.stays = true
		return false
	}
	if err := l.watch(c, c.watched); err != nil {
		c.srv.unwatched.Do(func() { go c.srv.log.Warn(tooMuchMemory, "error", err) })
		c.stays = true
		return false
	}
	inputs.Put(c.small)
	c.in, c.small = nil, nil
	c.watched, c.parked = true, true
	return true
}

// unpark gives a parked connection a reader again, which reads before it may be let go.
// mu is held.
func (c *conn) unpark() {
	if c.parked {
		c.parked, c.stays = false, true
		c.arm()
		go c.serve()
	}
}
