package session

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Dispatcher hands committed changes to this node's connections, in order for each
// group, on a goroutine of its own: applying an entry never waits for a client. Some more
// help it to tell a large group.
//
// Its queue is bounded: beyond the bound it forgets what is queued and hands
// every member the leader of its group as the state has it by then. The same
// happens after a snapshot was installed.
type Dispatcher struct {
	wake    chan struct{} // has room for one
	tellers int           // how many goroutines tell the members of a large group

	mu    sync.Mutex // guards queue; taken last
	queue []Delivery

	// Of the dispatcher's goroutine alone.
	groups  map[string]*audience
	through uint64    // log index up to which all is known; older deliveries are stale
	telling []telling // the oldest first
}

// audience is the members of one group on this node.
type audience struct {
	members []*Membership
	told    int // how many changes its members are being told of
}

// telling is a change of a group's leader that not all of its members have been told
// of yet. They are told some at a time, and whatever is committed meanwhile goes
// between: a large group delays nobody else. It holds whoever was a member at the
// change; who joins later has the new leader in its first answer.
type telling struct {
	audience *audience
	members  []*Membership // of whom are left
	leader   string
	token    uint64
	answers  bool // it is no change: a PING is answered, behind the changes before
}

// tellAtOnce is how many members are told before the queue is looked at again.
const tellAtOnce = 64

// maxTellers bounds the goroutines that tell the members of a large group, of which each
// takes a processor: what they do is almost all the kernel's work on the way to the client.
const maxTellers = 4

// maxTelling bounds the changes that are being told of, and so the memory for them.
// Beyond it the queue waits, which has a bound of its own.
const maxTelling = 16

// Delivery is a change to hand on. Its index is that of the log entry.
type Delivery struct {
	what   deliveryKind
	index  uint64
	member *Membership // of deliverJoined, deliverGone, deliverWaits and deliverAlive
	group  string
	leader string
	token  uint64
	holder string // of deliverWaits
}

type deliveryKind int

const (
	deliverLed deliveryKind = iota
	deliverJoined
	deliverGone
	deliverWaits
	deliverAlive
	deliverAll // read everything from the state
)

// maxQueue bounds the queue: some megabytes, and far more than arrives while
// ten thousand members are told of one change.
const maxQueue = 1 << 16

func NewDispatcher() *Dispatcher {
	return &Dispatcher{
		wake:    make(chan struct{}, 1),
		tellers: min(runtime.GOMAXPROCS(0), maxTellers),
		groups:  make(map[string]*audience),
	}
}

func (d *Dispatcher) add(v Delivery) {
	d.mu.Lock()
	if len(d.queue) >= maxQueue {
		d.queue = append(d.queue[:0:0], Delivery{what: deliverAll})
	} else {
		d.queue = append(d.queue, v)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run delivers until done is closed. all gives the committed memberships of
// this node with the leaders of their groups, and the log index of that view.
func (d *Dispatcher) Run(done <-chan struct{}, all func() (uint64, []Delivery)) {
	var batch []Delivery
	for {
		if len(d.telling) == 0 {
			select {
			case <-done:
				return
			case <-d.wake:
			}
		}
		d.mu.Lock()
		batch, d.queue = d.queue, batch[:0]
		d.mu.Unlock()
		for i, v := range batch {
			d.deliver(v, all)
			batch[i] = Delivery{}
		}
		d.tellSome()
		select {
		case <-done:
			return
		default:
		}
	}
}

// tell tells a few members at once, and has more of them, or those that are still
// being told of a change before, told in their turn.
func (d *Dispatcher) tell(a *audience, leader string, token uint64) {
	if a.told > 0 || len(a.members) > tellAtOnce {
		for len(d.telling) >= maxTelling {
			d.tellSome()
		}
		if a.told == 0 { // the new leader is told first
			if i := slices.IndexFunc(a.members, func(m *Membership) bool { return m.client == leader }); i >= 0 {
				a.members[i].told(leader, token)
			}
		}
		a.told++
		d.telling = append(d.telling, telling{audience: a, members: slices.Clone(a.members), leader: leader, token: token})
		return
	}
	for _, m := range a.members {
		m.told(leader, token)
	}
}

// tellSome goes on with the oldest telling. When it returns, whom it took have been told:
// a member is told of one change after the other.
func (d *Dispatcher) tellSome() {
	if len(d.telling) == 0 {
		return
	}
	t := &d.telling[0]
	n := min(tellAtOnce, len(t.members))
	var taken atomic.Int64
	tell := func() {
		for i := taken.Add(1); i <= int64(n); i = taken.Add(1) {
			t.tell(t.members[i-1])
		}
	}
	var others sync.WaitGroup
	for range min(d.tellers, n) - 1 {
		others.Go(tell)
	}
	tell()
	others.Wait()
	if t.members = t.members[n:]; len(t.members) == 0 {
		t.audience.told--
		d.telling = slices.Delete(d.telling, 0, 1)
	}
}

func (t *telling) tell(m *Membership) {
	switch {
	case !t.answers:
		m.told(t.leader, t.token)
	case t.audience.has(m):
		m.answer()
	}
}

func (d *Dispatcher) deliver(v Delivery, all func() (uint64, []Delivery)) {
	switch v.what {
	case deliverAll:
		index, joined := all()
		d.through = index
		clear(d.groups)
		d.telling = nil
		for _, v := range joined {
			d.join(v)
			v.member.answer() // that it was asked was in the queue, perhaps
		}
	case deliverGone:
		d.leave(v.member)
	case deliverWaits:
		v.member.member.Waits(v.holder)
	case deliverAlive:
		d.answer(v.member)
	case deliverJoined:
		if v.index > d.through {
			d.join(v)
		}
	case deliverLed:
		if a := d.groups[v.group]; a != nil && v.index > d.through {
			d.tell(a, v.leader, v.token)
		}
	}
}

func (d *Dispatcher) join(v Delivery) {
	a := d.groups[v.member.group]
	if a == nil {
		a = &audience{}
		d.groups[v.member.group] = a
	}
	v.member.inAudience = len(a.members)
	a.members = append(a.members, v.member)
	v.member.told(v.leader, v.token)
}

// answer has a PING answered when the member has been told of all changes before.
func (d *Dispatcher) answer(m *Membership) {
	a := d.groups[m.group]
	switch {
	case !a.has(m): // it is over, or has moved
	case a.told > 0:
		for len(d.telling) >= maxTelling {
			d.tellSome()
		}
		a.told++
		d.telling = append(d.telling, telling{audience: a, members: []*Membership{m}, answers: true})
	default:
		m.answer()
	}
}

func (a *audience) has(m *Membership) bool {
	return a != nil && m.inAudience < len(a.members) && a.members[m.inAudience] == m
}

func (d *Dispatcher) leave(m *Membership) {
	a := d.groups[m.group]
	if !a.has(m) {
		return // never joined, or has moved
	}
	last := len(a.members) - 1
	a.members[m.inAudience] = a.members[last]
	a.members[m.inAudience].inAudience = m.inAudience
	a.members[last] = nil
	if a.members = a.members[:last]; last == 0 {
		delete(d.groups, m.group)
	}
}

func (m *Membership) told(leader string, token uint64) {
	m.leads.Store(leader == m.client)
	if m.keyed != nil && leader == m.client {
		m.keyed.leadsFrom(m.roster.now())
	}
	m.member.Leader(leader, token)
}
