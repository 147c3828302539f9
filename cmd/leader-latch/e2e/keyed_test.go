package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/latch/latchtest"
)

// withKeys has the listener of a node speak the lines of keyed members.
const withKeys = "leader_latch.extensions.internal = on"

// keyedGroups is how many groups with keyed leaders and how many with plain ones the tests of restarts have.
// LEADER_LATCH_TEST_KEYED sets another number.
var keyedGroups = func() int {
	n, err := strconv.Atoi(os.Getenv("LEADER_LATCH_TEST_KEYED"))
	if err != nil {
		return 12
	}
	return n
}()

// keyedAt has a client of a key join, and come back, at these nodes in turn, from the i-th on.
func keyedAt(all []*member, i int, group, name string, hold time.Duration) *keyedClient {
	return newKeyedAt(all, i, group, name, hold).start()
}

// newKeyedAt is keyedAt for one that is to be started.
func newKeyedAt(all []*member, i int, group, name string, hold time.Duration) *keyedClient {
	var names, addrs []string // a node that is started again has them still
	for _, m := range all {
		names, addrs = append(names, m.name), append(addrs, net.JoinHostPort(m.ip, "5323"))
	}
	rnd := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
	k := &keyedClient{group: group, name: name, key: newKey(rnd), hold: hold, every: 600 * time.Millisecond, rnd: rnd,
		now: func() time.Duration { return time.Since(epoch) },
		dial: func(ctx context.Context, attempt int) (*net.TCPConn, string, error) {
			at := (i + attempt) % len(addrs)
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", addrs[at])
			if err != nil {
				return nil, names[at], err
			}
			return nc.(*net.TCPConn), names[at], nil
		},
	}
	all[0].t.Cleanup(func() {
		if k.over != nil {
			k.end(false)
			<-k.done
		}
	})
	return k
}

// led waits until the client was told a leader, and gives the line.
func (k *keyedClient) led(m *member) (line string) {
	m.t.Helper()
	m.until(k.name+" is told a leader", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.heard) > 0 {
			line = k.heard[len(k.heard)-1]
		}
		return line != ""
	})
	return line
}

// joins is how often the client has joined, to be told another leader than before.
func (k *keyedClient) joins() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.heard)
}

// keyedCluster is groups whose leaders have keys, with an heir each that has one too, and groups
// of plain clients.
type keyedCluster struct {
	t              *testing.T
	all            []*member
	leaders, heirs []*keyedClient
	lines          []string // what each group was told first
}

func newKeyedCluster(t *testing.T, hold time.Duration, lines ...string) *keyedCluster {
	c := &keyedCluster{t: t, all: cluster(t, 3, append([]string{withKeys}, lines...)...)}
	wantLevel(c.all, 3)
	for i := range keyedGroups {
		group := unique("keyed")
		lead := keyedAt(c.all, i, group, "lead", hold)
		c.leaders, c.lines = append(c.leaders, lead), append(c.lines, lead.led(c.all[0]))
		c.heirs = append(c.heirs, keyedAt(c.all, i+1, group, "heir", hold))
	}
	for i, heir := range c.heirs {
		if line := heir.led(c.all[0]); line != c.lines[i] {
			t.Fatalf("the heir was told %q, the leader %q", line, c.lines[i])
		}
	}
	return c
}

// wantLevel waits until the formats have a level.
func wantLevel(all []*member, level uint64) {
	for _, m := range all {
		m.t.Helper()
		m.until("the formats rise", func() bool { return m.cluster().Level == level })
	}
}

// wantUnchanged: nobody was told of another leader, or of another token, or of anything twice.
func (c *keyedCluster) wantUnchanged(what string) {
	c.t.Helper()
	var views []*latchtest.View
	var away []time.Duration
	for _, all := range [][]*keyedClient{c.leaders, c.heirs} {
		for i, k := range all {
			k.mu.Lock()
			if !slices.Equal(k.heard, c.lines[i:i+1]) {
				c.t.Errorf("%s: %s of %s was told %q, want %q alone", what, k.name, k.group, k.heard, c.lines[i])
			}
			if len(k.wrong) > 0 {
				c.t.Errorf("%s: %s of %s %v", what, k.name, k.group, k.wrong)
			}
			for _, v := range k.account.Views() {
				if len(v.Told) > 1 {
					c.t.Errorf("%s: %s of %s was told %v on one connection", what, k.name, k.group, v.Told)
				}
			}
			views = append(views, k.account.Views()...)
			away = append(away, k.away...)
			k.mu.Unlock()
		}
	}
	for _, v := range latchtest.Check(views).Violations {
		c.t.Errorf("%s: %s", what, v)
	}
	if slices.Sort(away); len(away) > 0 {
		c.t.Logf("%s: %d groups with keys, %d times without a connection: p50 %v, max %v", what, len(c.leaders), len(away), away[len(away)/2], away[len(away)-1])
	}
}

// wantMoved waits until no member is without a connection: the next node may be stopped.
func (c *keyedCluster) wantMoved() {
	for _, m := range c.all {
		m.t.Helper()
		m.ready()
		if err := m.askWithin(patience, "/wait/rolled", new(string)); err != nil {
			m.t.Fatalf("%s: %v", m.name, err)
		}
	}
}

// plainPair is a group of plain clients, whose leader is at one node and the next one at another.
type plainPair struct {
	next  *conn
	token uint64
}

