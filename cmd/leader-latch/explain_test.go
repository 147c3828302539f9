package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/doctest"
	"leaderlatch/ensemble"
	"leaderlatch/ensemble/state"
)

// stubAnswers stands in for a node: what it answers, or fails with, by the path.
type stubAnswers map[string]any

func (s stubAnswers) get(_ context.Context, path string, _ url.Values, v any) error {
	switch answer := s[path].(type) {
	case nil:
		return &adminError{http.StatusNotFound, "404 page not found"}
	case error:
		return answer
	default:
		return copyJSON(answer, v)
	}
}

// second is a time of the tests, so many seconds after another.
func second(seconds int) time.Time {
	return time.Date(2026, 5, 4, 12, 0, seconds, 0, time.Local)
}

var lostNode = ensemble.Change{At: second(3), Group: "spark", From: "worker-0", To: "worker-1", Token: 1795944937238546, Reason: "node_lost", Node: "riak@192.0.2.2", By: "riak@192.0.2.1"}

// explains runs explain at a node that answers so.
func explains(group string, most int, asJSON bool, node stubAnswers) (code int, stdout, stderr string) {
	var out, rest strings.Builder
	e := &env{stdout: &out, stderr: &rest}
	return e.explain(context.Background(), node, group, most, asJSON), out.String(), rest.String()
}

// What explain says of all groups: a row for each change, and a line for each kind of reason.
func TestExplainAllGroups(t *testing.T) {
	node := stubAnswers{"/groups/confirmed": ensemble.Confirmed{}, "/changes": []ensemble.Change{
		{At: second(0), Group: "batch", To: "b", Token: 1795944937238000, Node: "riak@192.0.2.3", By: "riak@192.0.2.3"},
		{At: second(1), Group: "spark", To: "worker-0", Token: 1795944937238101, Node: "riak@192.0.2.2", By: "riak@192.0.2.2"},
		lostNode,
		{At: second(4), Group: "batch", From: "b", Token: 1795944937239000, Reason: "frobnicated", Node: "riak@192.0.2.3"},
	}}
	code, out, rest := explains("", 20, false, node)
	const want = `TIME                 GROUP  FROM      TO        TOKEN             REASON       NODE            SEEN BY
2026-05-04 12:00:00  batch  --        b         1795944937238000  --           riak@192.0.2.3  riak@192.0.2.3
2026-05-04 12:00:01  spark  --        worker-0  1795944937238101  --           riak@192.0.2.2  riak@192.0.2.2
2026-05-04 12:00:03  spark  worker-0  worker-1  1795944937238546  node_lost    riak@192.0.2.2  riak@192.0.2.1
2026-05-04 12:00:04  batch  b         --        1795944937239000  frobnicated  riak@192.0.2.3  --

--              nobody led before
node_lost       the node where the leader was connected was silent for longer than its leader_latch.timing allows
frobnicated     the leader leads no more for a reason that only a newer version knows
`
	if code != exitOK || out != want || rest != "" {
		t.Errorf("exit code %d, printed\n%s%s\nwant\n%s", code, out, rest, want)
	}
	if _, out, _ := explains("", 1, false, node); strings.Contains(out, "spark") || strings.Contains(out, "nobody led before") || !strings.Contains(out, "frobnicated") {
		t.Errorf("of the last change is printed\n%s", out)
	}
	code, out, _ = explains("", 2, true, stubAnswers{"/groups/confirmed": ensemble.Confirmed{}, "/changes": []ensemble.Change{{}, {Reason: "left"}, {
		At: time.Date(2026, 5, 4, 12, 0, 3, 123e6, time.UTC), Group: "g", From: "a", To: "b", Token: 17, Reason: "reset", Node: "riak@n1", By: "riak@n2"}}})
	const wantJSON = `[
  {
    "time": "0001-01-01T00:00:00Z",
    "group": "",
    "from": "",
    "to": "",
    "token": 0,
    "reason": "left",
    "node": "",
    "seen_by": ""
  },
  {
    "time": "2026-05-04T12:00:03.123Z",
    "group": "g",
    "from": "a",
    "to": "b",
    "token": 17,
    "reason": "reset",
    "node": "riak@n1",
    "seen_by": "riak@n2"
  }
]
`
	if code != exitOK || out != wantJSON {
		t.Errorf("exit code %d, printed\n%s\nwant\n%s", code, out, wantJSON)
	}
}

