package session

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reading is what a machine's clocks show at one moment. Readings of different
// processes do not compare.
//
// The clocks disagree a little: BOOTTIME counts suspend, MONOTONIC does not,
// MONOTONIC_RAW is not slewed towards the right time. Whoever measures errs
// to the safe side (DESIGN.md, rule 7): a node takes its own lease for
// older than it may be, the session of another one for younger. The wall clock
// measures nothing; it only tells when the others may have stood still.
type Reading struct {
	Boot, Mono, Raw time.Duration
	Wall            time.Duration // since 1970
}

// AtMost is the longest that may have passed between two readings.
func (r Reading) AtMost(since Reading) time.Duration {
	return max(r.Boot-since.Boot, r.Raw-since.Raw)
}

// AtLeast is the shortest that may have passed between two readings.
func (r Reading) AtLeast(since Reading) time.Duration {
	return min(r.Mono-since.Mono, r.Raw-since.Raw)
}

// Later is the reading a while after r.
func (r Reading) Later(d time.Duration) Reading {
	return Reading{r.Boot + d, r.Mono + d, r.Raw + d, r.Wall + d}
}

// Jump is how far the wall clock has moved between two readings beside what
// passed.
func (r Reading) Jump(since Reading) time.Duration {
	return ((r.Wall - since.Wall) - (r.Mono - since.Mono)).Abs()
}

// Now reads the machine's clocks.
func Now() Reading { return clocks() }

// clocks is what a node reads. Tests of faults set the wall clock of one node by it.
var clocks = readClocks

// readClocks reads the machine's clocks. Two of them Go reads without a system call. boot
// is the kernel's, as the dead-man's switch is set by it.
func readClocks() Reading {
	return Reading{
		Boot: gettime(unix.CLOCK_BOOTTIME),
		Mono: time.Since(firstReading),
		Raw:  gettime(unix.CLOCK_MONOTONIC_RAW),
		Wall: time.Duration(time.Now().UnixNano()),
	}
}

// firstReading is where mono begins to count: Go shows its CLOCK_MONOTONIC as a
// difference only.
var firstReading = time.Now()

// gettime does without the scheduler of Go, which is told of a system call that may
// wait, and has a thread of its own wake up to watch it: this one never waits.
func gettime(clock uintptr) time.Duration {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("ensemble: a clock that every Linux has cannot be read: " + errno.Error())
	}
	return time.Duration(ts.Nano())
}
