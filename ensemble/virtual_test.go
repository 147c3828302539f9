package ensemble

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// The real stack in virtual time: three nodes with Raft, the cluster port and its
// TLS, and bbolt on a disk, over a network in memory that is cut, one way and
// both, delays, and loses connections; nodes crash, stop and start again, are
// paused, and frozen with their machine; disks are slow, and lose what is not flushed; clocks run at different rates, and the wall
// clock is set; raft leadership moves, snapshots are taken, the level of the formats rises. What every client was
// told is held against the promise at the moment at which it is told. A failure
// prints its seed and its history; -virtual.seed plays a run of that seed again,
// which is not the same one: goroutines are scheduled as they like.
var (
	virtualRuns = flag.Int("virtual.runs", 20, "how many runs to play")
	virtualSeed = flag.Uint64("virtual.seed", 0, "play runs with this seed alone")

	// With fewer than the service keeps, nodes that lag get snapshots while they run.
	virtualTrailing = flag.Uint64("virtual.trailing", 4, "how many entries Raft keeps behind a snapshot, so that others get snapshots; 0: as many as the service does")
)

func TestRealStackInVirtualTime(t *testing.T) {
	if raceEnabled {
		*virtualRuns = min(*virtualRuns, 3)
	}
	for i := range *virtualRuns {
		seed := uint64(time.Now().UnixNano())
		if *virtualSeed != 0 {
			seed = *virtualSeed
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := playVirtual(t, seed, mutation.Nothing)
			if w.bad != "" {
				t.Errorf("seed %d: %s\n%s", seed, w.bad, strings.Join(w.history, "\n"))
			}
			checked, open := checkLinear(t, w.orders()) // in real time
			t.Logf("seed %d: %v; %d lines to clients, %d groups in order, %d not decided; %v", seed, w.took.Round(time.Second), w.told, checked, open, w.happened)
			if len(w.stale) > 0 {
				slices.Sort(w.stale)
				t.Logf("%d believed themselves to lead on a machine that was frozen, %v at most after it went on", len(w.stale), w.stale[len(w.stale)-1].Round(time.Millisecond))
			}
		})
	}
}

// aims is, for each rule that can be taken away from the real stack, what alone fails
// then, to find that soon.
var aims = map[mutation.Mutation]string{
	mutation.AnyCounter:        "late copies",
	mutation.NoDedup:           "late copies",
	mutation.ReceiveTime:       "links that come and go",
	mutation.NoAcknowledgement: "cut off",
	mutation.NoCompare:         "late copies",
	mutation.NoGrace:           "hand-overs",
	mutation.NoSwitchNoGate:    "pauses",
	mutation.LeaveBeforeClose:  "ended by the node",
	mutation.OpenBeforeClose:   "links that come and go",
	mutation.NoCloseTime:       "links that come and go",
	mutation.NoJump:            "frozen machines",
	mutation.NoSwitch:          "pauses",
	mutation.EndBeforeClose:    "stops",
	mutation.ApplyUnflushed:    "entries lost",
	mutation.CommitUnflushed:   "entries lost",
	mutation.FollowUnflushed:   "entries lost",
	mutation.LeaveWait:         "ended by the node",
	mutation.EndWait:           "stops",
	mutation.OpenWait:          "links that come and go",
	mutation.StartWait:         "crashes",
	mutation.NoNote:            "crashes",
}

// Each rule that is taken away from the real stack is found.
func TestRealStackFindsEveryMissingRule(t *testing.T) {
	if raceEnabled {
		t.Skip("virtual time is slow under the race detector, and not about races")
	}
	for mutate := range aims {
		t.Run(mutate.String(), func(t *testing.T) {
			t.Parallel()
			const most = 300 // the rarest is found by one of fifteen
			for i := range most {
				if w := playVirtual(t, uint64(time.Now().UnixNano()), mutate); w.bad != "" {
					t.Logf("found by run %d, %v into it: %s", i+1, w.took.Round(time.Second), w.bad)
					return
				}
			}
			t.Errorf("not found in %d runs", most)
		})
	}
}

// world is a cluster in virtual time with its clients.
type world struct {
	t        *testing.T
	seed     uint64
	mutate   mutation.Mutation
	noSwitch bool // an operator has turned it off: who is paused is believed for longer, and writes nothing stale
	rng      *rand.Rand
	began    time.Time
	took     time.Duration
	net      *virtualNetwork
	hosts    []*host
	late     []lateOps
	then     []then
	flaps    time.Time // until then a link comes and goes, or more

	mu       sync.Mutex // guards what follows; taken last
	luck     *rand.Rand // of clients
	history  []string
	told     int              // lines to clients
	happened map[string]int   // events by kind
	stale    []time.Duration  // how long after its machine went on somebody whom another had replaced was closed
	clients  []*virtualClient // connected, as of the last JOIN

	everybody []*virtualClient  // who ever joined
	leaders   map[string]string // by group and token: there is one order of leaders, by their tokens
	bad       string
}

type host struct {
	w       *world
	name    string
	address string
	path    string
	node    *Node // nil while it is down
	dir     *Dir
	holds   bool // at its next start it does not let the level rise
	clocks  virtualClocks
	flush   atomic.Int64 // what a flush of its disk takes, in nanoseconds
	unplug  func()       // ends the flush that is under way, and takes the time of others

	// Guarded by the world's mutex.
	goesOn   chan struct{} // not nil: the process is paused; closed when it goes on
	stopping bool
	killed   bool // by the switch
}