// What explain says of a group: its changes, and what to look at after the newest one.
func TestExplainAGroup(t *testing.T) {
	code, out, _ := explains("spark", 20, false, stubAnswers{"/groups/confirmed": ensemble.Confirmed{Missing: "this node has no session"}, "/changes": []ensemble.Change{lostNode}})
	const want = `TIME                 GROUP  FROM      TO        TOKEN             REASON     NODE            SEEN BY
2026-05-04 12:00:03  spark  worker-0  worker-1  1795944937238546  node_lost  riak@192.0.2.2  riak@192.0.2.1

worker-1 leads since 2026-05-04 12:00:03, because riak@192.0.2.2, where worker-0 was connected, was silent for longer than its leader_latch.timing allows (node_lost, seen by riak@192.0.2.1).
Look at the log of riak@192.0.2.2, and at its disk, network and load before 12:00:03.
`
	if code != exitOK || out != want {
		t.Errorf("exit code %d, printed\n%s\nwant\n%s", code, out, want)
	}
}

// What there is no change to be told of: each with its own sentence.
func TestExplainWithoutChanges(t *testing.T) {
	led := []ensemble.Group{{Name: "g", Leader: "a", Since: second(0)}}
	none := []ensemble.Change{}
	for _, c := range []struct {
		what, group string
		node        stubAnswers
		code        int
		out, rest   string // a part of what is printed
	}{
		{"no changes at all", "", stubAnswers{"/changes": none, "/groups/confirmed": ensemble.Confirmed{}}, exitOK, "TIME  GROUP  FROM", ""},
		{"a group that is older than the changes", "g", stubAnswers{"/changes": none, "/groups": led, "/groups/confirmed": ensemble.Confirmed{}}, exitOK, "a leads since 2026-05-04 12:00:00. No change of the group's leader is known since changes are kept.", ""},
		{"a group that nobody knows", "g", stubAnswers{"/changes": none, "/groups": []ensemble.Group{}, "/groups/confirmed": ensemble.Confirmed{}}, exitFailed, "", `leader-latch: no group "g" is known: nobody leads it, and none of the last 1000 changes of leaders was in it`},
		{"a group in which a client only waits", "g", stubAnswers{"/changes": none, "/groups": []ensemble.Group{{Name: "g"}}, "/groups/confirmed": ensemble.Confirmed{}}, exitFailed, "", `no group "g" is known`},
		{"no majority", "g", stubAnswers{"/changes": []ensemble.Change{lostNode}, "/groups/confirmed": ensemble.Confirmed{Missing: "this node has no session"}}, exitOK, "worker-1 leads since", "no majority has confirmed this since the node's start"},
		{"a level below that of changes", "", stubAnswers{"/changes": &adminError{http.StatusConflict, notKept}}, exitFailed, "", "leader-latch: changes of leaders are kept from level 3 of the formats on, and this cluster has a lower one; leader-latch cluster status says"},
		{"a node of an older version", "", stubAnswers{}, exitFailed, "", "the node runs an older version, which does not tell changes of leaders; restart it"},
		{"a node that is down", "", stubAnswers{"/changes": errNodeDown}, exitFailed, "", "Node is not running!"},
	} {
		code, out, rest := explains(c.group, 20, false, c.node)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(rest, c.rest) || c.out == "" && out != "" || c.rest == "" && rest != "" {
			t.Errorf("%s: exit code %d, printed %q, and on stderr %q", c.what, code, out, rest)
		}
	}
}

