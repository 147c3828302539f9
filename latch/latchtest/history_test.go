package latchtest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// view is a connection of a client that was told leaders at the seconds of told,
// and ended at one: at, leader, token.
func view(client string, end int, told ...Told) *View {
	return &View{Group: "g", Client: client, Told: told, End: time.Duration(end) * time.Second}
}

// watcher is one of an observer.
func watcher(told ...Told) *View { return &View{Group: "g", Observes: true, Told: told} }

func at(second int, leader string, token uint64) Told {
	return Told{time.Duration(second) * time.Second, leader, token}
}

// with adds trouble from one second to another.
func (v *View) with(kind string, from, to, limit int) *View {
	v.Trouble = append(v.Trouble, Trouble{Kind: kind, From: time.Duration(from) * time.Second, To: time.Duration(to) * time.Second,
		Limit: time.Duration(limit) * time.Second})
	return v
}

// cut adds trouble that is over at a second, and heard of within 9, or within 18 where it
// comes again.
func (v *View) cut(from, over int) *View {
	const s = time.Second
	t := Trouble{Kind: "cut", From: time.Duration(from) * s, Limit: 9 * s, Again: 18 * s}
	if over > 0 {
		t.Over = time.Duration(over) * s
		t.To = t.Over + 9*s
	}
	v.Trouble = append(v.Trouble, t)
	return v
}

// promised adds a promise from one second to another, of the leadership that was told last.
func (v *View) promised(from, to int) *View {
	v.Promises = append(v.Promises, Promise{time.Duration(from) * time.Second, time.Duration(to) * time.Second, v.Told[len(v.Told)-1].Token})
	return v
}

