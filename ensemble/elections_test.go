package ensemble

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"leaderlatch/ensemble/state"
)

// kept is a log that keeps its lines, without their times.
type kept struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.buf.Write(p)
}

func (k *kept) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(k, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// elections gives the lines about groups, and forgets all lines.
func (k *kept) elections() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for line := range strings.Lines(k.buf.String()) {
		if line, ok := strings.CutPrefix(line, "level=INFO msg=\"leader changed\" "); ok {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	k.buf.Reset()
	return all
}

// Each change of a leader has a line with what the log of the cluster tells of it, and
// nothing else has one.
func TestWhatIsLoggedOfElections(t *testing.T) {
	var log kept
	l, s := newElectionLog(log.logger()), state.New()
	index, seqs := uint64(0), map[string]uint64{}
	incs := map[string]state.Incarnation{}
	apply := func(ops ...state.Op) {
		index++
		l.applied(s, s.Apply(index, state.Entry{Ops: ops}, nil))
		l.write(nil)
	}
	want := func(lines ...string) {
		t.Helper()
		for i, line := range lines {
			lines[i] = strings.ReplaceAll(line, "TOKEN", fmt.Sprint(uint64(state.PositionOf(index, 0))))
		}
		if got := log.elections(); strings.Join(got, "\n") != strings.Join(lines, "\n") {
			t.Errorf("entry %d: logged\n%s\nwant\n%s", index, strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	counter := uint64(0)
	open := func(node string) {
		counter++
		apply(state.Open{Node: state.NodeID(node), Counter: counter, Boot: "b", Name: "riak@" + node})
		incs[node], seqs[node] = state.Incarnation(state.PositionOf(index, 0)), 0
	}
	next := func(node string) uint64 { seqs[node]++; return seqs[node] }
	join := func(node, group, client string) (seq uint64) {
		seq = next(node)
		apply(state.Join{Incarnation: incs[node], Seq: seq, Group: group, Client: client})
		return seq
	}
	leave := func(node string, joined uint64) {
		apply(state.Leave{Incarnation: incs[node], Seq: next(node), Join: joined})
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		open(node)
	}
	want()

	a := join("n1", "g", "a")
	want(`group=g from="" to=a token=TOKEN reason="it is the first member of the group" node=riak@n1`)
	b := join("n2", "g", "b")
	c := join("n1", "g", "c")
	want()
	leave("n2", b)
	want()
	leave("n1", a)
	want(`group=g from=a to=c token=TOKEN reason="the connection of the leader before ended" node=riak@n1`)
	leave("n1", c)
	want(`group=g from=c to="" reason="the connection of the leader before ended" node=riak@n1`)

	// All members of a node go at once: who led before them is named, not who was the last.
	for _, group := range []string{"g", "h"} {
		join("n1", group, "a")
		join("n1", group, "b")
	}
	join("n2", "h", "c")
	log.elections()
	apply(state.End{Incarnation: incs["n1"], Seq: next("n1")})
	want(`group=g from=a to="" reason="riak@n1, where the leader before was, stopped or left the cluster" node=riak@n1`,
		`group=h from=a to=c token=TOKEN reason="riak@n1, where the leader before was, stopped or left the cluster" node=riak@n2`)

	join("n3", "h", "d")
	open("n2")
	want(`group=h from=c to=d token=TOKEN reason="riak@n2, where the leader before was, was started again or had lost its session" node=riak@n3`)

	join("n2", "h", "e")
	apply(state.Expire{Incarnation: incs["n3"]})
	want(`group=h from=d to=e token=TOKEN reason="riak@n3, where the leader before was, was silent for too long" node=riak@n2`)

	apply(state.Remove{Node: "n2"})
	want()
	apply(state.Expire{Incarnation: incs["n2"]})
	want(`group=h from=e to="" reason="riak@n2, where the leader before was, was removed from the cluster" node=riak@n2`)
}

// From level 3 on each line has the reason that the operation tells, also of a leader who stays
// a member.
func TestReasonsThatAreLoggedOfElections(t *testing.T) {
	var log kept
	l, s := newElectionLog(log.logger()), state.New()
	index, seq := uint64(0), uint64(0)
	apply := func(ops ...state.Op) {
		index++
		l.applied(s, s.Apply(index, state.Entry{Ops: ops}, nil))
		l.write(nil)
	}
	apply(state.Raise{Level: state.KeyedLevel})
	apply(state.Open{Node: "n1", Counter: 1, Boot: "b", Name: "riak@n1"})
	inc := state.Incarnation(state.PositionOf(index, 0))
	next := func() uint64 { seq++; return seq }
	// lead has a keyed leader, and one who is to follow.
	lead := func(group string) (leader uint64) {
		leader = next()
		apply(state.KeyedJoin{Join: state.Join{Incarnation: inc, Seq: leader, Group: group, Client: "a"}, Hold: time.Second})
		apply(state.Join{Incarnation: inc, Seq: next(), Group: group, Client: "b"})
		log.elections()
		return leader
	}
	wantReason := func(group, reason string) {
		t.Helper()
		want := fmt.Sprintf("group=%s from=a to=b token=%d reason=%q node=riak@n1", group, uint64(state.PositionOf(index, 0)), reason)
		if all := log.elections(); len(all) != 1 || all[0] != want {
			t.Errorf("logged\n%s\nwant\n%s", strings.Join(all, "\n"), want)
		}
	}
	for i, reason := range []string{
		"the connection of the leader before ended (closed)",
		"the connection of the leader before ended (reset)",
		"the connection of the leader before ended (silent)",
		"the connection of the leader before ended (stuck)",
		"the leader before left its group (left)",
		"riak@n1, where the leader before was, was stopped (node_stopped)",
		"riak@n1, where the leader before was, was started again (node_restarted)",
		"riak@n1, where the leader before was, was silent for too long (node_lost)",
		"riak@n1, where the leader before was, had lost its session (session_lost)",
		"riak@n1, where the leader before was, was removed from the cluster, or left it (removed)",
		"the leader before stepped down (stepped_down)",
		"the leader before did not come back in time (hold_over)",
		"the leader before leads no more, for a reason that only a newer version knows (unknown)",
	} {
		group := fmt.Sprint("g", i)
		leader := lead(group)
		apply(state.Leave{Incarnation: inc, Seq: next(), Join: leader, Reason: state.Reason(i + 1)})
		wantReason(group, reason)
	}
	leader := lead("h")
	_, token := s.Leader("h")
	apply(state.StepDown{Incarnation: inc, Seq: next(), Join: leader, Token: token})
	wantReason("h", "the leader before stepped down (stepped_down)")
}

// As many groups as a node may have lose their leaders in one entry. Who applies it waits
// for nothing; the log gets the lines at its pace, as of the time of the entry; of what is
// beyond all bounds it says how much that was.
func TestManyElectionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log kept
		l := newElectionLog(slog.New(slog.NewTextHandler(&log, nil)))
		done := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { l.run(done) })
		count := func(what string) int {
			log.mu.Lock()
			defer log.mu.Unlock()
			return strings.Count(log.buf.String(), what)
		}
		at := time.Now()
		const groups = 10_000
		l.add(at, make([]election, groups))
		synctest.Wait()
		if n := count("leader changed"); n > electionsAtOnce {
			t.Errorf("%d lines at once", n)
		}
		time.Sleep(groups / electionsAtOnce * electionsPause)
		synctest.Wait()
		if n := count("time=" + at.Format("2006-01-02T15:04:05.000")); n != groups {
			t.Errorf("%d lines with the time of the entry, want %d", n, groups)
		}
		l.add(at, make([]election, maxElections+7))
		time.Sleep(maxElections/electionsAtOnce*electionsPause + time.Second)
		synctest.Wait()
		if n := count("leader changed"); n != groups+maxElections {
			t.Errorf("%d lines, want %d", n, groups+maxElections)
		}
		if count("not all are logged\" omitted=7\n") != 1 {
			t.Error("nothing says how many lines there are not")
		}
		l.add(at, make([]election, 5*electionsAtOnce))
		close(done) // the node ends, and the log does not: it has all of it
		running.Wait()
		if n := count("leader changed"); n != groups+maxElections+5*electionsAtOnce {
			t.Errorf("%d lines after the end, want all", n)
		}
	})
}

// A node that applies its log again tells nothing anew, and of its start what is new then.
func TestElectionsAreNotLoggedAgain(t *testing.T) {
	path := t.TempDir()
	var log kept
	const level = state.KeyedLevel - 1 // operations have no reasons yet
	on := func(c *Config) { c.LogElections, c.Logger, c.FormatLevel = true, log.logger(), level }
	n := startNode(t, path, on)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	join(t, n, "g", "b").wantTold("a")
	join(t, n, "h", "c").wantTold("c")
	wantElections(t, &log, `group=g from="" to=a`, `group=h from="" to=c`)
	a.Close()
	wantElections(t, &log, `group=g from=a to=b .* reason="the connection of the leader before ended" node=riak@127.0.0.1$`)
	kill(n)
	n = startNode(t, path, on)
	const again = ` reason="riak@127.0.0.1, where the leader before was, was started again or had lost its session" node=riak@127.0.0.1$`
	wantElections(t, &log, `group=g from=b to=""`+again, `group=h from=c to=""`+again)
	join(t, n, "g", "d").wantTold("d")
	wantElections(t, &log, `group=g from="" to=d`)
	stop(t, n)
	wantElections(t, &log, `group=g from=d to=""`)
	n.dir.Close()

	n = startNode(t, path, func(c *Config) { c.Logger, c.FormatLevel = log.logger(), level }) // and not at all unless it is asked for
	join(t, n, "g", "e").wantTold("e")
	if lines := log.elections(); len(lines) > 0 {
		t.Errorf("logged %q", lines)
	}
}

// The last that a node applies ends its session, and it stops as soon as it knows that. What
// that entry changed is logged all the same, though it takes a while to list.
func TestTheEndOfANodeIsLogged(t *testing.T) {
	var log kept
	n := startNode(t, t.TempDir(), func(c *Config) { c.LogElections, c.Logger = true, log.logger() })
	const groups = 3000
	members := make([]*client, groups)
	for i := range members {
		members[i] = join(t, n, fmt.Sprint("g", i), "a")
	}
	for _, m := range members {
		m.wantTold("a")
	}
	var begun []string
	poll(t, "each group has a leader", func() bool { begun = append(begun, log.elections()...); return len(begun) == groups })
	stop(t, n)
	if ended := log.elections(); len(ended) != groups {
		t.Errorf("%d lines about %d groups that ended", len(ended), groups)
	}
}

// wantElections waits for these lines, and no others, in this order.
func wantElections(t *testing.T, log *kept, want ...string) {
	t.Helper()
	var got []string
	poll(t, strings.Join(want, ", "), func() bool {
		got = append(got, log.elections()...)
		return len(got) >= len(want)
	})
	for i, line := range got {
		if i >= len(want) || !regexp.MustCompile(`^`+want[i]).MatchString(line) {
			t.Errorf("logged %q, want %q", got, want)
			break
		}
	}
}

// Every node tells every change, with the node of the new leader.
func TestEveryNodeLogsElections(t *testing.T) {
	logs := make([]kept, 3)
	all := foundersWith(t, 3, func(i int, c *Config) {
		c.LogElections, c.Logger = true, logs[i].logger()
	})
	a := join(t, all[0].Node, "g", "a")
	a.wantTold("a")
	join(t, all[1].Node, "g", "b").wantTold("a")
	a.Close()
	token := regexp.MustCompile(`token=\d+`)
	tokens := map[string]bool{}
	for i := range logs {
		var lines []string
		poll(t, "two lines", func() bool { lines = append(lines, logs[i].elections()...); return len(lines) == 2 })
		for j, want := range []string{`group=g from="" to=a token=.* node=` + all[0].name, `group=g from=a to=b token=.* node=` + all[1].name} {
			if !regexp.MustCompile(want).MatchString(lines[j]) {
				t.Errorf("%s logs %q, want %s", all[i].name, lines[j], want)
			}
			tokens[token.FindString(lines[j])] = true
		}
	}
	if len(tokens) != 2 {
		t.Errorf("tokens %v, want the same two on all", tokens)
	}
}