// playVirtual plays one run, in which the rule mutate is taken away.
func playVirtual(t *testing.T, seed uint64, mutate mutation.Mutation) (w *world) {
	synctest.Test(t, func(t *testing.T) { w = playInBubble(t, seed, mutate) })
	return w
}

func playInBubble(t *testing.T, seed uint64, mutate mutation.Mutation) *world {
	w := newWorld(t, seed, mutate)
	rng := w.rng

	low := w.hosts[0].node.seen.level.Load() == state.FirstLevel
	const faults = 60 * time.Second
	for end := time.Now().Add(faults); time.Now().Before(end) && w.violation() == ""; {
		time.Sleep(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
		for _, h := range w.hosts {
			h.bury()
		}
		w.proposeLate()
		w.goOn()
		if o := omits(mutate); o.Leave || o.End || o.Open || o.Start || o.Note || seed%4 == 1 {
			w.leadersAsk()
		}
		w.happens()
	}
	w.note("the faults are over")
	for _, h := range w.hosts {
		h.bury()
		h.goOn()
		h.flush.Store(0)
		for _, o := range w.hosts {
			w.net.cut(h.address, o.address, false)
		}
		h.start()
	}
	w.until("every group has its leader", 30*time.Second, func() bool {
		for _, h := range w.hosts { // one may learn only now that it has to begin anew
			h.bury()
			h.start()
		}
		return w.settled()
	})
	if low && w.hosts[0].node.seen.level.Load() > state.FirstLevel {
		w.happened["level raised"]++
	}
	w.took = time.Since(w.began)
	return w
}

// A node that comes back has what it missed at once, however long it was away.
func TestANodeThatWasAwayForLongIsSoonBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		for _, away := range []time.Duration{10 * time.Second, 3 * time.Minute} {
			h := w.follower()
			h.crash()
			time.Sleep(away)
			h.start()
			began := time.Now()
			w.until("it is back", time.Minute, h.ready)
			took := time.Since(began)
			t.Logf("away for %v, back after %v", away, took)
			if took > 2*time.Second {
				t.Errorf("away for %v, back after %v", away, took)
			}
		}
	})
}

// A raft leader that dies is missed within a timeout and a quarter, and the next one is
// elected at once, unless the two others stand at the same moment. Raft by itself takes
// 2.2 timeouts on average.
func TestALostRaftLeaderIsReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const deaths = 15
		var took []time.Duration
		for range deaths {
			lost := w.raftLeader()
			lost.crash()
			died := time.Now()
			for w.raftLeader() == nil {
				if time.Since(died) > time.Minute {
					t.Fatal("no raft leader any more")
				}
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(died))
			lost.start()
			w.until("the cluster is whole", time.Minute, w.whole)
		}
		slices.Sort(took)
		t.Logf("after %v", took)
		if most := session.Normal.Heartbeat * 3 / 2; took[deaths/2] > most {
			t.Errorf("the median is %v, want at most %v", took[deaths/2], most)
		}
	})
}

// A follower with a slow disk stores an entry after the majority has committed it. Its
// clients are told when it has, and not when Raft happens to send it something.
func TestASlowFollowerIsToldWhenItHasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const flush = 50 * time.Millisecond
		slow := w.follower()
		slow.flush.Store(int64(flush))
		var took []time.Duration
		for range 21 {
			began := time.Now()
			w.join(slow)
			w.mu.Lock()
			c := w.clients[len(w.clients)-1]
			w.mu.Unlock()
			w.until("its client is told", time.Minute, func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return c.told != ""
			})
			took = append(took, c.answered-began.Sub(w.began))
			c.hangUp()
			time.Sleep(time.Second)
		}
		slow.flush.Store(0)
		slices.Sort(took)
		t.Logf("after %v", took)
		// Another flush may be under way, and the client's machine take its time.
		if most := 2*flush + 80*time.Millisecond; took[len(took)-1] > most {
			t.Errorf("it took up to %v, want at most %v", took[len(took)-1], most)
		}
	})
}

// A raft leader that is lost while it hands over, to nodes that are busy, may be elected
// again, and serves then.
func TestARaftLeaderThatWasLostWhileItHandedOverServesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		for i := range 5 {
			l := w.raftLeader()
			others := w.but(l)
			for _, o := range others {
				o.slow(2 * time.Second)
			}
			w.joinAs(l, "busy", fmt.Sprint("c", i)) // which the others store
			time.Sleep(50 * time.Millisecond)
			for range 3 {
				go l.node.cluster.handOver()
				time.Sleep(handOverPause + 10*time.Millisecond)
			}
			for _, o := range others {
				w.apart(l, o, true)
				o.slow(0)
			}
			w.until("another one leads", time.Minute, func() bool { return w.raftLeader() == others[0] || w.raftLeader() == others[1] })
			for _, o := range others {
				w.apart(l, o, false)
			}
			w.until("it leads again", time.Minute, func() bool {
				if n := w.raftLeader(); n != nil && n != l {
					n.node.replica.Inside().Raft.LeadershipTransferToServer(raft.ServerID(l.node.self), raft.ServerAddress(Place{l.name, l.address}.text()))
				}
				return w.raftLeader() == l
			})
			w.until("the cluster is whole", 10*time.Second, w.whole)
		}
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}

