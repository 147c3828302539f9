package session

import (
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/state"
)

// lease is the right of one incarnation to speak for its members, for a
// length of time after the sending of its last accepted renewal. It is asked
// before every write to a client, from many goroutines, without a lock.
//
// Once it has been found over it stays over: a renewal that comes too late
// does not revive it (DESIGN.md, rule 5).
type lease struct {
	incarnation state.Incarnation
	length      time.Duration
	now         func() Reading
	sent        atomic.Pointer[Reading] // t_send of the last accepted renewal
	over        atomic.Bool
	noted       atomic.Bool             // it is on disk that promises were made (promise.go)
	suspect     atomic.Pointer[Reading] // a jump of the wall clock was seen then; nil: none since sent
}

func newLease(inc state.Incarnation, length time.Duration, sent Reading, now func() Reading) *lease {
	l := &lease{incarnation: inc, length: length, now: now}
	l.sent.Store(&sent)
	return l
}

// live reports whether the node may speak at this instant.
func (l *lease) live() bool {
	if l.over.Load() {
		return false
	}
	now, sent := l.now(), *l.sent.Load()
	if now.AtMost(sent) >= l.length {
		l.over.Store(true)
		return false
	}
	return l.suspect.Load() == nil && now.Jump(sent) <= jumpLimit // which nobody may have looked at yet
}

// doubt shuts the gate until a renewal is accepted that was sent after now: a
// frozen machine's clocks may have stood still, all but the wall clock, which
// was set right afterwards.
func (l *lease) doubt(now Reading) { l.suspect.Store(&now) }

// left is how long the lease lasts if nothing prolongs it.
func (l *lease) left() time.Duration {
	if l.over.Load() {
		return 0
	}
	return max(0, l.length-l.now().AtMost(*l.sent.Load()))
}

// prolong counts the lease from a later sending, unless it is over. Calls
// come one at a time.
func (l *lease) prolong(sent Reading) {
	if l.left() == 0 {
		l.end()
		return
	}
	if sent.AtMost(*l.sent.Load()) > 0 {
		l.sent.Store(&sent)
	}
	if doubted := l.suspect.Load(); doubted != nil && sent.AtLeast(*doubted) > 0 {
		l.suspect.CompareAndSwap(doubted, nil)
	}
}

func (l *lease) end() { l.over.Store(true) }