// stopped notes that the client stopped leading, and then closed its own side.
func (v *View) stopped(second int) *View {
	v.Stopped = time.Duration(second) * time.Second
	v.End = v.Stopped
	return v
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		views []*View
		want  string // in a violation; empty: there is none
	}{
		{"nobody", nil, ""},
		{"one after the other", []*View{view("a", 5, at(1, "a", 1)), view("b", 9, at(2, "a", 1), at(6, "b", 2))}, ""},
		{"in the same moment", []*View{view("a", 5, at(1, "a", 1)), view("b", 9, at(2, "a", 1), at(5, "b", 2))}, ""},
		{"told otherwise in time", []*View{view("a", 0, at(1, "a", 1), at(5, "b", 2)), view("b", 0, at(5, "b", 2))}, ""},
		{"told otherwise too late", []*View{view("a", 0, at(1, "a", 1), at(6, "b", 2)), view("b", 0, at(5, "b", 2))}, "two leaders for 1s"},
		{"ended too late", []*View{view("a", 6, at(1, "a", 1)), view("b", 9, at(5, "b", 2))}, "two leaders for 1s"},
		{"open for ever", []*View{view("a", 0, at(1, "a", 1)), view("b", 9, at(5, "b", 2))}, "two leaders for 4s"},
		{"behind one who has gone in the meantime", []*View{view("a", 0, at(1, "a", 1)), view("b", 3, at(1, "a", 1)), view("c", 9, at(5, "c", 2))}, "two leaders for 4s"},
		{"of two groups", []*View{view("a", 0, at(1, "a", 1)), {Group: "h", Client: "b", Told: []Told{at(1, "b", 1)}}}, ""},
		{"the same client twice", []*View{view("a", 6, at(1, "a", 1)), view("a", 9, at(5, "a", 2))}, "two leaders for 1s"},
		{"one token for two leaders", []*View{view("a", 5, at(1, "a", 1)), view("b", 9, at(6, "b", 1))}, "token 1 has the leaders a and b"},
		{"one token for two connections", []*View{view("a", 5, at(1, "a", 1)), view("a", 9, at(6, "a", 1))}, "with token 1 from 6s to 9s, after"},
		{"a token that falls", []*View{view("a", 5, at(1, "a", 2)), view("b", 9, at(6, "b", 1))}, "with token 1 from 6s to 9s, after"},
		{"two orders", []*View{view("x", 0, at(1, "a", 1), at(2, "b", 2)), view("y", 0, at(1, "b", 2), at(2, "a", 1))}, "told of a with token 1 at 2s, after b"},
		{"the same leader twice", []*View{view("x", 0, at(1, "a", 1), at(2, "a", 1))}, "told of a with token 1 at 2s, after a"},
		{"some are missed", []*View{view("x", 0, at(1, "a", 1), at(2, "b", 2), at(3, "c", 3)), view("y", 0, at(1, "a", 1), at(3, "c", 3))}, ""},

		{"observers", []*View{view("a", 5, at(1, "a", 2)), watcher(at(0, "", 1), at(1, "a", 2), at(6, "", 3)), watcher(at(9, "", 4))}, ""},
		{"an observer that was told of another one", []*View{view("a", 5, at(1, "a", 2)), watcher(at(1, "b", 2))}, "token 2 has the leaders a and b"},
		{"an observer that was told of nobody too late", []*View{view("a", 5, at(1, "a", 2)), watcher(at(1, "a", 2), at(6, "", 1))}, "was told of  with token 1 at 6s, after a"},

		{"cut off", []*View{view("a", 6, at(1, "a", 1)).with("cut", 2, 7, 4), view("b", 9, at(5, "b", 2))}, ""},
		{"cut off for good", []*View{view("a", 6, at(1, "a", 1)).with("cut", 2, 0, 4), view("b", 9, at(5, "b", 2))}, ""},
		{"cut off, and wrong for too long", []*View{view("a", 10, at(1, "a", 1)).with("cut", 2, 0, 4), view("b", 11, at(5, "b", 2))}, "two leaders for 5s"},
		{"cut off before", []*View{view("a", 6, at(1, "a", 1)).with("cut", 2, 4, 4), view("b", 9, at(5, "b", 2))}, "two leaders for 1s"},
		{"cut off after", []*View{view("a", 7, at(1, "a", 1)).with("cut", 6, 8, 4), view("b", 9, at(5, "b", 2))}, "two leaders for 2s"},
		{"cut off, the new one", []*View{view("a", 6, at(1, "a", 1)), view("b", 9, at(5, "b", 2)).with("cut", 2, 8, 4)}, "two leaders for 1s"},
		{"told late when cut off", []*View{view("a", 9, at(6, "a", 1)).with("cut", 4, 9, 4), view("b", 8, at(5, "b", 2))}, ""},
		{"told too late when cut off", []*View{view("a", 9, at(7, "a", 1)).with("cut", 4, 9, 4), view("b", 6, at(5, "b", 2))}, ""},
		{"told too late", []*View{view("a", 9, at(7, "a", 1)), view("b", 6, at(5, "b", 2))}, "with token 1 from 7s to 9s, after b"},
		{"cut off again and again", []*View{view("a", 20, at(1, "a", 1)).cut(4, 8).cut(9, 12).cut(13, 14), view("b", 30, at(5, "b", 2))}, ""},
		{"cut off again and for good", []*View{view("a", 20, at(1, "a", 1)).cut(4, 8).cut(9, 0), view("b", 30, at(5, "b", 2))}, ""},
		{"cut off again and again, and wrong for too long", []*View{view("a", 24, at(1, "a", 1)).cut(4, 8).cut(9, 12).cut(13, 22), view("b", 30, at(5, "b", 2))}, "two leaders for 19s"},
		{"cut off once, with a cut in that", []*View{view("a", 22, at(1, "a", 1)).cut(2, 40).cut(6, 7), view("b", 30, at(5, "b", 2))}, "two leaders for 17s"},
		{"cut off, and again after a while", []*View{view("a", 22, at(1, "a", 1)).cut(4, 5).cut(13, 14), view("b", 30, at(5, "b", 2))}, "two leaders for 17s"},
		{"cut off again, and heard of too late", []*View{view("a", 22, at(1, "a", 1)).cut(4, 8).cut(9, 12), view("b", 30, at(5, "b", 2))}, "two leaders for 17s"},
		{"paused until it knew", []*View{view("a", 8, at(1, "a", 1)).with("paused", 5, 8, 0), view("b", 9, at(5, "b", 2))}, ""},
		{"promised, and over in time", []*View{view("a", 0, at(1, "a", 1)).promised(2, 4).promised(3, 5), view("b", 9, at(5, "b", 2))}, ""},
		{"promised beyond the end of the connection", []*View{view("a", 4, at(1, "a", 1)).promised(2, 6), view("b", 9, at(5, "b", 2))}, "two leaders for 1s"},
		{"promised, and told otherwise", []*View{view("a", 0, at(1, "a", 1), at(4, "b", 2)).promised(2, 6), view("b", 9, at(5, "b", 2))}, "two leaders for 1s"},
		{"promised, and cut off", []*View{view("a", 0, at(1, "a", 1)).promised(2, 6).with("cut", 2, 8, 9).cut(2, 3), view("b", 9, at(5, "b", 2))}, "two leaders for 1s"},
		{"promised, behind one who is cut off", []*View{view("a", 6, at(1, "a", 1)).with("cut", 2, 8, 9), view("b", 9, at(4, "b", 2)).promised(5, 8)}, ""},
		{"promised, behind one who is not", []*View{view("a", 6, at(1, "a", 1)), view("b", 9, at(4, "b", 2)).promised(5, 8)}, "two leaders for 1s"},
		{"two who were promised", []*View{view("a", 0, at(1, "a", 1)).promised(2, 6), view("b", 9, at(3, "b", 2)).promised(4, 8)}, "two leaders for 2s"},
		{"in the gap between two promises", []*View{view("a", 0, at(1, "a", 1)).promised(2, 3).promised(7, 8), view("b", 6, at(4, "b", 2))}, "with token 1 from 7s to 8s, after b"},
		{"promised again after a gap", []*View{view("a", 0, at(1, "a", 1)).promised(2, 3).promised(4, 5)}, ""},
		{"promised, and stopped before", []*View{view("a", 0, at(1, "a", 1)).promised(2, 6).stopped(4), view("b", 9, at(4, "b", 2))}, ""},
		{"promised, and stopped too late", []*View{view("a", 0, at(1, "a", 1)).promised(2, 6).stopped(5), view("b", 9, at(4, "b", 2))}, "two leaders for 1s"},
		{"wrong after the pause", []*View{view("a", 9, at(1, "a", 1)).with("paused", 5, 8, 0), view("b", 9, at(5, "b", 2))}, "two leaders for 4s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Check(c.views).Violations
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("found %q", got)
			case !strings.Contains(strings.Join(got, "\n"), c.want):
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// What is excused is counted by its kind.
func TestCheckCounts(t *testing.T) {
	v := Check([]*View{
		view("a", 6, at(1, "a", 1)).with("paused", 1, 2, 0).with("cut", 2, 7, 4),
		view("b", 8, at(5, "b", 2)).with("paused", 5, 9, 0),
		view("c", 9, at(7, "c", 3)),
	})
	if len(v.Violations) > 0 || v.Leaderships != 3 || len(v.Excused) != 2 ||
		len(v.Excused["cut"]) != 1 || v.Excused["cut"][0] != time.Second ||
		len(v.Excused["paused"]) != 1 || v.Excused["paused"][0] != time.Second {
		t.Errorf("%+v", v)
	}
}

// The longest time is given in which there were two leaders, but for what is excused.
func TestCheckMeasuresTheOverlap(t *testing.T) {
	v := Check([]*View{
		view("a", 9, at(1, "a", 1)).promised(2, 4).promised(3, 7),
		view("b", 20, at(5, "b", 2)).with("cut", 6, 20, 9),
		view("c", 20, at(12, "c", 3)),
	})
	if v.Overlap != 2*time.Second || v.Leaderships != 3 {
		t.Errorf("%+v", v)
	}
}

// A client that is bounded takes itself for nothing before it was promised something.
func TestCheckABoundedClientWithoutAPromise(t *testing.T) {
	a, b := view("a", 6, at(1, "a", 1)), view("b", 9, at(5, "b", 2))
	if v := Check([]*View{a, b}); len(v.Violations) == 0 {
		t.Error("two leaders were not found")
	}
	a.Bounded = true
	if v := Check([]*View{a, b}); len(v.Violations) > 0 || v.Leaderships != 1 {
		t.Errorf("%+v", v)
	}
}

// Gaps are between leaders, whoever they are.
func TestGaps(t *testing.T) {
	got := Gaps([]*View{
		view("a", 3, at(1, "a", 1)),
		view("b", 0, at(1, "a", 1), at(5, "b", 2), at(7, "c", 3)),
		view("c", 12, at(6, "b", 2), at(9, "c", 3)), view("d", 0, at(11, "d", 4)),
		{Group: "bounded", Client: "x", Bounded: true, Told: []Told{at(1, "x", 1)}, Promises: []Promise{{1, 2, 1}, {5, 6, 1}}},
	})
	const s = time.Second
	if want := []Gap{{"g", 3 * s, 5 * s}, {"g", 7 * s, 9 * s}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// An ALREADY_JOINED promises the window from before its own JOIN was sent, to a client
// that has read that it leads, and from then on.
func TestWitness(t *testing.T) {
	w := &Witness{View: View{Client: "a"}, Window: 10}
	type event struct {
		at   time.Duration
		line string // empty: it asks
	}
	for _, e := range []event{
		{1, ""}, {2, ""}, {3, ""}, {4, "LEADER x 5"}, {5, "ALREADY_JOINED g a"}, // who leads is another one
		{6, "LEADER a 7"}, {8, "ALREADY_JOINED g a"}, // to the JOIN of 3
		{9, ""}, {11, ""}, {20, "ALREADY_JOINED g a"}, {30, "ALREADY_JOINED g a"},
	} {
		if e.line == "" {
			w.Asks(e.at)
		} else if err := w.Reads(e.at, e.line); err != nil {
			t.Fatal(err)
		}
	}
	if want := []Promise{{6, 13, 7}, {9, 19, 7}, {11, 21, 7}}; !slices.Equal(w.Promises, want) || w.Promised() != 21 || !w.Knows("a") {
		t.Errorf("%+v, want %v", w, want)
	}
	for _, line := range []string{"ALREADY_JOINED g a", "LEADER a", "LEADER a x", "JOIN_FAILED SERVICE_UNAVAILABLE", "ERROR 1 2"} {
		if err := w.Reads(40, line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestUnsettled(t *testing.T) {
	for _, c := range []struct {
		name  string
		views []*View
		want  string
	}{
		{"nobody", nil, ""},
		{"one leader", []*View{view("a", 0, at(1, "a", 1)), view("b", 0, at(2, "a", 1))}, ""},
		{"those who have gone do not count", []*View{view("a", 0, at(1, "a", 1)), view("b", 3, at(2, "b", 0))}, ""},
		{"two leaders", []*View{view("a", 0, at(1, "a", 1)), view("b", 0, at(2, "b", 2))}, "2 leaders are believed in"},
		{"an older leadership of the same", []*View{view("a", 0, at(1, "a", 2)), view("b", 0, at(2, "a", 1))}, "2 leaders are believed in"},
		{"a leader who has gone", []*View{view("a", 3, at(1, "a", 1)), view("b", 0, at(2, "a", 1))}, "0 connections are its leader a"},
		{"a leader twice", []*View{view("a", 0, at(1, "a", 1)), view("a", 0, at(2, "a", 1))}, "2 connections are its leader a"},
		{"observers", []*View{view("a", 0, at(1, "a", 2)), watcher(at(1, "", 1), at(2, "a", 2))}, ""},
		{"an observer that knows another one", []*View{view("a", 0, at(1, "a", 2)), watcher(at(1, "", 1))}, "2 leaders are believed in"},
		{"observers of nobody", []*View{watcher(at(1, "", 3)), watcher(at(1, "", 4))}, ""},
		{"no answer", []*View{view("a", 0, at(1, "a", 1)), view("b", 0)}, "1 of 2 have no answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Unsettled(c.views)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
