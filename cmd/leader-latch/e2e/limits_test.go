package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// launchWith is launch with this limit of open files.
func launchWith(t *testing.T, files int, dir string, lines ...string) *proc {
	t.Helper()
	return launchBy(t, dir, lines, func(p *proc) *exec.Cmd {
		serve := p.program("serve")
		cmd := exec.Command("sh", append([]string{"-ec", `ulimit -n "$1"; shift; exec "$@"`, "sh", strconv.Itoa(files)}, serve.Args...)...)
		cmd.Env = serve.Env
		return cmd
	})
}

// Who set more connections than are served learns it from the log, as which limit to change.
func TestTheLogSaysWhyFewerConnectionsAreServed(t *testing.T) {
	t.Parallel()
	p := launchWith(t, 500, t.TempDir(), "leader_latch.max_connections = 1000")
	want := `[warning] fewer connections are served than leader_latch.max_connections says: the limit of open files is 500, and it takes 1435; raise it (LimitNOFILE of the unit, ulimit -n) served=313`
	p.until("it says so", func() bool { return strings.Contains(p.logText(), want) })
}

// However many clients come, there are descriptors for the disk, the peers and the
// operator: what is over the limit is refused, and the node goes on.
func TestClientsDoNotUseUpTheDescriptors(t *testing.T) {
	const files, served = 200, 125 // the others are kept for what is no client, and to refuse in words
	t.Parallel()
	p := launchWith(t, files, t.TempDir())
	p.ready()
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