// A voter that is gone just when it is handed over to is not waited for: another one is
// tried.
func TestHandingOverWhereOneIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		const most = 1000
		for i := range most {
			time.Sleep(handOverPause)
			w.until("the cluster is whole", time.Minute, w.whole)
			l := w.raftLeader()
			first := l.node.replica.Others()[0].ID
			gone := w.but(l)[0]
			if gone.node.self != first {
				gone = w.but(l)[1]
			}
			go l.node.cluster.handOver()
			time.Sleep(time.Duration(w.rng.Int64N(int64(6 * time.Millisecond)))) // it answers, and is asked
			w.apart(l, gone, true)
			time.Sleep(2 * session.Normal.Heartbeat)
			l.node.cluster.handOvers.Lock()
			_, tried := l.node.cluster.handOvers.failed[first]
			l.node.cluster.handOvers.Unlock()
			if tried && l.node.replica.IsLeader() {
				t.Logf("found by try %d", i+1)
				w.until("another one leads", 10*time.Second, func() bool {
					l.node.cluster.handOver()
					return !l.node.replica.IsLeader()
				})
				break
			}
			w.apart(l, gone, false)
			if i+1 == most {
				t.Error("it never was gone at the right moment")
			}
		}
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}

// A node that came to stand for election while it was cut off, and then is sent a snapshot,
// follows; and elects another one when who sent it is lost.
func TestASnapshotForANodeThatStandsForElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, mutation.Nothing)
		l := w.raftLeader()
		b, c := w.but(l)[0], w.but(l)[1]
		for _, h := range w.hosts {
			h.node.replica.Inside().Trail(1)
		}
		w.apart(l, b, true)
		w.apart(c, b, true)
		time.Sleep(3 * time.Second) // what was on the way to it is given up
		for i := range 3 {
			w.joinAs(l, "g", fmt.Sprint("c", i))
			time.Sleep(500 * time.Millisecond)
		}
		if err := snapshot(l.node); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if is := b.node.replica.Inside().Raft.State(); is != raft.Candidate {
			t.Fatalf("it is a %v", is)
		}
		b.slow(300 * time.Millisecond)
		w.apart(l, b, false)
		w.until("it knows who leads", time.Minute, func() bool {
			return b.node.replica.RaftLeader() == l.node.self
		})
		w.apart(l, b, true)
		l.crash()
		w.apart(c, b, false)
		b.slow(0)
		w.until("another one leads", 10*time.Second, func() bool { return w.raftLeader() != nil })
		if w.bad != "" {
			t.Error(w.bad)
		}
	})
}

// newWorld has a cluster in the bubble of a test.
func newWorld(t *testing.T, seed uint64, mutate mutation.Mutation) *world {
	base := t.TempDir()
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp("/dev/shm", "leader-latch-test"); err == nil { // time is virtual, the disk is not
			base = dir
			t.Cleanup(func() { os.RemoveAll(dir) })
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{
		t: t, seed: seed, mutate: mutate, rng: rng, luck: rand.New(rand.NewPCG(seed, 3)), leaders: make(map[string]string), happened: make(map[string]int),
		began: time.Now(), net: newVirtualNetwork(rand.New(rand.NewPCG(seed, 2))),
	}
	w.noSwitch = mutate == mutation.Nothing && seed%4 == 0 || mutate == mutation.NoSwitchNoGate
	for i := range 3 {
		name := fmt.Sprintf("riak@n%d", i+1)
		h := &host{w: w, name: name, address: fmt.Sprintf("n%d:5324", i+1), path: filepath.Join(base, name)}
		h.clocks.began, h.clocks.rate, h.clocks.blind = w.began, 1+(rng.Float64()*2-1)*session.Rho*0.9, mutate == mutation.NoJump
		h.holds = seed%3 == 0 // so that the level rises among the faults, when each has been started again
		w.hosts = append(w.hosts, h)
	}
	t.Cleanup(func() {
		for _, h := range w.hosts {
			h.crash()
		}
		w.net.close()
		time.Sleep(time.Minute) // what still waits for something sees its end
	})
	for _, h := range w.hosts {
		h.start()
	}
	w.until("the cluster is whole", time.Minute, w.whole)
	return w
}

// whole reports whether all nodes run, in one cluster, and answer JOINs.
func (w *world) whole() bool {
	return !slices.ContainsFunc(w.hosts, func(h *host) bool { return h.node == nil || !h.ready() || h.node.cluster.size() != 3 }) && w.raftLeader() != nil
}

// raftLeader is the host of the raft leader, nil while there is none.
func (w *world) raftLeader() *host {
	i := slices.IndexFunc(w.hosts, func(h *host) bool { return h.node != nil && h.node.replica.IsLeader() })
	if i < 0 {
		return nil
	}
	return w.hosts[i]
}

// follower is a host that is not the raft leader's.
func (w *world) follower() *host {
	leader := w.raftLeader()
	return w.hosts[slices.IndexFunc(w.hosts, func(h *host) bool { return h != leader })]
}

// but gives the hosts other than one.
func (w *world) but(h *host) []*host {
	return slices.DeleteFunc(slices.Clone(w.hosts), func(o *host) bool { return o == h })
}

// apart has two hosts hear nothing of each other, or hear again.
func (w *world) apart(h, o *host, is bool) {
	w.net.cut(h.address, o.address, is)
	w.net.cut(o.address, h.address, is)
}

// orders is what clients saw of joining and leaving, by group.
func (w *world) orders() map[string][]porcupine.Operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	histories := make(map[string][]porcupine.Operation)
	for i, c := range w.everybody {
		join := porcupine.Operation{Input: joinOp{i, c.name}, Output: c.answer, Call: int64(c.asked), Return: math.MaxInt64}
		if c.answer != "" {
			join.Return = int64(c.answered)
		}
		histories[c.group] = append(histories[c.group], join)
		if c.closed {
			histories[c.group] = append(histories[c.group], porcupine.Operation{Input: leaveOp{i}, Output: "", Call: int64(c.ended), Return: math.MaxInt64})
		}
	}
	return histories
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, fmt.Sprintf("%8.3f ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) violation() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bad
}

func (w *world) until(what string, patience time.Duration, cond func() bool) {
	for end := time.Now().Add(patience); !cond() && w.violation() == ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			state := w.state()
			w.mu.Lock()
			w.fail("never: %s\n%s", what, state)
			w.mu.Unlock()
		}
	}
}

