package state

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// However many changes there are, the last ones are there, and of a group those that were its
// last long ago; also after a snapshot.
func TestWhatIsRememberedOfChanges(t *testing.T) {
	s := New()
	s.Apply(1, Entry{Ops: []Op{Raise{KeyedLevel}, Open{Node: "n1", Counter: 1, Boot: "boot"}}}, nil)
	inc, _, _ := s.Current("n1")
	index, seq := uint64(1), uint64(0)
	apply := func(op func(seq uint64) Op) {
		index++
		seq++
		s.Apply(index, Entry{At: time.UnixMilli(int64(index)), Ops: []Op{op(seq)}}, nil)
	}
	join := func(group, client string) (joined uint64) {
		apply(func(seq uint64) Op { return Join{inc, seq, group, client} })
		return seq
	}
	leave := func(joined uint64, why Reason) { apply(func(seq uint64) Op { return Leave{inc, seq, joined, why} }) }

	// The quiet group has changed its leader n times, and then many others have.
	const n = MaxPast + 3
	var quiet []uint64
	for i := range n + 1 {
		quiet = append(quiet, join("quiet", fmt.Sprintf("q%d", i)))
	}
	for i := range n {
		leave(quiet[i], ReasonLeft)
	}
	wantQuiet := func() {
		t.Helper()
		changes := s.Changes("quiet")
		if len(changes) != MaxPast {
			t.Fatalf("%d changes are remembered", len(changes))
		}
		for i, c := range changes {
			was := n - MaxPast + i
			want := Change{time.UnixMilli(int64(n + 3 + was)), "quiet", fmt.Sprintf("q%d", was), fmt.Sprintf("q%d", was+1), uint64(PositionOf(uint64(n+3+was), 0)), ReasonLeft, "n1", "n1"}
			if c != want {
				t.Errorf("change %d is\n%v, want\n%v", i, c, want)
			}
		}
	}
	wantQuiet()
	before := slices.Collect(s.Recent())
	if len(before) != n+1 || before[0].From != "" || before[0].To != "q0" || before[n].To != fmt.Sprintf("q%d", n) {
		t.Errorf("%d changes of all: %v", len(before), before)
	}

	const others = MaxRecent*3/4 + 1 // each is founded, and vanishes
	for i := range others {
		leave(join(fmt.Sprintf("other-%d", i), "a"), ReasonReset)
	}
	for _, restored := range []bool{false, true} {
		if restored {
			var err error
			if s, err = restoreBytes(snapshotOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		wantQuiet()
		all := slices.Collect(s.Recent())
		if len(all) != MaxRecent {
			t.Fatalf("%d changes of all", len(all))
		}
		for i, c := range all {
			group := fmt.Sprintf("other-%d", others-(MaxRecent-i+1)/2)
			if c.Group != group || (c.To == "") != (i%2 == 1) || (c.Reason == ReasonReset) != (c.To == "") {
				t.Errorf("change %d of all is %v, want one of %s", i, c, group)
			}
		}
		// Of a group that is gone, what is among the last ones of all is still there.
		if gone := s.Changes(fmt.Sprintf("other-%d", others-1)); len(gone) != 2 || gone[0].To != "a" || gone[1].From != "a" {
			t.Errorf("of a group that is gone: %v", gone)
		}
	}
}

// A change takes few bytes, in memory and in snapshots, beside the names in it.
func TestWhatAChangeTakes(t *testing.T) {
	var p *past
	for i := range MaxPast {
		p = p.and(leadership{"w", 1444000000123456 + uint64(PositionOf(uint64(i), 0)), 1444000000123, ReasonClosed, 3, 3})
	}
	if each := len(p.records) / MaxPast; each > 20 {
		t.Errorf("%d bytes for a leadership of a client with a name of one", each)
	}
	if cap(p.records) > 2*len(p.records) {
		t.Errorf("%d bytes of memory for %d", cap(p.records), len(p.records))
	}
}

// Each reason has its word, and one that is not known is told apart from none.
func TestReasonsHaveWords(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonClosed; r <= ReasonHoldOver; r++ {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d is %q", r, r)
		}
		seen[r.String()] = true
	}
	if none, unknown := Reason(0).String(), (ReasonHoldOver + 1).String(); none != "" || unknown != "unknown" {
		t.Errorf("%q and %q", none, unknown)
	}
}
