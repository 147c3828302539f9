package latch_test

import (
	"net"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"
)

// loadTranscripts loads all transcripts of the protocol.
func loadTranscripts(t *testing.T) []*latchtest.Script {
	t.Helper()
	all, err := latchtest.Load("../testdata/protocol")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTranscripts(t *testing.T) {
	for _, script := range loadTranscripts(t) {
		t.Run(script.Claim, func(t *testing.T) {
			t.Parallel()
			f := serveFor(t, script)
			latchtest.Play(t, func() (net.Conn, error) { return net.Dial("tcp", f.addr) }, script)
		})
	}
}

// serveFor starts a server with the settings that a script asks for.
func serveFor(t *testing.T, script *latchtest.Script) *fixture {
	available := true
	f := serve(t, func(cfg *latch.Config) {
		for _, s := range script.Settings {
			switch s.Key {
			case "leader_latch.join_timeout":
				cfg.JoinTimeout = duration(t, script, s)
			case "leader_latch.idle_timeout":
				cfg.IdleTimeout = duration(t, script, s)
			case "leader_latch.extensions.internal":
				cfg.Extensions = s.Value == "on"
			case "strong_consistency":
				available = s.Value == "on"
			case "leader_latch.minimum_nodes":
				available = s.Value == "1"
			default:
				t.Fatalf("%s:%d: this test cannot set %s", script.File, s.Line, s.Key)
			}
		}
	})
	f.e.SetAvailable(available)
	return f
}

func duration(t *testing.T, script *latchtest.Script, s latchtest.Setting) time.Duration {
	d, err := time.ParseDuration(s.Value)
	if err != nil {
		t.Fatalf("%s:%d: %v", script.File, s.Line, err)
	}
	return d
}
