//go:build bench

package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lead joins a group that nobody else is in.
func (c *caller) lead(group string) error {
	leader, err := c.join(group)
	if err == nil && leader != c.name {
		err = fmt.Errorf("%s was told that %s leads", c.name, leader)
	}
	return err
}

// elected connects and leads a fresh group.
func elected(addr string) (*caller, error) {
	c, err := call(addr, "a")
	if err != nil {
		return nil, err
	}
	if err := c.lead(unique("e")); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// audience is the members of one group, at many nodes, who all listen.
type audience struct {
	t       testing.TB
	members map[string]*caller
	leader  string // the last one that all were told of
	change  atomic.Pointer[change]
}

// change is a change of the leader, as its audience is told of it.
type change struct {
	mu          sync.Mutex
	leader      string
	left        int
	first, last time.Time
	all         chan struct{} // closed when nobody is left
	err         error
}

func (a *audience) expect(listeners int) *change {
	ch := &change{left: listeners, all: make(chan struct{})}
	a.change.Store(ch)
	return ch
}

// assemble has n clients join a group, spread over the nodes, so many at a time.
func assemble(t testing.TB, nodes []*member, group string, n, atOnce int) *audience {
	t.Helper()
	a := &audience{t: t, members: make(map[string]*caller)}
	all := make([]*caller, n)
	t.Cleanup(func() {
		for _, c := range all {
			if c != nil {
				c.Close()
			}
		}
	})
	var leader atomic.Pointer[string]
	if err := inParallel(n, atOnce, func(i int) error {
		c, err := call(nodes[i%len(nodes)].addr, fmt.Sprint("m", i))
		if err != nil {
			return err
		}
		all[i] = c
		l, err := c.join(group)
		if err == nil && !leader.CompareAndSwap(nil, &l) && *leader.Load() != l {
			err = fmt.Errorf("%s was told that %s leads, others %s", c.name, l, *leader.Load())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	a.leader = *leader.Load()
	for _, c := range all {
		a.members[c.name] = c
		go a.listen(c)
	}
	return a
}

func (a *audience) listen(c *caller) {
	for {
		leader, err := c.told()
		now := time.Now()
		if err != nil {
			return // it has left, or somebody misses it in what it should have been told
		}
		ch := a.change.Load()
		if ch == nil {
			a.t.Errorf("%s was told of %s though nothing had changed", c.name, leader)
			return
		}
		ch.mu.Lock()
		if ch.leader == "" {
			ch.leader, ch.first = leader, now
		}
		if leader != ch.leader && ch.err == nil {
			ch.err = fmt.Errorf("%s was told that %s leads, others %s", c.name, leader, ch.leader)
		}
		if ch.left--; ch.left == 0 {
			ch.last = now
			close(ch.all)
		}
		ch.mu.Unlock()
	}
}

// depose has the leader leave, and waits until all the others are told of the next
// one. while runs meanwhile, if it is set.
func (a *audience) depose(while func(ch *change)) (first, last time.Duration) {
	a.t.Helper()
	c := a.members[a.leader]
	delete(a.members, a.leader)
	ch := a.expect(len(a.members))
	began := time.Now()
	c.Close()
	if while != nil {
		while(ch)
	}
	select {
	case <-ch.all:
	case <-time.After(patience):
		a.t.Fatalf("%d of %d members were not told of the next leader", ch.left, len(a.members))
	}
	if ch.err != nil {
		a.t.Fatal(ch.err)
	}
	a.leader = ch.leader
	return ch.first.Sub(began), ch.last.Sub(began)
}
