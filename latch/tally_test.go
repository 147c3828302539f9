package latch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A log survives its clients: of 40,000 JOINs that are refused in 10 s for a few reasons it
// has few lines, of each reason the first at once, and in all of them together the right
// number. What is gathered is written though nothing more comes.
func TestRefusalsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log safeBuffer
		tl := newTally(slog.New(slog.NewTextHandler(&log, nil)))
		reasons := []error{errJoinTimeout, errNotLive, errors.New("elections are unavailable: too few nodes"), nameInUse{"riak@192.0.2.1"}}
		const clients, times = 400, 100
		began := time.Now()
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for j := range times {
					reason := reasons[(i+j)%len(reasons)]
					if write := tl.add("JOIN refused", reason.Error(), whoIs(fmt.Sprint("c", i))); write != nil {
						write()
					}
					if j == 0 {
						continue // all at once, then one in a tenth of a second
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		synctest.Wait()
		if lines := log.lines(); len(lines) != len(reasons) {
			t.Errorf("at once: %d lines, want the first of each reason:\n%s", len(lines), strings.Join(lines, ""))
		}
		all.Wait()
		if d := time.Since(began); d > 10*time.Second {
			t.Fatalf("it took %v", d)
		}
		time.Sleep(tallyInterval)
		lines := log.lines()
		if len(lines) != 2*len(reasons) {
			t.Errorf("%d lines for %d refusals, want two for each reason:\n%s", len(lines), clients*times, strings.Join(lines, ""))
		}
		if got := counts(t, lines); got != clients*times {
			t.Errorf("the lines count %d refusals, want %d", got, clients*times)
		}
		for _, line := range lines {
			if !strings.Contains(line, "group=g client=c") || !strings.Contains(line, "remote=192.0.2.9:1") {
				t.Errorf("no example in %q", line)
			}
		}
		time.Sleep(2 * tallyInterval)
		tl.mu.Lock()
		kept := len(tl.kinds)
		tl.mu.Unlock()
		if kept > 0 {
			t.Errorf("%d reasons are kept though nothing comes", kept)
		}
		if write := tl.add("JOIN refused", reasons[0].Error(), whoIs("later")); write == nil {
			t.Error("what comes after a silent interval has no line at once")
		}
		tl.flush()
	})
}

// What goes on for long has one line in an interval.
func TestALongFloodHasALineInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log safeBuffer
		tl := newTally(slog.New(slog.NewTextHandler(&log, nil)))
		const minutes = 10
		for range minutes * 60 * 10 {
			if write := tl.add("JOIN refused", "too few nodes", whoIs("a")); write != nil {
				write()
			}
			time.Sleep(100 * time.Millisecond)
		}
		tl.flush()
		synctest.Wait() // an interval may be over just now
		lines := log.lines()
		if want := minutes * 6; len(lines) < want || len(lines) > want+1 {
			t.Errorf("%d lines in %d minutes", len(lines), minutes)
		}
		if got := counts(t, lines); got != minutes*600 {
			t.Errorf("the lines count %d, want %d", got, minutes*600)
		}
	})
}

func whoIs(client string) func() []slog.Attr {
	return func() []slog.Attr {
		return []slog.Attr{slog.String("group", "g"), slog.String("client", client), slog.String("remote", (&net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 1}).String())}
	}
}

// counts adds up what the lines say.
func counts(t *testing.T, lines []string) (sum int) {
	t.Helper()
	count := regexp.MustCompile(` count=(\d+) `)
	for _, line := range lines {
		m := count.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no count in %q", line)
		}
		n, _ := strconv.Atoi(m[1])
		sum += n
	}
	return sum
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) lines() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.b.String()) {
		all = append(all, line)
	}
	return all
}
