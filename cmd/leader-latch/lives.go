package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/session"
	"leaderlatch/riakconf"
)

// lives are the nodes of a process, one after the other on one folder: a node
// that leaves its cluster, or joins another, ends and makes room for the next.
// The process, its listeners and its admin socket stay.
type lives struct {
	conf   *riakconf.Config
	dir    *ensemble.Dir
	timing session.Timing
	derive func(cookie string) (*clusterport.Key, error)
	log    *slog.Logger
	order  func(ctx context.Context, term uint64, with json.RawMessage) (any, error) // see [ensemble.Config]

	node atomic.Pointer[ensemble.Node]

	mu      sync.Mutex                       // held while a node starts, or gets other cookies
	cookies cookies                          // the present ones
	key     func() (*clusterport.Key, error) // of these, derived when it is needed
}

// current is the present node. It may be called from any goroutine.
func (l *lives) current() *ensemble.Node { return l.node.Load() }

// start opens the cluster port and starts a node.
func (l *lives) start(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bind, why := clusterBind(l.conf.ClusterListener, net.InterfaceAddrs)
	if why != "" {
		l.log.Info("the cluster listener takes connections on all addresses", "reason", why, "others_dial", l.conf.ClusterAddress())
	}
	listener, err := clusterport.Listen(ctx, bind)
	if err != nil {
		return fmt.Errorf("%s: %w", l.conf.Where("leader_latch.cluster_listener"), explainBind(bind, err))
	}
	address := l.conf.ClusterAddress()
	if address.Port == 0 {
		address.Port = listener.Addr().(*net.TCPAddr).Port
	}
	if l.current() == nil {
		l.log.Info("starting", "node", l.conf.NodeName, "version", versionText()) // ahead of the node's own lines
	}
	var join []ensemble.Place
	for _, n := range l.conf.Join {
		join = append(join, placeOf(n))
	}
	node, err := ensemble.Start(l.dir, ensemble.Config{
		Name:          l.conf.NodeName,
		Address:       address.String(),
		Listener:      listener,
		Key:           l.key,
		Timing:        l.timing,
		MinimumNodes:  l.conf.MinimumNodes,
		Voters:        l.conf.Voters,
		MaxHeld:       l.conf.MaxHeld,
		Join:          join,
		FormatLevel:   uint64(l.conf.FormatLevel),
		Version:       versionText(),
		MinimumFree:   uint64(l.conf.MinimumFree),
		DeadManSwitch: l.conf.DeadManSwitch,
		Order:         l.answer,
		LogElections:  l.conf.LogElections,
		Logger:        l.log,
	})
	if err != nil {
		listener.Close()
		return err
	}
	l.node.Store(node)
	return nil
}

// answer answers orders, also those that come before there is a node here.
func (l *lives) answer(ctx context.Context, term uint64, with json.RawMessage) (any, error) {
	if l.current() == nil {
		return nil, fmt.Errorf("%s is just starting", l.conf.NodeName)
	}
	return l.order(ctx, term, with)
}

// anew stops the present node and starts the next.
func (l *lives) anew(ctx context.Context) error {
	stop, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if err := l.current().Stop(stop); err != nil {
		return err
	}
	return l.start(ctx)
}

// rekey has the present node, and all after it, prove themselves by other cookies, if the
// other members can follow. A node that ends gives that up, so that the next can start.
func (l *lives) rekey(ctx context.Context, c cookies) error {
	key, err := c.key(l.derive)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.current().Rekey(ctx, key); err != nil {
		return fmt.Errorf("nothing was done; put riak.conf back until this is mended, as a start goes by it:\n%w", err)
	}
	l.log.Info("took the cookies of riak.conf", "step", l.cookies.step(c))
	l.cookies, l.key = c, func() (*clusterport.Key, error) { return key, nil }
	return nil
}

// placeOf is a node as an operator names it, with a port, for the ensemble.
func placeOf(n riakconf.Node) ensemble.Place {
	return ensemble.Place{Name: n.Name, Address: riakconf.Address{Host: n.Host, Port: n.Port}.String()}
}
