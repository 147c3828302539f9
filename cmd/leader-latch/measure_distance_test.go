//go:build bench

package main

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

// electQuietly is the time of n elections, each some time after the client before has left:
// where nodes are far apart, an entry waits for the one before it on the way.
func electQuietly(t *testing.T, node *member, pause time.Duration, n int) (l latencies) {
	t.Helper()
	for range n {
		time.Sleep(pause)
		l = append(l, electOnce(t, node, false))
	}
	return l
}

// measureDistance is how JOIN and hand-over depend on the way between the nodes.
func measureDistance(t *testing.T) {
	for _, roundTrip := range []time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(roundTrip.String(), func(t *testing.T) {
			all := apart(t, distance{roundTrip: roundTrip}, "normal")
			leader, follower, other := places(t, all)
			for _, p := range []placed{leader, follower} {
				row(fmt.Sprintf("nodes %v apart: JOIN on an open connection to elected, %s", roundTrip, p.name), "%v", electQuietly(t, p.member, 2*roundTrip, fewer(50)))
			}
			row(fmt.Sprintf("nodes %v apart: leader closes, next told, follower to other follower", roundTrip), "%v", handOvers(t, follower.addr, other.addr, 2*roundTrip+justMade, fewer(50)))
		})
		t.Run(roundTrip.String()+" with stalls", func(t *testing.T) {
			all := apart(t, distance{roundTrip, 0.02}, "normal")
			var l latencies
			refused, lost := 0, 0
			for began := time.Now(); time.Since(began) < time.Duration(fewer(60))*time.Second; {
				for _, m := range all {
					joined := time.Now()
					c, err := call(m.addr, "a")
					if err != nil {
						t.Fatal(err)
					}
					if err := c.lead(unique("distance")); err == nil {
						l = append(l, time.Since(joined))
					} else {
						refused++
					}
					c.Close()
				}
			}
			for _, m := range all {
				lost += strings.Count(m.logText(), "session lost")
			}
			row(fmt.Sprintf("nodes %v apart, 2 %% stall: JOIN at each in turn; refused; sessions lost", roundTrip), "%v; %d; %d", l, refused, lost)
		})
	}
}
