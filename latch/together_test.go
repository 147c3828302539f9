package latch_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// countedElections counts the Joins that were asked for.
type countedElections struct {
	latch.Elections
	joins atomic.Int64
}

func (e *countedElections) Join(group, client string, m latch.Member) (latch.Membership, error) {
	ms, err := e.Elections.Join(group, client, m)
	if err == nil {
		e.joins.Add(1)
	}
	return ms, err
}

// TestAllTogether lets clients come and go in all ways while leaders are pushed,
// connections ended and the lease lost, all at random. No connection is ever told
// an older leader after a newer one, and each membership is given back once.
func TestAllTogether(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	e := &countedElections{Elections: latchtest.NewElections()}
	fake := e.Elections.(*latchtest.Elections)
	defer fake.Close()
	f := serve(t, func(cfg *latch.Config) {
		cfg.Elections = e
		cfg.JoinTimeout = 20 * time.Millisecond
		cfg.StuckTimeout = 100 * time.Millisecond
		cfg.CloseGrace = 10 * time.Millisecond
		cfg.Limit = latch.NewLimit(20, 2)
	})
	end := time.Now().Add(2 * time.Second)

	var all sync.WaitGroup
	var told atomic.Int64 // pushed leaders that were read
	all.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for n := 0; time.Now().Before(end); n++ {
			switch rnd.IntN(40) {
			case 0:
				fake.Kill()
			case 1:
				fake.Lapse()
			case 2:
				fake.SetAvailable(false)
			case 3:
				fake.SetAvailable(true)
			case 4:
				fake.Hold()
			case 5, 6:
				fake.Release()
			case 7:
				fake.End("g", fmt.Sprint(rnd.IntN(25)))
			case 8:
				time.Sleep(time.Millisecond)
			default:
				// The names of leaders that the test pushes are numbers.
				fake.Push("g", fmt.Sprintf("%0200d", n))
			}
			fake.Sync()
		}
		fake.Release()
	})
	for i := range 25 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i+1)))
			for time.Now().Before(end) {
				told.Add(f.visit(rnd, fmt.Sprintf("client-%d", rnd.IntN(25))))
			}
		})
	}
	all.Wait()
	f.s.Close()
	fake.Sync()
	if joins, closings := e.joins.Load(), len(fake.Closings()); joins == 0 || int(joins) != closings {
		t.Errorf("%d Joins, %d given back", joins, closings)
	}
	if told.Load() == 0 {
		t.Error("nobody was told of a leader; the test tests nothing")
	}
}

// visit is the life of one connection: a JOIN, some lines, some reading, an end.
// It returns how many pushed leaders were read.
func (f *fixture) visit(rnd *rand.Rand, name string) (told int64) {
	dial := f.dial
	if rnd.IntN(2) == 0 {
		dial = f.dialSmall
	}
	cl := dial()
	defer cl.TCPConn.Close()
	fmt.Fprintf(cl, "JOIN g %s\n", name)
	last := -1
	for range rnd.IntN(30) {
		switch rnd.IntN(10) {
		case 0:
			cl.Write([]byte(strings.Repeat("?\n", rnd.IntN(30))))
		case 1:
			fmt.Fprintf(cl, "JOIN g %s\n", name)
		case 2:
			if rnd.IntN(20) == 0 {
				cl.Write([]byte(strings.Repeat("x", 2000)))
			}
		default:
			cl.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			line, err := cl.r.ReadString('\n')
			if err != nil {
				continue // a piece of a line may be lost; it is no number then
			}
			number, ok := strings.CutPrefix(line, "LEADER 0")
			if n, err := strconv.Atoi(strings.TrimSpace(number)); ok && err == nil && len(line) == len("LEADER \n")+200 {
				if n <= last {
					f.t.Errorf("leader %d after leader %d", n, last)
				}
				last = n
				told++
			}
		}
	}
	switch rnd.IntN(3) {
	case 0:
		cl.reset()
	case 1:
		cl.CloseWrite()
		cl.SetReadDeadline(time.Now().Add(time.Second))
		cl.r.ReadString(0)
	}
	return told
}

// TestKeyedTogether lets keyed clients come and go in all ways while the node ends
// connections, lapses and loses its lease, all at random. No two of a group ever lead by
// what they have read and by their promises.
func TestKeyedTogether(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := serve(t, extended, func(cfg *latch.Config) { cfg.CloseGrace = 10 * time.Millisecond })
	began := time.Now()
	now := func() time.Duration { return time.Since(began) }
	const lasts = 3 * time.Second

	var all sync.WaitGroup
	var mu sync.Mutex
	var views []*latchtest.View
	all.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for now() < lasts {
			switch rnd.IntN(20) {
			case 0:
				f.e.Kill()
			case 1:
				f.e.Lapse()
			case 2:
				f.e.Hold()
				time.Sleep(5 * time.Millisecond)
				f.e.Release()
			default:
				f.e.End("g", fmt.Sprint("c", rnd.IntN(5)))
			}
			f.e.Sync()
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		}
	})
	for i := range 5 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i+1)))
			hold := 50 + rnd.IntN(200)
			k := &latchtest.Keyed{Group: "g", Client: fmt.Sprint("c", i), Hold: true}
			for now() < lasts {
				f.visitKeyed(rnd, k, fmt.Sprint("key-of-client-no-", i), hold, now)
			}
			mu.Lock()
			defer mu.Unlock()
			views = append(views, k.Views()...)
		})
	}
	all.Wait()
	v := latchtest.Check(views)
	for _, violation := range v.Violations {
		t.Error(violation)
	}
	leaders, moved := map[string]bool{}, 0
	tokens := map[uint64]int{}
	for _, view := range views {
		for _, told := range view.Told {
			if told.Leader == view.Client {
				leaders[view.Client] = true
				if tokens[told.Token]++; tokens[told.Token] == 2 {
					moved++
				}
			}
		}
	}
	if t.Logf("%d connections, %d leaderships, %d of them on several", len(views), v.Leaderships, moved); len(leaders) < 2 || moved == 0 {
		t.Errorf("leaders %v, %d moved; the test tests nothing", leaders, moved)
	}
}

// visitKeyed is the life of one connection of a keyed client: a JOIN, some PINGs, some
// reading, an end.
func (f *fixture) visitKeyed(rnd *rand.Rand, k *latchtest.Keyed, key string, hold int, now func() time.Duration) {
	c := f.dial()
	defer c.reset()
	w := k.Connects(now(), "here")
	defer func() { k.Ends(now()) }()
	finEnds := rnd.IntN(2) == 0
	words := ""
	if finEnds {
		words = " fin=end"
	}
	fmt.Fprintf(c, "JOIN g %s key=%s hold=%d%s\n", k.Client, key, hold, words)
	for range rnd.IntN(15) {
		if rnd.IntN(2) == 0 {
			w.Asks(now())
			if _, err := c.Write([]byte("PING\n")); err != nil {
				return
			}
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		line, err := c.r.ReadString('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && line == "":
			continue
		case err != nil, strings.HasPrefix(line, "JOIN_FAILED"), line == "ERROR\n": // to a PING behind that
			return
		}
		if err := w.Reads(now(), line); err != nil {
			f.t.Error(err)
			return
		}
	}
	switch rnd.IntN(4) {
	case 0:
		k.Stops(now())
		c.Write([]byte("LEAVE\n"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, c.r)
	case 1:
		if finEnds {
			k.Stops(now())
		}
		c.CloseWrite()
	}
}
