package latch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendBuffer is small so that a client that does not read is noticed after a few
// hundred bytes instead of after a few hundred kilobytes of stale leaders.
const sendBuffer = 4096

// listenOptions are set on the listening socket; what it accepts inherits them.
// Keepalive finds a dead host while nothing is under way, the user timeout while
// something is: neither does the other's work. Together they find it in 8 to
// 12 s; PROTOCOL.md, Time limits.
var listenOptions = []struct {
	name              string
	level, opt, value int
}{
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},                // s
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},              // s
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},                  // probes
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 9 * 1000}, // ms
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer},
}

// Listen listens on a TCP address for a [Server], with the options that
// connections need: those that find dead hosts, and a small send buffer.
//
// With network "tcp" a literal IPv4 address is listened on by IPv4 only and a
// literal IPv6 address by IPv6 only, so that 0.0.0.0 and [::] can stand side by
// side; a host name is resolved, and one of its addresses listened on, an IPv4
// one if it has any. Other networks are taken as [net.Listen] takes them.
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1, // inherited; Go's own would be set again on each connection
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if cerr := raw.Control(func(fd uintptr) { err = setListenOptions(int(fd)) }); cerr != nil {
				return cerr
			}
			return err
		},
	}
	lc.SetMultipathTCP(false) // TCP_USER_TIMEOUT does not work on an MPTCP socket
	return lc.Listen(ctx, literalNetwork(network, address), address)
}

func setListenOptions(fd int) error {
	for _, o := range listenOptions {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("set %s to %d: %w", o.name, o.value, err)
		}
	}
	// What was lost is sent again every second, instead of after a pause that doubles: a
	// client whose link is back soon learns what it has missed. Linux before 6.15 has this
	// not, and does without.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, 1000); err != nil && err != unix.ENOPROTOOPT {
		return fmt.Errorf("set TCP_RTO_MAX_MS to 1000: %w", err)
	}
	return nil
}

// literalNetwork narrows "tcp" to the family of a literal address.
func literalNetwork(network, address string) string {
	host, _, err := net.SplitHostPort(address)
	if network != "tcp" || err != nil {
		return network
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return network
	case ip.Unmap().Is4():
		return "tcp4"
	default:
		return "tcp6"
	}
}
