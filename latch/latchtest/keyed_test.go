package latchtest

import (
	"strings"
	"testing"
	"time"
)

// A client with a hold is judged by its promises and by what it read last, over all its
// connections; one without by its connection.
func TestKeyed(t *testing.T) {
	const s = time.Second
	reads := func(t *testing.T, c *KeyedConn, now time.Duration, line string) {
		t.Helper()
		if err := c.Reads(now, line); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what    string
		hold    bool
		does    func(k *Keyed)
		other   [2]time.Duration // when another one leads, with token 2
		violate string
	}{
		{"within a promise, without a connection", true, func(k *Keyed) {
			c := k.Connects(1*s, "x")
			reads(t, c, 2*s, "LEADER a 1")
			c.Asks(3 * s)
			reads(t, c, 4*s, "ALIVE 5000")
			k.Ends(5 * s)
		}, [2]time.Duration{7 * s, 9 * s}, "two leaders for 1s"},
		{"after it", true, func(k *Keyed) {
			c := k.Connects(1*s, "x")
			reads(t, c, 2*s, "LEADER a 1")
			c.Asks(3 * s)
			reads(t, c, 4*s, "ALIVE 4000")
		}, [2]time.Duration{7 * s, 9 * s}, ""},
		{"a connection without a promise", true, func(k *Keyed) {
			reads(t, k.Connects(1*s, "x"), 2*s, "LEADER a 1")
		}, [2]time.Duration{3 * s, 9 * s}, ""},
		{"it has read of another", true, func(k *Keyed) {
			c := k.Connects(1*s, "x")
			reads(t, c, 2*s, "LEADER a 1")
			c.Asks(3 * s)
			reads(t, c, 4*s, "ALIVE 60000")
			reads(t, c, 6*s, "LEADER b 2")
		}, [2]time.Duration{6 * s, 9 * s}, ""},
		{"it has moved", true, func(k *Keyed) {
			c := k.Connects(1*s, "x")
			reads(t, c, 2*s, "LEADER a 1")
			c.Asks(2 * s)
			reads(t, c, 2*s, "ALIVE 2000")
			d := k.Connects(3*s, "y")
			reads(t, d, 3*s, "LEADER a 1")
			reads(t, c, 3*s, "LEADER b 7") // of the connection before
			d.Asks(4 * s)
			reads(t, d, 5*s, "ALIVE 2000")
		}, [2]time.Duration{5 * s, 9 * s}, "two leaders for 1s"},
		{"it has stopped", true, func(k *Keyed) {
			c := k.Connects(1*s, "x")
			reads(t, c, 2*s, "LEADER a 1")
			c.Asks(2 * s)
			reads(t, c, 2*s, "ALIVE 20000")
			k.Stops(3 * s)
		}, [2]time.Duration{3 * s, 9 * s}, ""},
		{"without a hold, connected", false, func(k *Keyed) {
			reads(t, k.Connects(1*s, "x"), 2*s, "LEADER a 1")
		}, [2]time.Duration{3 * s, 9 * s}, "two leaders for 6s"},
		{"without a hold, and without a connection", false, func(k *Keyed) {
			reads(t, k.Connects(1*s, "x"), 2*s, "LEADER a 1")
			k.Ends(3 * s)
		}, [2]time.Duration{3 * s, 9 * s}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			k := &Keyed{Group: "g", Client: "a", Hold: c.hold}
			c.does(k)
			views := append(k.Views(), &View{Group: "g", Client: "b", Told: []Told{{c.other[0], "b", 2}}, End: c.other[1]})
			all := strings.Join(Check(views).Violations, "\n")
			if c.violate == "" && all != "" || !strings.Contains(all, c.violate) {
				t.Errorf("found %q, want %q", all, c.violate)
			}
		})
	}
}
