//go:build race

package session

// The simulation is one goroutine: the race detector only makes it ten times
// slower.
const raceEnabled = true
