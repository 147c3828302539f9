package latchtest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// A View is what one connection of a client saw of its group. All times of a
// history are readings of one clock.
type View struct {
	Group, Client string
	Where         string        // for people: from where, through which node
	Told          []Told        // in the order of reading
	End           time.Duration // when the client closed the connection, or knew that it had ended; 0: it is open
	Trouble       []Trouble
	Keyed         bool // the client has a key: its leadership may go on over several connections
	Observes      bool // it is no member; it is told of nobody with an empty name

	// Promises make the client a bounded one. It takes itself for the leader within
	// these by its clock, whatever it reads or does not read meanwhile, and never else.
	// One that may have none yet is said to be Bounded.
	Promises []Promise
	Bounded  bool
	Stopped  time.Duration // when it stopped leading, before it closed its own side; 0: it did not
}

// Told is a line LEADER with a fencing token, from the moment in which the client
// could know it.
type Told struct {
	At     time.Duration
	Leader string
	Token  uint64
}

// Promise is a time in which a client may lead, from From until just before To.
type Promise struct {
	From, To time.Duration
	Token    uint64 // of the leadership
}

// Trouble is a time in which what a client knows may be older than what the
// service has done about it, as no rule of the service can prevent: it is cut off
// from its node, or paused. What it takes to be true too long must begin and end in
// this time, and last no longer than Limit.
//
// Where trouble follows soon on trouble, before the client can have heard what it missed,
// it is no longer than Again.
type Trouble struct {
	Kind     string
	From, To time.Duration // To, some time after the trouble was over, 0: it lasts
	Limit    time.Duration // 0: none but To
	Over     time.Duration // when it was over
	Again    time.Duration // 0: what follows on it is something else
}

// AgainAndAgain is the kind of trouble that follows on trouble.
const AgainAndAgain = "in trouble again and again"

// soon is within what time after its trouble is over a client hears what it missed.
const soon = 2 * time.Second

func (t Trouble) covers(from, to time.Duration) bool {
	return t.From <= from && (t.To == 0 || to <= t.To) && (t.Limit == 0 || to-from <= t.Limit)
}

// Verdict is what Check finds.
type Verdict struct {
	Leaderships int // intervals in which a client took itself for the leader
	Violations  []string
	Excused     map[string][]time.Duration // by kind of trouble: how long two of a group took themselves for the leader
	Overlap     time.Duration              // how long at most two of a group took themselves for the leader, and nothing excuses it
}

// interval is a time in which a client takes itself for the leader.
type interval struct {
	*View
	from, to time.Duration
	token    uint64
}

func (i interval) String() string {
	return fmt.Sprintf("%s (%s) with token %d from %v to %v", i.Client, i.Where, i.token, i.from, i.to)
}

// Check holds the views of all clients, in any order, against what is promised:
//
//   - no two clients of a group take themselves for its leader at the same time, but
//     for those whose trouble covers it; no trouble excuses a bounded client, as its
//     clock tells it all that it has to know;
//   - a token has one leader, and tokens rise on every connection, so that all
//     members and observers see leaders in one order, and miss some at most;
//   - tokens of a group rise from one leader to the next.
func Check(views []*View) Verdict {
	v := Verdict{Excused: map[string][]time.Duration{}}
	groups := map[string][]*View{}
	for _, view := range views {
		groups[view.Group] = append(groups[view.Group], view)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		v.order(name, groups[name])
		v.overlaps(name, leaderships(groups[name]))
	}
	return v
}

func (v *Verdict) violation(group, format string, args ...any) {
	v.Violations = append(v.Violations, "group "+group+": "+fmt.Sprintf(format, args...))
}

// order checks what each connection was told against the others.
func (v *Verdict) order(group string, views []*View) {
	leaders := map[uint64]string{}
	for _, view := range views {
		var last Told
		for _, t := range view.Told {
			if known, ok := leaders[t.Token]; ok && known != t.Leader {
				v.violation(group, "token %d has the leaders %s and %s", t.Token, known, t.Leader)
			}
			leaders[t.Token] = t.Leader
			if t.Token <= last.Token {
				v.violation(group, "%s (%s) was told of %s with token %d at %v, after %s with token %d",
					view.Client, view.Where, t.Leader, t.Token, t.At, last.Leader, last.Token)
			}
			last = t
		}
	}
}

func (view *View) bounded() bool { return view.Bounded || len(view.Promises) > 0 }

// leaderships gives the intervals of a group by their beginnings.
func leaderships(views []*View) (all []interval) {
	for _, view := range views {
		if view.bounded() {
			all = append(all, view.byPromises()...)
		} else {
			all = append(all, view.byReading()...)
		}
	}
	slices.SortFunc(all, func(a, b interval) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.token, b.token))
	})
	return all
}

// byReading gives the intervals of a client that goes by what it has read.
func (view *View) byReading() (all []interval) {
	end := orNever(view.End)
	for i, t := range view.Told {
		if view.Observes {
			break
		}
		to := end
		if i+1 < len(view.Told) {
			to = view.Told[i+1].At
		}
		if t.Leader == view.Client && t.At < to { // else it had read on before it believed
			all = append(all, interval{view, t.At, to, t.Token})
		}
	}
	return all
}

