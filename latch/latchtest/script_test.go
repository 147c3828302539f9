package latchtest

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s, err := Parse("x.txt", []byte(`# the claim

# rule 7
# rule 12
# more about it
@ leader_latch.join_timeout = 500ms
@ strong_consistency = off
1> JOIN g a
1< LEADER a
1>
1< (closed)
1<  (closed)
12>> "a\r\n" "\"b"*3
12<< "\x00"
12. half-close
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Script{
		File:     "x.txt",
		Claim:    "the claim",
		Rules:    []int{7, 12},
		Settings: []Setting{{"leader_latch.join_timeout", "500ms", 6}, {"strong_consistency", "off", 7}},
		steps: []step{
			{8, "1", sendLine, []byte("JOIN g a")},
			{9, "1", expectLine, []byte("LEADER a")},
			{10, "1", sendLine, []byte{}},
			{11, "1", expectEnd, []byte("(closed)")},
			{12, "1", expectLine, []byte(" (closed)")},
			{13, "12", sendBytes, []byte("a\r\n\"b\"b\"b")},
			{14, "12", expectBytes, []byte{0}},
			{15, "12", actHalf, []byte("half-close")},
		},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"1> JOIN g a\n", "x.txt: no comment"},
		{"# c\nJOIN g a\n", "x.txt:2: \"JOIN g a\" is no line"},
		{"# c\n1>JOIN g a\n", "x.txt:2:"},
		{"# c\n\n1. explode\n", "x.txt:3: \"explode\" is neither"},
		{"# c\n1>> JOIN\n", "x.txt:2: JOIN is not a quoted string"},
		{"# c\n1>> \"\\q\"\n", "x.txt:2: \"\\q\" is not a Go string"},
		{"# c\n1>> \"a\"\"b\"\n", "x.txt:2:"},
		{"# c\n1>>\n", "x.txt:2: no bytes"},
		{"# c\n@ key\n", "x.txt:2:"},
	} {
		_, err := Parse("x.txt", []byte(c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
	}
}
