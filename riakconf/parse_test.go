package riakconf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDiagnose(t *testing.T) {
	tests := []struct{ text, want string }{
		{"\uFEFFa = 1", "riak.conf:1: the file begins with a byte order mark"},
		{"a\x00 \x00=\x00", "riak.conf:1: this is not plain text"},
		{"a = 1\n[riak]\n", "riak.conf:2: there are no [sections]"},
		{"; c\n", "riak.conf:1: a comment begins with #"},
		{"// c\n", "riak.conf:1: a comment begins with #"},
		{"= 1\n", "riak.conf:1: no key before the ="},
		{"include \"x.conf\"\n", "riak.conf:1: an include takes one path"},
		{"a =\n", "riak.conf:1: no value after the ="},
		{"a = # b\n", "riak.conf:1: no value after the ="},
		{"a: 1\n", "riak.conf:1: use = between key and value"},
		{"a\n", "riak.conf:1: no = after the key"},
		{"a # = 1\n", "riak.conf:1: no = after the key"},
		{"node name = 1\n", `riak.conf:1: " " does not belong in a key`},
		{"listener.* = 1\n", `riak.conf:1: ".*" does not belong in a key`},
		{"a..b = 1\n", `riak.conf:1: ".." does not belong in a key`},
		{"a/b = 1\n", `riak.conf:1: "/" does not belong in a key`},
		{"é = 1\n", `riak.conf:1: "é" does not belong in a key`},
		{"<a>\n", "riak.conf:1: this is neither key = value nor a comment"},
		{"a = 1\r\n\r\nx = \xff\n", "riak.conf:3: byte 0xFF is not UTF-8"},
	}
	for _, tt := range tests {
		wantLines(t, tt.text, readProblems(t, write(t, "riak.conf", tt.text)), tt.want)
	}
}

func TestLatin1EndsAtFF(t *testing.T) {
	path := write(t, "riak.conf", "a = \u00ff\nb = \u0100\nc = \U0010ffff # \u0100\n")
	wantLines(t, "problems", readProblems(t, path),
		"riak.conf:2: b: the value has a character above U+00FF",
		"riak.conf:3: c: the value has a character above U+00FF")
}

// FuzzParse looks for texts on which the parser panics or hangs, whose
// settings are others when they are printed and read again, or whose errors
// name a line that does not exist.
func FuzzParse(f *testing.F) {
	addEdgeCases(f)
	f.Fuzz(func(t *testing.T, text string) {
		src := &source{path: "riak.conf", name: "riak.conf"}
		list, problems := parse(src, text)
		if list != nil && problems != nil {
			t.Errorf("settings and problems")
		}
		checkProblems(t, text, problems)
		again, problems := parse(src, printSettings(list))
		for _, p := range problems {
			t.Errorf("printed and read again: %v", p)
		}
		if !slices.EqualFunc(list, again, func(a, b setting) bool { return a.key == b.key && a.value == b.value }) {
			t.Errorf("%v, printed and read again %v", list, again)
		}
	})
}

// checkProblems checks that each problem is one line and names a line of text.
func checkProblems(t *testing.T, text string, problems []Problem) {
	t.Helper()
	for _, p := range problems {
		if p.Line < 1 || p.Line > lines(text) {
			t.Errorf("%v: there is no such line", p)
		}
		if strings.ContainsAny(p.Error(), "\n\r") {
			t.Errorf("%q is not one line", p.Error())
		}
	}
}

// addEdgeCases makes seeds of the files of the edge cases.
func addEdgeCases(f *testing.F) {
	files, _ := filepath.Glob(testdata + "/edge/*.conf")
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
}

// printSettings writes settings so that they are read as the same: with CR LF
// between the lines and nothing behind the last, for values that end in a
// carriage return, or in blanks at the end of the file.
func printSettings(list []setting) string {
	var lines []string
	for _, s := range list {
		if isInclude(s) {
			lines = append(lines, "include "+s.value)
		} else {
			lines = append(lines, s.key+" = "+s.value)
		}
	}
	return strings.Join(lines, "\r\n")
}
