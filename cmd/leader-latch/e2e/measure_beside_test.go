//go:build bench

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	besideOld   = flag.String("beside", "", "the program to compare with: a commit of this repository, or a binary")
	besideRows  = flag.String("rows", "", "which rows of the comparison, as a regular expression; empty: the usual ones")
	besidePairs = flag.Int("pairs", 20, "how many pairs are measured; half as many more at a time while a row is undecided, three times as many at most")
)

// compared is a row of the comparison of two programs.
type compared struct {
	name, what string
	usual      bool // taken if nobody says which rows
	rate       bool // more is better
	turns      int  // how often each program of a pair is measured, the other one in between
	prepare    func(t *testing.T, exe string) (measure func() float64)
}

var comparisons = []compared{
	{name: "elect", what: "new connection to elected, follower, p50, ms", usual: true, turns: 10, prepare: electing(3, true)},
	{name: "hand-over", what: "leader closes, next told, follower to other follower, p50, ms", usual: true, turns: 10, prepare: handingOver(justMade, 25)},
	{name: "churn", what: "connect, JOIN, told, leave, 512 workers, per second", usual: true, rate: true, turns: 8,
		prepare: loaded(churn, func(l load) float64 { return l.perSecond })},
	{name: "memory", what: "RSS of 3 servers in use for each of 5,000 idle members, KiB", usual: true, turns: 1,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			return func() float64 {
				before := inUse(t, all)
				n := withIdlers(t, all)
				return float64(inUse(t, all)-before) / 1024 / float64(n)
			}
		})},
	{name: "start", what: "one node started after SIGTERM, JOIN answered, p50, ms", usual: true, turns: 11, prepare: starting(syscall.SIGTERM)},
	{name: "start-killed", what: "one node started after kill -9, JOIN answered, p50, ms", turns: 11, prepare: starting(syscall.SIGKILL)},
	{name: "restart", what: "kill -9 and start of a follower's node, next told elsewhere, p50, ms", usual: true, turns: 5,
		prepare: restarting(func(t *testing.T, all []*member, exe string) time.Duration {
			_, rest := raftLeader(t, all)
			return restartOf(t, rest[0], rest[1], exe)
		})},
	{name: "restart-leader", what: "kill -9 and start of the raft leader's node, next told elsewhere, p50, ms", turns: 5,
		prepare: restarting(func(t *testing.T, all []*member, exe string) time.Duration {
			victim, rest := raftLeader(t, all)
			return restartOf(t, victim, rest[0], exe)
		})},
	{name: "restart-all", what: "kill -9 and start of all three nodes, JOINs answered, p50, ms", turns: 5, prepare: restarting(restartOfAll)},
	{name: "start-large", what: "one node started with 63 MiB of log and a snapshot of 1,000,000 members, JOIN answered, p50, ms", turns: 3,
		prepare: startingLarge(func(took, _ time.Duration) time.Duration { return took })},
	{name: "start-large-cpu", what: "server CPU for that, ms", turns: 3,
		prepare: startingLarge(func(_, cpu time.Duration) time.Duration { return cpu })},
	{name: "elect-open", what: "JOIN on an open connection to elected, follower, p50, ms", turns: 10, prepare: electing(3, false)},
	{name: "elect-7", what: "new connection to elected, follower, 7 nodes, p50, ms", turns: 10, prepare: electing(7, true)},
	{name: "hand-over-quiet", what: "leader closes, next told, in a quiet group, p50, ms", turns: 5, prepare: handingOver(quiet, 5)},
	{name: "throughput", what: "connect, JOIN, told, 512 workers, per second", rate: true, turns: 5,
		prepare: loaded(func(t *testing.T, all []*member) load {
			return elect(t, addrsOf(all), pidsOf(all), 512, false, briefly())
		}, func(l load) float64 { return l.perSecond })},
	{name: "throughput-open", what: "JOIN on an open connection, told, 512 workers, per second", rate: true, turns: 5,
		prepare: loaded(func(t *testing.T, all []*member) load {
			return electOpen(t, addrsOf(all), pidsOf(all), 512, briefly()/5)
		}, func(l load) float64 { return l.perSecond })},
	{name: "cpu", what: "server CPU for each election of churn, us", turns: 5, prepare: loaded(churn, func(l load) float64 { return l.cpu })},
	{name: "client-killed", what: "kill -9 of the leader's process, next told, p50, ms", turns: 5,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			return func() float64 { return killLeaders(t, all, 5).p50() }
		})},
	{name: "fan-out", what: "1,000 members told of a new leader, the last one, p50, ms", turns: 5,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			a := assemble(t, all, "fan-out", fewer(1000), 32)
			return func() float64 {
				_, last := a.depose(nil)
				return latencies{last}.p50()
			}
		})},
	{name: "idle", what: "CPU of 3 servers with 5,000 idle members, cores", turns: 1,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			return func() float64 {
				withIdlers(t, all)
				before, began := pidsOf(all).cpu(t), time.Now()
				time.Sleep(10 * briefly())
				return (pidsOf(all).cpu(t) - before).Seconds() / time.Since(began).Seconds()
			}
		})},
	{name: "storm", what: "5,000 clients at once at a restarted node, until all are members, s", turns: 1,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			_, follower, _ := places(t, all)
			n, _ := affordable(fewer(5000))
			return func() float64 { return returnTo(t, follower.member, n, true).all.Seconds() }
		})},
	{name: "node-killed", what: "kill -9 of the raft leader's node, first election elsewhere, ms", turns: 1,
		prepare: onNodes(3, func(t *testing.T, all []*member) func() float64 {
			victim, rest := raftLeader(t, all)
			return func() float64 { return latencies{killAndElect(t, victim, rest).first}.p50() }
		})},
}

