package main

import (
	"math"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
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
	t.Setenv(openFilesOfProgram, "500") // so it is no parallel test
	p := launch(t, t.TempDir(), "leader_latch.max_connections = 1000")
	want := `[warning] fewer connections are served than leader_latch.max_connections says: the limit of open files is 500, and it takes 1435; raise it (LimitNOFILE of the unit, ulimit -n) served=313`
	p.until("it says so", func() bool { return strings.Contains(p.logText(), want) })
}

// However many clients come, there are descriptors for the disk, the peers and the
// operator: what is over the limit is refused, and the node goes on.
func TestClientsDoNotUseUpTheDescriptors(t *testing.T) {
	const files = 200
	t.Setenv(openFilesOfProgram, strconv.Itoa(files)) // so it is no parallel test
	p := start(t, t.TempDir())
	served, _ := connectionLimits(0, files, session.Calm.MaxMembers())
	var all []*conn
	for range 2 * files { // more than there are descriptors
		all = append(all, p.dial())
	}
	joined, refused := 0, 0
	for i, c := range all {
		c.send("JOIN g%d a\n", i)
		c.SetReadDeadline(time.Now().Add(patience))
		switch line, err := c.r.ReadString('\n'); {
		case line == "LEADER a\n":
			joined++
		case line == "JOIN_FAILED SERVICE_UNAVAILABLE\n" || line == "" && !isTimeout(err):
			refused++
			c.Close()
		default:
			t.Fatalf("read %q, %v", line, err)
		}
	}
	if joined != served || refused == 0 {
		t.Errorf("%d joined and %d refused, want %d joined", joined, refused, served)
	}
	if groups := p.groups(); len(groups) != served {
		t.Errorf("%d groups, want %d", len(groups), served)
	}
	all[0].Close()
	p.until("there is room again", func() bool {
		c := p.dial()
		defer c.Close()
		c.send("JOIN new a\n")
		line, _ := c.r.ReadString('\n')
		return line == "LEADER a\n"
	})
	if strings.Contains(p.logText(), "session lost") {
		t.Error("the node lost its session")
	}
}

// A client that asks again at once, however often it is refused, leaves the log readable.
func TestAClientInALoopDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	p := launch(t, t.TempDir(), "leader_latch.minimum_nodes = 3")
	const attempts = 1000
	for range attempts {
		c := p.dial()
		c.send("JOIN g loop\n")
		c.want("JOIN_FAILED SERVICE_UNAVAILABLE")
		c.Close()
	}
	p.until("groups knows that there are none, though nobody is elected yet", func() bool {
		_, hint := p.outputs("groups")
		return hint == ""
	})
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	log := p.logText()
	lines := strings.Count(log, "JOIN refused")
	if sum := strings.Count(log, "\n"); lines == 0 || lines > 10 || sum > 40 {
		t.Errorf("%d lines, %d of them of %d refusals", sum, lines, attempts)
	}
}
