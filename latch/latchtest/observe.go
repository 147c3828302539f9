package latchtest

import (
	"slices"
	"sync/atomic"

	"leaderlatch/latch"
)

// observation is one OBSERVE.
type observation struct {
	e     *Elections
	group string
	conn  latch.Observer
	live  atomic.Bool
}

// Observe implements [latch.Elections].
func (e *Elections) Observe(group string, by latch.Observer) (latch.Observation, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unavailable {
		return nil, latch.ErrUnavailable
	}
	o := &observation{e: e, group: group, conn: by}
	o.live.Store(true)
	e.observations = append(e.observations, o)
	if !e.holding {
		e.show(o)
	}
	return o, nil
}

// show tells an observer who leads. mu is held.
func (e *Elections) show(o *observation) { e.showTo([]*observation{o}, o.group) }

// showAll tells all observers of a group who leads it. mu is held.
func (e *Elections) showAll(group string) {
	var all []*observation
	for _, o := range e.observations {
		if o.group == group {
			all = append(all, o)
		}
	}
	e.showTo(all, group)
}

func (e *Elections) showTo(all []*observation, group string) {
	if len(all) == 0 {
		return
	}
	leader, token := "", e.token+1
	if g := e.groups[group]; g != nil && len(g.members) > 0 {
		leader, token = g.members[0].client, g.token
	} else {
		e.token++
	}
	for _, o := range all {
		e.enqueue(func() { o.conn.Leader(leader, token) })
	}
}

// Observers returns how many connections observe a group.
func (e *Elections) Observers(group string) (count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.observations {
		if o.group == group {
			count++
		}
	}
	return count
}

// Live implements [latch.Observation].
func (o *observation) Live() bool { return o.live.Load() }

// Closed implements [latch.Observation].
func (o *observation) Closed() {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.e.observations = slices.DeleteFunc(o.e.observations, func(p *observation) bool { return p == o })
}