// state is what nodes and clients are like now, for a failure.
func (w *world) state() string {
	var b strings.Builder
	for _, h := range w.hosts {
		if h.node == nil {
			fmt.Fprintf(&b, "%s is down\n", h.name)
			continue
		}
		h.node.mu.Lock()
		fmt.Fprintf(&b, "%s: missing %v; raft %v\n", h.name, h.node.missing(), h.node.replica.Inside().Raft.Stats())
		h.node.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		if !c.closed {
			fmt.Fprintf(&b, "%s %s at %s was told %q; its connection is ending: %v\n", c.group, c.name, c.host.name, c.told, c.ending)
		}
	}
	return b.String()
}

// happens is one event.
func (w *world) happens() {
	a, b := w.hosts[w.rng.IntN(3)], w.hosts[w.rng.IntN(3)]
	runs := a.node != nil && !a.paused()
	p := w.rng.Float64()
	is := func(chance float64, what string, possible bool) bool {
		if aim := aims[w.mutate]; what == aim {
			chance = max(chance, 0.04)
		} else if aim != "" && !slices.Contains([]string{"joins", "ends", "further JOINs", "mended", "starts"}, what) {
			chance = 0
		}
		if p -= chance; p >= 0 || !possible {
			return false
		}
		p = math.Inf(1) // nothing else
		w.mu.Lock()
		w.happened[what]++
		w.mu.Unlock()
		return true
	}
	length := func(most time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(most))) }
	client := func(f func(*virtualClient)) {
		if i := len(w.clients); i > 0 {
			f(w.clients[w.rng.IntN(i)])
		}
	}
	switch {
	case is(0.4, "joins", runs):
		w.join(a)
	case is(0.1, "ends", true):
		client((*virtualClient).hangUp)
	case is(0.04, "further JOINs", true):
		client((*virtualClient).again)
	case is(0.03, "ended by the node", true):
		client((*virtualClient).Close)
	case is(0.04, "cuts", a != b):
		w.note("cut: %s to %s", a.name, b.name)
		w.net.cut(a.address, b.address, true)
	case is(0.015, "cut off", true):
		w.note("cut off: %s", a.name)
		for _, o := range w.hosts {
			w.net.cut(a.address, o.address, o != a)
			w.net.cut(o.address, a.address, o != a)
		}
	case is(0.01, "links that come and go", time.Now().After(w.flaps)):
		w.flap(a, length)
	case is(0.01, "slow disks", true):
		a.slow(length(100 * time.Millisecond))
	case is(0.005, "entries lost", w.raftLeader() != nil && time.Now().After(w.flaps)):
		w.loseEntries(length)
	case is(0.01, "late copies", runs):
		w.repeatLate(a, length(2*time.Second))
	case is(0.12, "mended", true):
		w.note("mended: %s", a.name)
		for _, o := range w.hosts {
			w.net.cut(a.address, o.address, false)
			w.net.cut(o.address, a.address, false)
		}
	case is(0.012, "pauses", runs):
		if w.rng.IntN(2) == 0 {
			a.pause(session.Normal.Lease - 200*time.Millisecond + length(500*time.Millisecond))
		} else {
			a.pause(length(5 * time.Second))
		}
	case is(0.006, "frozen machines", runs):
		a.freeze(length(6 * time.Second))
	case is(0.006, "wall clock set", runs): // not while it stands still: two changes might undo each other
		by := length(20*time.Second) - 10*time.Second
		w.note("%s: the wall clock is set by %v", a.name, by)
		a.clocks.set(by)
	case is(0.006, "crashes", runs):
		a.crash()
	case is(0.006, "stops", runs):
		a.stop()
	case is(0.1, "starts", a.node == nil):
		a.start()
	case is(0.008, "hand-overs", runs):
		w.note("%s hands over", a.name)
		a.node.cluster.handOver()
	case is(0.03, "snapshots", runs):
		w.note("%s takes a snapshot", a.name)
		snapshot(a.node)
	}
}

