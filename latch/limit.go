package latch

import (
	"sync"
	"time"
)

// Limit bounds the connections of all servers of a process that share it;
// PROTOCOL.md, Connection limit. It exists so that the process never runs out of
// descriptors: clients left in the listen queue look connected and get no answer.
type Limit struct {
	max, waiting int
	patience     time.Duration // how long a surplus connection waits for its first line

	mu            sync.Mutex
	open, surplus int
	warned        time.Time
}

// NewLimit returns a Limit of max connections. Over it, up to waiting more are
// held until they have sent their first line, at most 5 s each, to be refused in
// words; further ones are closed at once. A Limit therefore takes up to
// max + waiting descriptors.
func NewLimit(max, waiting int) *Limit {
	return &Limit{max: max, waiting: waiting, patience: 5 * time.Second}
}

// seat is what a Limit grants to a new connection.
type seat uint8

const (
	seatRegular seat = iota
	seatSurplus      // only to be refused
	seatNone
)

// take seats a connection. warn is true if the limit is reached and that was not
// said within the last second.
func (l *Limit) take() (s seat, warn bool) {
	if l == nil {
		return seatRegular, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open < l.max {
		l.open++
		return seatRegular, false
	}
	if now := time.Now(); now.Sub(l.warned) >= time.Second {
		l.warned, warn = now, true
	}
	if l.surplus < l.waiting {
		l.surplus++
		return seatSurplus, warn
	}
	return seatNone, warn
}

// leave frees a seat that take has granted.
func (l *Limit) leave(s seat) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s {
	case seatRegular:
		l.open--
	case seatSurplus:
		l.surplus--
	}
}
