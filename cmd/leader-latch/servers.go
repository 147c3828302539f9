package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"leaderlatch/riakconf"
)

// serversVariable names the servers for commands that are clients.
const serversVariable = "LEADER_LATCH_SERVERS"

// The ports of listeners as the documents have them, with extensions and without.
const (
	extensionsPort = "5326"
	plainPort      = "5323"
)

// server is a listener as a client knows it.
type server struct {
	address string
	key     string // of its line in riak.conf, with the place; empty: it is not known
	toggle  string // the key that gives it extensions; likewise
	guessed bool   // nobody has named it, and nothing may listen there
}

// servers gives those that a client is to try, in this order: those of the flag, else those of
// LEADER_LATCH_SERVERS, else the listeners of riak.conf if that can be read, those with extensions first,
// else the ports of the documents on this machine.
func (e *env) servers(flag []string, config string) ([]server, error) {
	named := flag
	if len(named) == 0 {
		named = strings.FieldsFunc(e.getenv(serversVariable), func(r rune) bool { return r == ',' || r == ' ' })
	}
	var all []server
	for _, name := range named {
		address, err := serverAddress(name)
		if err != nil {
			return nil, err
		}
		all = append(all, server{address: address})
	}
	if len(all) > 0 {
		return all, nil
	}
	if conf, _, err := riakconf.Load(config); err == nil && len(conf.Listeners) > 0 {
		listeners := slices.Clone(conf.Listeners)
		slices.SortStableFunc(listeners, func(a, b riakconf.Listener) int { return cmp.Compare(plainness(a), plainness(b)) })
		for _, l := range listeners {
			all = append(all, server{
				address: net.JoinHostPort(reachable(l.Host), fmt.Sprint(l.Port)),
				key:     fmt.Sprintf("%s: %s", l.Position, l.Key),
				toggle:  "leader_latch.extensions." + l.Name,
			})
		}
		return all, nil
	}
	for _, port := range []string{extensionsPort, plainPort} {
		all = append(all, server{address: net.JoinHostPort("127.0.0.1", port), guessed: true})
	}
	return all, nil
}

func plainness(l riakconf.Listener) int {
	if l.Extensions {
		return 0
	}
	return 1
}

// serverAddress gives host:port for what somebody wrote. Without a port it is that of listeners
// with extensions.
func serverAddress(s string) (string, error) {
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" && port != "" {
		return s, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if _, err := netip.ParseAddr(host); host == "" || err != nil && strings.ContainsAny(host, ":[]") {
		return "", fmt.Errorf("%q is no server; write host or host:port, for example latch-1:%s or [::1]:%s", s, extensionsPort, extensionsPort)
	}
	return net.JoinHostPort(host, extensionsPort), nil
}

// reachable is where a client on this machine connects to what listens on a host.
func reachable(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		if ip.Is4() {
			return "127.0.0.1"
		}
		return "::1"
	}
	return host
}