// flap cuts a host off, mends that after a while, and cuts it off again.
func (w *world) flap(h *host, length func(most time.Duration) time.Duration) {
	in, out := true, w.rng.IntN(3) == 0
	times := []time.Duration{length(1800 * time.Millisecond), length(40 * time.Millisecond), length(4 * time.Second)}
	if w.rng.IntN(3) == 0 { // until about the end of its lease
		out, times = true, []time.Duration{session.Normal.Lease - session.Normal.Renew + length(2*session.Normal.Renew)}
	}
	w.note("%s is cut off, out too: %v, and so on: %v", h.name, out, times)
	cut := func(in, out bool) {
		for _, o := range w.hosts {
			w.net.cut(o.address, h.address, in && o != h)
			w.net.cut(h.address, o.address, out && o != h)
		}
	}
	w.flaps = time.Now().Add(session.Normal.Lease)
	for _, d := range times {
		w.flaps = w.flaps.Add(d)
	}
	go func() {
		for i, d := range times {
			cut(in && i != 1, out && i != 1 || i == 2)
			time.Sleep(d)
		}
		cut(false, false)
	}()
}

// then is what happens later.
type then struct {
	at   time.Time
	what func()
}

// goOn has happen what is due.
func (w *world) goOn() {
	var due []then
	w.then = slices.DeleteFunc(w.then, func(t then) bool {
		if time.Now().Before(t.at) {
			return false
		}
		due = append(due, t)
		return true
	})
	for _, t := range due {
		t.what()
	}
}

// loseEntries has a majority of the raft leader and one other come to an entry, which
// one of these two loses: the machine crashes while its slow disk has to do. That one and
// the third are the majority then.
func (w *world) loseEntries(length func(most time.Duration) time.Duration) {
	loser := w.raftLeader()
	others := w.but(loser)
	i := w.rng.IntN(2)
	keeper, third := others[i], others[1-i]
	if w.rng.IntN(4) == 0 {
		loser, keeper = keeper, loser
	}
	after := length(800 * time.Millisecond)
	w.note("%s is to lose what it has, %s keeps it, after %v", loser.name, keeper.name, after)
	group := fmt.Sprint("lost", len(w.history))
	loser.slow(200*time.Millisecond + length(400*time.Millisecond))
	w.apart(third, loser, true)
	w.apart(third, keeper, true)
	w.joinAs(keeper, group, "a")
	w.flaps = time.Now().Add(after + session.Normal.Expiry)
	w.then = append(w.then, then{time.Now().Add(after), func() {
		loser.crash()
		w.apart(third, loser, false)
		w.apart(keeper, loser, true)
		loser.slow(0)
		loser.start()
		w.joinAs(third, group, "b")
	}})
}

// slow has the disk take that long for a flush, longer than most.
func (h *host) slow(flush time.Duration) {
	h.w.note("a flush takes %v at %s", flush, h.name)
	h.flush.Store(int64(flush))
}

// repeatLate has operations of a node proposed once more, as one whose raft leader was
// lost may propose what has taken effect already; and Expires that were due when
// another raft leader led, of sessions that were renewed since.
func (w *world) repeatLate(h *host, later time.Duration) {
	n := h.node
	var ops []state.Op
	n.replica.Read(func(s *state.State) {
		inc, counter, ok := s.Current(n.self)
		if !ok {
			return
		}
		ops = append(ops, state.Open{Node: n.self, Counter: counter, Boot: n.cfg.bootID, Lease: n.cfg.Timing.Lease, Expiry: n.cfg.Timing.Expiry, Name: n.cfg.Name, Address: n.cfg.Address, Reads: n.cfg.reads()})
		for g := range s.Groups() {
			for _, m := range g.Members {
				if m.ID.Incarnation == inc {
					ops = append(ops, state.Join{Incarnation: inc, Seq: m.ID.Seq, Group: g.Name, Client: m.Client})
				}
			}
		}
	})
	w.late = append(w.late, lateOps{time.Now().Add(later), ops})
	ops = nil
	n.replica.Read(func(s *state.State) {
		for ses := range s.Sessions() {
			ops = append(ops, state.Expire{Incarnation: ses.Incarnation, Renewal: ses.Renewal})
		}
	})
	w.late = append(w.late, lateOps{time.Now().Add(session.Normal.Expiry + session.Normal.Close + later), ops})
}

type lateOps struct {
	at  time.Time
	ops []state.Op
}

func (w *world) proposeLate() {
	w.late = slices.DeleteFunc(w.late, func(l lateOps) bool {
		if time.Now().Before(l.at) {
			return false
		}
		for _, h := range w.hosts {
			if h.node != nil && h.node.serving() {
				w.note("%s proposes late: %v", h.name, l.ops)
				for _, op := range l.ops {
					h.node.replica.Submit([]state.Op{op}, func(uint64, error) {})
				}
				return true
			}
		}
		return false
	})
}

// settled reports whether every client that is connected has been told the one
// leader of its group.
func (w *world) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaders := map[string]string{}
	for _, c := range w.clients {
		waits := c.told == "" && slices.ContainsFunc(w.clients, func(o *virtualClient) bool {
			return o != c && !o.closed && o.group == c.group && o.name == c.name && o.told != ""
		})
		if c.closed || c.ending || waits { // for its name to come free
			continue
		}
		if c.told == "" || leaders[c.group] != "" && leaders[c.group] != c.told {
			return false
		}
		leaders[c.group] = c.told
	}
	for group, leader := range leaders {
		if !slices.ContainsFunc(w.clients, func(c *virtualClient) bool { return !c.closed && c.group == group && c.name == leader }) {
			return false
		}
	}
	return true
}

