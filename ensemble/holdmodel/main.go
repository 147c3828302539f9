// Holdmodel plays a model of keyed members, whose place in line outlives their connection and
// their node. HOLDS.md has the rules, and says what the model shows of each.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	limit := flag.Duration("time", 10*time.Second, "for each case at most")
	most := flag.Int("states", 8_000_000, "for each case at most")
	seed := flag.Uint64("seed", 1, "of the random walks")
	cases := flag.String("cases", "", "only those whose names begin so, for example f1 or x")
	flag.Parse()
	failed := 0
	for _, c := range scenarios {
		if strings.HasPrefix(c.name, *cases) && !c.report(*seed, *limit, *most) {
			failed++
		}
	}
	if failed > 0 {
		fmt.Printf("%d cases are not as they should be\n", failed)
		os.Exit(1)
	}
}

// run searches a case.
func (c scenario) run(seed uint64, limit time.Duration, most int) result {
	cfg = base()
	c.set(&cfg)
	if c.walk {
		return walkRandomly(seed, limit, most)
	}
	return breadthFirst(limit, most)
}

// asItShould tells whether a result is what the case is there to show.
func (c scenario) asItShould(r result) bool { return r.broken == c.fails }

func (c scenario) report(seed uint64, limit time.Duration, most int) bool {
	r := c.run(seed, limit, most)
	ok := c.asItShould(r)
	what := "holds"
	switch {
	case r.broken != 0 && c.fails != 0:
		what = "found"
	case r.broken != 0:
		what = "BROKEN"
	case c.fails != 0:
		what = "NOT FOUND"
	}
	fmt.Printf("%-9s %s: %v\n", what, c.name, r)
	if r.schedule != nil {
		fmt.Printf("          %v in %d steps: %s\n", r.broken, len(r.schedule), tell(r.schedule))
	}
	return ok
}