// Each reason has its words, which name whom and what they are about, and nothing is left in
// them that stands for a name.
func TestEachReasonHasWords(t *testing.T) {
	said := map[string]state.Reason{}
	for r := state.Reason(0); r.String() != "unknown"; r++ {
		if int(r) >= len(reasonTexts) || reasonTexts[r].reason != r {
			t.Fatalf("%v has no words, or not in its place", r)
		}
		text := reasonTexts[r]
		c := lostNode
		c.Reason = r.String()
		all := explained(c) + "\n" + inGeneral(text.because)
		if i := strings.IndexAny(all, "{}"); i >= 0 {
			t.Errorf("%v: %s", r, all)
		}
		if other, is := said[text.because]; is {
			t.Errorf("%v and %v have the same words", r, other)
		}
		said[text.because] = r
		if r != 0 && !strings.Contains(all, "worker-0") {
			t.Errorf("%v: the former leader is not named: %s", r, all)
		}
		if len(r.String()) > reasonWidth {
			t.Errorf("%v is longer than the column of reasons", r)
		}
		for line := range strings.Lines(all) {
			if !regexp.MustCompile(`^([Nn]|[Ww]orker|[A-Z]|the |an )`).MatchString(line) {
				t.Errorf("%v: no sentence: %s", r, line)
			}
		}
	}
	nobody := lostNode
	nobody.To, nobody.Reason, nobody.By = "", "unknown", ""
	if is, want := explained(nobody), "Nobody leads since 2026-05-04 12:00:03, because worker-0 leads no more for a reason that only a newer version knows (unknown).\n"+
		"Run this command on a node of the newer version: leader-latch cluster status says where there is one."; is != want {
		t.Errorf("explained as\n%s\nwant\n%s", is, want)
	}
}

// However long the names are, no row is wider than a terminal, and what tells names apart that
// differ at their ends is there.
func TestRowsOfChangesAreNotTooWide(t *testing.T) {
	long := strings.Repeat("x", 250)
	c := ensemble.Change{At: second(0), Group: long + "-1", From: long + "-2", To: long + "-3", Token: 1<<64 - 1, Reason: "node_restarted", Node: "riak@" + long + ".4", By: "riak@n1"}
	short := c
	short.Group, short.From = "g", "a"
	for _, changes := range [][]ensemble.Change{{c}, {short}, {short, c}} {
		var out strings.Builder
		if err := printChanges(&out, changes, ""); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if len(line)-1 > maxWidth {
				t.Errorf("%d wide: %s", len(line)-1, line)
			}
		}
		if last := changes[len(changes)-1]; last == c {
			for _, end := range []string{"-1", "-2", "-3", ".4"} {
				if !regexp.MustCompile(`\.\.x*` + regexp.QuoteMeta(end) + " ").MatchString(out.String()) {
					t.Errorf("no name ends in %s:\n%s", end, out.String())
				}
			}
		}
		if !strings.Contains(out.String(), "riak@n1\n") || !strings.Contains(out.String(), "18446744073709551615  node_restarted") {
			t.Errorf("what is short is cut:\n%s", out.String())
		}
	}
	for name, want := range map[string]string{"short": "short", "twelve-chars": "twelve-chars", "thirteen-char": "thirt..-char"} {
		if got := cut(name, 12); got != want {
			t.Errorf("%s is cut to %s, want %s", name, got, want)
		}
	}
}

// The document for operators has the reasons as the commands say them.
func TestTheDocumentHasTheReasons(t *testing.T) {
	var table strings.Builder
	table.WriteString("| reason | means | to look at |\n|---|---|---|\n")
	for _, text := range reasonTexts[1:] {
		fmt.Fprintf(&table, "| `%v` | %s | %s |\n", text.reason, inGeneral(text.because), inGeneral(text.look))
	}
	doctest.WantTable(t, "../../packaging/OPERATING.md", "reasons", table.String())
}
