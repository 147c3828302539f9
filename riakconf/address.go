package riakconf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// An Address is a host and a TCP port.
type Address struct {
	Host string // a name, or a numeric address in its canonical form, without brackets
	Port int    // 0 to 65535
}

// String is host:port, an IPv6 address in brackets.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// The ports that the documents give to clients and to other nodes.
const (
	clientPort  = 5323
	clusterPort = 5324
)

// ParseAddress reads host:port (riak.conf rule 46). The last colon separates;
// an IPv6 address may stand with or without brackets, and a host name is
// possible as with Riak 2.1.
func ParseAddress(s string) (Address, error) { return parseAddress(s, clientPort) }

// parseAddress is ParseAddress with the port that errors have in their example.
func parseAddress(s string, port int) (Address, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return Address{}, fmt.Errorf("%s has no port; write host:port, for example %s", show(s), example(s, port))
	}
	digits := s[colon+1:]
	if !isDigits(digits) {
		return Address{}, fmt.Errorf("%s is not a port; write host:port, for example %s", show(digits), example(s[:colon], port))
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > 65535 {
		return Address{}, fmt.Errorf("port %s is above 65535", strings.TrimLeft(digits, "0"))
	}
	host, err := parseHost(s[:colon])
	return Address{host, n}, err
}

// example is an address as it could have been meant, with that host if it is one.
func example(host string, port int) Address {
	h, err := parseHost(host)
	if err != nil {
		h = "127.0.0.1"
	}
	return Address{h, port}
}

// parseHost reads a numeric address or a host name and returns it in its
// canonical form.
func parseHost(s string) (string, error) {
	inner, opened := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if ip, err := netip.ParseAddr(inner); err == nil && opened == closed && (!opened || ip.Is6()) && isPlain(ip.Zone()) {
		return ip.String(), nil
	}
	if s == "" {
		return "", errors.New("no host; write an address or a host name in front of the colon")
	}
	if !isHostName(s) {
		return "", fmt.Errorf("%s is neither an IP address nor a host name", show(s))
	}
	return s, nil
}

// isHostName reports whether s can be the name of a host: labels of letters,
// digits, - and _, the last one not a number, as that is an address gone
// wrong.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || !isPlain(label) {
			return false
		}
	}
	return !isDigits(labels[len(labels)-1])
}

// isPlain reports whether s has only letters, digits, - and _.
func isPlain(s string) bool { return wordLen(s) == len(s) && !strings.Contains(s, `\`) }

// Loopback reports whether a host is literally on this machine: 127.x.x.x,
// ::1 or localhost. Names are not looked up.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && !ip.Is4In6() && ip.IsLoopback()
}

// unspecified reports whether a host is 0.0.0.0 or ::, in whatever spelling.
func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsUnspecified()
}

// overlap reports whether two listeners cannot both be bound: one address
// twice, or one port on all IPv4 or all IPv6 addresses and on one of them.
func (a Address) overlap(b Address) bool {
	if a.Port != b.Port || a.Port == 0 {
		return false
	}
	x, errX := netip.ParseAddr(a.Host)
	y, errY := netip.ParseAddr(b.Host)
	if errX != nil || errY != nil {
		return a.Host == b.Host
	}
	return x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
}

// leavesNoRoomFor reports whether a cluster listener at a and another listener
// at b cannot both be bound. A cluster listener whose host is a name is bound
// to all addresses, unless that is localhost.
func (a Address) leavesNoRoomFor(b Address) bool {
	if _, err := netip.ParseAddr(a.Host); err != nil && !Loopback(a.Host) {
		return a.Port == b.Port && a.Port != 0
	}
	return a.overlap(b)
}
