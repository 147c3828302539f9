package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"leaderlatch/latch/latchtest"
)

// stepDowns is how many leaders step down at random. LEADER_LATCH_TEST_STEPDOWNS sets another number.
var stepDowns = func() int {
	n, err := strconv.Atoi(os.Getenv("LEADER_LATCH_TEST_STEPDOWNS"))
	if err != nil {
		return 100
	}
	return n
}()

// dynasty is a group of two plain clients, a keyed one with a hold and one without, whose leaders
// step down.
type dynasty struct {
	group   string
	all     []*member
	rnd     *rand.Rand
	holding *keyedClient
	leader  string
	tokens  []uint64                 // of the leaderships that there were
	took    map[bool][]time.Duration // by whether the leader had a hold
}

func newDynasty(plain *visits, all []*member, i int) *dynasty {
	d := &dynasty{group: unique("dynasty"), all: all, rnd: rand.New(rand.NewPCG(uint64(i), 7)), took: map[bool][]time.Duration{}}
	seed := func(j uint64) *rand.Rand { return rand.New(rand.NewPCG(uint64(i), j)) }
	for j := range uint64(2) {
		plain.stays(d.group, fmt.Sprint("plain-", j), "", seed(j))
	}
	plain.stays(d.group, "keyed", " hold=0 key="+newKey(d.rnd), seed(2))
	d.holding = newKeyedAt(all, i, d.group, "holding", time.Minute)
	d.holding.told = func(at time.Duration) {
		plain.mu.Lock()
		defer plain.mu.Unlock()
		plain.lookAtOthers(d.group, nil, at)
	}
	d.holding.start()
	all[0].until("all have joined", func() bool { return len(all[0].group(d.group).Members) == 4 })
	first := all[0].group(d.group)
	d.leader, d.tokens = first.Leader, []uint64{first.Token}
	return d
}

// stepDown has the leader step down, if it has the token that was the last one: no other change
// has come between. It is asked by any node.
func (d *dynasty) stepDown() {
	by := d.all[d.rnd.IntN(len(d.all))]
	last := d.tokens[len(d.tokens)-1]
	began := time.Now()
	out, stderr := by.outputs("step-down", d.group, "--token", fmt.Sprint(last))
	words := strings.Fields(out)
	if len(words) == 0 {
		by.t.Errorf("%s, token %d: %s", d.group, last, stderr)
		return
	}
	token, err := strconv.ParseUint(words[len(words)-1], 10, 64)
	if err != nil || token <= last {
		by.t.Errorf("%s, token %d: %q", d.group, last, out)
		return
	}
	hold := d.leader == "holding"
	d.leader, d.tokens = words[0], append(d.tokens, token)
	d.took[hold] = append(d.took[hold], time.Since(began))
}

// wantOneChangeEach compares what was answered with the changes that the nodes remember.
func (d *dynasty) wantOneChangeEach() {
	var told []uint64
	for _, c := range d.all[0].changes(d.group) {
		told = append(told, c.Token)
		if c.Token > d.tokens[0] && c.Reason != "stepped_down" {
			d.all[0].t.Errorf("%s: %s was followed by %s because of %s", d.group, c.From, c.To, c.Reason)
		}
	}
	n := min(len(told), len(d.tokens))
	if want := d.tokens[len(d.tokens)-n:]; !slices.Equal(told[len(told)-n:], want) {
		d.all[0].t.Errorf("%s: the changes had the tokens %v, the answers %v", d.group, told, want)
	}
}

// Leaders of all kinds step down at random, while others come and go: never do two lead, and each
// step-down makes one change.
func TestLeadersStepDownAtRandom(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, withKeys)
	wantLevel(all, 3)
	load, plain := newVisits(t, all), visitsAt(t, all)
	const each = 10 // of which the nodes remember all
	var dynasties []*dynasty
	for i := range max(1, stepDowns/each) {
		dynasties = append(dynasties, newDynasty(plain, all, i))
	}
	var running sync.WaitGroup
	for _, d := range dynasties {
		running.Go(func() {
			for range each {
				d.stepDown()
			}
		})
	}
	running.Wait()
	took := map[bool][]time.Duration{}
	for _, d := range dynasties {
		all[0].until("the last change is known", func() bool { return all[0].group(d.group).Token >= d.tokens[len(d.tokens)-1] })
		d.wantOneChangeEach()
		for hold, times := range d.took {
			took[hold] = append(took[hold], times...)
		}
	}
	load.finish()
	plain.stop()
	views := plain.seen()
	for _, d := range dynasties {
		k := d.holding
		k.end(true)
		<-k.done
		views = append(views, k.account.Views()...)
		if len(k.wrong) > 0 {
			t.Errorf("%s of %s %v", k.name, k.group, k.wrong)
		}
	}
	verdict := latchtest.Check(views)
	for _, v := range verdict.Violations {
		t.Error(v)
	}
	for hold, times := range took {
		slices.Sort(times)
		t.Logf("with a hold %v: %d step-downs: p50 %v, p99 %v, max %v", hold, len(times), times[len(times)/2], times[len(times)*99/100], times[len(times)-1])
	}
	t.Logf("%d leaderships", verdict.Leaderships)
}
