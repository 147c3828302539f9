package ensemble

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reading is what a machine's clocks show at one moment. Readings of different
// processes do not compare.
//
// The clocks disagree a little: BOOTTIME counts suspend, MONOTONIC does not,
// MONOTONIC_RAW is not slewed towards the right time. Whoever measures errs
// to the safe side (DESIGN.md, rule 7): a node takes its own lease for
// older than it may be, the session of another one for younger. The wall clock
// measures nothing; it only tells when the others may have stood still.
type reading struct {
	boot, mono, raw time.Duration
	wall            time.Duration // since 1970
}

// atMost is the longest that may have passed between two readings.
func (r reading) atMost(since reading) time.Duration {
	return max(r.boot-since.boot, r.raw-since.raw)
}

// atLeast is the shortest that may have passed between two readings.
func (r reading) atLeast(since reading) time.Duration {
	return min(r.mono-since.mono, r.raw-since.raw)
}

// later is the reading a while after r.
func (r reading) later(d time.Duration) reading {
	return reading{r.boot + d, r.mono + d, r.raw + d, r.wall + d}
}

// jump is how far the wall clock has moved between two readings beside what
// passed.
func (r reading) jump(since reading) time.Duration {
	return ((r.wall - since.wall) - (r.mono - since.mono)).Abs()
}

// clocks is what a node reads. Tests of faults set the wall clock of one node by it.
var clocks = readClocks

// readClocks reads the machine's clocks. Two of them Go reads without a system call. boot
// is the kernel's, as the dead-man's switch is set by it.
func readClocks() reading {
	return reading{
		boot: gettime(unix.CLOCK_BOOTTIME),
		mono: time.Since(firstReading),
		raw:  gettime(unix.CLOCK_MONOTONIC_RAW),
		wall: time.Duration(time.Now().UnixNano()),
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
