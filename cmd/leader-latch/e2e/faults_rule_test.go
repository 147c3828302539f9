//go:build faults

package e2e

import (
	"bufio"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/latch/latchtest"
)

// The rule for a client that must be sure (PROTOCOL.md, What a client may believe; DESIGN.md, rule 10): it
// sends its JOIN again at time t of its clock, and leads upon ALREADY_JOINED until t + W.
// Whatever fails, and whatever it has read of that or not, nobody else is told to lead before.

// windows are W, as PROTOCOL.md gives it for each timing.
var windows = map[string]time.Duration{
	session.Quick.Name:  190 * time.Millisecond,
	session.Normal.Name: 390 * time.Millisecond,
	session.Calm.Name:   980 * time.Millisecond,
}

// witness is a client with its own account. It reads until its connection has ended, and
// does not close its own side for that.
type witness struct {
	*network
	conn  net.Conn
	ended chan struct{} // closed when it has read the end
	sure  chan struct{} // closed when it was promised something, or has ended before

	mu sync.Locker // guards what follows
	latchtest.Witness
}

// witness has a client on a host join at a node.
func (s *site) witness(from *host, at *member, group, name string, window time.Duration) *witness {
	t := s.network.t
	t.Helper()
	nc, err := from.connect(at.addr)
	if err != nil {
		t.Fatal(err)
	}
	w := newWitness(s.network, nc, new(sync.Mutex), latchtest.Witness{
		View:   latchtest.View{Group: group, Client: name, Where: fmt.Sprintf("host %d, at %s", from.n, at.name)},
		Window: window,
	})
	t.Cleanup(w.leave)
	w.join()
	return w
}

func newWitness(nw *network, nc net.Conn, mu sync.Locker, of latchtest.Witness) *witness {
	return &witness{network: nw, conn: nc, ended: make(chan struct{}), sure: make(chan struct{}), mu: mu, Witness: of}
}

func (w *witness) join() {
	go w.read()
	w.ask()
}

func (w *witness) ask() {
	w.mu.Lock()
	w.Asks(w.now())
	w.mu.Unlock()
	fmt.Fprintf(w.conn, "JOIN %s %s\n", w.Group, w.Client) // what fails here, the reader is told
}

func (w *witness) read() {
	sure := sync.OnceFunc(func() { close(w.sure) })
	defer close(w.ended)
	defer sure()
	for r := bufio.NewReader(w.conn); w.note(r.ReadString('\n')); {
		if w.promised() > 0 {
			sure()
		}
	}
}

// note notes what a read gave, and reports whether the connection goes on.
func (w *witness) note(line string, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || line == errRefused.Error()+"\n" {
		w.End = w.now()
		return false
	}
	if err := w.Reads(w.now(), line); err != nil {
		w.t.Errorf("%s: %v", w.Client, err)
	}
	return true
}

// renew asks again and again, until the connection has ended.
func (w *witness) renew() {
	for {
		select {
		case <-w.ended:
			return
		case <-time.After(25*time.Millisecond + rand.N(50*time.Millisecond)):
			w.ask()
		}
	}
}

// stop stops leading, and tells that by a FIN.
func (w *witness) stop() {
	w.mu.Lock()
	w.Stopped = w.now()
	w.mu.Unlock()
	w.conn.(*net.TCPConn).CloseWrite()
}

// leave closes the connection when nothing that it was promised matters any more.
func (w *witness) leave() {
	w.conn.Close()
	<-w.ended
}

func (w *witness) knows(leader string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Knows(leader)
}

func (w *witness) promised() (until time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Promised()
}

// until waits for something while the connection lasts, and reports whether it has come.
func (w *witness) until(what string, cond func() bool) bool {
	t := w.t
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		select {
		case <-w.ended:
			return cond()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
	return true
}

// await waits for something that is bound to come.
func (r *ruleRound) await(what string, done <-chan struct{}) {
	t := r.network.t
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
	}
}

// ruleFault is what may happen to a leader that goes by the rule, or to its node.
type ruleFault struct {
	name  string
	lines []string // of the nodes' configuration
	first bool     // it comes with the first ALREADY_JOINED of the node's session; else amid many
	begin func(*ruleRound)
	bound func(session.Timing) time.Duration // from its beginning until the next leader is told
}

