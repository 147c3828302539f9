package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked for the kernel may wake a thread of the
// service, so as to wake it for several things at once (prctl(2)). Late timers are part
// of C, of which this is the 150th part at most.
//
// Go's runtime has a thread that looks after the others, every 20 us while they work
// and for a while afterwards (golang/go#18236). With the kernel's 50 us of slack that
// thread alone was a sixth of the work of three nodes, and on a machine of two cores it
// pushed aside what a JOIN was waiting for.
const timerSlack = time.Millisecond

// relaxed is set in the environment of a program that is executed anew, so that it is
// at most once.
const relaxed = "LEADER_LATCH_RELAXED"

// relaxTimers gives all threads of this process timerSlack. A thread has it from the
// one that started it, and Go's runtime has started its own before main: so the program
// is executed anew in this process, with its arguments and environment. Where the
// kernel does not allow the one or the other, the service does without.
func relaxTimers() {
	again := os.Getenv(relaxed) != ""
	os.Unsetenv(relaxed)
	runtime.LockOSThread() // the thread that has the slack is the one that goes on
	defer runtime.UnlockOSThread()
	if again || currentSlack() == timerSlack {
		return
	}
	program, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil || currentSlack() != timerSlack {
		return // real-time threads have no slack
	}
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return
	}
	syscall.Exec(program, os.Args, append(os.Environ(), relaxed+"=1"))
	// It has failed, having put the limit of open files back to what it was before Go
	// raised it.
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
}

// currentSlack is that of the calling thread, negative where the kernel does not tell.
func currentSlack() time.Duration {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return -1
	}
	return time.Duration(slack)
}
