package latch

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCutLine(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name, input, line string
		size              int
		crlf              bool
		err               error
	}{
		{name: "nothing"},
		{name: "no line end", input: "JOIN g a"},
		{name: "half a line end", input: "JOIN g a\r"},
		{name: "LF", input: "JOIN g a\n", line: "JOIN g a", size: 9},
		{name: "CRLF", input: "JOIN g a\r\n", line: "JOIN g a", size: 10, crlf: true},
		{name: "the first of two", input: "a\nb\r\n", line: "a", size: 2},
		{name: "empty line", input: "\nx", line: "", size: 1},
		{name: "empty line, CRLF", input: "\r\n", line: "", size: 2, crlf: true},
		{name: "only the last CR", input: "a\r\r\n", line: "a\r", size: 4, crlf: true},
		{name: "a CR elsewhere", input: "a\rb\n", line: "a\rb", size: 4},
		{name: "longest, LF", input: x(1024) + "\n", line: x(1024), size: 1025},
		{name: "longest, CRLF", input: x(1024) + "\r\n", line: x(1024), size: 1026, crlf: true},
		{name: "longest, not ended", input: x(1024)},
		{name: "longest, half ended", input: x(1024) + "\r"},
		{name: "too long, ended", input: x(1025) + "\n", err: errLineTooLong},
		{name: "too long, not ended", input: x(1025), err: errLineTooLong},
		{name: "too long, half ended", input: x(1025) + "\r", err: errLineTooLong},
		{name: "too long by a CR", input: x(1024) + "\r\r", err: errLineTooLong},
		{name: "long after short", input: "a\n" + x(1026), line: "a", size: 2},
	} {
		line, size, crlf, err := cutLine([]byte(c.input))
		if string(line) != c.line || size != c.size || crlf != c.crlf || err != c.err {
			t.Errorf("%s: got %q, %d, %v, %v, want %q, %d, %v, %v",
				c.name, line, size, crlf, err, c.line, c.size, c.crlf, c.err)
		}
	}
}

func TestParseJoin(t *testing.T) {
	long := strings.Repeat("n", maxName)
	for _, c := range []struct {
		line, group, client string
		ok                  bool
	}{
		{"JOIN g a", "g", "a", true},
		{"JOIN   g   a", "g", "a", true},
		{"JOIN g a   ", "g", "a", true},
		{"JOIN ! ~", "!", "~", true},
		{"JOIN JOIN JOIN", "JOIN", "JOIN", true},
		{"JOIN " + long + " " + long, long, long, true},
		{line: ""},
		{line: " "},
		{line: "JOIN"},
		{line: "JOIN "},
		{line: "JOIN g"},
		{line: "JOIN g "},
		{line: "JOIN g a b"},
		{line: " JOIN g a"},
		{line: "join g a"},
		{line: "JOINg a"},
		{line: "JOINS g a"},
		{line: "JOIN\tg\ta"},
		{line: "JOIN g\ta"},
		{line: "JOIN g a\r"},
		{line: "JOIN g a\x00"},
		{line: "JOIN g \x7f"},
		{line: "JOIN g \u00e9"},
		{line: "JOIN " + long + "n a"},
		{line: "JOIN g " + long + "n"},
	} {
		for _, extensions := range []bool{false, true} {
			r := parse([]byte(c.line), extensions)
			ok := r.verb == verbJoin
			if string(r.group) != c.group || string(r.client) != c.client || ok != c.ok || !ok && r.verb != noVerb {
				t.Errorf("%q, extensions %v: got %+v, want %q, %q, %v", c.line, extensions, r, c.group, c.client, c.ok)
			}
		}
	}
}

