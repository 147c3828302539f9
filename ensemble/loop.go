package ensemble

import (
	"time"

	"leaderlatch/ensemble/session"
)

// loop is the node's loop: it looks at the clocks, and does what is due by them.
type loop struct{ *Node }

// run polls, as Go's timers stand still while the machine sleeps.
func (l loop) run() {
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-look.C:
		case <-l.wake:
		}
		look.Reset(l.step())
	}
}

// step does what has to be done now, and says when to look again.
func (l loop) step() time.Duration {
	now := l.now()
	l.replica.Yield()
	l.mu.Lock()
	if err := l.Err(); err != nil && !inOrder(err) {
		l.roster.Fail() // of a life that ends in order, Stop sees to the connections
	}
	what, closing := l.roster.Step(now)
	if l.inactive() {
		closing = append(closing, l.roster.Queued()...) // came before that was known; see Join
	}
	duties := l.duty.due(now)
	upkeep := l.duty.upkeepDue(now)
	stopping := l.roster.Stopping()
	again := l.roster.NextLook()
	l.tellWaiters()
	l.mu.Unlock()

	l.duty.tell(duties)
	if what == session.NeedClose {
		l.log.Warn("session lost: closing its connections", "count", len(closing))
	}
	for _, m := range closing {
		m.Close()
	}
	if what == session.NeedClose {
		l.deadMan.disarm() // all closed, in time
	}
	if what == session.NeedOpen && !stopping && l.Err() == nil && l.mayOpen(now) {
		if l.opens.mayOpen() {
			l.open()
		}
	}
	if upkeep {
		l.cluster.keepUp(now)
	}
	l.duty.carryOut(duties)
	signal(l.wakeProposer) // a Renew may be due
	return again
}

// mayOpen reports whether the node may ask for a session: it is a member, and
// its folder says so.
func (l loop) mayOpen(now session.Reading) bool {
	if !l.dir.id().Settled || l.cluster.recovering(now) {
		return false
	}
	_, member := l.replica.Server(l.self)
	return member
}

// open writes the next counter down and asks for a session with it.
func (l loop) open() {
	counter, err := l.opens.next()
	if err != nil {
		l.failed(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roster.Begin(counter, l.now())
}
