//go:build faults

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"leaderlatch/ensemble/state"
)

// The host of a leader vanishes without a word.
func TestFaultAVanishedHostIsExplained(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, false)
	wantLevel(s.all, state.KeyedLevel)
	away, group := s.network.hosts[3], unique("why")
	away.joinFrom(s.all[0], group, "lead", "lead").wantSilence()
	next := s.all[1].join(group, "next", "lead")
	heal := s.cut(both([]*host{away}, s.network.hosts))
	next.want("LEADER next")
	heal()
	if c := s.all[1].lastChange(group); c.From != "lead" || c.To != "next" || c.Reason != state.ReasonSilent.String() || c.Node != s.all[0].name || c.By != c.Node {
		t.Errorf("the change is told as %+v", c)
	}
	wantSameChanges(s.all)
}

// All nodes are cut off from each other: each loses its session, and opens a new one when a
// majority is back, before anybody may expire the old one.
func TestFaultALostSessionIsExplained(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, false)
	wantLevel(s.all, state.KeyedLevel)
	group := unique("why")
	lead := s.all[0].join(group, "lead", "lead")
	heal := s.cut(all(both(s.hosts, s.hosts)))
	lead.wantGone()
	_, hint := s.all[0].outputs("explain", group)
	wantContains(t, hint, "no majority confirms this")
	heal()
	wantWhole(s.all)
	if c := s.all[1].lastChange(group); c.From != "lead" || c.To != "" || c.Reason != state.ReasonSessionLost.String() || c.Node != s.all[0].name || c.By != c.Node {
		t.Errorf("the change is told as %+v", c)
	}
	wantSameChanges(s.all)
}

// The log does not go back to a change any more. Nodes that are started again know of it by
// their snapshots, and so does one that was away, and is sent one.
func TestFaultChangesAreExplainedFromASnapshot(t *testing.T) {
	t.Setenv("LEADER_LATCH_SNAPSHOT_ENTRIES", fmt.Sprint(snapshotEntries))
	all := cluster(t, 3)
	wantLevel(all, state.KeyedLevel)
	away, rest := all[2], all[:2]
	away.kill()
	group := unique("why")
	lead, next := rest[0].join(group, "lead", "lead"), rest[1].join(group, "next", "lead")
	lead.Close()
	next.want("LEADER next")
	for _, m := range rest {
		had := m.newestSnapshot()
		m.until("the log is cut off behind the change", func() bool { // which takes two snapshots: a quarter stays behind each
			m.join(group, unique("entry"), "next").Close()
			return m.newestSnapshot() > had+2*snapshotEntries
		})
	}
	before, _ := wantSameChanges(rest)
	away.run()
	wantWhole(all)
	wantChange := func() {
		t.Helper()
		for _, m := range all {
			if c := m.changes(group); len(c) < 2 || c[1].From != "lead" || c[1].To != "next" || c[1].Reason != state.ReasonClosed.String() {
				t.Errorf("%s tells %+v", m.name, c)
			}
		}
	}
	wantChange()
	if installed, _ := filepath.Glob(filepath.Join(away.dir, "data", "leader_latch", "snapshots", "*-*-*")); len(installed) == 0 {
		t.Error("the node that was away has no snapshot")
	}
	wantKept(all, before)
	restartAll(all)
	wantChange()
	wantKept(all, before)
}
