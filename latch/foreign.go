package latch

import (
	"bytes"
	"log/slog"
)

// foreign is which other protocol the first bytes of a connection look like, and what to do
// about it; "" if they look like none that is known. They are answered as any others are. This
// is for the operator, who would see no more than clients that never join. Who speaks one of
// these sends its beginning in one piece.
func foreign(first []byte) string {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	switch {
	case bytes.HasPrefix(first, []byte(wordJoin+" ")): // nearly all
		return ""
	case bytes.HasPrefix(first, []byte("\r\n\r\n\x00\r\nQUIT\n")):
		return "it sends the PROXY protocol, version 2; have the proxy in front send none (HAProxy: no send-proxy-v2)"
	case bytes.HasPrefix(first, []byte("PROXY ")):
		return "it sends the PROXY protocol, version 1; have the proxy in front send none (HAProxy: no send-proxy)"
	case len(first) > 2 && first[0] == tlsHandshake && first[1] == tlsMajor:
		return "it speaks TLS; have the client, or the proxy in front, connect without"
	case isRequest(line):
		return "it speaks HTTP; if it is a health check, have it only connect"
	}
	return ""
}

// A record of TLS begins with its type and the major version, which is the same in all of them.
const (
	tlsHandshake = 22
	tlsMajor     = 3
)

// isRequest reports whether a line is that with which a request of HTTP begins: METHOD
// target HTTP/1.1.
func isRequest(line []byte) bool {
	words := bytes.Fields(line)
	return len(words) == 3 && bytes.HasPrefix(words[2], []byte("HTTP/"))
}

// recognize tells the operator that a client speaks another protocol, of whom there may be very
// many. It is called with the first input, before any of it is answered.
func (c *conn) recognize() {
	c.recognized = true
	what := foreign(c.in)
	if what == "" {
		return
	}
	remote := func() []slog.Attr { return []slog.Attr{slog.String("remote", c.nc.RemoteAddr().String())} }
	if write := c.srv.tally.warn("a client speaks another protocol", what, remote); write != nil {
		c.srv.running.Go(write) // a log may wait for its disk
	}
}
