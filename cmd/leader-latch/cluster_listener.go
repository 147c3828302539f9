package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"leaderlatch/riakconf"
)

// clusterBind is the address on which to listen for other nodes, for
// [net.Listen], and if that is not the configured one the reason. An address
// of this machine is taken as it is. A name may stand for another one
// tomorrow, and an address of a NAT is on no interface here, so those stand
// for all addresses. local is [net.InterfaceAddrs].
func clusterBind(a riakconf.Address, local func() ([]net.Addr, error)) (address, why string) {
	if a.Host == "localhost" {
		return a.String(), "" // nobody elsewhere dials that, so nobody elsewhere is let in
	}
	if ip, err := netip.ParseAddr(a.Host); err != nil {
		why = a.Host + " is a name"
	} else if here, err := isHere(ip, local); err != nil {
		why = fmt.Sprintf("%s may not be an address of this machine (%v)", a.Host, err)
	} else if !here {
		why = a.Host + " is not an address of this machine (NAT?)"
	}
	if why == "" {
		return a.String(), ""
	}
	return net.JoinHostPort("", strconv.Itoa(a.Port)), why
}

// isHere reports whether an address can be listened on: one of this machine,
// or that for all of them.
func isHere(ip netip.Addr, local func() ([]net.Addr, error)) (bool, error) {
	ip = ip.WithZone("").Unmap()
	if ip.IsUnspecified() || ip.IsLoopback() { // all of 127.0.0.0/8, and not one of it is listed
		return true, nil
	}
	addrs, err := local()
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == ip {
			return true, nil
		}
	}
	return false, nil
}
