package latch_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"leaderlatch/latch"
)

// longestAnswer is ALREADY_JOINED with two names of 255 bytes and CRLF.
const longestAnswer = 529

// TestStuckReaders: thousands of changes pushed to clients that read nothing keep
// one line each, delay nobody, and a client that reads again gets the newest.
func TestStuckReaders(t *testing.T) {
	t.Parallel()
	const readers, changes = 20, 3000
	f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	name := func(i int) string { return fmt.Sprintf("%s-%06d", strings.Repeat("n", 200), i) }

	var stuck []*client
	for i := range readers {
		c := f.dialSmall()
		c.send(fmt.Sprintf("JOIN g stuck-%d", i))
		c.want("LEADER stuck-0")
		stuck = append(stuck, c)
	}
	reader := f.join("g", "reads", "stuck-0")
	got := make(chan string, 1)
	go func() {
		line := ""
		for line != "LEADER end\n" {
			var err error
			if line, err = reader.line(); err != nil {
				line = err.Error()
				break
			}
		}
		got <- line
	}()

	pushed := 0
	push := func(count int) {
		for range count {
			pushed++
			f.e.Push("g", name(pushed))
			if pushed%100 == 0 {
				f.e.Sync() // all are told: nobody waits for the stuck ones
				if most, _, _ := f.s.Kept(); most > longestAnswer+longestAnswer/2 {
					t.Fatalf("%d bytes are kept for one connection after %d changes", most, pushed)
				}
			}
		}
	}
	push(changes)
	for !f.stuckFor(200*time.Millisecond, readers) { // longer than an acknowledgement is delayed
		if push(500); pushed > 100*changes {
			t.Fatal("the readers do not get stuck; the test tests nothing")
		}
	}
	f.e.Push("g", "end")
	if line := <-got; line != "LEADER end\n" {
		t.Errorf("the reading client ended with %q", line)
	}

	for _, c := range stuck {
		c.readsAgain()
		for last, lines := 0, 0; ; lines++ {
			line, err := c.line()
			if err != nil {
				t.Fatalf("after change %d: %q, %v", last, line, err)
			}
			if line == "LEADER end\n" {
				if lines >= pushed {
					t.Errorf("a stuck reader was sent all %d changes; nothing was left out", lines)
				}
				break
			}
			i := 0
			if _, err := fmt.Sscanf(line, "LEADER "+strings.Repeat("n", 200)+"-%d\n", &i); err != nil || i <= last {
				t.Fatalf("after change %d: %q", last, line)
			}
			last = i
		}
	}
}

// stuckFor reports whether so many connections have something to write and
// cannot, all the while.
func (f *fixture) stuckFor(d time.Duration, connections int) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, draining, _ := f.s.Kept(); draining < connections {
			return false
		}
	}
	return true
}

// TestSameLeaderIsNoNews: while a reader is stuck the leader changes to and fro;
// the same leader never comes twice in a row.
func TestSameLeaderIsNoNews(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.join("g", "a", "a")
	f.e.Push("g", "a")
	f.e.Push("g", "b")
	f.e.Push("g", "b")
	f.e.Push("g", "a")
	c.want("LEADER b")
	c.want("LEADER a")

	slow := f.dialSmall()
	slow.send("JOIN h a")
	slow.want("LEADER a")
	long := [...]string{strings.Repeat("x", 250), strings.Repeat("y", 250)}
	for i := range 4000 {
		f.e.Push("h", long[i%2])
	}
	f.e.Push("h", "end")
	f.e.Sync()
	slow.readsAgain()
	for last := ""; last != "LEADER end\n"; {
		line, err := slow.line()
		if err != nil {
			t.Fatal(err)
		}
		if line == last {
			t.Fatalf("twice in a row: %q", line)
		}
		last = line
	}
}