// ruleRound is a leader that goes by the rule, on a host without a node, and the next one, a
// client that goes by what it reads. The leader's node is the victim.
type ruleRound struct {
	*site
	timing     session.Timing
	victim     *member
	other      *member // the node of the next one
	lead, next *witness
	end        func() // of the fault; called when the promises are over
}

func (r *ruleRound) here() []*host  { return r.network.hosts[3:] }
func (r *ruleRound) there() []*host { return []*host{r.host(r.victim)} }

func (r *ruleRound) restart() {
	r.victim.kill()
	r.run(r.victim)
}

// soonAfter is the bound where only what was promised is waited for.
func soonAfter(tm session.Timing) time.Duration { return windows[tm.Name] + 300*time.Millisecond }

// givenUp is the bound where the node has to find that its client has gone.
func givenUp(session.Timing) time.Duration { return 12 * time.Second }

var (
	leaderStops  = ruleFault{name: "it stops", bound: soonAfter, begin: func(r *ruleRound) { r.lead.stop() }}
	cutAndKilled = ruleFault{name: "cut off, node killed", bound: replacedAfterElection, begin: func(r *ruleRound) {
		r.end = r.cut(both(r.here(), r.there()))
		r.restart()
	}}
	killed      = ruleFault{name: "node killed", bound: replacedAfterElection, begin: (*ruleRound).restart}
	killedFirst = ruleFault{name: "node killed at the first answer", first: true, bound: replacedAfterElection, begin: (*ruleRound).restart}
	killedTwice = ruleFault{name: "node killed twice", bound: replacedAfterElection, begin: func(r *ruleRound) {
		r.restart()
		r.restart()
	}}
	stopped = ruleFault{name: "node stopped", bound: soonAfter, begin: func(r *ruleRound) {
		r.victim.signal(syscall.SIGTERM)
		r.end = func() { r.victim.wantExit(exitOK) }
	}}
	stoppedTwice = ruleFault{name: "node stopped by two signals", bound: replacedAfterElection, begin: func(r *ruleRound) {
		r.victim.signal(syscall.SIGTERM)
		r.await("it knows", r.lead.ended)
		r.victim.signal(syscall.SIGTERM)
		r.await("the node ends", r.victim.gone)
		r.run(r.victim)
	}}
	paused = ruleFault{name: "node paused", bound: replacedAfterElection, begin: func(r *ruleRound) {
		r.victim.pause()
		r.await("the switch kills the node", r.victim.gone)
		r.run(r.victim)
	}}
	pausedOnly = ruleFault{name: "node paused, no switch", lines: []string{"leader_latch.dead_man_switch = off"}, bound: replacedAfterElection, begin: func(r *ruleRound) {
		r.victim.pause()
		time.Sleep(r.timing.Lease) // the pause itself; there is nothing to poll in a process that stands still
		r.victim.signal(syscall.SIGCONT)
	}}
	resetAtNode = ruleFault{name: "reset in its name", bound: soonAfter, begin: func(r *ruleRound) {
		r.end = r.block(reset, []arrow{{r.there()[0], r.here()[0]}})
	}}
	resetAtClient = ruleFault{name: "reset in its node's name", bound: givenUp, begin: func(r *ruleRound) {
		heal := r.block(reset, []arrow{{r.here()[0], r.there()[0]}})
		r.await("it is reset", r.lead.ended)
		heal()
	}}
	sessionLost = ruleFault{name: "session lost, and opened anew", bound: replacedAfterElection, begin: func(r *ruleRound) {
		heal := r.cut(both(r.there(), r.hosts))
		r.await("the node closes it", r.lead.ended)
		heal()
	}}
)

var ruleFaults = []ruleFault{leaderStops, cutAndKilled, killed, killedFirst, killedTwice, stopped, stoppedTwice, paused, pausedOnly, resetAtNode, resetAtClient, sessionLost}

