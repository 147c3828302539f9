package main

import (
	"errors"
	"net"
	"testing"

	"leaderlatch/riakconf"
)

func TestClusterBind(t *testing.T) {
	machine := func() ([]net.Addr, error) {
		var all []net.Addr
		for _, s := range []string{"127.0.0.1/8", "10.0.0.1/24", "::1/128", "2001:db8::1/64", "fe80::1/64"} {
			ip, n, err := net.ParseCIDR(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return all, nil
	}
	unknown := func() ([]net.Addr, error) { return nil, errors.New("no netlink") }
	tests := []struct {
		listener string
		local    func() ([]net.Addr, error)
		want     string
		why      string
	}{
		{"10.0.0.1:5324", machine, "10.0.0.1:5324", ""},
		{"127.0.0.1:5324", machine, "127.0.0.1:5324", ""},
		{"127.9.9.9:5324", machine, "127.9.9.9:5324", ""},
		{"::1:5324", machine, "[::1]:5324", ""},
		{"2001:db8::1:5324", machine, "[2001:db8::1]:5324", ""},
		{"[2001:db8::1]:5324", machine, "[2001:db8::1]:5324", ""},
		{"2001:0DB8:0:0:0:0:0:1:5324", machine, "[2001:db8::1]:5324", ""},
		{"fe80::1%eth0:5324", machine, "[fe80::1%eth0]:5324", ""},
		{"::ffff:10.0.0.1:5324", machine, "[::ffff:10.0.0.1]:5324", ""},
		{"0.0.0.0:5324", machine, "0.0.0.0:5324", ""},
		{":::5324", machine, "[::]:5324", ""},
		{"localhost:5324", machine, "localhost:5324", ""},

		{"db1.example.com:5400", machine, ":5400", "db1.example.com is a name"},
		{"203.0.113.1:5324", machine, ":5324", "203.0.113.1 is not an address of this machine (NAT?)"},
		{"10.0.0.2:5324", machine, ":5324", "10.0.0.2 is not an address of this machine (NAT?)"}, // the same network is not the same machine
		{"2001:db8::2:5324", machine, ":5324", "2001:db8::2 is not an address of this machine (NAT?)"},

		{"127.0.0.1:5324", unknown, "127.0.0.1:5324", ""},
		{"10.0.0.1:5324", unknown, ":5324", "10.0.0.1 may not be an address of this machine (no netlink)"},
	}
	for _, tt := range tests {
		a, err := riakconf.ParseAddress(tt.listener)
		if err != nil {
			t.Fatal(err)
		}
		got, why := clusterBind(a, tt.local)
		if got != tt.want || why != tt.why {
			t.Errorf("%s: %s, %q; want %s, %q", tt.listener, got, why, tt.want, tt.why)
		}
	}
}

// What clusterBind says of the addresses that are here can be listened on.
func TestClusterBindIsBindable(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "db1.example.com", "203.0.113.1"} {
		address, _ := clusterBind(riakconf.Address{Host: host}, net.InterfaceAddrs)
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		l.Close()
	}
}
