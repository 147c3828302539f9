package ensemble

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// A log of few, large entries is shortened by its bytes, and what it held is in the
// snapshot.
func TestTheLogIsBoundedInBytes(t *testing.T) {
	const most, keep = 64 << 10, 32 << 10
	path := t.TempDir()
	n := startNode(t, path, nil)
	n.replica.fsm.mu.Lock()
	n.replica.fsm.log = logSize{most: most, keep: keep}
	n.replica.fsm.mu.Unlock()
	a := join(t, n, "g", "a")
	a.wantTold("a")

	large := make([]state.Op, 64) // of no effect
	for i := range large {
		large[i] = state.Renew{Incarnation: 1, Seq: 1 << 60}
	}
	entry := len(state.Encode(state.NewestLevel, state.Entry{At: time.Now(), Ops: large}))
	first := func() uint64 {
		index, err := n.store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	for range 3 { // the log is shortened again and again
		before := first()
		for range (most + keep) / entry {
			if err := n.replica.propose(large...); err != nil {
				t.Fatal(err)
			}
		}
		poll(t, "the log is shortened", func() bool { return first() > before })
	}
	last, err := n.store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	var l raft.Log
	for index := first(); index <= last; index++ {
		if err := n.store.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
		size += len(l.Data)
	}
	if limit := most + keep + (most + keep); size > limit {
		t.Errorf("%d bytes in %d entries, more than %d", size, last-first()+1, limit)
	}
	if left := last - first() + 1; int(left)*entry < keep/2 {
		t.Errorf("only %d entries are left for those that are behind", left)
	}

	kill(n)
	n = startNode(t, path, nil)
	join(t, n, "g", "b").wantTold("b") // a has gone with the session before
}

func TestLogSize(t *testing.T) {
	l := logSize{most: 1000, keep: 320}
	for index := uint64(1); index <= 9; index++ {
		l.add(index, 100)
	}
	if l.full() || l.trailing() != trailingEntries {
		t.Errorf("after 900 bytes: full %v, trailing %d", l.full(), l.trailing())
	}
	l.add(10, 100)
	if !l.full() {
		t.Error("not full after 1000 bytes")
	}
	for index := uint64(11); index <= 1000; index++ {
		l.add(index, 10)
	}
	if got := l.trailing(); got != 32 {
		t.Errorf("of entries of 10 bytes %d stay, not 32", got)
	}
	for index := uint64(1001); index <= 2000; index++ {
		l.add(index, 5)
	}
	if got := l.trailing(); got < 62 || got > 64 {
		t.Errorf("of entries of 5 bytes %d stay, not some 64", got)
	}
	l.keep = 1 << 30
	for index := uint64(2001); index <= 40_000; index++ {
		l.add(index, 40<<20)
	}
	l.keep = 100 << 20
	for index := uint64(40_001); index <= 100_000; index++ {
		l.add(index, 1)
	}
	if got := l.trailing(); got != trailingEntries {
		t.Errorf("of entries of one byte %d stay, more than by number", got)
	}
}
