//go:build bench

package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// distance is the way between any two nodes of a cluster.
type distance struct {
	roundTrip time.Duration
	stalls    float64 // the part of what is sent that is held up, as by a lost packet, with all behind it
}

// apart are three nodes at a distance from each other. Clients are beside their nodes. The
// others dial a node at a relay, which keeps back what goes through it, in each direction.
func apart(t *testing.T, d distance, timing string) (all []*member) {
	t.Helper()
	var names []string
	for range 3 {
		m, relay := newMember(t), loopback()
		m.name = "riak@" + relay
		m.lines = []string{
			"nodename = " + m.name,
			"listener.leader_latch.internal = " + m.ip + ":5323",
			"leader_latch.cluster_listener = " + m.ip + ":5324",
			"leader_latch.minimum_nodes = 3",
			"leader_latch.timing = " + timing,
		}
		d.relay(t, relay+":5324", m.ip+":5324")
		all, names = append(all, m), append(names, m.name)
	}
	for _, m := range all {
		m.lines = append(m.lines, "leader_latch.join = "+strings.Join(names, ", "))
		m.run()
	}
	wantWhole(all)
	return all
}

// relay passes connections on from one address to another, until the test is over.
func (d distance) relay(t *testing.T, from, to string) {
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				time.Sleep(d.roundTrip) // which connecting takes
				other, err := net.Dial("tcp", to)
				if err != nil {
					c.Close()
					return
				}
				go d.pass(c, other)
				d.pass(other, c)
			}()
		}
	}()
}

// pass passes on what comes from one connection, late, and in its order.
func (d distance) pass(from, to net.Conn) {
	type chunk struct {
		bytes []byte
		due   time.Time
	}
	under := make(chan chunk, 1024) // way
	go func() {
		defer to.Close()
		for c := range under {
			time.Sleep(time.Until(c.due))
			to.Write(c.bytes) // if it fails, so does reading from it
		}
	}()
	defer close(under)
	var last time.Time
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		due := time.Now().Add(d.roundTrip / 2)
		if rand.Float64() < d.stalls {
			due = due.Add(d.roundTrip + 200*time.Millisecond) // after which Linux sends it again, at the earliest
		}
		if due.Before(last) {
			due = last
		}
		last = due
		if n > 0 {
			under <- chunk{b[:n], due}
		}
		if err != nil {
			if err != io.EOF {
				from.Close()
			}
			return
		}
	}
}

// apartFigures are what clients saw of nodes at a distance, for some time.
type apartFigures struct {
	atLeader, atFollower, handOver latencies
	refused, lost                  int // JOINs; sessions
}

// watch has clients come at the raft leader and at a follower, and leaders at the one
// follower make way for the next at the other. Each comes when what was before is over:
// where nodes are far apart, an entry waits for the one before it on the way.
func (d distance) watch(t *testing.T, all []*member, how time.Duration) (f apartFigures) {
	leader, follower, other := places(t, all)
	lost := func() (n int) {
		for _, m := range all {
			n += strings.Count(m.logText(), "session lost")
		}
		return n
	}
	before := lost()
	try := func(times *latencies, of func() (time.Duration, error)) {
		time.Sleep(4*d.roundTrip + justMade)
		if took, err := of(); err == nil {
			*times = append(*times, took)
		} else {
			f.refused++
		}
	}
	elect := func(node placed) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			c, err := call(node.addr, "a")
			if err != nil {
				return 0, err
			}
			defer c.Close()
			began := time.Now()
			err = c.lead(unique("apart"))
			return time.Since(began), err
		}
	}
	for began := time.Now(); time.Since(began) < how; {
		try(&f.atLeader, elect(leader))
		try(&f.atFollower, elect(follower))
		group := unique("apart")
		a, err := call(follower.addr, "a")
		if err != nil {
			t.Fatal(err)
		}
		b, err := call(other.addr, "b")
		if err != nil {
			t.Fatal(err)
		}
		if err = a.lead(group); err == nil {
			_, err = b.join(group)
		}
		try(&f.handOver, func() (time.Duration, error) {
			if err != nil {
				return 0, err
			}
			return handOver(a, b)
		})
		a.Close()
		b.Close()
	}
	f.lost = lost() - before
	return f
}

// measureDistance is how JOIN and hand-over depend on the way between the nodes.
func measureDistance(t *testing.T) {
	row("nodes apart, timing, held up | JOIN at the raft leader | JOIN at a follower | next told, follower to other follower | refused", "sessions lost")
	for _, v := range []struct {
		roundTrip time.Duration
		timing    string
	}{{0, "normal"}, {50 * time.Millisecond, "normal"}, {100 * time.Millisecond, "normal"}, {200 * time.Millisecond, "normal"}, {200 * time.Millisecond, "calm"}} {
		for _, stalls := range []float64{0, 0.02} {
			what := fmt.Sprintf("%v, %s, %.0f %%", v.roundTrip, v.timing, 100*stalls)
			t.Run(what, func(t *testing.T) {
				d := distance{v.roundTrip, stalls}
				f := d.watch(t, apart(t, d, v.timing), time.Duration(fewer(30))*time.Second)
				row(fmt.Sprintf("%s | %v | %v | %v | %d", what, f.atLeader, f.atFollower, f.handOver, f.refused), "%d", f.lost)
			})
		}
	}
}