// byPromises gives the intervals of a bounded client: what its promises cover together.
func (view *View) byPromises() (all []interval) {
	end := orNever(view.Stopped)
	for _, p := range slices.SortedFunc(slices.Values(view.Promises), func(a, b Promise) int { return cmp.Compare(a.From, b.From) }) {
		to := min(p.To, end)
		if i := len(all) - 1; i >= 0 && p.Token == all[i].token && p.From <= all[i].to {
			all[i].to = max(all[i].to, to)
		} else if p.From < to {
			all = append(all, interval{view, p.From, to, p.Token})
		}
	}
	return all
}

// orNever takes a time that is not known for one that does not come.
func orNever(t time.Duration) time.Duration {
	if t == 0 {
		return math.MaxInt64
	}
	return t
}

func (v *Verdict) overlaps(group string, all []interval) {
	v.Leaderships += len(all)
	var open []interval // those that have begun, and not ended when the present one begins
	var newest interval
	for _, i := range all {
		open = slices.DeleteFunc(open, func(o interval) bool { return o.to <= i.from })
		for _, o := range open {
			v.overlap(group, o, i)
		}
		if i.token > newest.token || i.token == newest.token && (i.View == newest.View || i.Keyed) {
			newest = i
		} else if _, ok := i.excuse(i.from, i.from); !ok {
			v.violation(group, "%v, after %v", i, newest)
		}
		open = append(open, i)
	}
}

// overlap judges that two intervals have a time in common. The client of the lower
// token is the one that should have known better.
func (v *Verdict) overlap(group string, a, b interval) {
	from, to := max(a.from, b.from), min(a.to, b.to)
	if a.View == b.View || from >= to {
		return
	}
	if a.token > b.token {
		a, b = b, a
	}
	kind, ok := a.excuse(from, to)
	if !ok {
		v.Overlap = max(v.Overlap, to-from)
		v.violation(group, "two leaders for %v: %v; %v; trouble of the first: %v", to-from, a, b, a.Trouble)
		return
	}
	v.Excused[kind] = append(v.Excused[kind], to-from)
}

// A Gap is a time in which no client of a group takes itself for the leader, between two
// in which one does.
type Gap struct {
	Group    string
	From, To time.Duration
}

// Gaps gives the gaps of all groups that have no bounded client: who is, takes itself for
// nothing between two promises.
func Gaps(views []*View) (all []Gap) {
	groups, bounded := map[string][]*View{}, map[string]bool{}
	for _, view := range views {
		groups[view.Group] = append(groups[view.Group], view)
		bounded[view.Group] = bounded[view.Group] || view.bounded()
	}
	maps.DeleteFunc(groups, func(group string, _ []*View) bool { return bounded[group] })
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		var led time.Duration
		for i, l := range leaderships(groups[name]) {
			if i > 0 && l.from > led {
				all = append(all, Gap{name, led, l.from})
			}
			led = max(led, l.to)
		}
	}
	return all
}

// excuse gives the kind of trouble that covers a time.
func (view *View) excuse(from, to time.Duration) (kind string, ok bool) {
	if view.bounded() {
		return "", false
	}
	if i := slices.IndexFunc(view.Trouble, func(t Trouble) bool { return t.covers(from, to) }); i >= 0 {
		return view.Trouble[i].Kind, true
	}
	var over, covered time.Duration // of troubles that follow on one another
	again := false
	for _, t := range slices.SortedFunc(slices.Values(view.Trouble), func(a, b Trouble) int { return cmp.Compare(a.From, b.From) }) {
		if t.To == 0 {
			t.Over, t.To = math.MaxInt64, math.MaxInt64
		}
		first := t.From <= from && t.To >= from
		next := over > 0 && t.From > from && t.From < to && t.From <= over+soon && t.Over > over
		if t.Again >= to-from && (first || next) {
			over, covered, again = max(over, t.Over), max(covered, t.To), again || next
		}
	}
	return AgainAndAgain, again && covered >= to
}

// Unsettled says for each group in which it is so why not all open connections
// know one leader, who is one of them.
func Unsettled(views []*View) (why []string) {
	type group struct {
		open, unanswered int
		leaders          map[Told]int // with how many open connections are that leader
	}
	groups := map[string]*group{}
	for _, view := range views {
		if view.End != 0 {
			continue
		}
		g := groups[view.Group]
		if g == nil {
			g = &group{leaders: map[Told]int{}}
			groups[view.Group] = g
		}
		g.open++
		if len(view.Told) == 0 {
			g.unanswered++
			continue
		}
		last := view.Told[len(view.Told)-1]
		if last.At = 0; last.Leader == "" {
			last.Token = 0 // which is any above that of the last leader
		}
		selves := g.leaders[last]
		if view.Client == last.Leader && !view.Observes {
			selves++
		}
		g.leaders[last] = selves
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		switch {
		case g.unanswered > 0:
			why = append(why, fmt.Sprintf("group %s: %d of %d have no answer", name, g.unanswered, g.open))
		case len(g.leaders) != 1:
			why = append(why, fmt.Sprintf("group %s: %d leaders are believed in: %v", name, len(g.leaders), g.leaders))
		default:
			for l, selves := range g.leaders {
				if selves != 1 && l.Leader != "" {
					why = append(why, fmt.Sprintf("group %s: %d connections are its leader %s", name, selves, l.Leader))
				}
			}
		}
	}
	return why
}