// virtualClocks are a machine's clocks in virtual time. While it is frozen they stand
// still; then the wall clock is set right, and the others are not. mu is taken last.
type virtualClocks struct {
	began time.Time
	rate  float64
	blind bool // nobody sees the wall clock

	mu     sync.Mutex
	stands bool
	froze  time.Duration // since began, when they stopped
	lost   time.Duration // for how long they stood still
	step   time.Duration // what the wall clock was set by
}

func (c *virtualClocks) read() session.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	real := time.Since(c.began)
	if c.stands {
		real = c.froze
	}
	d := time.Duration(float64(real-c.lost) * c.rate)
	wall := d
	if !c.blind {
		wall += c.lost + c.step
	}
	return session.Reading{Boot: d, Mono: d, Raw: d, Wall: wall}
}

func (c *virtualClocks) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stands, c.froze = true, time.Since(c.began)
}

func (c *virtualClocks) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stands {
		c.stands, c.lost = false, c.lost+time.Since(c.began)-c.froze
	}
}

func (c *virtualClocks) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step += by
}

func (h *host) start() {
	if h.node != nil {
		return
	}
	dir, err := OpenDir(context.Background(), h.path)
	if err != nil {
		h.w.t.Error(err)
		return
	}
	var list []Place
	for _, o := range h.w.hosts {
		list = append(list, Place{o.name, o.address})
	}
	h.w.note("%s starts", h.name)
	dead := make(chan struct{})
	h.unplug = sync.OnceFunc(func() { close(dead) })
	var level uint64
	if h.holds {
		level, h.holds = state.FirstLevel, false
	}
	var runs atomic.Bool
	n, err := Start(dir, Config{
		FormatLevel: level,
		released:    time.Unix(1, 0), // virtual time begins in 2000
		Name:        h.name, Address: h.address, Timing: session.Normal, MinimumNodes: 3, Join: list,
		Listener: h.w.net.listen(h.address), Key: testKey, Logger: slog.New(slog.DiscardHandler),
		now: h.clocks.read, bootID: "one boot", dial: h.w.net.dialer(h.address),
		alter: func(s *state.State, e state.Entry) state.Entry { return mutated(h.w.mutate, s, e) },
		omit:  omits(h.w.mutate), omitReplica: omitsOfReplica(h.w.mutate),
		observe: func(o replica.Observer) replica.Observer { return installs{o, h.w, &runs} },
		beforeCommit: func() {
			select {
			case <-time.After(time.Duration(h.flush.Load())):
			case <-dead:
			}
		},
	})
	if err != nil {
		h.w.t.Error(err)
		dir.Close()
		return
	}
	h.node, h.dir = n, dir
	runs.Store(true)
	if *virtualTrailing > 0 {
		n.replica.Inside().Trail(*virtualTrailing)
	}
}

// installs counts the snapshots that are installed on a node that runs.
type installs struct {
	replica.Observer
	w    *world
	runs *atomic.Bool
}

func (i installs) Restored(s *state.State) {
	if i.runs.Load() {
		i.w.mu.Lock()
		i.w.happened["installed snapshots"]++
		i.w.mu.Unlock()
	}
	i.Observer.Restored(s)
}

func (h *host) paused() bool {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.goesOn != nil
}

// pause stops the process for a while: nothing goes in or out of it, over the network
// or to its clients, though within it time goes on. The dead-man's switch kills it
// if it leaves clients behind that believe.
func (h *host) pause(length time.Duration) {
	w, n := h.w, h.node
	n.mu.Lock()
	left := length // until the switch, which is off when all connections are closed
	if at := n.roster.KillAt(); at > 0 && !w.noSwitch && w.mutate != mutation.NoSwitch {
		left = at - n.now().Boot
	}
	n.mu.Unlock()
	w.note("%s is paused for %v", h.name, length)
	goesOn := h.stand(w.noSwitch)
	go func() {
		time.Sleep(min(left, length))
		if left < length && h.die(goesOn) {
			return
		}
		time.Sleep(length - max(0, min(left, length)))
		h.resume(goesOn)
	}()
}

// freeze stops the whole machine for a while, its clocks too.
func (h *host) freeze(length time.Duration) {
	h.w.note("%s is frozen for %v", h.name, length)
	h.clocks.freeze()
	goesOn := h.stand(true)
	go func() {
		time.Sleep(length)
		h.resume(goesOn)
	}()
}

// stand keeps the process from the world, until goesOn is closed. Those of its
// clients that nothing closes in time are excused until they are told something.
func (h *host) stand(excused bool) (goesOn chan struct{}) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.goesOn = make(chan struct{})
	h.w.net.stop(h.address, true)
	for _, c := range h.w.clients {
		if c.host == h && excused && c.stood == 0 {
			c.stood = time.Since(h.w.began)
		}
	}
	return h.goesOn
}

// die is the work of the switch: the kernel closes the sockets of a process that
// stands still, if there are any. The process itself is buried later.
func (h *host) die(goesOn chan struct{}) (killed bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.goesOn != goesOn || !slices.ContainsFunc(h.w.clients, func(c *virtualClient) bool { return c.host == h && !c.closed }) {
		return false
	}
	h.killed = true
	h.lose()
	return true
}

// lose closes the connections of the host's clients. The world's mutex is held.
func (h *host) lose() {
	for _, c := range h.w.clients {
		if c.host == h {
			c.end()
		}
	}
}

