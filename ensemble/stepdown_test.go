package ensemble

import (
	"context"
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// joinKeyed has a keyed client join at a node.
func joinKeyed(t *testing.T, n *Node, group, name string, hold time.Duration) *client {
	t.Helper()
	c := &client{t: t, name: name, changed: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := n.JoinKeyed(group, name, "secret", hold, c)
	if err != nil {
		t.Fatalf("JOIN %s %s: %v", group, name, err)
	}
	c.membership = m
	return c
}

// shorter has leaders with a hold step down, and silent nodes replaced, after 5 s.
func shorter(_ int, c *Config) { c.Timing.Lease, c.Timing.Expiry = 4*time.Second, 5*time.Second }

// Whichever node is asked, the leader steps down where it is, and all nodes agree who follows.
func TestALeaderStepsDownWhereverItIs(t *testing.T) {
	all := foundersWith(t, 3, shorter)
	for _, m := range all {
		levelIs(t, m.Node, state.NewestLevel)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, at := range all {
		for j, by := range all {
			group := string(rune('a'+i)) + string(rune('a'+j))
			first := join(t, at.Node, group, "first")
			first.wantTold("first")
			second := join(t, all[(i+1)%3].Node, group, "second")
			second.wantTold("first")
			poll(t, "the node that is asked knows both", func() bool { g := by.Report().Groups(group); return len(g) == 1 && len(g[0].Members) == 2 })
			was := by.Report().Groups(group)[0].Token
			leader, token, err := by.StepDown(ctx, group, was)
			if err != nil || leader != "second" || token <= was {
				t.Fatalf("at %s, by %s: %s leads with %d, after %d, error %v", at.name, by.name, leader, token, was, err)
			}
			second.wantTold("first", "second")
			first.until("it is closed", func(_ []string, closed bool) bool { return closed })
		}
	}

	// One with a hold keeps its connection, and is last in line.
	first := joinKeyed(t, all[0].Node, "keyed", "first", time.Minute)
	first.wantTold("first")
	second := join(t, all[1].Node, "keyed", "second")
	second.wantTold("first")
	poll(t, "the node that is asked knows both", func() bool { g := all[2].Report().Groups("keyed"); return len(g) == 1 && len(g[0].Members) == 2 })
	began := time.Now()
	leader, _, err := all[2].StepDown(ctx, "keyed", 0)
	if err != nil || leader != "second" {
		t.Fatalf("%s leads, error %v", leader, err)
	}
	if is := time.Since(began); is < all[0].cfg.Timing.Expiry {
		t.Errorf("after %v the next one leads; what was promised lasts %v", is, all[0].cfg.Timing.Expiry)
	}
	first.wantTold("first", "second")
	if _, _, err := all[0].StepDown(ctx, "keyed", 0); err != nil { // and on it goes
		t.Fatal(err)
	}
	poll(t, "it leads again", func() bool { return all[1].Report().Groups("keyed")[0].Leader == "first" })
	second.until("its connection is closed", func(_ []string, closed bool) bool { return closed })
}

// What cannot be is refused, and nothing has changed then.
func TestAStepDownIsRefused(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	join(t, n, "alone", "a").wantTold("a")
	join(t, n, "two", "a").wantTold("a")
	join(t, n, "two", "b").wantTold("a")
	token := n.Report().Groups("two")[0].Token
	for _, c := range []struct {
		group string
		token uint64
		want  string
	}{
		{"none", 0, `nothing was done: there is no group "none"`},
		{"alone", 0, "nothing was done: a is the only member of alone: nobody would follow"},
		{"two", token - 1, "nothing was done: a leads two with the token "},
		{"two", token + 1, "nothing was done: a leads two with the token "},
	} {
		leader, _, err := n.StepDown(t.Context(), c.group, c.token)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s, token %d: %s leads, error %v", c.group, c.token, leader, err)
		}
	}
	if g := n.Report().Groups("two")[0]; g.Leader != "a" || g.Token != token {
		t.Errorf("%s leads with %d, was %d", g.Leader, g.Token, token)
	}
}

// Where the node of the leader does not answer, who asked is told so, and by whom the leader is
// replaced if that lasts.
func TestAStepDownWhereTheNodeOfTheLeaderIsDown(t *testing.T) {
	all := foundersWith(t, 3, shorter)
	join(t, all[0].Node, "g", "a").wantTold("a")
	b := join(t, all[1].Node, "g", "b")
	b.wantTold("a")
	poll(t, "the third knows both", func() bool { g := all[2].Report().Groups("g"); return len(g) == 1 && len(g[0].Members) == 2 })
	kill(all[0].Node)
	short, cancel := context.WithTimeout(t.Context(), all[0].cfg.Timing.Expiry/3)
	defer cancel()
	if leader, _, err := all[2].StepDown(short, "g", 0); err == nil && leader != "b" || err != nil && !strings.Contains(err.Error(), "still leads g: ") {
		t.Errorf("%s leads, error %v", leader, err)
	}
	leader, _, err := all[2].StepDown(t.Context(), "g", 0)
	if err == nil && leader != "b" || err != nil && !strings.Contains(err.Error(), "b is the only member") {
		t.Errorf("%s leads, error %v", leader, err)
	}
	b.wantTold("a", "b")
}

// Observers at all nodes are told of each change, in order.
func TestObserversAtEveryNode(t *testing.T) {
	all := founders(t, 3)
	var seen []*client
	for _, m := range all {
		seen = append(seen, observe(t, m.Node, "g"))
	}
	want := func(told ...string) {
		t.Helper()
		for _, o := range seen {
			o.wantTold(told...)
		}
	}
	want("")
	a := join(t, all[0].Node, "g", "a")
	want("", "a")
	b := join(t, all[1].Node, "g", "b")
	b.wantTold("a")
	a.close(true)
	want("", "a", "b")
	b.close(true)
	want("", "a", "b", "")
	late := observe(t, all[2].Node, "g")
	late.wantTold("")
	stop(t, all[2].Node)
	late.until("it is closed", func(_ []string, closed bool) bool { return closed })
}

// observe has a client observe a group.
func observe(t *testing.T, n *Node, group string) *client {
	t.Helper()
	c := &client{t: t, changed: make(chan struct{}, 1)}
	o, err := n.Observe(group, observing{c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Closed)
	return c
}

// observing is the connection of a client that observes.
type observing struct{ *client }

func (o observing) Leader(name string, token uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer signal(o.changed)
	o.told, o.tokens = append(o.told, name), append(o.tokens, token)
}

func (o observing) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer signal(o.changed)
	o.closed = true
}

var _ session.Observer = observing{}
