//go:build faults

package replica

import (
	"os"
	"strconv"
	"time"
)

// Nodes of the tests of faults take a snapshot after as few entries as
// LEADER_LATCH_SNAPSHOT_ENTRIES says, and leave a quarter of that behind it. So there are
// snapshots at any moment, and a node that was away for some seconds is sent one.
func init() {
	text := os.Getenv("LEADER_LATCH_SNAPSHOT_ENTRIES")
	if text == "" {
		return
	}
	entries, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic("LEADER_LATCH_SNAPSHOT_ENTRIES: " + err.Error())
	}
	snapshotEntries, trailingEntries, snapshotEvery = entries, entries/4, 500*time.Millisecond
}
