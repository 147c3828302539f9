package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// notify tells systemd how the service is, if it runs under systemd
// (sd_notify(3)).
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if filepath.IsAbs(name) || strings.HasPrefix(name, "@") {
		if c, err := net.Dial("unixgram", name); err == nil {
			c.Write([]byte(state))
			c.Close()
		}
	}
}

// startWatchdog tells systemd again and again that the service is well, if the
// unit has a watchdog (WatchdogSec), until stop is called. It does not tell it
// while healthy says no or does not return; systemd then kills the process. So
// healthy is to go where a hung service hangs, and to say yes to all that a
// new start would not cure, such as a lost majority.
func startWatchdog(healthy func() bool) (stop func()) {
	within := watchdogTime()
	if within == 0 {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		// Half of the time is what sd_watchdog_enabled(3) asks for; a third
		// leaves room for a machine that is busy.
		t := time.NewTicker(within / 3)
		defer t.Stop()
		for ctx.Err() == nil {
			if healthy() {
				notify("WATCHDOG=1")
			}
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
	}()
	return stop
}

// watchdogTime is how long systemd waits to be told before it kills this
// process, or 0 if it does not.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // meant for the process that started this one
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
