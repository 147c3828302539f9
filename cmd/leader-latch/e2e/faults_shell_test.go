//go:build faults

package e2e

import (
	"sync"
	"testing"
	"time"
)

// When the host of its node vanishes, a client in shell knows after as long as CLIENTS.md
// says, and the next one leads; when the host is back it joins again.
func TestFaultTheHostOfAShellClientsNodeVanishes(t *testing.T) {
	forms := shellForms(t)
	t.Parallel()
	s := newSite(t, 1, false)
	away := s.network.hosts[3]
	var ones, twos []*script
	for i, f := range forms {
		group := unique("shell")
		ones = append(ones, f.script(t, s.all[0].addr, group, "one"))
		twos = append(twos, f.script(t, s.all[1].addr, group, "two"))
		away.do(func() { ones[i].start() })
		ones[i].want("I lead")
		away.do(func() { twos[i].start() })
		twos[i].want("one leads")
	}
	vanished := time.Now()
	heal := s.cut(both(s.hosts[:1], s.network.hosts))
	for i, f := range forms {
		what := f.name + ", its node's host vanished"
		knows, next := ones[i].want("I do not lead"), twos[i].want("I lead")
		took(t, what+": its client in shell knew", knows.Sub(vanished), f.silence)
		took(t, what+": the next client in shell led", next.Sub(vanished), replacedAfterElection(clusterTiming))
		if f.silence < clusterTiming.Expiry-clusterTiming.Renew && knows.After(next) {
			t.Errorf("%s: the client knew only %v after the next one led", what, knows.Sub(next))
		}
	}
	heal()
	for _, one := range ones {
		one.want("two leads")
	}
}

func TestFaultDocumentSaysWhichTalkersMissAVanishedHost(t *testing.T) {
	wantTalkers(t)
	t.Parallel()
	nw := newNetwork(t, 2)
	m := onHosts(nw.hosts[:1], clusterTiming.Name, "leader_latch.minimum_nodes = 1")[0]
	nw.hosts[0].do(func() { m.run() })
	m.ready()
	var once sync.Once
	vanish := func(*talk) { once.Do(func() { nw.cut(both(nw.hosts[:1], nw.hosts)) }) }
	wantColumns(t, 15*time.Second, func(s *script) { nw.hosts[1].do(func() { s.start() }) },
		misfortune{"node's host vanished", m.proc, ":", vanish, (*talk).loopEnded})
}
