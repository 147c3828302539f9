//go:build race

package e2e

// The race detector keeps memory of its own, which grows with what it has seen.
const raceEnabled = true
