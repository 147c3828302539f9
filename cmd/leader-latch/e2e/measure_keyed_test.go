//go:build bench

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// measureKeyed is how soon the next one leads when a leader ends, by what its JOIN said, and what
// keyed members take beside plain ones.
func measureKeyed(t *testing.T) {
	all := timed(t, 3, "normal", withKeys)
	wantLevel(all, state.KeyedLevel)
	reset := func(c *conn) { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() }
	closes := func(c *conn) { c.Close() }
	for _, k := range []struct {
		what, words string
		ends        func(*conn)
		times       int
	}{
		{"a plain leader closes", "", closes, 100},
		{"a leader with a key and hold=0 closes", " key=0123456789abcdef hold=0", closes, 100},
		{"a leader with fin=end closes", " key=0123456789abcdef hold=60000 fin=end", closes, 100},
		{"a leader sends LEAVE", " key=0123456789abcdef hold=60000", func(c *conn) { c.send("LEAVE\n") }, 100},
		{"a leader with a hold closes", " key=0123456789abcdef hold=60000", closes, 10},
		{"a leader with fin=end resets", " key=0123456789abcdef hold=60000 fin=end", reset, 10},
	} {
		var l latencies
		for range fewer(k.times) {
			group := unique("ends")
			lead := all[0].dial()
			lead.send("JOIN %s lead%s\n", group, k.words)
			lead.line()
			next := all[1].dial()
			next.send("JOIN %s next\n", group)
			next.line()
			time.Sleep(20 * time.Millisecond)
			began := time.Now()
			k.ends(lead)
			if line := next.line(); !strings.HasPrefix(line, "LEADER next ") {
				t.Fatalf("%s: told %q", k.what, line)
			}
			l = append(l, time.Since(began))
			next.Close()
		}
		row(k.what+", next told", "%v", l)
	}
	for _, words := range []string{"", " key=0123456789abcdef hold=0"} { // a leader with a hold would have to send PINGs
		nodes := withSecondListener(t)
		n, limited := affordable(fewer(5000))
		before := inUse(t, nodes)
		if err := inParallel(n, 32, func(i int) error {
			c, err := call(nodes[i%3].ip+":5326", fmt.Sprint("c", i, words))
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			_, err = c.join(fmt.Sprint("idle-", i/2))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		row(fmt.Sprintf("RSS of 3 servers in use for each of %d idle members%s", n, words), "%.2f KiB%s", float64(inUse(t, nodes)-before)/1024/float64(n), limited)
	}
}

// withSecondListener gives three nodes that have a listener with extensions at port 5326 beside the plain one.
func withSecondListener(t *testing.T) []*member {
	t.Helper()
	nodes := founders(t, 3, "leader_latch.timing = normal", "leader_latch.extensions.keyed = on")
	for _, m := range nodes {
		m.lines = append(m.lines, "listener.leader_latch.keyed = "+m.ip+":5326")
		m.run()
	}
	wantWhole(nodes)
	wantLevel(nodes, state.KeyedLevel)
	return nodes
}
