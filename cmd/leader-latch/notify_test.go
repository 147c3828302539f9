package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// systemdSocket stands in for systemd: what it is told comes out of the
// connection.
func systemdSocket(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return l
}

func told(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 100)
	l.SetReadDeadline(time.Now().Add(patience))
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// systemd is told when the service serves and when it stops.
func TestNotify(t *testing.T) {
	l := systemdSocket(t)
	p := launch(t, t.TempDir())
	if got := told(t, l); got != "READY=1" {
		t.Fatalf("told %q at the start", got)
	}
	p.signal(syscall.SIGTERM)
	if got := told(t, l); got != "STOPPING=1" {
		t.Fatalf("told %q at the stop", got)
	}
	p.wantExit(exitOK)
}

func TestTheServiceFeedsTheWatchdog(t *testing.T) {
	l := systemdSocket(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	p := launch(t, t.TempDir())
	states := []string{told(t, l), told(t, l), told(t, l)}
	if want := []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"}; !slices.Equal(states, want) {
		t.Fatalf("told %q, want %q", states, want)
	}
	p.signal(syscall.SIGTERM)
	for told(t, l) != "STOPPING=1" {
	}
	p.wantExit(exitOK)
}

// What is not healthy is not reported, and what hangs is not either.
func TestTheWatchdogIsFedByTheHealthyOnly(t *testing.T) {
	l := systemdSocket(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	answers := make(chan bool)
	stop := startWatchdog(func() bool { return <-answers })
	for _, healthy := range []bool{false, true, false, false} {
		answers <- healthy // the one before has been dealt with
	}
	if got := told(t, l); got != "WATCHDOG=1" {
		t.Errorf("told %q", got)
	}
	stop()
	close(answers) // answers false
	notify("the end")
	if got := told(t, l); got != "the end" {
		t.Errorf("told %q as well, for one yes", got)
	}
}

func TestNoWatchdogUnlessItIsForThisProcess(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"20000000", "", 20 * time.Second},
		{"20000000", strconv.Itoa(os.Getpid()), 20 * time.Second},
		{"20000000", "1", 0},
		{"", "", 0},
		{"0", "", 0},
		{"-1", "", 0},
		{"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := watchdogTime(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}