// bury ends a process that the switch has killed, and starts another for one that has
// failed.
func (h *host) bury() {
	h.w.mu.Lock()
	killed := h.killed
	h.killed = false
	h.w.mu.Unlock()
	if killed {
		h.w.mu.Lock()
		h.w.happened["killed by the switch"]++
		h.w.mu.Unlock()
		h.crash()
	}
	if h.node != nil && h.node.Err() != nil {
		h.w.note("%s failed: %v", h.name, h.node.Err())
		h.crash()
		h.start()
	}
}

// resume ends a pause, and its clients, who have sent their JOIN again meanwhile,
// are answered at once.
func (h *host) resume(goesOn chan struct{}) {
	h.w.mu.Lock()
	if h.goesOn != goesOn {
		h.w.mu.Unlock()
		return
	}
	var waiting []*virtualClient
	for _, c := range h.w.clients {
		if c.host == h {
			if c.stood > 0 {
				c.wentOn = time.Since(h.w.began)
			}
			waiting = append(waiting, c)
		}
	}
	h.w.mu.Unlock()
	h.w.note("%s goes on", h.name)
	h.goOn()
	for _, c := range waiting {
		c.again()
	}
}

// goOn lets a process that was paused go on.
func (h *host) goOn() {
	h.clocks.goOn()
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.goesOn != nil {
		close(h.goesOn)
		h.goesOn = nil
		h.w.net.stop(h.address, false)
	}
}

// pass returns when something that the process does for a client would be done: later
// if it has much else to do, or stands still.
func (h *host) pass(most time.Duration) {
	h.w.mu.Lock()
	delay := time.Duration(h.w.luck.Int64N(int64(most)))
	h.w.mu.Unlock()
	time.Sleep(delay)
	for {
		h.w.mu.Lock()
		goesOn := h.goesOn
		h.w.mu.Unlock()
		if goesOn == nil {
			return
		}
		<-goesOn
	}
}

// ready reports whether a JOIN would succeed.
func (h *host) ready() bool {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	return h.node.missing() == nil
}

// crash is the death of the process: nothing is said any more, and its clients
// see that. Its files are what they were, and not what its last flush was to make them.
func (h *host) crash() {
	if h.node == nil {
		return
	}
	h.w.note("%s crashes", h.name)
	h.w.mu.Lock()
	h.lose()
	h.w.mu.Unlock()
	synctest.Wait()
	left := h.path + " left"
	err := os.CopyFS(left, os.DirFS(h.path))
	h.goOn()
	h.node.port.Close()
	h.unplug()
	synctest.Wait() // Raft has no question left that it would not answer
	kill(h.node)
	h.node = nil
	if err := errors.Join(err, os.RemoveAll(h.path), os.Rename(left, h.path)); err != nil {
		h.w.t.Error(err)
	}
}

// stop is a stop in order.
func (h *host) stop() {
	if h.node == nil {
		return
	}
	h.w.note("%s stops", h.name)
	h.flush.Store(0) // Raft leaves questions without an answer that wait for it
	h.setStopping(true)
	defer h.setStopping(false)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	h.node.Stop(ctx)
	h.dir.Close()
	h.node = nil
}

func (h *host) setStopping(is bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.stopping = is
}

// virtualClient is a client and its connection, which is next to the node.
type virtualClient struct {
	w           *world
	host        *host
	group, name string
	membership  *session.Membership

	// Guarded by the world's mutex.
	told    string
	token   uint64
	ending  bool // its node is to end the connection
	closing bool // and does
	closed  bool
	stood   time.Duration // since when it was told nothing, as its node stood still; 0: it did not
	wentOn  time.Duration // when that went on; 0: it stands still
	another bool          // leads, says another node, while this one was believed

	until time.Duration // it may lead by its clock, whatever becomes of its connection

	asked, answered, ended time.Duration
	answer                 string // the first leader it was told
}

// end closes the connection. The world's mutex is held.
func (c *virtualClient) end() {
	if c.closed {
		return
	}
	c.closed, c.ended = true, time.Since(c.w.began)
	late := time.Duration(0)
	if c.wentOn > 0 {
		late = c.ended - c.wentOn
	}
	if c.stood > 0 {
		c.ended = c.stood // its membership may have ended since then
	}
	if !c.another {
		return
	}
	c.w.stale = append(c.w.stale, late)
	if most := session.Normal.Lease + session.Normal.Close; late > most {
		c.w.fail("%s %s at %s was closed only %v after its machine went on, want %v", c.group, c.name, c.host.name, late, most)
	}
}

func (w *world) join(h *host) {
	w.joinAs(h, fmt.Sprint("g", w.rng.IntN(3)), fmt.Sprint("c", w.rng.IntN(5)))
}

