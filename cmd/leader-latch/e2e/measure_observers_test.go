//go:build bench

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watchers are observers of one group, at all nodes in turn.
type watchers struct {
	t     *testing.T
	conns []net.Conn
	began atomic.Int64 // of the change that they are to be told of, Unix nanoseconds
	told  chan time.Duration
}

func newWatchers(t *testing.T, all []*member, group string, n int) *watchers {
	t.Helper()
	w := &watchers{t: t, conns: make([]net.Conn, n), told: make(chan time.Duration, n)}
	dialer := manyDialer()
	if err := inParallel(n, 32, func(i int) error {
		nc, err := dialer.Dial("tcp4", all[i%len(all)].ip+":5326")
		if err != nil {
			return err
		}
		w.conns[i] = nc
		fmt.Fprintf(nc, "OBSERVE %s\n", group)
		r := bufio.NewReaderSize(nc, 64)
		for line := ""; !strings.HasPrefix(line, "LEADER "); { // its node may hear of the first one later
			if line, err = r.ReadString('\n'); err != nil {
				return err
			}
		}
		go func() {
			for {
				if _, err := r.ReadSlice('\n'); err != nil {
					return
				}
				w.told <- time.Since(time.Unix(0, w.began.Load()))
			}
		}()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

// all waits until all were told of a change, and gives how long each took.
func (w *watchers) all() (l latencies) {
	w.t.Helper()
	for range w.conns {
		select {
		case d := <-w.told:
			l = append(l, d)
		case <-time.After(patience):
			w.t.Fatalf("%d of %d observers were told", len(l), len(w.conns))
		}
	}
	return l
}

func (w *watchers) close() {
	var all sync.WaitGroup
	for _, c := range w.conns {
		all.Go(func() { c.Close() })
	}
	all.Wait()
}

// passedOn is a group whose leadership is passed on from client to client, at one node after the other.
type passedOn struct {
	t     *testing.T
	all   []*member
	group string
	times int
	lead  *conn
}

func newPassedOn(t *testing.T, all []*member) *passedOn {
	t.Helper()
	h := &passedOn{t: t, all: all, group: unique("handed"), lead: all[0].dial()}
	h.lead.send("JOIN %s c\n", h.group)
	h.lead.line()
	return h
}

// next has the leader close, and gives when it did and after how long the next one was told. w are told too.
func (h *passedOn) next(w *watchers) (told time.Duration) {
	h.t.Helper()
	h.times++
	heir := h.all[h.times%3].dial()
	heir.send("JOIN %s c%d\n", h.group, h.times)
	heir.line()
	time.Sleep(20 * time.Millisecond)
	began := time.Now()
	w.began.Store(began.UnixNano())
	h.lead.Close()
	heir.line()
	h.lead = heir
	return time.Since(began)
}

// measureObservers is how soon observers of a group are told of a change, whether the next leader is
// told later for that, and what they take.
func measureObservers(t *testing.T) {
	all := withSecondListener(t)
	most, limited := affordable(10_000)
	nobody := &watchers{t: t}
	for _, n := range []int{1, 100, most} {
		observed, unobserved := newPassedOn(t, all), newPassedOn(t, all)
		w := newWatchers(t, all, observed.group, n)
		var told latencies
		var p pairs
		for range max(6, fewer(20)) {
			var with, without latencies
			for range fewer(20) {
				without = append(without, unobserved.next(nobody))
				with = append(with, observed.next(w))
				told = append(told, w.all()...)
			}
			p.add(without.p50(), with.p50())
		}
		row(fmt.Sprintf("a leader closes, next told, p50, ms: a group without observers, and one with %d; ratio, its interval, pairs", n), "%v", &p)
		row(fmt.Sprintf("a leader closes, %d observers told%s", n, limited), "%v", told)
		w.close()
	}
	n, limited := affordable(fewer(10_000))
	h := newPassedOn(t, all)
	before := inUse(t, all)
	newWatchers(t, all, h.group, n)
	row(fmt.Sprintf("RSS of 3 servers in use for each of %d observers", n), "%.2f KiB%s", float64(inUse(t, all)-before)/1024/float64(n), limited)
}