// onNodes prepares n nodes, which have come to rest.
func onNodes(n int, prepare func(t *testing.T, all []*member) func() float64) func(*testing.T, string) func() float64 {
	return func(t *testing.T, exe string) func() float64 {
		all := clusterAs(t, exe, n, "leader_latch.timing = normal", "leader_latch.voters = 7")
		pidsOf(all).rest(t)
		return prepare(t, all)
	}
}

func electing(nodes int, connecting bool) func(*testing.T, string) func() float64 {
	return onNodes(nodes, func(t *testing.T, all []*member) func() float64 {
		_, follower, _ := places(t, all)
		return func() float64 { return electAt(t, follower.member, fewer(100), connecting).p50() }
	})
}

func handingOver(age time.Duration, n int) func(*testing.T, string) func() float64 {
	return onNodes(3, func(t *testing.T, all []*member) func() float64 {
		_, follower, other := places(t, all)
		return func() float64 { return handOvers(t, follower.addr, other.addr, age, fewer(n)).p50() }
	})
}

func loaded(run func(*testing.T, []*member) load, figure func(load) float64) func(*testing.T, string) func() float64 {
	return onNodes(3, func(t *testing.T, all []*member) func() float64 {
		return func() float64 {
			l := run(t, all)
			pidsOf(all).rest(t)
			return figure(l)
		}
	})
}

func churn(t *testing.T, all []*member) load {
	return elect(t, addrsOf(all), pidsOf(all), 512, true, briefly())
}

func starting(end syscall.Signal) func(*testing.T, string) func() float64 {
	return func(t *testing.T, exe string) func() float64 {
		restart := usedNode(t, exe, end)
		return func() float64 { return latencies{restart()}.p50() }
	}
}

func restarting(restart func(t *testing.T, all []*member, exe string) time.Duration) func(*testing.T, string) func() float64 {
	return func(t *testing.T, exe string) func() float64 {
		all := clusterAs(t, exe, 3, "leader_latch.timing = normal")
		return func() float64 {
			took := restart(t, all, exe)
			wantWhole(all)
			return latencies{took}.p50()
		}
	}
}

func startingLarge(figure func(took, cpu time.Duration) time.Duration) func(*testing.T, string) func() float64 {
	return func(t *testing.T, exe string) func() float64 {
		n := newLargeNode(t, exe)
		return func() float64 {
			took, cpu, _ := n.start(t, true)
			return latencies{figure(took, cpu)}.p50()
		}
	}
}

// withIdlers has 5,000 members at the nodes, who have come to rest, or as many as the
// limit of open files leaves for each of two programs.
func withIdlers(t *testing.T, all []*member) int {
	most, _ := affordable(2 * fewer(5000))
	joinInPairs(t, all, most/2)
	pidsOf(all).rest(t)
	return most / 2
}

// inUse gives the RSS of nodes whose garbage collector has gone round under load. Without
// a load RSS holds what garbage there happens to be since the last collection: of an
// idle member as much again as the member, and another share in each program.
func inUse(t *testing.T, all []*member) int {
	for range 2 {
		churn(t, all)
	}
	pidsOf(all).rest(t)
	return rssOf(all)
}

func (l latencies) p50() float64 { return float64(l.at(0.5)) / float64(time.Millisecond) }

// briefly is how long a load lasts.
func briefly() time.Duration { return time.Duration(fewer(500)) * time.Millisecond }

