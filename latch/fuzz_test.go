package latch_test

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// model answers a whole input as one connection to an empty server must: all
// bytes of the answer, and whether the server closes behind them. It knows the
// protocol only from PROTOCOL.md.
func model(input string) (answers string, closes bool) {
	var (
		join          = regexp.MustCompile("^JOIN +([!-~]{1,255}) +([!-~]{1,255}) *$")
		end           string
		group, client string
		joined        bool
		bad           int
	)
	for {
		line, rest, complete := strings.Cut(input, "\n")
		if len(strings.TrimSuffix(line, "\r")) > 1024 {
			if end == "" {
				end = "\n"
			}
			return answers + "ERROR" + end, true
		}
		if !complete {
			return answers, false
		}
		stripped := strings.TrimSuffix(line, "\r")
		if end == "" {
			end = line[len(stripped):] + "\n"
		}
		input = rest
		m := join.FindStringSubmatch(stripped)
		switch {
		case m == nil:
			answers += "ERROR" + end
			if bad++; !joined && bad == 16 {
				return answers, true
			}
		case joined:
			answers += "ALREADY_JOINED " + group + " " + client + end
		default:
			joined, group, client = true, m[1], m[2]
			answers += "LEADER " + client + end
		}
	}
}

// FuzzConnection sends an input, in two pieces, and compares with the model.
func FuzzConnection(f *testing.F) {
	f.Add([]byte("JOIN g a\r\nJOIN g b\n\n?\n"), uint16(3))
	f.Add([]byte(" JOIN g a\nJOIN  g  a  \n"), uint16(0))
	f.Add(bytes.Repeat([]byte("?\n"), 20), uint16(9))
	f.Add(append([]byte("JOIN g a\n"), bytes.Repeat([]byte("x"), 1030)...), uint16(1030))
	f.Add(append(bytes.Repeat([]byte("x"), 1024), "\r\nJOIN g a\n"...), uint16(1025))

	l, err := latch.Listen(f.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	e := latchtest.NewElections()
	s := latch.NewServer(latch.Config{Elections: e})
	go s.Serve(l)
	f.Cleanup(func() { s.Close(); e.Close() })

	f.Fuzz(func(t *testing.T, input []byte, cut uint16) {
		input = append(bytes.Clone(input), "\n?\n"...) // so that there is always an answer to wait for
		want, closes := model(string(input))
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		// A write may fail when the server has closed already.
		at := int(cut) % len(input)
		nc.Write(input[:at])
		nc.Write(input[at:])
		nc.SetDeadline(time.Now().Add(patience))
		got := make([]byte, len(want))
		if n, err := io.ReadFull(nc, got); err != nil {
			t.Fatalf("%q: got %q, error %v, want %q", input, got[:n], err, want)
		}
		if string(got) != want {
			t.Fatalf("%q: got %q, want %q", input, got, want)
		}
		if closes {
			if n, err := nc.Read(got[:1]); err != io.EOF {
				t.Fatalf("%q: then read %q, error %v, want the end", input, got[:n], err)
			}
		}
		nc.Close()
		eventually(t, "the connection is gone", func() bool { return s.Conns() == 0 }) // and its name free
	})
}
