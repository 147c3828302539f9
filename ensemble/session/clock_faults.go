//go:build faults

package session

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A node of the tests of faults takes its wall clock for set by so many nanoseconds
// as the file wall-clock beside its riak.conf holds, in eight bytes of this machine.
// No clock is set.
func init() {
	f, err := os.Open(filepath.Join(filepath.Dir(os.Getenv("LEADER_LATCH_CONFIG")), "wall-clock"))
	if err != nil {
		return
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	set := (*int64)(unsafe.Pointer(unsafe.SliceData(page)))
	clocks = func() Reading {
		r := readClocks()
		r.Wall += time.Duration(atomic.LoadInt64(set))
		return r
	}
}
