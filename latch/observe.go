package latch

import "time"

// observing is the membership of a connection that observes a group: it has none, and ends
// like one of which nothing stays; PROTOCOL.md, Observers.
type observing struct{ Observation }

func (observing) Promise() (now, later bool) { return false, false }
func (observing) Alive() bool                { return false }
func (observing) Stopped()                   {}

func (o observing) Closed(string, bool) (bound time.Duration) {
	o.Observation.Closed()
	return 0
}
