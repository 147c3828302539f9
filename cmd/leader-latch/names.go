package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"leaderlatch/riakconf"
)

// resolvePatience bounds the look for the addresses of names.
const resolvePatience = 3 * time.Second

// unresolved warns of names of hosts for which this machine finds no address, each once:
// most are slips of the pen, and without an address nobody reaches what has that name.
// It gives none when ctx is done before.
func (e *env) unresolved(ctx context.Context, conf *riakconf.Config) (warnings []string) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	type name struct{ where, host, cure string }
	var names []name
	add := func(where, host, cure string) {
		_, err := netip.ParseAddr(host)
		known := func(n name) bool { return n.host == host }
		if err != nil && host != "" && !slices.ContainsFunc(names, known) {
			names = append(names, name{where, host, cure})
		}
	}
	const others = "correct it, or have DNS or /etc/hosts know it, here and on the other nodes"
	add(conf.Where("nodename"), conf.NodeHost, others)
	add(conf.Where("leader_latch.cluster_listener"), conf.ClusterListener.Host, others)
	for _, n := range conf.Join {
		add(conf.Where("leader_latch.join"), n.Host, others)
	}
	for _, l := range conf.Listeners {
		add(l.Position.String()+": "+l.Key, l.Host, "the node does not start without; use a numeric address or a name that this machine knows")
	}
	why := make([]error, len(names))
	var all sync.WaitGroup
	for i, n := range names {
		all.Go(func() { _, why[i] = e.lookup(ctx, n.host) })
	}
	all.Wait()
	for i, n := range names {
		if why[i] == nil || parent.Err() != nil {
			continue
		}
		reason := why[i].Error()
		if dns, ok := errors.AsType[*net.DNSError](why[i]); ok {
			reason = dns.Err
		}
		warnings = append(warnings, fmt.Sprintf("%s: %s has no address as far as this machine knows (%s); %s", n.where, n.host, reason, n.cure))
	}
	return warnings
}
