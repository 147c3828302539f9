package main

import (
	"math/bits"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The cases that are cheap: those that hold do, and each rule that is taken away is found.
func TestCases(t *testing.T) {
	played := 0
	var steps [verbs]bool
	for _, c := range scenarios {
		if !c.test {
			continue
		}
		played++
		most := 60_000 // states
		switch {
		case c.walk && c.fails == 0:
			most = 1000
		case c.walk:
			most = 6000
		}
		r := c.run(1, time.Minute, most)
		for v, was := range r.played {
			steps[v] = steps[v] || was
		}
		switch {
		case !c.asItShould(r):
			t.Errorf("%s: broken is %q, not %q: %v", c.name, r.broken, c.fails, r)
			if r.schedule != nil {
				t.Log(tell(r.schedule))
			}
		case c.fails == 0 && !r.exhausted && r.walks == 0:
			t.Errorf("%s: not all states were seen: %v", c.name, r)
		}
	}
	if played < 30 {
		t.Errorf("%d cases were played; the others prove nothing here", played)
	}
	for v, was := range steps {
		if !was {
			t.Errorf("no case has a step of kind %d of actions.go", v)
		}
	}
}

// Each rule is taken away in a case of its own, in which that is found. The gate
// of ALIVE is a second wall.
func TestEachRuleIsTakenAway(t *testing.T) {
	found := gate
	for _, c := range scenarios {
		cfg = base()
		c.set(&cfg)
		missing := cfg.without
		if missing != closesFirst {
			missing &^= closesFirst // not every client has to end old connections for P2
		}
		if c.fails != 0 && bits.OnesCount64(uint64(missing)) == 1 {
			found |= missing
		}
	}
	for r := rule(1); r <= gate; r <<= 1 {
		if found&r == 0 {
			t.Errorf("rule %d of config.go is not taken away in any case", bits.TrailingZeros64(uint64(r)))
		}
	}
}

// HOLDS.md names all cases, and no others.
func TestTheDocumentNamesTheCases(t *testing.T) {
	text, err := os.ReadFile("HOLDS.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b[fgtwx](?:\d+b?|[A-Z]b?)\b`).FindAllString(string(text), -1)
	var cases []string
	for _, c := range scenarios {
		name, _, _ := strings.Cut(c.name, " ")
		if slices.Contains(cases, name) {
			t.Errorf("two cases are called %s", name)
		}
		cases = append(cases, name)
		if !slices.Contains(named, name) {
			t.Errorf("HOLDS.md does not name %s", c.name)
		}
	}
	for _, name := range named {
		if !slices.Contains(cases, name) {
			t.Errorf("HOLDS.md names %s, and there is no such case", name)
		}
	}
}
