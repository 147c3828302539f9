package latch_test

import (
	"fmt"
	"strings"
	"testing"

	"leaderlatch/latch"
)

// TestGate: nothing that speaks of leadership is written once the node may not
// speak for the membership, whoever asks for it.
func TestGate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ask  func(f *fixture, c *client)
	}{
		{"a new leader", func(f *fixture, c *client) { f.e.Push("g", "b") }},
		{"a further JOIN", func(f *fixture, c *client) { c.send("JOIN g a") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			cl := f.join("g", "a", "a")
			f.e.Lapse()
			cl.send("?") // speaks of nothing, and is answered
			cl.want("ERROR")
			c.ask(f, cl)
			if got, _ := cl.readAll(); got != "" {
				t.Errorf("the client read %q, want nothing", got)
			}
		})
	}
	t.Run("a PING", func(t *testing.T) {
		t.Parallel()
		f := serve(t, extended)
		cl := f.joinKeyed("g", "a", "hold=2000", "a 1")
		f.e.Lapse()
		cl.send("PING")
		if got, err := cl.readAll(); got != "" || err != nil {
			t.Errorf("the client read %q, error %v, want the end", got, err)
		}
	})
	t.Run("the answer to a JOIN: it is refused", func(t *testing.T) {
		t.Parallel()
		f := serve(t)
		f.e.Hold()
		cl := f.joinPending("g", "a")
		f.e.Lapse()
		f.e.Release()
		if got, err := cl.readAll(); got != "JOIN_FAILED SERVICE_UNAVAILABLE\n" || err != nil {
			t.Errorf("the client read %q, error %v, want the refusal and the end", got, err)
		}
	})
}

// TestGateCutsALine: also the rest of a line is written only while the node may
// speak for the membership.
func TestGateCutsALine(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *latch.Config) { cfg.StuckTimeout = patience })
	c := f.dialSmall()
	c.send("JOIN g a")
	c.want("LEADER a")
	n := 0
	eventually(t, "a line is written in part", func() bool {
		n++
		f.e.Push("g", strings.Repeat(fmt.Sprintf("%05d", n), 30+n%20))
		f.e.Sync()
		_, _, partial := f.s.Kept()
		return partial > 0
	})
	rest := f.s.Rest()
	f.e.Lapse()
	c.readsAgain()
	got, err := c.readAll()
	if err == nil {
		t.Error("the client read the end of the connection, want a reset: bytes were queued")
	}
	if rest == "" || strings.HasSuffix(got, rest) {
		t.Errorf("the line was completed: %q", rest)
	}
}