// TestBeside compares the program of this folder with an older one, row by row: old and
// new by turns, the order changing each time, with processes that are started for each
// pair, as two clusters of one program are not alike. It fails if a row is worse or
// undecided. SPEED.md says what that means. With -short each figure is of a tenth,
// to try it out.
func TestBeside(t *testing.T) {
	if *besideOld == "" {
		t.Skip("there is nothing to compare with: make bench BESIDE=<commit or binary>")
	}
	if *besidePairs < 1 {
		t.Fatalf("-pairs=%d: there has to be one", *besidePairs)
	}
	wanted := wantedRows(t, *besideRows)
	dir := t.TempDir()
	old, oldName := program(t, *besideOld, dir)
	now := filepath.Join(dir, "new")
	if err := buildSource(repository, now); err != nil {
		t.Fatal(err)
	}

	row("what", "measured")
	row("---", "---")
	row("old", "%s", oldName)
	row("new", "%s, %s", describe("--dirty"), runtime.Version())
	printMachine(t)
	fmt.Println("\nThe ratio is new/old, of figures per second old/new: above 1 is worse.")
	fmt.Println("\n| row | old | new | ratio | its 95 % interval | pairs | verdict | took |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, c := range wanted {
		t.Run(c.name, func(t *testing.T) { c.compare(t, old, now) })
	}
	row("load at the end", "%s", loadAverages(t))
}

func (c compared) compare(t *testing.T, old, now string) {
	began := time.Now()
	p := pairs{rate: c.rate}
	v := undecided
	for enough := *besidePairs; v == undecided && enough <= 3**besidePairs; enough += max(1, *besidePairs/2) {
		for len(p.old) < enough {
			c.pair(t, &p, old, now)
		}
		v = verdictOf(p.ratios())
	}
	fmt.Printf("| %s: %s | %v | %s | %v |\n", c.name, c.what, &p, v, time.Since(began).Round(time.Second))
	switch v {
	case worse:
		t.Errorf("%s is worse than before, by %d pairs", c.name, len(p.old))
	case undecided:
		t.Errorf("%s is undecided after %d pairs: measure again when the machine has nothing else to do", c.name, len(p.old))
	}
}

// pair prepares both programs and measures them by turns, while the other one has nothing
// to do. The figure of each is the median of its turns.
func (c compared) pair(t *testing.T, p *pairs, old, now string) {
	nth := len(p.old)
	if !t.Run(fmt.Sprint(nth+1), func(t *testing.T) {
		order := func(turn int) [2]int { first := (nth + turn) % 2; return [2]int{first, 1 - first} }
		var measure [2]func() float64
		for _, i := range order(0) {
			measure[i] = c.prepare(t, [2]string{old, now}[i])
		}
		runtime.GC() // of what the clients before have left
		var figures [2][]float64
		for turn := range c.turns {
			for _, i := range order(turn) {
				f := measure[i]()
				if !(f > 0) {
					t.Fatalf("a figure of %v gives no ratio", f)
				}
				figures[i] = append(figures[i], f)
			}
		}
		p.add(median(figures[0]), median(figures[1]))
	}) {
		t.FailNow()
	}
}

// wantedRows gives the rows whose whole names match.
func wantedRows(t *testing.T, pattern string) (wanted []compared) {
	re, err := regexp.Compile("^(" + pattern + ")$")
	if err != nil {
		t.Fatalf("BENCH=%s is no regular expression: %v", pattern, err)
	}
	var names []string
	for _, c := range comparisons {
		names = append(names, c.name)
		if pattern == "" && c.usual || re.MatchString(c.name) {
			wanted = append(wanted, c)
		}
	}
	if len(wanted) == 0 {
		t.Fatalf("BENCH=%s names none of the rows that can be compared: %s", pattern, strings.Join(names, ", "))
	}
	return wanted
}

// ownVersion matches what the command version prints, and what it printed before the first release.
var ownVersion = regexp.MustCompile(`^(leader-latch \S+ \(.*\)|\d+\.\d+\.\d+( \(.*\))?)\n$`)

// program gives the binary of that name, or builds the commit of that name, and says what
// it is.
func program(t *testing.T, name, folder string) (exe, what string) {
	const cure = "give a commit of this repository (git log --oneline lists them), or the path of a binary (make build BIN=... makes one)"
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			t.Fatalf("BESIDE=%s is not a file that can be run: %s", name, cure)
		}
		version, err := exec.Command(name, "version").Output()
		if err != nil || !ownVersion.Match(version) {
			t.Fatalf("BESIDE=%s is not a leader-latch, by what its command version says (%q, %v): %s", name, version, err, cure)
		}
		return name, fmt.Sprintf("%s, %s", name, strings.TrimSpace(string(version)))
	}
	commit, err := exec.Command("git", "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}").Output()
	if err != nil {
		t.Fatalf("BESIDE=%s is neither a file nor a commit: %s", name, cure)
	}
	id := strings.TrimSpace(string(commit))
	if exe, err = buildCommit(id, folder); err != nil {
		t.Fatalf("BESIDE=%s cannot be built: %v", name, err)
	}
	return exe, describe(id)
}
