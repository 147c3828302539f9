package ensemble

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A node that has lost the majority is made a cluster of its own: it knows what
// it knew, waits until nobody of the lost ones can lead, tokens go on rising, and
// the old cluster is a stranger.
func TestRecovery(t *testing.T) {
	shorter := func(_ int, c *Config) { c.Timing.Lease, c.Timing.Expiry = 7*time.Second, 8*time.Second }
	all := foundersWith(t, 3, shorter)
	old := join(t, all[0].Node, "g", "old")
	old.wantTold("old")
	mine := join(t, all[1].Node, "g", "mine")
	mine.wantTold("old")
	token, cluster := old.tokens[0], all[1].dir.id().Cluster
	for _, m := range all {
		kill(m.Node)
	}

	m := all[1]
	open := func() *Dir {
		t.Helper()
		dir, err := OpenDir(t.Context(), m.path)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cfg := Config{Name: m.name, Address: m.address, Logger: testLog(t)}
	dir := open()
	r, err := PlanRecovery(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Lost(), " "); got != all[0].name+" "+all[2].name {
		t.Errorf("lost %s", got)
	}
	// Interrupted, it has to be done once more.
	if err := dir.change(dir.begin(), func(id *identity) { id.Recovery = recoveryBegun }); err != nil {
		t.Fatal(err)
	}
	var p *PermanentError
	if _, err := Start(dir, Config{Name: m.name, Address: m.address, Timing: steady, Key: testKey, Logger: testLog(t)}); !errors.As(err, &p) || !strings.Contains(err.Error(), "recover again") {
		t.Errorf("started with %v", err)
	}
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanRecovery(dir, cfg); !errors.As(err, &p) {
		t.Errorf("a second recovery: %v", err)
	}
	dir.Close()

	start := time.Now()
	m.start()
	if id := m.dir.id(); id.Cluster == cluster || id.Recovery != recoveryWaits {
		t.Errorf("identity %+v", id)
	}
	if _, err := m.letIn(t.Context(), m.hello(), nil); err == nil || !strings.Contains(err.Error(), "leases of the lost nodes") {
		t.Errorf("a node is let in at once: %v", err)
	}
	if len(m.Groups("g")) == 1 && m.Groups("g")[0].Leader != "old" {
		t.Errorf("group %v", m.Groups("g"))
	}
	m.ready()
	if d := time.Since(start); d < 8*time.Second { // S of the lost nodes
		t.Errorf("it spoke after %v, when clients of the lost nodes could still lead", d)
	}
	a := join(t, m.Node, "g", "a")
	a.until("a leads", func(told []string, _ bool) bool { return len(told) > 0 && told[len(told)-1] == "a" })
	if last := a.tokens[len(a.tokens)-1]; last <= token {
		t.Errorf("token %d after %d", last, token)
	}
	poll(t, "the recovery is over", func() bool { return m.dir.id().Recovery == recoveryNone })
	all[0].start()
	_, err = all[0].ask(t.Context(), "leader-latch/admin", m.address, "", askView, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("the old cluster talks to the new one: %v", err)
	}
}
