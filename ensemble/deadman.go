package ensemble

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/permanent"
)

// deadMan is the dead-man's switch (DESIGN.md, rule 8): a timer of the
// kernel that kills this process if it is not moved on in time. A process that
// is stopped, or stalls, cannot close its connections; its death does.
//
// A nil *deadMan does nothing, nor does one that is closed.
type deadMan struct {
	id int32

	mu     sync.Mutex // guards closed
	closed bool
}

// newDeadMan makes the timer, not yet running. The first process of a container, or
// of a machine, cannot have one: the kernel keeps it from being killed by anything
// of its own, even by SIGKILL (pid_namespaces(7)). The error is a [PermanentError]
// then.
func newDeadMan() (*deadMan, error) {
	if os.Getpid() == 1 {
		return nil, permanent.Errorf("dead-man's switch: the kernel does not let process 1 of a container be killed by a timer of its own; " +
			"have an init be process 1 (docker run --init), or leader_latch.dead_man_switch = off does without")
	}
	event := sigevent{signo: int32(unix.SIGKILL)}
	d := &deadMan{}
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&d.id)))
	if errno != 0 {
		return nil, fmt.Errorf("dead-man's switch: timer_create: %w; the kernel may forbid it: leader_latch.dead_man_switch = off does without", errno)
	}
	return d, nil
}

// arm has the process killed when BOOTTIME shows at, instead of at any time
// set before. Zero or less switches it off.
func (d *deadMan) arm(at time.Duration) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	spec := itimerspec{value: unix.NsecToTimespec(max(0, at.Nanoseconds()))}
	const absolute = 1 // TIMER_ABSTIME
	if _, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), absolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		panic("ensemble: timer_settime on a timer of this process: " + errno.Error())
	}
}

func (d *deadMan) disarm() { d.arm(0) }

func (d *deadMan) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(d.id), 0, 0)
	}
}

// sigevent and itimerspec are the kernel's, on 64-bit machines.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32 // 0: SIGEV_SIGNAL
	_      [48]byte
}

type itimerspec struct {
	interval, value unix.Timespec
}
