//go:build faults

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The wall clock of one node is set, as if its machine had been frozen: until a
// renewal shows that its session lives, it tells nobody that he leads. Nobody else
// hears of it, and the session goes on.
func TestFaultTheWallClockIsSet(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, false)
	for _, role := range roles {
		sc := newScene(t, s.all, role == "the raft leader")
		if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", sc.victim.cmd.Process.Pid)); !strings.Contains(string(maps), "/wall-clock\n") {
			t.Fatalf("the node does not look at the file of its wall clock (%v)", err)
		}
		for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
			began := time.Now()
			s.host(sc.victim).setWallClock(by)
			sc.victim.joinWithin(patience, unique("after")).Close()
			took(t, "wall clock set, "+role+": a JOIN there succeeds", time.Since(began), clusterTiming.Renew+300*time.Millisecond)
		}
		for _, c := range []*conn{sc.lead, sc.guest, sc.next, sc.third, sc.own, sc.watcher} {
			c.wantSilence()
		}
		if strings.Contains(sc.victim.logText(), "session lost") {
			t.Errorf("%s has lost its session:\n%s", role, sc.victim.logText())
		}
	}
}

// A node was away for so long that the log of the others does not go back to it. It
// gets the state as a snapshot, while it runs, and serves as the others do.
func TestFaultASnapshotIsInstalledOnARunningFollower(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 17,000 entries of the log")
	}
	t.Parallel()
	s := newSite(t, 0, false)
	leader, rest := raftLeader(t, s.all)
	away := rest[0]
	heal := s.outdate(away, leader, rest[1])
	first := leader.join("g", "first", "first")
	next := rest[1].join("g", "next", "first")
	had := away.newestSnapshot()
	healed := time.Now()
	heal()
	away.ready()
	took(t, "a snapshot is installed on a running follower: a JOIN there succeeds", time.Since(healed), replaced(clusterTiming))
	if has := away.newestSnapshot(); has == had {
		t.Errorf("the node has no other snapshot than before, of entry %d", had)
	}
	third := away.join("g", "third", "first")
	first.Close()
	next.want("LEADER next")
	third.want("LEADER next")
	wantWhole(s.all)
}

// outdate cuts a node off, and has the log of the others grow until it does not go back to
// that node's any more.
func (s *site) outdate(away *member, others ...*member) (heal func()) {
	t := s.network.t
	t.Helper()
	gone := away.join("g", "gone", "gone")
	heal = s.cut(both([]*host{s.host(away)}, s.hosts))
	gone.wantGone()
	const trailing = 16384 // entries stay in the log behind a snapshot
	began := time.Now()
	defer load(16, others...)()
	for deadline := began.Add(10 * time.Minute); others[0].newestSnapshot() < trailing+2000; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no snapshot but of entry %d", others[0].newestSnapshot())
		}
	}
	t.Logf("the log was cut off behind the node %v after it", time.Since(began).Round(time.Second))
	return heal
}

// newestSnapshot is up to which entry the node's newest snapshot goes.
func (m *member) newestSnapshot() (index int) {
	names, _ := filepath.Glob(filepath.Join(m.dir, "data", "leader_latch", "snapshots", "*-*-*"))
	for _, name := range names { // term-index-time
		n, _ := strconv.Atoi(strings.Split(filepath.Base(name), "-")[1])
		index = max(index, n)
	}
	return index
}
