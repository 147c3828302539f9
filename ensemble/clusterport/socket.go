package clusterport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketOptions are those of every connection. Keepalive finds a vanished host
// while nothing is under way, the user timeout while something is: in 5 to 6 s.
var socketOptions = []struct {
	name              string
	level, opt, value int
}{
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 3},                // s
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},              // s
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},                  // probes
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5 * 1000}, // ms
}

// setOptions sets the options on a connection. One that is no socket, as in a
// test, has none.
func setOptions(c net.Conn) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for _, o := range socketOptions {
			if err := unix.SetsockoptInt(int(fd), o.level, o.opt, o.value); err != nil {
				failed = fmt.Errorf("set %s to %d: %w", o.name, o.value, err)
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// Listen listens on a TCP address for [Port.Serve]. A literal IPv4 address is
// listened on by IPv4 only, a literal IPv6 address by IPv6 only; a host name is
// resolved, and one of its addresses listened on; no host stands for all
// addresses.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1} // set with the other options
	lc.SetMultipathTCP(false)             // an MPTCP socket refuses TCP_USER_TIMEOUT
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil {
			network = "tcp6"
			if ip.Unmap().Is4() {
				network = "tcp4"
			}
		}
	}
	return lc.Listen(ctx, network, address)
}

// dialTCP resolves the address and connects.
func dialTCP(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, address)
}

const (
	farewellTime  = 500 * time.Millisecond
	farewellBytes = 64 << 10
)

// farewell sees to it that the other side gets what was written last, which
// tells why the connection ends: to close a socket that has something unread
// sends a RST, and that discards it on the other side.
func farewell(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(farewellTime))
	buf := make([]byte, 2<<10)
	for left := farewellBytes; left > 0; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}

// passes reports whether an error of Accept may be gone the next time: a lack
// of something, or one that came in with the connection (accept(2)).
func passes(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM,
		unix.ECONNABORTED, unix.EPERM, unix.EPROTO, unix.ENETDOWN,
		unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET:
		return true
	}
	return false
}

// hostOf is the address of the other side without its port.
func hostOf(c net.Conn) string {
	a := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(a); err == nil {
		return host
	}
	return a
}
