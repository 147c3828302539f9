package session

import (
	"sync/atomic"
	"testing"

	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// What clients do, and what is committed for them, is nothing for the node's loop: it
// would wake for each JOIN, only to read the clocks.
func TestTheLoopIsWokenForWhatCannotWait(t *testing.T) {
	var told atomic.Int64
	var m *Membership
	join := func(n *bookkeeper) { m = n.roster.Join("g", "c", deaf{&told}) }
	joined := func(n *bookkeeper) {
		join(n)
		n.run()
	}
	nothing := func(*bookkeeper) {}
	lost := func(n *bookkeeper) {
		joined(n)
		n.clock = n.clock.Later(Normal.Lease)
		if what, closing := n.roster.Step(n.clock); what != NeedClose || len(closing) != 1 {
			t.Fatalf("step: %v, %d to close", what, len(closing))
		}
		n.roster.Changed()
	}
	restore := func(n *bookkeeper, ops ...state.Op) {
		ahead, err := statetest.FromBytes(statetest.Bytes(n.state))
		if err != nil {
			t.Fatal(err)
		}
		ahead.Apply(n.index+1, state.Entry{Ops: ops}, nil)
		n.roster.Restored(ahead)
	}
	inc := newBookkeeper().roster.session.lease.incarnation

	for _, c := range []struct {
		what    string
		before  func(*bookkeeper)
		happens func(*bookkeeper)
		due     bool
	}{
		{"a client comes", nothing, join, false},
		{"it is a member", join, (*bookkeeper).run, false},
		{"it goes", joined, func(n *bookkeeper) { m.Closed("closed", true) }, false},
		{"its end is committed", joined, func(n *bookkeeper) { m.Closed("closed", true); n.run() }, false},
		{"a renewal is committed", nothing, func(n *bookkeeper) {
			n.clock = n.clock.Later(Normal.Renew)
			n.run()
			if left := n.roster.session.lease.left(); left != Normal.Lease {
				t.Errorf("after a renewal the lease lasts for %v", left)
			}
		}, false},
		{"a snapshot says the same", joined, func(n *bookkeeper) { restore(n) }, false},
		{"the session is expired", joined, func(n *bookkeeper) { n.commit([]state.Op{state.Expire{Incarnation: inc, Renewal: 0}}) }, true},
		{"a snapshot says that it was", joined, func(n *bookkeeper) { restore(n, state.Expire{Incarnation: inc, Renewal: 0}) }, true},
		{"a snapshot lacks a member", joined, func(n *bookkeeper) { restore(n, state.Leave{Incarnation: inc, Seq: 2, Join: 1}) }, true},
		{"a gate has found the lease over", joined, func(n *bookkeeper) { n.clock = n.clock.Later(Normal.Lease); n.roster.session.lease.live() }, true},
		{"the last client knows of a lost session", lost, func(n *bookkeeper) { m.Closed("closed", true) }, true},
		{"there is no session and none under way", lost, func(n *bookkeeper) { m.Closed("closed", true); n.roster.session.phase = phaseIdle }, true},
		{"the last client may not know of it", lost, func(n *bookkeeper) { m.Closed("closed", false) }, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			n := newBookkeeper()
			if !n.roster.Due() {
				t.Error("not woken when the session is open, though somebody may wait for that")
			}
			n.roster.Changed()
			c.before(n)
			if n.roster.Step(n.clock); n.roster.Due() {
				t.Fatal("woken before anything happens")
			}
			c.happens(n)
			if got := n.roster.Due(); got != c.due {
				t.Errorf("due: %v", got)
			}
			if what, closing := n.roster.Step(n.clock); (what != NeedNothing || len(closing) > 0) != c.due {
				t.Errorf("step then has to do: %v, %d to close", what, len(closing))
			}
		})
	}
}
