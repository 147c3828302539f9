package latch

import (
	"bytes"
	"cmp"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parkAfter is how long a client has to be silent for its connection to be parked. Who
// joins and leaves at once is read by a goroutine of its own all the time, as that is
// cheaper; one that waits has none, as that is smaller, by more than half.
var parkAfter = 100 * time.Millisecond

// lot watches parked connections, and one goroutine for all of them reads those that have
// something to say. It is an epoll instance of its own, beside that of package net, which
// wakes only goroutines that wait.
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

// watch has run tell of a connection whenever there is something new to read: input, its
// end, or an error; and now, if something is there already. It is for as long as the
// connection lives: run tells of what its own goroutine reads as well, to no purpose.
func (l *lot) watch(c *conn, again bool) error {
	op := unix.EPOLL_CTL_ADD
	if again {
		op = unix.EPOLL_CTL_MOD
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(uint32(c.id)), Pad: int32(uint32(c.id >> 32))}
	var closed, failed error
	err := l.raw.Control(func(lot uintptr) {
		closed = c.raw.Control(func(fd uintptr) { failed = unix.EpollCtl(int(lot), op, int(fd), &event) })
	})
	return cmp.Or(err, closed, failed)
}

// run calls tell with the ids of connections from which there is something new to read,
// until the lot is closed. It says whether a single read may leave something of that: the
// end behind other input, an error, or what stands behind urgent data.
func (l *lot) run(tell func(id uint64, more bool)) {
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
			tell(uint64(uint32(e.Pad))<<32|uint64(uint32(e.Fd)), e.Events&^unix.EPOLLIN != 0)
		}
	}
}

const tooMuchMemory = "idle connections take more memory than they need: they cannot be watched by an epoll instance"

// openLot has connections parked from here on. mu is held.
func (s *Server) openLot() {
	var err error
	if s.lot, err = newLot(); err != nil {
		go s.log.Warn(tooMuchMemory, "error", err) // a log may wait for its disk
		return
	}
	go s.attend()
}

// attend reads parked connections, until the lot is closed.
func (s *Server) attend() {
	r := reader{newTransfer(unix.Read)}
	s.lot.run(func(id uint64, more bool) {
		s.mu.Lock()
		c := s.conns[id]
		s.mu.Unlock()
		if c != nil { // else it has ended meanwhile
			c.attend(r, more)
		}
	})
}

// park lets the reader go, if its client is silent, nothing of it waits for more, and the
// connection is watched from here on. Then the reader must not touch it any more. mu is
// held.
func (c *conn) park() bool {
	if c.state > joined || c.stays {
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
	c.watched = true
	c.rest()
	return true
}

// rest has the lot read the connection. mu is held.
func (c *conn) rest() {
	c.closeInput()
	c.parked = true
	c.arm()
}

// fewLines is how many lines a client is answered by the goroutine of all that are
// parked. Who has more to say gets one of its own.
const fewLines = 4

// attend reads the connection in the place of a goroutine of its own, if it is parked. It
// gets one when there is more to do for it than to answer a few lines. attend waits for
// nothing: all the others that are parked are behind it. more says that one read may not
// be all.
func (c *conn) attend(r reader, more bool) {
	c.mu.Lock()
	ours := c.parked
	c.parked = false // whoever ends it now leaves the rest to its reader, which is us
	c.mu.Unlock()
	if !ours { // what there is to read has been seen by its goroutine, or will be
		return
	}
	c.openInput()
	n, err := r.read(c.raw, c.small[:])
	c.in = c.small[:n]
	if err != nil || more || n == len(c.small) || bytes.Count(c.in, []byte{'\n'}) > fewLines {
		go c.serveAfter(err)
		return
	}
	c.attended = true // and whatever comes from now on will be told of
	if c.advance(nil) != parked {
		c.attended = false
		go c.serve()
	}
}

// settle parks the connection again, if all that there was to read is answered. mu is held.
func (c *conn) settle() bool {
	if !c.attended || len(c.in) > 0 || c.state > joined {
		return false
	}
	c.attended = false
	c.rest()
	return true
}

// unpark gives a parked connection a goroutine again, which reads before it may be let go.
// mu is held.
func (c *conn) unpark() {
	if c.parked {
		c.parked, c.stays = false, true
		c.arm()
		go c.serve()
	}
}

// setTimer has a parked connection looked at when its time limit is over; zero: none. mu is
// held.
func (c *conn) setTimer(limit time.Time) {
	switch {
	case limit.IsZero() && c.timer != nil:
		c.timer.Stop()
		c.timer = nil
	case limit.IsZero():
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(limit), c.expire)
	default:
		c.timer.Reset(time.Until(limit))
	}
}

// expire gives a parked connection a reader when its time is over, which sees to that.
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state < joined && !time.Now().Before(c.deadline) {
		c.unpark()
	}
}
