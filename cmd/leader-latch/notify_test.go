package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/systemdtest"
)

// What is not healthy is not reported, and what hangs is not either.
func TestTheWatchdogIsFedByTheHealthyOnly(t *testing.T) {
	systemd := systemdtest.Listen(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	answers := make(chan bool)
	stop := startWatchdog(func() bool { return <-answers })
	for _, healthy := range []bool{false, true, false, false} {
		answers <- healthy // the one before has been dealt with
	}
	if got := systemd.Told(); got != "WATCHDOG=1" {
		t.Errorf("told %q", got)
	}
	stop()
	close(answers) // answers false
	notify("the end")
	if got := systemd.Told(); got != "the end" {
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
