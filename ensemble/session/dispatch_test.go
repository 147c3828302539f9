package session

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// listener is a Member that keeps what it is told. heard is called each time.
type listener struct {
	mu     sync.Mutex
	told   []string
	closed bool
	heard  func(leader string)
}

func (*listener) Waits(string) {}
func (l *listener) Promised()  {}

func (l *listener) Alive(lasts time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fmt.Sprint("alive ", lasts.Milliseconds()))
}

func (l *listener) Leader(name string, _ uint64) {
	l.mu.Lock()
	l.told = append(l.told, name)
	l.mu.Unlock()
	if l.heard != nil {
		l.heard(name)
	}
}

func (l *listener) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *listener) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told)
}

// Of however many changes in a row, the members of a large group are told in order.
func TestALargeGroupIsToldOfEveryChange(t *testing.T) {
	const members, changes = 2 * tellAtOnce, 3 * maxTelling
	d := NewDispatcher()
	done := make(chan struct{})
	defer close(done)
	var large []*listener
	want := []string{"0"}
	for i := range members {
		l := &listener{}
		large = append(large, l)
		d.add(Delivery{what: deliverJoined, index: 1, member: &Membership{member: l, group: "large", client: fmt.Sprint("m", i)}, leader: "0"})
	}
	for i := range changes {
		leader := fmt.Sprint(i + 1)
		want = append(want, leader)
		d.add(Delivery{what: deliverLed, index: 2, group: "large", leader: leader})
	}
	go d.Run(done, nil)
	for i, l := range large {
		poll(t, fmt.Sprint("member ", i, " is told of all changes"), func() bool { return slices.Equal(l.all(), want) })
	}
}

// What is committed while a large group is told of its leader goes ahead of the rest of
// that: a client that joins another group, also at the next change of that one. The
// group's members are told of each change in order, and one that joins amid that of the
// newest leader alone.
func TestALargeGroupDelaysNobodyElse(t *testing.T) {
	const members = 10 * tellAtOnce
	d := NewDispatcher()
	done := make(chan struct{})
	defer close(done)

	joined := func(group, client, leader string, l *listener) {
		d.add(Delivery{what: deliverJoined, index: 1, member: &Membership{member: l, group: group, client: client}, leader: leader})
	}
	large := make([]*listener, members)
	for i := range large {
		large[i] = &listener{}
		joined("large", fmt.Sprint("m", i), "a", large[i])
	}
	other, late, last := &listener{}, &listener{}, large[members-1]
	var seen []string
	other.heard = func(leader string) { seen = append(seen, fmt.Sprint(leader, " before ", last.all())) }
	large[0].heard = func(leader string) {
		if leader != "b" {
			return
		}
		joined("other", "x", "x", other)
		d.add(Delivery{what: deliverLed, index: 2, group: "other", leader: "y"})
		d.add(Delivery{what: deliverLed, index: 2, group: "large", leader: "c"})
		joined("large", "late", "c", late)
	}
	d.add(Delivery{what: deliverLed, index: 2, group: "large", leader: "b"})
	go d.Run(done, nil)
	poll(t, "all are told of the newest leader", func() bool {
		for _, l := range large {
			if told := l.all(); len(told) == 0 || told[len(told)-1] != "c" {
				return false
			}
		}
		return true
	})
	if want := []string{"x before [a]", "y before [a]"}; !slices.Equal(seen, want) {
		t.Errorf("the other group: %q, want %q", seen, want)
	}
	for i, l := range large {
		if told := l.all(); !slices.Equal(told, []string{"a", "b", "c"}) {
			t.Fatalf("member %d was told %q", i, told)
		}
	}
	if told := late.all(); !slices.Equal(told, []string{"c"}) {
		t.Errorf("who joined amid that was told %q", told)
	}
}

