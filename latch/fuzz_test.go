package latch_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// model answers a whole input as one connection to an empty server must: all
// bytes of the answer, and whether the server closes behind them. It knows the
// protocol only from PROTOCOL.md. token is that of the next leader on a listener with
// extensions; 0: it has none.
func model(input string, token int) (answers string, closes, joined bool) {
	var (
		join          = regexp.MustCompile("^JOIN +([!-~]{1,255}) +([!-~]{1,255}) *$")
		keyed         = regexp.MustCompile("^JOIN +([!-~]{1,255}) +([!-~]{1,255})((?: +(?:key=[!-~]{16,64}|hold=[0-9]{1,7}|fin=end))+) *$")
		end           string
		group, client string
		alive         string // the answer to PING; of keyed members only
		bad           int
		observe       = regexp.MustCompile("^OBSERVE +[!-~]{1,255} *$")
		observes      bool
	)
	for {
		line, rest, complete := strings.Cut(input, "\n")
		if len(strings.TrimSuffix(line, "\r")) > 1024 {
			if end == "" {
				end = "\n"
			}
			return answers + "ERROR" + end, true, joined
		}
		if !complete {
			return answers, false, joined
		}
		stripped := strings.TrimSuffix(line, "\r")
		if end == "" {
			end = line[len(stripped):] + "\n"
		}
		input = rest
		m := join.FindStringSubmatch(stripped)
		lasts := ""
		if k := keyed.FindStringSubmatch(stripped); k != nil && token > 0 {
			words := map[string][]string{}
			for _, word := range strings.Fields(k[3]) {
				name, value, _ := strings.Cut(word, "=")
				words[name] = append(words[name], value)
			}
			if len(words["key"]) == 1 && len(words["hold"]) == 1 && len(words["fin"]) <= 1 {
				if ms, _ := strconv.Atoi(words["hold"][0]); ms <= 3_600_000 {
					m, lasts = k, fmt.Sprint("ALIVE ", min(ms, int(latchtest.Expiry.Milliseconds())))
				}
			}
		}
		switch word := strings.TrimRight(stripped, " "); {
		case observes && word == "LEAVE":
			return answers, true, true
		case observes:
			answers += "ERROR" + end
		case token > 0 && !joined && observe.MatchString(stripped):
			joined, observes = true, true
			answers += fmt.Sprint("NO_LEADER ", token, end)
		case m != nil && joined:
			answers += "ALREADY_JOINED " + group + " " + client + end
		case m != nil:
			joined, group, client, alive = true, m[1], m[2], lasts
			answers += "LEADER " + client
			if token > 0 {
				answers += fmt.Sprint(" ", token)
			}
			answers += end
		case word == "PING" && alive != "":
			answers += alive + end
		case word == "LEAVE" && joined && token > 0:
			return answers, true, true
		default:
			answers += "ERROR" + end
			if bad++; !joined && bad == 16 {
				return answers, true, joined
			}
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
	f.Add([]byte("JOIN g a key=0123456789abcdef hold=0\nPING\nLEAVE\n"), uint16(20))
	fuzzConnection(f, false)
}

// FuzzKeyedConnection does so on a listener with extensions.
func FuzzKeyedConnection(f *testing.F) {
	f.Add([]byte("PING\nJOIN g a key=0123456789abcdef hold=0\nPING\n?\nLEAVE\nPING\n"), uint16(20))
	f.Add([]byte("LEAVE\r\nJOIN g a fin=end hold=0002000   key=0123456789abcdef \r\nPING \r\nJOIN g a\r\n"), uint16(50))
	f.Add([]byte("JOIN g a key=0123456789abcdef\nJOIN g a hold=0\nJOIN g a\nPING\nLEAVE \n"), uint16(3))
	f.Add([]byte("JOIN g a key=0123456789abcdef hold=3600001\nJOIN g a key=0123456789abcdef hold=1 key=0123456789abcdef\n"), uint16(7))
	f.Add([]byte("JOIN g key=0123456789abcdef\nJOIN g b key=0123456789abcdef hold=5 fin=end\nPING\n"), uint16(9))
	fuzzConnection(f, true)
}

func fuzzConnection(f *testing.F, extensions bool) {
	l, err := latch.Listen(f.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	e := latchtest.NewElections()
	s := latch.NewServer(latch.Config{Elections: e, Extensions: extensions, MaxPings: 1_000_000})
	go s.Serve(l)
	f.Cleanup(func() { s.Close(); e.Close() })
	token := 0
	if extensions {
		token = 1
	}

	f.Fuzz(func(t *testing.T, input []byte, cut uint16) {
		input = append(bytes.Clone(input), "\n?\n"...) // so that there is always an answer to wait for
		want, closes, joined := model(string(input), token)
		if joined && extensions {
			token++
		}
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
			if n, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("%q: then read %d bytes, error %v, want the end", input, n, err)
			}
		}
		nc.Close()
		eventually(t, "the connection is gone", func() bool { return s.Conns() == 0 }) // and its name free
		e.EndHolds()
	})
}
