package logstore

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A write that hangs makes the store useless while it hangs, so that somebody
// can act; and what comes of it later does not make it useful again.
func TestAWriteThatHangsIsFinal(t *testing.T) {
	failures := make(chan error, 10)
	var hangs atomic.Bool
	goOn, done := make(chan struct{}), make(chan error)
	s := mustOpen(t, t.TempDir()+"/raft.db", Options{
		StallLimit: 50 * time.Millisecond,
		OnError:    func(err error) { failures <- err },
		BeforeCommit: func() {
			if hangs.Load() {
				<-goOn
			}
		},
	})
	if err := s.StoreLogs(entries(1, 10)); err != nil || s.Busy() != 0 {
		t.Fatal(err, s.Busy())
	}
	hangs.Store(true)
	go func() { done <- s.StoreLogs(entries(11, 20)) }()
	select {
	case err := <-failures:
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), "raft.db") {
			t.Errorf("failed with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if s.Busy() < 50*time.Millisecond {
		t.Errorf("busy for %v", s.Busy())
	}
	if _, err := s.LastIndex(); !errors.Is(err, ErrStalled) {
		t.Errorf("a read meanwhile: %v", err)
	}
	close(goOn)
	<-done
	if err := s.StoreLogs(entries(21, 22)); !errors.Is(err, ErrStalled) {
		t.Errorf("a write afterwards: %v", err)
	}
	if len(failures) != 0 {
		t.Errorf("failed again: %v", <-failures)
	}
}
