package ensemble

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
)

// What a new start of the process would cure is told by Healthy, to whoever
// restarts it: a loop that stands still, here where a connection does not close; a
// lock that is never let go; and a failure.
func TestANodeThatHangsIsNotHealthy(t *testing.T) {
	var ahead atomic.Int64
	n := startNode(t, t.TempDir(), func(c *Config) {
		c.now = func() session.Reading { return session.Now().Later(time.Duration(ahead.Load())) }
	})
	if !n.Healthy() {
		t.Fatal("a node that serves is not healthy")
	}
	a := join(t, n, "g", "a")
	a.wantTold("a")

	a.mu.Lock()                                      // its Close waits
	ahead.Store(int64(10*steady.Expiry + time.Hour)) // the session is over: all are closed
	poll(t, "the loop stands still", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return !n.roster.Live() })
	ahead.Add(int64(2 * stallsAfter))
	if n.Healthy() {
		t.Error("a node whose loop stands still is healthy")
	}
	a.mu.Unlock()
	poll(t, "it goes on", n.Healthy)

	n.mu.Lock()
	answer := make(chan bool)
	go func() { answer <- n.Healthy() }()
	select {
	case is := <-answer:
		t.Errorf("it answers %v while a lock is held", is)
	case <-time.After(50 * time.Millisecond):
		n.mu.Unlock()
		<-answer
	}

	n.failed(errors.New("it has failed"))
	if n.Healthy() {
		t.Error("a node that failed is healthy")
	}
}
