package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
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
// LEADER_LATCH_SERVERS, else the listeners of the file with the settings, only those with extensions if any has, else
// the ports of the documents on this machine. A file that nobody has named may be missing, or not for
// this user's eyes. With an error comes the exit code.
func (e *env) servers(flag []string, config string) (all []server, code int, err error) {
	named, variable := flag, e.getenv(serversVariable)
	if len(named) == 0 {
		named = strings.FieldsFunc(variable, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(named) == 0 && variable != "" {
		return nil, exitUsage, fmt.Errorf("%s names no server; name some, or unset it", serversVariable)
	}
	for _, name := range named {
		address, err := serverAddress(name)
		if err != nil {
			return nil, exitUsage, err
		}
		all = append(all, server{address: address})
	}
	if len(all) > 0 {
		return all, exitOK, nil
	}
	conf, _, err := riakconf.Load(config)
	hidden := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
	switch {
	case err != nil && !(hidden && config == defaultConfig):
		return nil, exitPermanent, err
	case err == nil && len(conf.Listeners) > 0:
		return ofListeners(conf.Listeners), exitOK, nil
	}
	for _, port := range []string{extensionsPort, plainPort} {
		all = append(all, server{address: net.JoinHostPort("127.0.0.1", port), guessed: true})
	}
	return all, exitOK, nil
}

// ofListeners gives the listeners with extensions, or all if none has.
func ofListeners(listeners []riakconf.Listener) (all []server) {
	extended := slices.ContainsFunc(listeners, func(l riakconf.Listener) bool { return l.Extensions })
	for _, l := range listeners {
		if l.Extensions || !extended {
			all = append(all, server{
				address: net.JoinHostPort(reachable(l.Host), fmt.Sprint(l.Port)),
				key:     fmt.Sprintf("%s: %s", l.Position, l.Key),
				toggle:  "leader_latch.extensions." + l.Name,
			})
		}
	}
	return all
}

// serverAddress gives host:port for what somebody wrote. Without a port it is that of listeners
// with extensions.
func serverAddress(s string) (string, error) {
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" && port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%q has no port of 1 to 65535; write host:port, for example latch-1:%s", s, extensionsPort)
		}
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