// play plays the fault, and gives after what time the next leader was told. It is not ok
// where one of the two has lost its node without the fault, as on a machine that is too
// busy for the timing.
func (r *ruleRound) play(f ruleFault) (handOver time.Duration, ok bool) {
	group := unique("rule")
	r.lead = r.witness(r.here()[0], r.victim, group, "lead", windows[r.timing.Name])
	if !r.lead.until("it leads", func() bool { return r.lead.knows("lead") }) {
		return 0, false
	}
	r.next = r.witness(r.host(r.other), r.other, group, "next", 0)
	if !r.next.until("the next one has joined", func() bool { return r.next.knows("lead") }) {
		return 0, false
	}
	if f.first {
		r.lead.ask()
	} else {
		go r.lead.renew()
	}
	r.await("it was promised something", r.lead.sure)
	if !f.first {
		time.Sleep(rand.N(r.timing.Renew)) // so that it comes at any moment between two renewals of the session
	}
	began := r.now()
	f.begin(r)
	defer func() { r.end() }()
	if !r.next.until("the next one leads", func() bool { return r.next.knows("next") }) {
		return 0, false
	}
	r.victim.until("the promises are over", func() bool { return r.now() > r.lead.promised() })
	return r.next.Told[len(r.next.Told)-1].At - began, true
}

// rounds plays the fault n times on a cluster of its own, every second time against the raft
// leader's node, and gives what it has seen and after what time the next leader was told.
func (f ruleFault) rounds(t *testing.T, tm session.Timing, n int) iter.Seq2[latchtest.Verdict, time.Duration] {
	t.Helper()
	return func(yield func(latchtest.Verdict, time.Duration) bool) {
		s := newSite(t, 1, false, append(f.lines, "leader_latch.timing = "+tm.Name, "leader_latch.fencing.internal = on")...)
		for round, void := 0, 0; round < n; {
			victim, rest := raftLeader(t, s.all)
			if round%2 == 0 {
				victim, rest[0] = rest[0], victim
			}
			r := &ruleRound{site: s, timing: tm, victim: victim, other: rest[0], end: func() {}}
			handOver, ok := r.play(f)
			v := r.check()
			t.Logf("%s, %s, round %d: the next leader was told after %v: %q", tm.Name, f.name, round+1, handOver.Round(time.Millisecond), v.Violations)
			for _, m := range s.all {
				select {
				case <-m.gone:
					s.run(m)
				default:
				}
			}
			wantWhole(s.all)
			switch {
			case ok:
				if round++; !yield(v, handOver) {
					return
				}
			case void == n:
				t.Fatal("the machine is too busy")
			default:
				void++
			}
		}
	}
}

// check ends what the clients do, and holds it against the rule.
func (r *ruleRound) check() latchtest.Verdict {
	var views []*latchtest.View
	for _, w := range []*witness{r.lead, r.next} {
		if w != nil {
			w.leave()
			views = append(views, &w.View)
		}
	}
	return latchtest.Check(views)
}

// Nobody is told to lead before what the leader was promised is over, and then soon.
func TestFaultAClientGoesByItsClock(t *testing.T) {
	timings, rounds := []session.Timing{session.Quick, session.Normal, session.Calm}, 8
	if testing.Short() {
		timings, rounds = []session.Timing{clusterTiming}, 1
	}
	for _, tm := range timings {
		t.Run(tm.Name, func(t *testing.T) {
			for _, f := range ruleFaults {
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					what := "by the clock, " + tm.Name + ", " + f.name
					for v, handOver := range f.rounds(t, tm, rounds) {
						for _, wrong := range v.Violations {
							t.Error(wrong)
						}
						note(what+": two leaders", v.Overlap, 0)
						took(t, what+": the next one was told", handOver, f.bound(tm))
					}
				})
			}
		})
	}
}

// Nodes that go without one of the waits, as this build of them does if it is told so,
// are found by one of the faults.
func TestFaultAWaitOfTheRuleIsMissed(t *testing.T) {
	for without, f := range map[string]ruleFault{
		"start": killed,
		"end":   stopped,
		"leave": resetAtNode,
		"open":  sessionLost,
		"note":  killedFirst,
	} {
		t.Run(without, func(t *testing.T) {
			t.Setenv("LEADER_LATCH_WITHOUT", without)
			for v := range f.rounds(t, session.Calm, 20) {
				if v.Overlap > 0 {
					return
				}
			}
			t.Errorf("%s: nothing was found", f.name)
		})
	}
}
