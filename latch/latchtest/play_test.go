package latchtest

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// recorder is a testing.TB that keeps the first failure.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	if r.failure == "" {
		r.failure = fmt.Sprintf(format, args...)
	}
	panic(r)
}

// failure plays a script against handle, which serves one connection, and
// returns how it failed.
func failure(t *testing.T, script string, handle func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		handle(c)
	}()
	s, err := Parse("x.txt", []byte("# claim\n"+script))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		Play(r, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }, s)
	}()
	<-done
	return r.failure
}

// says is a server that answers the first line that it reads with a text, all
// others with ERROR, and the end with the texts that are left.
func says(text string, last ...string) func(net.Conn) {
	wrong := "ERROR\n"
	if strings.HasSuffix(text, "\r\n") {
		wrong = "ERROR\r\n"
	}
	return func(c net.Conn) {
		answer := text
		for lines := bufio.NewScanner(c); lines.Scan(); answer = wrong {
			c.Write([]byte(answer))
		}
		for _, text := range last {
			c.Write([]byte(text))
		}
	}
}

// TestPlayFails: a transcript that is not what happens fails, at its line.
func TestPlayFails(t *testing.T) {
	ends := func(linger int) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 100))
			c.(*net.TCPConn).SetLinger(linger)
		}
	}
	for _, c := range []struct {
		name, script string
		server       func(net.Conn)
		want         string // how the failure begins; empty: none
	}{
		{"as it should be", "1> a\n1< b\n", says("b\n"), ""},
		{"another line", "1> a\n1< b\n", says("c\n"), `x.txt:3: got "c\n", want "b\n"`},
		{"a longer line", "1> a\n1< LEADER 1\n", says("LEADER 12\n"), `x.txt:3: got "LEADER 12\n", want "LEADER 1\n"`},
		{"a shorter line", "1> a\n1< LEADER 12\n", says("LEADER 1\n"), `x.txt:3: got "LEADER 1\n", want "LEADER 12\n"`},
		{"numbers", "1> a\n1< b <t1> <t2> <t1> <ms>\n", says("b 7 9 7 1\n"), ""},
		{"numbers, and CRLF", "1>> \"a\\r\\n\"\n1< b <ms>\n", says("b 7\r\n"), ""},
		{"no number", "1> a\n1< b <ms>\n", says("b x\n"), `x.txt:3: got "b x\n", want "b <ms>"`},
		{"a number that is another", "1> a\n1< b <t1> <t1>\n", says("b 7 8\n"), `x.txt:3: got "b 7 8\n", want "b <t1> <t1>": <t1> is 7`},
		{"two numbers that are one", "1> a\n1< b <t1> <t2>\n", says("b 7 7\n"), `x.txt:3: got "b 7 7\n", want "b <t1> <t2>": <t1> is 7`},
		{"numbers that fall", "1> a\n1< b <t1> <t2>\n", says("b 7 6\n"), `x.txt:3: got "b 7 6\n", want "b <t1> <t2>": <t1> is 7`},
		{"more behind a number", "1> a\n1< b <ms>\n", says("b 7 8\n"), `x.txt:3: got "b 7 8\n"`},
		{"the end for a number", "1> a\n1< b <ms>\n", ends(-1), `x.txt:3: got the end`},
		{"another line end", "1> a\n1< b\n", says("b\r\n"), `x.txt:3: got "b\r\n", want "b\n"`},
		{"the line end that was sent", "1>> \"a\\r\\n\"\n1< b\n", says("b\r\n"), ""},
		{"a line too many", "1> a\n1< b\n", says("b\nc\n"), `x.txt: at the end of the script, connection 1: got "c\n", want "ERROR\n"`},
		{"an ERROR too many", "1> a\n1< b\n1> c\n1< ERROR\n", says("b\nERROR\n"), "x.txt: after the script, connection 1: got \"ERROR\\n\", want the end"},
		{"a new leader because others left", "1> a\n1< b\n", says("b\n", "LEADER x\n"), ""},
		{"other bytes", "1> a\n1<< \"bc\"\n", says("bd\n"), `x.txt:3: got "bd\n", want "bc"`},
		{"the end", "1> a\n1< (closed)\n", ends(-1), ""},
		{"a reset for the end", "1> a\n1< (closed)\n", ends(0), "x.txt:3: got read tcp"},
		{"the end for a line", "1> a\n1< b\n", ends(-1), `x.txt:3: got the end of the connection, want "b\n"`},
		{"a line for the end", "1> a\n1< (closed)\n", says("b\n"), `x.txt:3: got "b\n", want the end`},
		{"a half close that is not answered", "1. half-close\n", says("", "b\n"), `x.txt: at the end of the script, connection 1: got "b\n", want the end`},
	} {
		got := failure(t, c.script, c.server)
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: failed with %q, want %q", c.name, got, c.want)
		}
	}
}
