package main

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// A port may come free and an address come up; a privilege does not, whichever of the
// ports needs it.
func TestExitCodesOfPorts(t *testing.T) {
	for errno, want := range map[syscall.Errno]int{
		syscall.EADDRINUSE:    exitFailed,
		syscall.EADDRNOTAVAIL: exitFailed,
		syscall.EACCES:        exitPermanent,
	} {
		err := fmt.Errorf("riak.conf:1: leader_latch.cluster_listener: %w", explainBind("127.0.0.1:80", errno))
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
		if got := exitCode(errors.Join(errors.New("another one"), err)); got != want {
			t.Errorf("one of two, %v: exit code %d, want %d", err, got, want)
		}
	}
	if got := exitCode(syscall.EACCES); got != exitFailed {
		t.Errorf("no port: exit code %d, want %d", got, exitFailed)
	}
}