// The members of a large group are told by several goroutines, and each of them of one
// change after the other: of those who are slow to take the first one nobody is told of
// the next meanwhile.
func TestALargeGroupIsToldByMany(t *testing.T) {
	const tellers = 3
	for slow := range tellers {
		synctest.Test(t, func(t *testing.T) {
			d := NewDispatcher()
			d.tellers = tellers
			done := make(chan struct{})
			var large []*listener
			var gates [tellers]chan struct{}
			for i := range 3 * tellAtOnce {
				l := &listener{}
				if i < tellers {
					gates[i] = make(chan struct{})
					l.heard = func(leader string) {
						if leader == "b" {
							<-gates[i]
						}
					}
				}
				large = append(large, l)
				d.add(Delivery{what: deliverJoined, index: 1, member: &Membership{member: l, group: "large", client: fmt.Sprint("m", i)}, leader: "a"})
			}
			d.add(Delivery{what: deliverLed, index: 2, group: "large", leader: "b"})
			d.add(Delivery{what: deliverLed, index: 3, group: "large", leader: "c"})
			go d.Run(done, nil)
			synctest.Wait()
			for i, l := range large[:tellers] {
				if told := l.all(); !slices.Equal(told, []string{"a", "b"}) {
					t.Errorf("while others are being told, member %d was told %q", i, told)
				}
			}
			for i, gate := range gates {
				if i != slow {
					close(gate)
				}
			}
			synctest.Wait()
			if told := large[slow].all(); len(told) != 2 {
				t.Errorf("still being told of b, it was told %q", told)
			}
			close(gates[slow])
			synctest.Wait()
			for i, l := range large {
				if told := l.all(); !slices.Equal(told, []string{"a", "b", "c"}) {
					t.Errorf("member %d was told %q", i, told)
				}
			}
			close(done)
			d.add(Delivery{what: deliverWaits, member: &Membership{member: &listener{}}}) // wakes it
		})
	}
}

// The one that leads from now on is told before the others.
func TestTheNewLeaderIsToldFirst(t *testing.T) {
	const members = 3 * tellAtOnce
	d := NewDispatcher()
	done := make(chan struct{})
	defer close(done)
	var mu sync.Mutex
	var order []string // in which they hear of it
	last := fmt.Sprint("m", members-1)
	for i := range members {
		name := fmt.Sprint("m", i)
		l := &listener{heard: func(leader string) {
			if leader == last {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}
		}}
		d.add(Delivery{what: deliverJoined, index: 1, member: &Membership{member: l, group: "g", client: name}, leader: "0"})
	}
	d.add(Delivery{what: deliverLed, index: 2, group: "g", leader: last})
	go d.Run(done, nil)
	poll(t, "all are told", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) >= members })
	if mu.Lock(); order[0] != last {
		t.Errorf("%s was told first, want %s", order[0], last)
	}
	mu.Unlock()
}

// A full queue becomes one order to read everything from the state; what was
// queued for older entries is not handed on after that.
func TestAFullQueueIsReplacedByTheState(t *testing.T) {
	d := NewDispatcher()
	var told []string
	newMember := func() *Membership {
		m := &Membership{group: "g", client: "m"}
		m.member = leaderFunc(func(name string) { told = append(told, name) })
		return m
	}
	a, gone := newMember(), newMember()
	d.deliver(Delivery{what: deliverJoined, index: 1, member: a, leader: "one"}, nil)
	d.deliver(Delivery{what: deliverJoined, index: 1, member: gone, leader: "one"}, nil)
	for range maxQueue {
		d.add(Delivery{what: deliverLed, index: 2, group: "g", leader: "two"})
	}
	d.add(Delivery{what: deliverLed, index: 3, group: "g", leader: "three"})
	d.add(Delivery{what: deliverLed, index: 4, group: "g", leader: "four"})
	if len(d.queue) != 2 {
		t.Fatalf("%d in the queue, want the order and what came after", len(d.queue))
	}
	told = nil
	all := func() (uint64, []Delivery) { return 4, []Delivery{{member: a, leader: "four"}} }
	for _, v := range d.queue {
		d.deliver(v, all)
	}
	if !slices.Equal(told, []string{"four"}) {
		t.Errorf("told %q; want the newest once: the state has entry 4, and one of the two has gone", told)
	}
	d.deliver(Delivery{what: deliverLed, index: 5, group: "g", leader: "five"}, nil)
	d.deliver(Delivery{what: deliverGone, member: a}, nil)
	d.deliver(Delivery{what: deliverLed, index: 6, group: "g", leader: "six"}, nil)
	if !slices.Equal(told, []string{"four", "five"}) || len(d.groups) != 0 {
		t.Errorf("told %q, %d groups left", told, len(d.groups))
	}
}
