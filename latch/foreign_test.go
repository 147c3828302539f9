package latch_test

import (
	"crypto/tls"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Who speaks another protocol is answered as anybody is whose lines are no commands, and the
// operator is told what it is and what to do: else clients behind a proxy never join, and
// nothing says why.
func TestOtherProtocolsAreRecognized(t *testing.T) {
	const proxy2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x14\xcb"
	for name, c := range map[string]struct{ sends, answers, told string }{
		"PROXY protocol 1":         {"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5323\r\nJOIN g a\n", "ERROR\r\nLEADER a\r\n", "it sends the PROXY protocol, version 1; have the proxy in front send none (HAProxy: no send-proxy)"},
		"PROXY protocol 2":         {proxy2 + "JOIN g a\n", strings.Repeat("ERROR\r\n", 5), "it sends the PROXY protocol, version 2; have the proxy in front send none (HAProxy: no send-proxy-v2)"},
		"HTTP":                     {"GET / HTTP/1.1\r\nHost: node\r\n\r\n", strings.Repeat("ERROR\r\n", 3), "it speaks HTTP; if it is a health check, have it only connect"},
		"HTTP/2":                   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("ERROR\r\n", 4), "it speaks HTTP;"},
		"TLS":                      {"\x16\x03\x01\x00\x05\x01\x00\x00\n", "ERROR\n", "it speaks TLS; have the client, or the proxy in front, connect without"},
		"names like HTTP's":        {"JOIN GET HTTP/1.1\n", "LEADER HTTP/1.1\n", ""},
		"a slip":                   {"join g a\n", "ERROR\n", ""},
		"HTTP behind a first line": {"HELLO\nGET / HTTP/1.1\n", "ERROR\nERROR\n", ""},
		"PROXY without more":       {"PROXY\n", "ERROR\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t)
			client := f.dial()
			if _, err := client.Write([]byte(c.sends)); err != nil {
				t.Fatal(err)
			}
			for want := range strings.Lines(c.answers) {
				if got, err := client.line(); err != nil || got != want {
					t.Fatalf("answered %q, error %v, want %q", got, err, want)
				}
			}
			client.send("GET / HTTP/1.1") // only the beginning says what a client speaks
			if got, err := client.line(); err != nil || strings.TrimRight(got, "\r\n") != "ERROR" {
				t.Fatalf("answered %q, error %v, want ERROR", got, err)
			}
			client.Close()
			f.s.Close()
			told := f.log.lines("another protocol")
			if c.told == "" {
				if len(told) > 0 {
					t.Errorf("logged %q", told)
				}
				return
			}
			if len(told) != 1 || !strings.Contains(told[0], "level=WARN") || !strings.Contains(told[0], `reason="`+c.told) || !strings.Contains(told[0], " remote=127.0.0.1:") {
				t.Errorf("logged %q, want one warning with %s", told, c.told)
			}
		})
	}
}

// A real client of TLS, whose first record is as it likes it.
func TestARealTLSClientIsRecognized(t *testing.T) {
	f := serve(t)
	c := f.dial()
	c.SetDeadline(time.Now().Add(patience))
	go tls.Client(c.TCPConn, &tls.Config{InsecureSkipVerify: true}).Handshake()
	eventually(t, "a warning", func() bool { return len(f.log.lines("it speaks TLS;")) == 1 })
}

// A health check in a loop has a line at once, and then one in an interval with their number.
func TestOtherProtocolsAreGathered(t *testing.T) {
	f := serve(t)
	const times = 50
	for range times {
		c := f.dial()
		c.send("GET /health HTTP/1.0")
		c.want("ERROR")
		c.Close()
	}
	f.s.Close()
	sum := 0
	told := f.log.lines("it speaks HTTP;")
	for _, line := range told {
		n, _ := strconv.Atoi(regexp.MustCompile(`count=(\d+) `).FindStringSubmatch(line)[1])
		sum += n
	}
	if len(told) > times/2 || sum != times {
		t.Errorf("in all %q, want few lines and all %d of them", told, times)
	}
}
