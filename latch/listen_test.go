package latch_test

import (
	"net"
	"strings"
	"syscall"
	"testing"

	"leaderlatch/latch"

	"golang.org/x/sys/unix"
)

// TestListenOptions reads the options back from an accepted connection.
func TestListenOptions(t *testing.T) {
	l, err := latch.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for _, o := range []struct {
		name             string
		level, opt, want int
	}{
		{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP}, // not MPTCP
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 9000},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * 4096}, // the kernel doubles it
	} {
		if got := sockopt(t, accepted, o.level, o.opt); got != o.want {
			t.Errorf("%s is %d, want %d", o.name, got, o.want)
		}
	}
	lfd, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lfd.Close()
	if _, err := unix.GetsockoptInt(int(lfd.Fd()), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS); err == unix.ENOPROTOOPT {
		t.Log("this kernel has no TCP_RTO_MAX_MS")
	} else if got := sockopt(t, accepted, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS); got != 1000 {
		t.Errorf("TCP_RTO_MAX_MS is %d, want 1000", got)
	}
	if got := sockopt(t, l, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
		t.Errorf("SO_PROTOCOL of the listener is %d, want TCP", got)
	}
	if got := sockopt(t, l, unix.SOL_SOCKET, unix.SO_REUSEADDR); got != 1 {
		t.Errorf("SO_REUSEADDR of the listener is %d, want 1", got)
	}
}

func sockopt(t *testing.T, c any, level, opt int) (value int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, opt) })
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestListenFamilies: a literal address is listened on by its own family only.
func TestListenFamilies(t *testing.T) {
	four, err := latch.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	if got := sockopt(t, four, unix.SOL_SOCKET, unix.SO_DOMAIN); got != unix.AF_INET {
		t.Errorf("127.0.0.1 is listened on with address family %d, want AF_INET", got)
	}
	name, err := latch.Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	name.Close()

	if ip, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	} else {
		ip.Close()
	}
	six, err := latch.Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	if got := sockopt(t, six, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); got != 1 {
		t.Errorf("[::1] is listened on with IPV6_V6ONLY %d, want 1", got)
	}
}

// TestListenErrors: one line that says what is wrong.
func TestListenErrors(t *testing.T) {
	taken, err := latch.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct{ address, want string }{
		{taken.Addr().String(), "address already in use"},
		{"127.0.0.1", "missing port"},
		{"127.0.0.1:99999", "invalid port"},
	} {
		l, err := latch.Listen(t.Context(), "tcp", c.address)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", c.address, err, c.want)
		}
	}
}
