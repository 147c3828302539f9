package boltstore

import (
	"errors"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A write that hangs makes the store useless while it hangs, so that somebody
// can act; and what comes of it later does not make it useful again.
func TestAWriteThatHangsIsFinal(t *testing.T) {
	failures := make(chan error, 10)
	s := mustOpen(t, t.TempDir()+"/raft.db", Options{StallLimit: 50 * time.Millisecond, OnError: func(err error) { failures <- err }})
	if err := s.StoreLogs(entries(1, 10)); err != nil {
		t.Fatal(err)
	}
	goOn, done := make(chan struct{}), make(chan error)
	go func() {
		done <- s.update(func(*bolt.Tx) error { // as a write does whose fsync hangs
			<-goOn
			return nil
		})
	}()
	select {
	case err := <-failures:
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), "raft.db") {
			t.Errorf("failed with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if _, err := s.LastIndex(); !errors.Is(err, ErrStalled) {
		t.Errorf("a read meanwhile: %v", err)
	}
	close(goOn)
	<-done
	if err := s.StoreLogs(entries(11, 12)); !errors.Is(err, ErrStalled) {
		t.Errorf("a write afterwards: %v", err)
	}
	if len(failures) != 0 {
		t.Errorf("failed again: %v", <-failures)
	}
}