// What keyed members say is nothing on other listeners.
func TestParseExtensions(t *testing.T) {
	key, long := strings.Repeat("k", minKey), strings.Repeat("K", maxKey)
	join := func(key string, ms int, fin bool) request {
		return request{verb: verbJoin, group: []byte("g"), client: []byte("a"), key: []byte(key), hold: time.Duration(ms) * time.Millisecond, finEnds: fin}
	}
	for _, c := range []struct {
		line string
		want request
	}{
		{"PING", request{verb: verbPing}},
		{"PING  ", request{verb: verbPing}},
		{"LEAVE", request{verb: verbLeave}},
		{"LEAVE ", request{verb: verbLeave}},
		{line: " PING"},
		{line: "ping"},
		{line: "PING 1"},
		{line: "PINGS"},
		{line: "LEAVE g"},
		{line: "ALIVE 1"},
		{"OBSERVE g", request{verb: verbObserve, group: []byte("g")}},
		{"OBSERVE   g  ", request{verb: verbObserve, group: []byte("g")}},
		{line: "OBSERVE"},
		{line: "OBSERVE "},
		{line: "OBSERVE g h"},
		{line: "observe g"},
		{line: "OBSERVEg"},
		{line: " OBSERVE g"},
		{line: "OBSERVE " + strings.Repeat("g", maxName+1)},
		{line: "NO_LEADER 1"},
		{"JOIN g a key=" + key + " hold=0", join(key, 0, false)},
		{"JOIN  g  a  hold=2000   key=" + long + "  ", join(long, 2000, false)},
		{"JOIN g a fin=end key=" + key + " hold=7", join(key, 7, true)},
		{"JOIN g a hold=3600000 fin=end key=key=!~hold=fin=e", join("key=!~hold=fin=e", 3600000, true)},
		{"JOIN g a hold=0000001 key=" + key, join(key, 1, false)},
		{"JOIN g key=" + key, request{verb: verbJoin, group: []byte("g"), client: []byte("key=" + key)}}, // a client of that name
		{line: "JOIN g a key=" + key},
		{line: "JOIN g a hold=0"},
		{line: "JOIN g a fin=end"},
		{line: "JOIN g a fin=end hold=0"},
		{line: "JOIN g a fin=end key=" + key},
		{line: "JOIN g key=" + key + " hold=0"},
		{line: "JOIN key=" + key + " hold=0 g a"},
		{line: "JOIN g a key=" + key[1:] + " hold=0"},
		{line: "JOIN g a key=" + long + "k hold=0"},
		{line: "JOIN g a key= hold=0"},
		{line: "JOIN g a key=" + key + "\x7f hold=0"},
		{line: "JOIN g a key=" + key + "\t hold=0"},
		{line: "JOIN g a key=" + key + "\u00e9 hold=0"},
		{line: "JOIN g a key=" + key + " hold="},
		{line: "JOIN g a key=" + key + " hold=-1"},
		{line: "JOIN g a key=" + key + " hold=+1"},
		{line: "JOIN g a key=" + key + " hold=1s"},
		{line: "JOIN g a key=" + key + " hold=0x1"},
		{line: "JOIN g a key=" + key + " hold=3600001"},
		{line: "JOIN g a key=" + key + " hold=00000001"},
		{line: "JOIN g a key=" + key + " hold=0 hold=0"},
		{line: "JOIN g a key=" + key + " hold=0 key=" + key},
		{line: "JOIN g a key=" + key + " hold=0 fin=end fin=end"},
		{line: "JOIN g a key=" + key + " hold=0 fin=no"},
		{line: "JOIN g a key=" + key + " hold=0 fin="},
		{line: "JOIN g a key=" + key + " hold=0 b"},
		{line: "JOIN g a key=" + key + " hold=0 KEY=" + key},
	} {
		if got := parse([]byte(c.line), true); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, want %+v", c.line, got, c.want)
		}
		if c.want.key != nil || c.want.verb > verbJoin {
			c.want = request{}
		}
		if got := parse([]byte(c.line), false); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q without extensions: got %+v, want %+v", c.line, got, c.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	long := strings.Repeat("n", maxName)
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{appendLeader(nil, "a", false), "LEADER a\n"},
		{appendLeader(nil, "a", true), "LEADER a\r\n"},
		{appendFencedLeader(nil, "a", 1<<64-1, false), "LEADER a 18446744073709551615\n"},
		{appendFencedLeader(nil, "a", 7, true), "LEADER a 7\r\n"},
		{appendAlreadyJoined(nil, "g", "a", false), "ALREADY_JOINED g a\n"},
		{appendAlreadyJoined(nil, "g", "a", true), "ALREADY_JOINED g a\r\n"},
		{appendJoinFailed(nil, false), "JOIN_FAILED SERVICE_UNAVAILABLE\n"},
		{appendJoinFailed(nil, true), "JOIN_FAILED SERVICE_UNAVAILABLE\r\n"},
		{appendAlive(nil, 0, false), "ALIVE 0\n"},
		{appendAlive(nil, 1830999*time.Microsecond, true), "ALIVE 1830\r\n"},
		{appendError(nil, false), "ERROR\n"},
		{appendError(nil, true), "ERROR\r\n"},
		{appendError([]byte("x"), false), "xERROR\n"},
	} {
		if string(c.got) != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for _, longest := range [][]byte{
		appendAlreadyJoined(nil, long, long, true),
		appendFencedLeader(nil, long, 1<<64-1, true),
		appendAlive(nil, 1<<63-1, true),
	} {
		if len(longest) > maxAnswer {
			t.Errorf("an answer has %d bytes, more than maxAnswer, %d", len(longest), maxAnswer)
		}
	}
}

