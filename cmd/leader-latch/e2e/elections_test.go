package e2e

import (
	"regexp"
	"syscall"
	"testing"
)

// Who led when is in the log, if that is asked for, and only what has just happened: a node
// that starts again on the same log tells nothing twice. The level is one at which operations
// have no reasons yet.
func TestChangesOfLeadersAreLogged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	on := []string{"leader_latch.log.elections = on", "leader_latch.format_level = 2"}
	p := start(t, dir, on...)
	a := p.join("spark", "a", "a")
	b := p.join("spark", "b", "a")
	a.Close()
	b.want("LEADER b")
	wantElections(t, p,
		`group=spark from="" to=a token=\d+ reason="it is the first member of the group"`,
		`group=spark from=a to=b token=\d+ reason="the connection of the leader before ended"`)
	p.signal(syscall.SIGKILL)
	<-p.gone

	p = start(t, dir, on...)
	p.join("flink", "c", "c")
	wantElections(t, p,
		`group=spark from=b to="" reason="riak@127.0.0.1, where the leader before was, was started again or had lost its session"`,
		`group=flink from="" to=c token=\d+ reason="it is the first member of the group"`)
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	wantElections(t, p, `spark`, `flink from=""`,
		`group=flink from=c to="" reason="riak@127.0.0.1, where the leader before was, stopped or left the cluster"`)

	p = start(t, dir, "leader_latch.format_level = 2")
	p.join("flink", "d", "d")
	wantElections(t, p)
}

// wantElections waits until the log has as many lines about leaders, and expects these.
func wantElections(t *testing.T, p *proc, want ...string) {
	t.Helper()
	var got [][]string
	p.until("the changes are logged", func() bool {
		got = regexp.MustCompile(`(?m)\[info\] leader changed (.*) node=riak@127\.0\.0\.1$`).FindAllStringSubmatch(p.logText(), -1)
		return len(got) >= len(want)
	})
	for i, line := range got {
		if i >= len(want) || !regexp.MustCompile(want[i]).MatchString(line[1]) {
			t.Errorf("line %d is %q, want %q", i, line[1], want)
		}
	}
}
