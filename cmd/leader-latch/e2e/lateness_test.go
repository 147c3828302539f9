package e2e

import (
	"sync"
	"testing"
	"time"
)

// A machine that is too busy, or was stopped itself, is late with everything: with what the
// service does as with what the tests do. How much, the tests measure by a timer of their own.

// lateness notes when this process was woken too late.
type lateness struct {
	mu   sync.Mutex
	late []delay // in their order
}

// delay is how much later than asked for this process was woken at a time.
type delay struct {
	at time.Time
	by time.Duration
}

// lateTick is after how long the process asks to be woken. A delay that is shorter than that
// is none: timers have some of it on any machine.
const lateTick = 10 * time.Millisecond

var machine lateness

// watch notes delays for as long as the process lives.
func (l *lateness) watch() {
	for asked := time.Now(); ; {
		time.Sleep(lateTick)
		now := time.Now()
		l.woken(now, now.Sub(asked)-lateTick)
		asked = now
	}
}

func (l *lateness) woken(at time.Time, late time.Duration) {
	if late <= lateTick {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = append(l.late, delay{at, late})
}

// within is the sum of all delays between two times.
func (l *lateness) within(from, to time.Time) (sum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.late {
		began, ended := d.at.Add(-d.by), d.at
		if began.Before(from) {
			began = from
		}
		if ended.After(to) {
			ended = to
		}
		sum += max(0, ended.Sub(began))
	}
	return sum
}

// slack is what may be added to the bound of something that has taken so long until now.
func slack(d time.Duration) time.Duration { return margin + machine.lately(d) }

// lately is the sum of all delays in the time until now.
func (l *lateness) lately(d time.Duration) time.Duration {
	now := time.Now()
	return l.within(now.Add(-d), now)
}

// margin is what a loaded machine may add to the time within which something has to happen,
// beside what it is measured to have been late. What must not happen before a time has none.
const margin = 2 * time.Second

// Only what lies in the time that is asked for counts, and only what is no timer's usual delay.
func TestWhatTheMachineIsLate(t *testing.T) {
	t.Parallel()
	var l lateness
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	l.woken(at(100), lateTick)
	l.woken(at(1000), 300*time.Millisecond) // from 700 on
	l.woken(at(2000), 100*time.Millisecond)
	for _, tt := range []struct{ from, to, want int }{
		{0, 3000, 400},
		{0, 600, 0},
		{0, 800, 100},
		{800, 900, 100},
		{900, 1950, 150},
		{2000, 3000, 0},
	} {
		if sum, want := l.within(at(tt.from), at(tt.to)), time.Duration(tt.want)*time.Millisecond; sum != want {
			t.Errorf("from %d to %d ms: late by %v, want %v", tt.from, tt.to, sum, want)
		}
	}
}