// TestStuckReaderIsClosed: one that never reads again is closed after
// StuckTimeout; one that takes a little now and then is not.
func TestStuckReaderIsClosed(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = limit })
	slow := f.dialSmall()
	slow.send("JOIN slow a")
	slow.want("LEADER a")
	dead := f.dialSmall()
	dead.send("JOIN dead a")
	dead.want("LEADER a")

	// Both have something waiting for them all the time.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			for _, group := range []string{"slow", "dead"} {
				f.e.Push(group, fmt.Sprintf("%s-%d", strings.Repeat("n", 200), i))
			}
			f.e.Sync()
		}
	}()
	start := time.Now()
	go func() {
		buf := make([]byte, 64) // so little that draining takes longer than StuckTimeout
		for {
			select {
			case <-stop:
				return
			case <-time.After(limit / 20):
				io.ReadFull(slow, buf) // no error is news: the end is checked below
			}
		}
	}()
	eventually(t, "the dead reader is closed", func() bool { return len(f.e.Closings()) > 0 })
	if d := time.Since(start); d < limit {
		t.Errorf("a reader was closed after %v, before StuckTimeout", d)
	}
	// The slow reader outlives StuckTimeout.
	eventually(t, "time passes", func() bool { return time.Since(start) > 3*limit })
	close(stop)
	<-stopped
	if got := f.e.Closings(); len(got) != 1 || got[0].Group != "dead" || got[0].Acknowledged {
		t.Errorf("given back %v, want only the dead reader's, not acknowledged", got)
	}
	if got := f.log.lines("stuck reader closed"); len(got) != 1 || !strings.Contains(got[0], "level=WARN") {
		t.Errorf("logged %q, want one warning", got)
	}
}

// TestAnswersHoldBack: a client that sends commands and reads no answers is read
// no further, and has all its answers, in order, when it reads.
func TestAnswersHoldBack(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	c := f.dialSmall()
	group := strings.Repeat("g", 255)
	c.send("JOIN " + group + " a")
	c.want("LEADER a")

	commands := 0
	eventually(t, "answers are held back", func() bool {
		c.Write([]byte(strings.Repeat("JOIN g b\n?\n", 100)))
		commands += 200
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, draining, _ := f.s.Kept(); draining == 0 {
				return false
			}
		}
		return true
	})
	f.e.Push(group, "b") // goes between two answers
	c.readsAgain()
	leaders := 0
	for i := 0; i < commands; {
		line, err := c.line()
		if err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
		want := "ALREADY_JOINED " + group + " a\n"
		if i%2 == 1 {
			want = "ERROR\n"
		}
		switch line {
		case want:
			i++
		case "LEADER b\n":
			leaders++
		default:
			t.Fatalf("answer %d is %q, want %q", i, line, want)
		}
	}
	if leaders != 1 {
		t.Errorf("the new leader came %d times", leaders)
	}
}

// TestGoneWhileHeldBack: the end of a client that does not read its answers is
// seen at once, although what it sent before is not read.
func TestGoneWhileHeldBack(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"half close", "reset"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
			c := f.dialSmall()
			c.send("JOIN g a")
			c.want("LEADER a")
			f.jam("g")
			c.Write([]byte(strings.Repeat("?\n", 3000)))
			if end == "reset" {
				c.reset()
			} else {
				c.CloseWrite()
			}
			eventually(t, "the membership is given back", func() bool { return len(f.e.Closings()) == 1 })
			if got := f.e.Closings()[0]; !got.Acknowledged {
				t.Errorf("given back %v, want acknowledged: the client has closed", got)
			}
		})
	}
}

// TestEndlessLine: a megabyte without a line end is an ERROR and the end, and
// costs no memory.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	f := serve(t)
	c := f.dial()
	go func() {
		for range 1024 {
			if _, err := c.Write([]byte(strings.Repeat("x", 1024))); err != nil {
				return
			}
		}
		c.CloseWrite()
	}()
	c.want("ERROR")
	c.wantEnd()
	eventually(t, "the connection is gone", func() bool { return f.s.Conns() == 0 })
	// That more than a line is never kept is a matter of type: the buffer
	// has a fixed length. See TestConnIsSmall.
}
