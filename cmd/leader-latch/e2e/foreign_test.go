package e2e

import (
	"strings"
	"testing"
)

// The operator learns why clients behind a proxy never join.
func TestOtherProtocolsAreLogged(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	for sent, logged := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5323\r\n":                                       "the PROXY protocol, version 1",
		"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x14\xcb": "the PROXY protocol, version 2",
		"GET / HTTP/1.1\r\n\r\n": "it speaks HTTP",
	} {
		c := p.dial()
		c.send("%s", sent)
		c.want("ERROR\r")
		p.until("the log names "+logged, func() bool {
			_, line, _ := strings.Cut(p.logText(), "[warning] a client speaks another protocol listener=internal reason=")
			return strings.Contains(line, logged)
		})
	}
}
