package session

import (
	"testing"
	"time"
)

type leaderFunc func(name string)

func (f leaderFunc) Leader(name string, _ uint64) { f(name) }
func (leaderFunc) Waits(string)                   {}
func (f leaderFunc) Promised()                    {}
func (leaderFunc) Alive(time.Duration)            {}
func (leaderFunc) Close()                         {}

func poll(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
