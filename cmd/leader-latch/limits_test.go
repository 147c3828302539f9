package main

import (
	"math"
	"testing"

	"leaderlatch/riakconf"
)

func TestConnectionLimits(t *testing.T) {
	for _, c := range []struct{ set, files, members, served, surplus int }{
		{0, 1024, 40000, 640, 128},
		{0, 20000, 40000, 18744, 1000},
		{0, 1 << 20, 40000, 40000, 1000}, // no more than are closed in time
		{0, math.MaxInt32, 120000, 120000, 1000},
		{100, 1024, 40000, 100, 128},
		{5000, 1024, 40000, 640, 128}, // what is set does not make descriptors
		{0, 64, 40000, 40, 8},
	} {
		served, surplus := connectionLimits(c.set, c.files, c.members)
		if served != c.served || surplus != c.surplus {
			t.Errorf("%+v: got %d and %d", c, served, surplus)
		}
	}
}

// Who set more connections than are served learns which limit to change, and to what.
func TestWhyFewerConnectionsAreServed(t *testing.T) {
	conf := &riakconf.Config{MaxConnections: 30000, Timing: "normal"}
	for _, c := range []struct {
		files, members int
		want           string
	}{
		{20000, 40000, "the limit of open files is 20000, and it takes 31256; raise it (LimitNOFILE of the unit, ulimit -n)"},
		{1 << 20, 16000, "a node closes no more than 16000 in time with leader_latch.timing = normal; set no more, or a calmer timing"},
		{1024, 16000, "a node closes no more than 16000 in time with leader_latch.timing = normal; set no more, or a calmer timing"},
	} {
		if got := fewerBecause(conf, c.files, c.members); got != c.want {
			t.Errorf("%d files, %d members: %s", c.files, c.members, got)
		}
	}
	if served, _ := connectionLimits(conf.MaxConnections, 31256, 40000); served != conf.MaxConnections {
		t.Errorf("with the limit that is named %d are served", served)
	}
}
