package latchtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Witness is a client on a listener with fencing tokens that keeps its own View. If
// it sends its JOIN again and again, it is a bounded one.
type Witness struct {
	View
	Window time.Duration // how long a client may lead that is answered ALREADY_JOINED

	asked []time.Duration // of the JOINs that are not answered yet
}

// Asks notes that the client has taken the time, and is about to send a JOIN.
func (w *Witness) Asks(now time.Duration) { w.asked = append(w.asked, now) }

// Reads notes a line. The k-th answer belongs to the k-th JOIN: the first LEADER and
// each ALREADY_JOINED are one. An ALREADY_JOINED promises something only to a client
// that has read before that it leads, and from then on.
func (w *Witness) Reads(now time.Duration, line string) error {
	f := strings.Fields(line)
	if len(f) != 3 {
		return fmt.Errorf("was sent %q", line)
	}
	answer := f[0] == "ALREADY_JOINED" || len(w.Told) == 0
	if answer && len(w.asked) == 0 {
		return fmt.Errorf("was sent %q, and had not asked", line)
	}
	var asked time.Duration
	if answer {
		asked, w.asked = w.asked[0], w.asked[1:]
	}
	switch f[0] {
	case "LEADER":
		token, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("was sent %q", line)
		}
		w.Told = append(w.Told, Told{now, f[1], token})
	case "ALREADY_JOINED":
		if newest := w.newest(); newest.Leader == w.Client {
			w.Promises = append(w.Promises, Promise{max(asked, newest.At), asked + w.Window, newest.Token})
		}
	default:
		return fmt.Errorf("was sent %q", line)
	}
	return nil
}

func (w *Witness) newest() (t Told) {
	if n := len(w.Told); n > 0 {
		t = w.Told[n-1]
	}
	return t
}

// Knows reports whether the newest leader that it has read of is this one.
func (w *Witness) Knows(leader string) bool { return w.newest().Leader == leader }

// Promised gives the end of what it was promised until now; 0: nothing.
func (w *Witness) Promised() (until time.Duration) {
	if n := len(w.Promises); n > 0 {
		until = w.Promises[n-1].To // as the JOINs are answered in their order
	}
	return until
}