// FuzzCutLine: lines cut off an input are the input, whole or piece by piece.
func FuzzCutLine(f *testing.F) {
	f.Add([]byte("JOIN g a\r\nx\n\n"))
	f.Add(bytes.Repeat([]byte("x"), 1026))
	f.Fuzz(func(t *testing.T, input []byte) {
		line, size, crlf, err := cutLine(input)
		switch {
		case err != nil:
			if len(input) <= maxLine {
				t.Fatalf("%d bytes are too long", len(input))
			}
			return
		case size == 0:
			if len(input) >= maxInput || bytes.IndexByte(input, '\n') >= 0 {
				t.Fatalf("%q is not complete", input)
			}
			return
		}
		end := "\n"
		if crlf {
			end = "\r\n"
		}
		if got := string(line) + end; got != string(input[:size]) {
			t.Fatalf("cut %q off %q", got, input)
		}
		for n := range size {
			if _, early, _, err := cutLine(input[:n]); early != 0 || err != nil {
				t.Fatalf("%d of %d bytes: size %d, error %v", n, size, early, err)
			}
		}
	})
}

// FuzzParse: what is taken for a command means the same in its shortest form, and what one
// listener takes for a JOIN of a plain member the other does too.
func FuzzParse(f *testing.F) {
	f.Add([]byte("JOIN  g a "))
	f.Add([]byte("JOIN g"))
	f.Add([]byte("PING"))
	f.Add([]byte("LEAVE  "))
	f.Add([]byte("JOIN g a  fin=end hold=02000 key=0123456789abcdef"))
	f.Add([]byte("JOIN g key=0123456789abcdef"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, plain := parse(line, true), parse(line, false)
		if r.key == nil && r.verb <= verbJoin {
			if !reflect.DeepEqual(r, plain) {
				t.Fatalf("%q gives %+v, and %+v without extensions", line, r, plain)
			}
		} else if plain.verb != noVerb {
			t.Fatalf("%q gives %+v without extensions", line, plain)
		}
		var short string
		switch r.verb {
		case noVerb:
			return
		case verbPing:
			short = "PING"
		case verbLeave:
			short = "LEAVE"
		case verbJoin:
			if !isName(r.group) || !isName(r.client) {
				t.Fatalf("%q gives the names %q and %q", line, r.group, r.client)
			}
			if short = fmt.Sprintf("JOIN %s %s", r.group, r.client); r.key != nil {
				if len(r.key) < minKey || len(r.key) > maxKey || !isPrintable(r.key) || r.hold < 0 || r.hold > maxHold {
					t.Fatalf("%q gives %+v", line, r)
				}
				short += fmt.Sprintf(" key=%s hold=%d", r.key, r.hold.Milliseconds())
				if r.finEnds {
					short += " fin=end"
				}
			}
		}
		if again := parse([]byte(short), true); !reflect.DeepEqual(again, r) {
			t.Fatalf("%q gives %+v, but %q gives %+v", line, r, short, again)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	input := []byte("JOIN spark-masters worker-17.example.com:7077\r\n")
	b.ReportAllocs()
	for b.Loop() {
		line, _, _, err := cutLine(input)
		if err != nil || parse(line, false).verb != verbJoin {
			b.Fatal(err)
		}
	}
}
