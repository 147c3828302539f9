//go:build faults

package e2e

import (
	"maps"
	"slices"
	"strings"
	"time"

	"leaderlatch/latch/latchtest"
)

// Why keyed leaders were replaced, in a run of random faults.
const (
	lossHung   = "the client sent no PING"
	lossCutOff = "the client was cut off from every node"
	lossFaults = "two faults of nodes or of their links at once"
	lossOther  = "no node that it reached had a majority"
)

// losses gives how often leaders with a hold were replaced whose process went on, by the cause,
// and fails where one was that had come back within S, which is its hold.
func (a *attacker) losses() map[string]int {
	a.t.Helper()
	count := map[string]int{}
	for _, s := range a.crowd.keyed {
		s.mu.Lock()
		all := slices.Clone(s.all)
		s.mu.Unlock()
		for _, k := range all {
			s.g.mu.Lock()
			losses, hung, wrong := slices.Clone(k.losses), k.hung, slices.Clone(k.wrong)
			s.g.mu.Unlock()
			for _, what := range wrong {
				a.t.Errorf("%s of %s %s", k.name, k.group, what)
			}
			for _, l := range losses {
				if stayed := l.at - l.came; stayed < a.timing.Expiry*99/100 {
					a.t.Errorf("%s of %s was replaced at %v, %v after its JOIN", k.name, k.group, l.at, stayed)
				}
				count[a.causeOf(s, l, hung)]++
			}
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(count)) {
		a.t.Logf("keyed leaders replaced: %5d: %s", count[cause], cause)
	}
	return count
}

func (a *attacker) causeOf(s *keyedSeat, l loss, hung time.Duration) string {
	since := max(l.came, l.until-a.timing.Expiry) // its node had no renewal accepted that was sent later
	cutOff := true
	for _, node := range a.hosts {
		cutOff = cutOff && slices.ContainsFunc(a.crowd.troubleOf(s.home, node, since), func(t latchtest.Trouble) bool { return t.From < l.at })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	faults := 0
	for _, p := range a.plays {
		if p.from < l.at && p.to > since && !strings.Contains(p.kind, "client") {
			faults++
		}
	}
	switch {
	case hung > since-a.timing.Expiry && hung < l.at:
		return lossHung
	case cutOff:
		return lossCutOff
	case faults >= 2:
		return lossFaults
	}
	return lossOther
}
