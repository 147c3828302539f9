package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// rows collects how long what happens when something fails has taken, for the table
// that is printed when the tests are done.
var rows = rowTimes{times: map[string][]time.Duration{}, bounds: map[string]time.Duration{}}

type rowTimes struct {
	mu     sync.Mutex
	times  map[string][]time.Duration
	bounds map[string]time.Duration
}

// took notes, and logs, that something took so long, until now, and holds it against its
// bound, with some [slack].
func took(t testing.TB, what string, d, bound time.Duration) {
	t.Helper()
	slack := slack(d)
	t.Logf("%s: %v; bound %v", what, d.Round(time.Millisecond), bound)
	if d > bound+slack {
		t.Errorf("%s: %v, want %v, to which this machine may add %v", what, d, bound, slack)
	}
	note(what, d, bound)
}

// note puts a time that something took, or lasted, into the table.
func note(what string, d, bound time.Duration) {
	rows.mu.Lock()
	defer rows.mu.Unlock()
	rows.times[what] = append(rows.times[what], d)
	rows.bounds[what] = bound
}

// print prints the table, if tests are to show what they do.
func (r *rowTimes) print() {
	if !testing.Verbose() || len(r.times) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %-72s | times | p50 | max | bound |\n|---|---|---|---|---|\n", "what ("+clusterTiming.Name+")")
	for _, what := range slices.Sorted(maps.Keys(r.times)) {
		all := slices.Sorted(slices.Values(r.times[what]))
		round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
		fmt.Fprintf(&b, "| %-72s | %d | %v | %v | %v |\n", what, len(all), round(all[len(all)/2]), round(all[len(all)-1]), r.bounds[what])
	}
	os.Stdout.WriteString(b.String())
}
