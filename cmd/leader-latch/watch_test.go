package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"leaderlatch/ensemble"
)

// ledBy is a group with one member.
func ledBy(client string) knownGroups {
	return knownGroups{groups: []ensemble.Group{{Name: "g", Leader: client, Token: 17, Since: second(0), Members: []ensemble.GroupMember{{Client: client, Node: "riak@n1", Since: second(0)}}}}}
}

// watched is what a watcher prints of what it sees, one after the other.
func watched(t *testing.T, w watcher, saw ...any) (stdout, stderr string) {
	t.Helper()
	var out, rest strings.Builder
	w.stdout, w.stderr = &out, &rest
	for i, is := range saw {
		var err error
		switch is := is.(type) {
		case knownGroups:
			err = w.saw(is, nil, second(i))
		case error:
			err = w.saw(knownGroups{}, is, second(i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.String(), rest.String()
}

const tableOf = "GROUP  CLIENT  ROLE    NODE     SINCE                TOKEN\ng      NAME       leader  riak@n1  2026-05-04 12:00:00  17\n"

// Groups are listed again when something has changed, and only then.
func TestWatchListsWhatHasChanged(t *testing.T) {
	table := func(client string) string { return strings.ReplaceAll(tableOf, "NAME", client) }
	out, rest := watched(t, watcher{}, ledBy("a"), ledBy("a"), ledBy("b"), ledBy("b"), ledBy("a"))
	if want := table("a") + "\n2026-05-04 12:00:02\n" + table("b") + "\n2026-05-04 12:00:04\n" + table("a"); out != want || rest != "" {
		t.Errorf("printed\n%s%s\nwant\n%s", out, rest, want)
	}
	out, _ = watched(t, watcher{terminal: true}, ledBy("a"), ledBy("a"), ledBy("b"))
	const clear = "\x1b[H\x1b[2J"
	if want := clear + table("a") + clear + table("b"); out != want {
		t.Errorf("on a terminal printed\n%q\nwant\n%q", out, want)
	}
	out, _ = watched(t, watcher{asJSON: true}, ledBy("a"), ledBy("a"), knownGroups{groups: []ensemble.Group{}})
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], `[{"group":"g","leader":"a",`) || lines[1] != "[]" || lines[2] != "" {
		t.Errorf("as JSON printed\n%s", out)
	}
}

// How long a member is held yet is no change; that it is held is one.
func TestWatchDoesNotListHowTimePasses(t *testing.T) {
	held := func(ms int64) knownGroups {
		k := ledBy("a")
		k.groups[0].Members[0].Held = ms
		return k
	}
	first := held(900)
	out, _ := watched(t, watcher{asJSON: true}, held(0), first, held(800), held(20))
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"held_ms":900`) {
		t.Errorf("printed\n%s", out)
	}
	if first.groups[0].Members[0].Held != 900 {
		t.Error("what was seen is changed")
	}
}

// A node that is down is said to be once, and the groups are listed when it is back. So it is
// with a majority that is missing.
func TestWatchGoesOnWhileTheNodeIsDown(t *testing.T) {
	stale := ledBy("a")
	stale.confirmed.Missing = "this node has no session"
	out, rest := watched(t, watcher{asJSON: true}, errNodeDown, errNodeDown, ledBy("a"), errNodeDown, errNodeDown, ledBy("a"), stale, stale, ledBy("a"), errors.New("ask the node: EOF"))
	if strings.Count(out, "\n") != 2 {
		t.Errorf("printed\n%s", out)
	}
	if want := "Node is not running!\nNode is not running!\n" + staleHint(stale.confirmed) + "\nask the node: EOF\n"; rest != want {
		t.Errorf("said\n%s\nwant\n%s", rest, want)
	}
}

// A reader that has gone is noticed without a line for it, and one that is there is not.
func TestAReaderThatHasGoneIsNoticed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if readerGone(w) {
		t.Error("a reader that is there has gone")
	}
	r.Close()
	if !readerGone(w) {
		t.Error("a reader that has gone is there")
	}
	gone := watcher{stdout: w, stderr: w}
	if err := gone.saw(ledBy("a"), nil, second(0)); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("to write to it: %v", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if readerGone(null) || readerGone(new(strings.Builder)) {
		t.Error("what is no pipe has gone")
	}
}
