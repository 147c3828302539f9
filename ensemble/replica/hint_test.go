package replica

import (
	"testing"

	"github.com/hashicorp/raft"
)

// A follower gets one hint of what is committed, and not before it has stored it in the
// term in which it was committed: before that it would only refuse.
func TestWhenAFollowerNeedsAHint(t *testing.T) {
	of := &entryID{index: 5, term: 2}
	for _, c := range []struct {
		what         string
		stored, told *entryID
		newest       *entryID
		want         bool
	}{
		{"nothing is committed", &entryID{9, 2}, nil, nil, false},
		{"nothing is known of it", nil, nil, of, false},
		{"it has less", &entryID{4, 2}, nil, of, false},
		{"it has it", &entryID{5, 2}, nil, of, true},
		{"it has more", &entryID{6, 2}, nil, of, true},
		{"it has been told", &entryID{6, 2}, of, of, false},
		{"it was told of another", &entryID{6, 2}, &entryID{4, 2}, of, true},
		{"it had it in a term before", &entryID{6, 1}, nil, of, false},
		{"it has it in a later term", &entryID{6, 3}, nil, of, false},
	} {
		var f follower
		f.stored.Store(c.stored)
		f.told.Store(c.told)
		if got := f.needs(c.newest); got != c.want {
			t.Errorf("%s: needs a hint: %v", c.what, got)
		}
	}
}

// Answers may come out of turn, and late ones from a term before.
func TestWhatAFollowerHasStoredIsNotForgotten(t *testing.T) {
	var f follower
	for _, c := range []struct{ upTo, want entryID }{
		{entryID{5, 2}, entryID{5, 2}},
		{entryID{4, 2}, entryID{5, 2}},
		{entryID{9, 1}, entryID{5, 2}},
		{entryID{6, 2}, entryID{6, 2}},
		{entryID{3, 3}, entryID{3, 3}}, // what it had beyond may have been replaced
	} {
		f.stores(c.upTo)
		if got := *f.stored.Load(); got != c.want {
			t.Errorf("after %v: %v, want %v", c.upTo, got, c.want)
		}
	}
}

// A process that was started again knows of no commit, whatever the one before was told.
func TestAFollowerThatReturnsIsToldAgain(t *testing.T) {
	of := &entryID{index: 5, term: 2}
	for _, c := range []struct {
		what   string
		stored *entryID
		want   bool
	}{
		{"it has what is committed", of, true},
		{"it has less, which Raft will send", &entryID{4, 2}, false},
	} {
		r := &Replica{}
		r.newest.Store(of)
		f := &follower{wake: make(chan struct{}, 1)}
		f.stored.Store(c.stored)
		f.told.Store(of)
		r.followers.Store(raft.ServerID("it"), f)
		r.returns("it")
		r.returns("another")
		if woken := len(f.wake) == 1; woken != c.want || f.needs(of) != c.want {
			t.Errorf("%s: woken to send a hint: %v", c.what, woken)
		}
	}
}

// Raft may tell of a follower before the node has Raft.
func TestAFollowerMayAnswerBeforeTheStartIsOver(t *testing.T) {
	done := make(chan struct{})
	r := &Replica{started: make(chan struct{}), done: done}
	told := make(chan struct{})
	go func() {
		r.stores("another", 5, 2)
		close(told)
	}()
	close(done)
	<-told
	if _, ok := r.followers.Load(raft.ServerID("another")); ok {
		t.Error("a node that has not started sends hints")
	}
}

// A follower has lost something when its log ends before what it has stored, in the same
// term: in a later one it may have had to cut off what is not in that one's log.
func TestWhatAFollowerHasLost(t *testing.T) {
	for _, tt := range []struct {
		stored *entryID
		at     uint64
		lost   bool
	}{
		{nil, 0, false},
		{&entryID{10, 3}, 9, true},
		{&entryID{10, 3}, 0, true},
		{&entryID{10, 3}, 10, false},
		{&entryID{10, 3}, 12, false},
		{&entryID{10, 2}, 9, false},
	} {
		f := &follower{}
		f.stored.Store(tt.stored)
		f.ends(tt.at, 3)
		f.stores(entryID{20, 3}) // it gets the rest
		f.ends(20, 3)
		if l := f.lost.Load(); (l != nil) != tt.lost || l != nil && (l.stored != *tt.stored || l.end != tt.at) {
			t.Errorf("stored %v, its log ended at %d in term 3: lost %v", tt.stored, tt.at, l)
		}
	}
}