func newPlainPair(at, other *member) *plainPair {
	at.t.Helper()
	group := unique("plain")
	lead := at.dial()
	lead.send("JOIN %s lead\n", group)
	p := &plainPair{next: other.dial()}
	if line := lead.line(); !scans(line, "LEADER lead %d", &p.token) {
		at.t.Fatalf("the plain leader was told %q", line)
	}
	p.next.send("JOIN %s next\n", group)
	p.next.want(fmt.Sprintf("LEADER lead %d", p.token))
	return p
}

// wantNext expects that the next one leads, with a higher token.
func (p *plainPair) wantNext() {
	p.next.t.Helper()
	var token uint64
	if line := p.next.line(); !scans(line, "LEADER next %d", &token) || token <= p.token {
		p.next.t.Errorf("the next one of a plain group was told %q, after token %d", line, p.token)
	}
}

// line reads one.
func (c *conn) line() string {
	c.SetReadDeadline(time.Now().Add(patience))
	line, err := c.r.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(line, "\n")
}

func scans(line, format string, into *uint64) bool {
	n, _ := fmt.Sscanf(line, format, into)
	return n == 1
}

// The nodes are stopped and started again one by one, as for an upgrade: no leader with a key
// changes, nobody of its group is told anything, and plain leaders change as ever.
func TestARollingRestartChangesNoKeyedLeader(t *testing.T) {
	t.Parallel()
	for what, sig := range map[string]syscall.Signal{"stopped in order": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newKeyedCluster(t, time.Minute)
			for i, m := range c.all {
				rest := slices.Delete(slices.Clone(c.all), i, i+1)
				var plain []*plainPair
				for range (keyedGroups + 2) / 3 {
					plain = append(plain, newPlainPair(m, rest[0]))
				}
				m.signal(sig)
				if sig == syscall.SIGTERM {
					m.wantExit(exitOK)
				}
				<-m.gone
				m.run()
				for _, p := range plain {
					p.wantNext()
				}
				c.wantMoved()
				c.wantUnchanged(fmt.Sprintf("%s, node %d", what, i+1))
			}
		})
	}
}

// While a node is down, no other one may be stopped.
func TestWaitRolledWaitsForEveryNode(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	all[0].order(exitOK, "wait", "--rolled", "--timeout", "60s")
	all[2].kill()
	all[0].until("the session of the node is over", func() bool {
		return !slices.ContainsFunc(all[0].cluster().Members, func(m ensemble.ClusterMember) bool { return m.Name == all[2].name && m.Session })
	})
	wantContains(t, all[0].order(exitFailed, "wait", "--rolled", "--timeout", "1s"), all[2].name+" has no session: it is down, or just starting")
	all[2].run()
	all[0].order(exitOK, "wait", "--rolled", "--timeout", "60s")
}

// A leader that is connected and asks for no promise any more is let go, and the next one leads.
// One that asks goes on.
func TestAHungLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	timing := session.Quick
	all := cluster(t, 1, withKeys, "leader_latch.timing = "+timing.Name, "leader_latch.minimum_nodes = 1")
	wantLevel(all, state.KeyedLevel)
	hangs := keyedAt(all, 0, "hangs", "lead", timing.Expiry)
	hangs.led(all[0])
	next := keyedAt(all, 0, "hangs", "next", timing.Expiry)
	next.led(all[0])
	asks := keyedAt(all, 0, "asks", "lead", timing.Expiry)
	first := asks.led(all[0])
	hangs.hang(true)
	hung := time.Now()
	all[0].until("the next one leads", func() bool {
		next.mu.Lock()
		defer next.mu.Unlock()
		return strings.HasPrefix(next.heard[len(next.heard)-1], "LEADER next ")
	})
	after := time.Since(hung)
	if after < 6*time.Second {
		t.Errorf("replaced %v after its last PING", after)
	}
	took(t, "a leader with a key hangs: the next leader was told", after, 6*time.Second+timing.Expiry+time.Second)
	if line := asks.led(all[0]); line != first {
		t.Errorf("one that asks was told %q, and then %q", first, line)
	}
}

// A member whose connection has ended is listed as held, for how long yet, and goes then.
func TestGroupsSayWhoIsHeld(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), withKeys)
	p.until("the formats have keyed members", func() bool {
		var c ensemble.Cluster
		p.get("/cluster", &c)
		return c.Level >= state.KeyedLevel
	})
	c := p.dial()
	c.send("JOIN g worker key=0123456789abcdef hold=60000\n")
	if line := c.line(); !strings.HasPrefix(line, "LEADER worker ") {
		t.Fatalf("told %q", line)
	}
	if m := p.group("g").Members[0]; !m.Keyed || m.Held != 0 || m.Hold == 0 {
		t.Errorf("listed as %+v", m)
	}
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	p.until("the member is held", func() bool {
		g := p.group("g")
		return len(g.Members) == 0 || g.Members[0].Held > 0
	})
	if g := p.group("g"); len(g.Members) == 1 {
		if m := g.Members[0]; m.Held > m.Hold {
			t.Errorf("held for %d ms of %d", m.Held, m.Hold)
		}
	}
	p.settled()
}

// leader_latch.timing is changed from calm to normal and back, node by node.
func TestAChangeOfTheTimingChangesNoKeyedLeader(t *testing.T) {
	t.Parallel()
	c := newKeyedCluster(t, time.Minute, "leader_latch.timing = calm")
	for _, timing := range []string{"normal", "calm"} {
		for _, m := range c.all {
			m.signal(syscall.SIGTERM)
			m.wantExit(exitOK)
			m.lines = append(m.lines, "leader_latch.timing = "+timing)
			m.run()
			c.wantMoved()
		}
		c.wantUnchanged("to " + timing)
	}
}
