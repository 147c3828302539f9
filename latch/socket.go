package latch

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what a connection must be: a TCP connection of package net.
type socket interface {
	net.Conn
	syscall.Conn
}

// transfer is one non-blocking read or write. It goes through RawConn.Control and not
// through Read or Write: Write waits for the descriptor's write lock, which a draining
// goroutine holds while it waits for the client, and Read until there is something.
type transfer struct {
	b    []byte
	n    int
	err  error
	once func(fd uintptr) // reads into b or writes it; made once, for a closure each time would be garbage
}

func newTransfer(call func(fd int, b []byte) (int, error)) *transfer {
	t := new(transfer)
	t.once = func(fd uintptr) {
		for {
			t.n, t.err = call(int(fd), t.b)
			if t.err != unix.EINTR {
				return
			}
		}
	}
	return t
}

// now does it. It gives 0 and no error if the kernel can do nothing at once; done is false
// then.
func (t *transfer) now(raw syscall.RawConn) (n int, done bool, err error) {
	t.n, t.err = 0, nil
	if err := raw.Control(t.once); err != nil {
		return 0, false, err
	}
	if t.err == unix.EAGAIN {
		return 0, false, nil
	}
	return max(t.n, 0), true, t.err
}

// writer writes one line. Writers are pooled: a push to many connections then allocates
// nothing.
type writer struct {
	line []byte
	*transfer
}

var writers = sync.Pool{New: func() any {
	return &writer{make([]byte, 0, maxAnswer), newTransfer(unix.Write)}
}}

// write writes what the kernel takes of w.line at once, which may be nothing.
func (w *writer) write(raw syscall.RawConn) (int, error) {
	w.b = w.line
	n, _, err := w.now(raw)
	return n, err
}

// reader reads what there is.
type reader struct{ *transfer }

// read reads what there is, which may be nothing. At the end of the input the error is
// io.EOF.
func (r reader) read(raw syscall.RawConn, into []byte) (int, error) {
	r.b = into
	n, done, err := r.now(raw)
	r.b = nil
	if done && n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// queued returns how many bytes the client's kernel has not acknowledged; a FIN
// counts as one.
func queued(raw syscall.RawConn) (n int) {
	raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
	})
	return n
}

// shutdownWrite sends a FIN behind all that was written. An error means that
// the connection is gone, and that is the reader's to find out.
func shutdownWrite(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
}

// resetOnClose makes the close of the descriptor discard what is queued and
// send a RST.
func resetOnClose(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) {
		unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
}

// abort discards what is queued and sends a RST at once. Connecting to no
// address does what closing with linger 0 does, but without the close: that
// would wait until the reader has let go of the descriptor, and callers hold
// the connection's lock.
func abort(raw syscall.RawConn) {
	resetOnClose(raw) // should the connect be refused, the reader's close does it
	raw.Control(func(fd uintptr) {
		var nowhere unix.RawSockaddr // AF_UNSPEC
		unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&nowhere)), unsafe.Sizeof(nowhere))
	})
}

// The states of tcp_info that tell that our FIN is acknowledged (Linux,
// include/net/tcp_states.h). The state CLOSE does not: the kernel may have given up.
const (
	tcpFinWait2 = 5
	tcpTimeWait = 6
)

// finAcked reports whether the client's kernel has acknowledged our FIN. If the
// client has closed too, only a read can tell.
func finAcked(raw syscall.RawConn) (acked bool) {
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		acked = err == nil && (info.State == tcpFinWait2 || info.State == tcpTimeWait)
	})
	return acked
}

// bytesAcked returns how many bytes the client's kernel has taken in all.
func bytesAcked(raw syscall.RawConn) (n uint64) {
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked
		}
	})
	return n
}

// awaitHangup waits, without reading, for the end of the connection or for the
// read deadline.
func awaitHangup(raw syscall.RawConn) error {
	var end error
	err := raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(p, 0); n == 0 || err != nil {
			return false
		}
		end = socketError(fd)
		return true
	})
	if err != nil {
		return err
	}
	return end
}

// socketError takes the error that the socket has ready for its user; io.EOF if
// there is none.
func socketError(fd uintptr) error {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case n != 0:
		return syscall.Errno(n)
	}
	return io.EOF
}

// clientEnded reports whether err, from a read or a write, says that it was the
// client's side that ended the connection, by a FIN or a RST. Any other error
// says that the connection was lost, and the client may not know.
func clientEnded(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