func (w *world) joinAs(h *host, group, name string) {
	if h.node == nil {
		return
	}
	c := &virtualClient{w: w, host: h, group: group, name: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := h.node.Join(c.group, c.name, c)
	if err != nil {
		return
	}
	c.membership, c.asked = m, time.Since(w.began)
	w.everybody = append(w.everybody, c)
	w.clients = append(slices.DeleteFunc(w.clients, func(c *virtualClient) bool { return c.closed && c.until < c.asked }), c)
}

// Promised implements Member.
func (*virtualClient) Waits(string) {}
func (c *virtualClient) Promised()  { c.again() }

// Leader implements Member: the gate, the write and the promise, at one moment.
func (c *virtualClient) Leader(name string, token uint64) {
	if c.w.lucky(0.2) {
		c.host.pass(50 * time.Millisecond)
	} else {
		c.host.pass(1)
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if !c.mayWrite() {
		return
	}
	term := fmt.Sprint(c.group, " ", token)
	switch before := c.w.leaders[term]; {
	case token < c.token || token == c.token && name != c.told:
		c.w.fail("%s %s is told %s with token %d after %s with %d", c.group, c.name, name, token, c.told, c.token)
	case before != "" && before != name:
		c.w.fail("%s has two leaders of token %d: %s and %s", c.group, token, before, name)
	}
	c.w.leaders[term] = name
	if c.told == "" {
		c.answer, c.answered = name, time.Since(c.w.began)
	}
	c.told, c.token = name, token
	c.writes("LEADER " + name)
}

// again is a further JOIN on the connection. ALREADY_JOINED tells a leader that it leads
// still, and for S - L from now on.
func (c *virtualClient) again() {
	c.w.mu.Lock()
	sent := time.Since(c.w.began)
	asks := c.host.goesOn == nil && c.told != "" && c.mayWrite()
	c.w.mu.Unlock()
	if !asks {
		return
	}
	if now, later := c.membership.Promise(); later || !now && c.w.mutate != mutation.NoSwitchNoGate {
		return // it asks again, or its connection is ended by the next line
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.mayWrite() {
		c.writes("ALREADY_JOINED")
		if c.told == c.name {
			c.until = sent + session.Normal.Expiry - session.Normal.Lease
		}
	}
}

// leadersAsk has most leaders ask whether they lead still, as clients do that rely on
// promises.
func (w *world) leadersAsk() {
	w.mu.Lock()
	leaders := slices.DeleteFunc(slices.Clone(w.clients), func(c *virtualClient) bool { return c.told != c.name })
	w.mu.Unlock()
	for _, c := range leaders {
		if w.lucky(0.7) {
			c.again()
		}
	}
}

// stops is what a client does before it closes its own side.
func (c *virtualClient) stops() {
	c.w.mu.Lock()
	c.until = 0
	c.w.mu.Unlock()
	c.membership.Stopped()
}

// mayWrite is the gate. Where it is shut the connection is ended. The world's mutex is
// held.
func (c *virtualClient) mayWrite() bool {
	switch {
	case c.closed || c.closing:
		return false
	case c.membership.Live() || c.w.mutate == mutation.NoSwitchNoGate:
		return true
	}
	go c.Close()
	return false
}

// writes holds a line against the promise: whoever is told to lead is the only one.
// The world's mutex is held.
func (c *virtualClient) writes(line string) {
	c.stood, c.wentOn = 0, 0
	c.w.told++
	c.w.history = append(c.w.history, fmt.Sprintf("%8.3f %s tells %s %s: %s", time.Since(c.w.began).Seconds(), c.host.name, c.group, c.name, line))
	if c.told != c.name {
		return
	}
	for _, o := range c.w.clients {
		switch {
		case o == c || o.group != c.group || o.told != o.name:
		case o.closed && o.until > time.Since(c.w.began):
			c.w.fail("%s leads %s at %s, and %s at %s may until %v", c.name, c.group, c.host.name, o.name, o.host.name, o.until)
		case o.closed:
		case o.stood > 0:
			o.another = true
		default:
			c.w.fail("two lead %s: %s at %s and %s at %s", c.group, o.name, o.host.name, c.name, c.host.name)
		}
	}
}

func (w *world) lucky(chance float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.luck.Float64() < chance
}

// fail notes what must never be, if it is the first. The world's mutex is held.
func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

// Close implements Member: the node's own end of the connection, which takes its
// time, and which its client sees after a while, or too late to be waited for.
func (c *virtualClient) Close() {
	c.w.mu.Lock()
	was := c.ending || c.closed
	c.ending = true
	before := c.closedBefore()
	c.w.mu.Unlock()
	if was {
		return
	}
	go func() {
		if before {
			c.membership.Closed(true)
		}
		c.host.pass(1)
		c.w.mu.Lock()
		c.closing = true
		c.w.mu.Unlock()
		c.host.pass(session.Normal.Close / 3)
		c.w.mu.Lock()
		was := c.closed
		c.end()
		c.w.mu.Unlock()
		if before || was {
			return
		}
		knows := c.w.lucky(0.9)
		if knows {
			time.Sleep(50 * time.Millisecond)
		} else {
			time.Sleep(session.Normal.Expiry - session.Normal.Lease)
		}
		c.membership.Closed(knows)
		if knows && c.w.lucky(0.5) {
			c.host.pass(300 * time.Millisecond)
			c.stops()
		}
	}()
}

// closedBefore reports whether the missing rule is that the connection has to be
// closed first of all. The world's mutex is held.
func (c *virtualClient) closedBefore() bool {
	switch c.w.mutate {
	case mutation.LeaveBeforeClose:
		return c.membership.Live() && !c.host.stopping
	case mutation.OpenBeforeClose:
		return !c.membership.Live()
	case mutation.EndBeforeClose:
		return c.host.stopping
	}
	return false
}

// hangUp is the client's own end, or a reset, which may come from elsewhere.
func (c *virtualClient) hangUp() {
	c.w.mu.Lock()
	was := c.closed
	c.end()
	c.w.mu.Unlock()
	if !was {
		go func() {
			if c.w.lucky(0.7) {
				c.stops()
			}
			c.host.pass(10 * time.Millisecond)
			c.membership.Closed(true)
		}()
	}
}
