package main

import (
	"fmt"
	"math"
	"sort"
	"syscall"

	"leaderlatch/riakconf"
)

// openFiles is the limit for a process that is started here.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Max > math.MaxInt {
		return math.MaxInt
	}
	return int(l.Max) // the service raises its own to that
}

// connectionLimits are how many connections are served, and how many more are
// held to be refused in words (PROTOCOL.md, rule 15): as many as the limit of open
// files leaves, when some are kept for disk, peers and the admin socket, and as
// members the timing allows. A lower limit that is set counts; 0: none is.
func connectionLimits(set, files, members int) (served, surplus int) {
	reserve := min(256, files/4)
	surplus = min(1000, files/8)
	served = min(files-reserve-surplus, members)
	if set > 0 {
		served = min(served, set)
	}
	return served, surplus
}

// fewerBecause is which limit keeps a node from the connections that are set, and what
// would not.
func fewerBecause(conf *riakconf.Config, files, members int) string {
	if members < conf.MaxConnections {
		return fmt.Sprintf("a node closes no more than %d in time with leader_latch.timing = %s; set no more, or a calmer timing", members, conf.Timing)
	}
	need := filesFor(conf.MaxConnections)
	return fmt.Sprintf("the limit of open files is %d, and it takes %d; raise it (LimitNOFILE of the unit, ulimit -n)", files, need)
}

// filesFor is the limit of open files with which so many connections are served.
func filesFor(connections int) int {
	return sort.Search(math.MaxInt32, func(files int) bool {
		served, _ := connectionLimits(connections, files, math.MaxInt)
		return served >= connections
	})
}
