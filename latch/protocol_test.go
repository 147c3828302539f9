package latch

import (
	"bytes"
	"strings"
	"testing"
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
		group, client, ok := parseJoin([]byte(c.line))
		if string(group) != c.group || string(client) != c.client || ok != c.ok {
			t.Errorf("%q: got %q, %q, %v, want %q, %q, %v", c.line, group, client, ok, c.group, c.client, c.ok)
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

// FuzzParseJoin: what is taken for a JOIN means the same in its shortest form.
func FuzzParseJoin(f *testing.F) {
	f.Add([]byte("JOIN  g a "))
	f.Add([]byte("JOIN g"))
	f.Fuzz(func(t *testing.T, line []byte) {
		group, client, ok := parseJoin(line)
		if !ok {
			return
		}
		if !isName(group) || !isName(client) {
			t.Fatalf("%q gives the names %q and %q", line, group, client)
		}
		short := []byte("JOIN " + string(group) + " " + string(client))
		g, c, ok := parseJoin(short)
		if !ok || !bytes.Equal(g, group) || !bytes.Equal(c, client) {
			t.Fatalf("%q gives %q and %q, but %q gives %q, %q, %v", line, group, client, short, g, c, ok)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	input := []byte("JOIN spark-masters worker-17.example.com:7077\r\n")
	b.ReportAllocs()
	for b.Loop() {
		line, _, _, err := cutLine(input)
		if _, _, ok := parseJoin(line); err != nil || !ok {
			b.Fatal(err)
		}
	}
}
