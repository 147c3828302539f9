package replica

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/state"
)

// Raft bounds its log by the number of entries: it takes a snapshot when there are
// [snapshotEntries] more than at the last one, and leaves [trailingEntries] for nodes
// that are behind. An entry has 30 bytes when a single client comes, and 64 KiB when
// thousands do. So the bytes are bounded as well:
//
//   - A snapshot is also taken when snapshotBytes more have come.
//   - Behind it stay trailingEntries or trailingBytes, whichever is less.
//
// The log then has at most snapshotBytes and trailingBytes, and what comes while a snapshot
// is written. Until the second snapshot after a start it may have trailingBytes more, from
// before the start.
const (
	// snapshotBytes is about what a snapshot of a million members has, so that no
	// more is written for snapshots than for the log itself.
	snapshotBytes = 64 << 20

	trailingBytes = 32 << 20
)

// Tests of faults have less of these.
var (
	snapshotEntries uint64 = 8192
	trailingEntries uint64 = 16384
	snapshotEvery          = 30 * time.Second // Raft counts its entries; it waits for up to twice that
)

// logSize is how large the log is, by the entries that were applied. What was in it
// before the last snapshot that the process has started from is not known.
type logSize struct {
	most, keep int // snapshotBytes, trailingBytes; tests have less

	fresh int // bytes since the last snapshot
	last  uint64
	marks []uint64 // first indexes of the last stretches of the log, each a trailingMarks-th of keep
	part  int      // bytes in the last of them
}

// trailingMarks is in how many stretches the trailing bytes are counted.
const trailingMarks = 32

// add counts an entry.
func (l *logSize) add(index uint64, bytes int) {
	l.fresh += bytes
	l.last = index
	if l.part += bytes; len(l.marks) == 0 || l.part > l.keep/trailingMarks {
		if len(l.marks) == trailingMarks {
			l.marks = append(l.marks[:0], l.marks[1:]...)
		}
		l.marks = append(l.marks, index)
		l.part = bytes
	}
}

// full reports whether it is time for a snapshot.
func (l *logSize) full() bool { return l.fresh >= l.most }

// trailing is how many entries are to stay behind a snapshot.
func (l *logSize) trailing() uint64 {
	if len(l.marks) < trailingMarks {
		return trailingEntries
	}
	return min(trailingEntries, l.last-l.marks[0]+1)
}

// watchLog takes snapshots when the log has become too large in bytes, and when the newest
// cannot be read any more.
func (r *Replica) watchLog() {
	for {
		select {
		case <-r.done:
			return
		case <-r.fsm.full:
		}
		full := false
		r.fsm.read(func(*state.State) { full = r.fsm.log.full() })
		if !full && !r.lacksSnapshot() {
			continue // came while a snapshot was written
		}
		future := r.raft.Snapshot()
		taken := make(chan error, 1)
		go func() { taken <- future.Error() }() // may have no answer when Raft shuts down
		select {
		case <-r.done:
			return
		case err := <-taken:
			if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
				continue
			}
		}
		again := snapshotAgain // Raft has said why
		if r.snapshots.small.Load() {
			again = snapshotEvery
		}
		select {
		case <-r.done:
			return
		case <-time.After(again):
		}
	}
}

// snapshotAgain is the pause after a snapshot that was not taken. Raft refuses one
// while a change of its configuration is being applied. Where there is no room for one, the
// pause is snapshotEvery, the same as Raft makes between two looks at its log.
const snapshotAgain = time.Second

// snapshotted is called when a snapshot is written. Raft shortens its log when it returns.
func (r *Replica) snapshotted(trailing uint64) {
	if r.trailing.Swap(trailing) == trailing {
		return
	}
	<-r.started
	r.reloadRaft(func(c *raft.ReloadableConfig) { c.TrailingLogs = trailing })
}
