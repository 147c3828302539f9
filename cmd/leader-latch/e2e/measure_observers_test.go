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

// measureObservers is how soon observers of a group are told of a change, whether the next leader is
// told later for that, of their group and of another one, and what they take.
func measureObservers(t *testing.T) {
	all := withSecondListener(t)
	most, limited := affordable(10_000)
	for _, n := range []int{0, 1, 100, most, 0} {
		var told, next, other latencies
		group := unique("observed")
		lead := all[0].dial()
		lead.send("JOIN %s c\n", group)
		lead.line()
		w := newWatchers(t, all, group, n)
		for i := range fewer(50) {
			heir := all[(i+1)%3].dial()
			heir.send("JOIN %s c%d\n", group, i)
			heir.line()
			elsewhere, second := all[0].dial(), all[1].dial()
			elsewhere.send("JOIN elsewhere-%s-%d a\n", group, i)
			elsewhere.line()
			second.send("JOIN elsewhere-%s-%d b\n", group, i)
			second.line()
			time.Sleep(20 * time.Millisecond)
			began := time.Now()
			w.began.Store(began.UnixNano())
			lead.Close()
			elsewhere.Close()
			heir.line()
			next = append(next, time.Since(began))
			second.line()
			other = append(other, time.Since(began))
			told = append(told, w.all()...)
			second.Close()
			lead = heir
		}
		row(fmt.Sprintf("a leader closes, %d observers of its group: the next one told", n), "%v", next)
		row(fmt.Sprintf("a leader of another group closes at that moment, %d observers: the next one told", n), "%v", other)
		if n > 0 {
			row(fmt.Sprintf("a leader closes, %d observers told%s", n, limited), "%v", told)
		}
		w.close()
		lead.Close()
	}
	n, limited := affordable(fewer(10_000))
	lead := all[0].dial()
	lead.send("JOIN observed c\n")
	lead.line()
	before := inUse(t, all)
	newWatchers(t, all, "observed", n)
	row(fmt.Sprintf("RSS of 3 servers in use for each of %d observers", n), "%.2f KiB%s", float64(inUse(t, all)-before)/1024/float64(n), limited)
}
