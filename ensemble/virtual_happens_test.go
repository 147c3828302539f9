package ensemble

import (
	"fmt"
	"math"
	"slices"
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// What happens in a world: the network is cut, one way and both, delays, and loses
// connections; firewalls refuse ports and reset connections; nodes crash, stop and start again, are paused, and frozen with their machine;
// disks are slow, and lose what is not flushed; clocks run at different rates, and the wall
// clock is set; raft leadership moves, snapshots are taken, the level of the formats rises.

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
		a.freeze(noticed + length(6*time.Second))
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
	case is(0.02, "firewalls", true):
		w.firewall(a, length)
	}
}

// firewall has a host refuse some of the others for a while, and resets its connections now
// and then meanwhile.
func (w *world) firewall(h *host, length func(most time.Duration) time.Duration) {
	from := w.but(h)[:w.rng.IntN(3)]
	resets, every := w.rng.IntN(10), length(300*time.Millisecond)
	w.note("%s: a firewall refuses %d others, and resets %d times, each %v", h.name, len(from), resets, every)
	refuse := func(is bool) {
		for _, o := range from {
			w.net.refuse(o.address, h.address, is)
		}
	}
	refuse(true)
	go func() {
		for range resets {
			w.net.reset(h.address)
			time.Sleep(every)
		}
		refuse(false)
	}()
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

func (w *world) lucky(chance float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.luck.Float64() < chance
}
