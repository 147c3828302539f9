package e2e

import (
	"slices"
	"syscall"
	"testing"

	"leaderlatch/cmd/leader-latch/internal/systemdtest"
)

// systemd is told when the service serves and when it stops.
func TestNotify(t *testing.T) {
	systemd := systemdtest.Listen(t)
	p := launch(t, t.TempDir())
	if got := systemd.Told(); got != "READY=1" {
		t.Fatalf("told %q at the start", got)
	}
	p.signal(syscall.SIGTERM)
	if got := systemd.Told(); got != "STOPPING=1" {
		t.Fatalf("told %q at the stop", got)
	}
	p.wantExit(exitOK)
}

func TestTheServiceFeedsTheWatchdog(t *testing.T) {
	systemd := systemdtest.Listen(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	p := launch(t, t.TempDir())
	states := []string{systemd.Told(), systemd.Told(), systemd.Told()}
	if want := []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"}; !slices.Equal(states, want) {
		t.Fatalf("told %q, want %q", states, want)
	}
	p.signal(syscall.SIGTERM)
	for systemd.Told() != "STOPPING=1" {
	}
	p.wantExit(exitOK)
}
