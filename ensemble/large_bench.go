//go:build bench

package ensemble

import (
	"context"
	"fmt"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// MakeLarge makes the folder of a node that is alone, and was ended in order, that of a large
// cluster, for the measuring of starts: a snapshot with so many members, and so many bytes of
// entries behind it. The members are those of ten nodes which were removed just now by force:
// the sessions of these go on until they expire, some seconds after the start. In the log
// members leave and come back, so often as it gives. All of it is as the folder's level has it.
func MakeLarge(path string, members, logBytes int) (changes int, err error) {
	dir, err := OpenDir(context.Background(), path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	level := uint64(dir.id().Format)
	store, err := logstore.Open(dir.raftPath(), logstore.Options{Format: state.LogstoreVersion(level), Thread: dir.log})
	if err != nil {
		return 0, err
	}
	defer store.Close()
	var sessions []state.Open
	for i := range 10 {
		id := state.NodeID(randomID())
		sessions = append(sessions, state.Open{
			Node: id, Counter: 1, Boot: "boot-" + string(id), Lease: session.Calm.Lease, Expiry: session.Calm.Expiry,
			Name: fmt.Sprint("riak@10.0.0.", i+1), Address: fmt.Sprintf("10.0.0.%d:5324", i+1), Reads: level,
		})
	}
	return replica.MakeLarge(store, dir.ofReplica(), level, sessions, members, logBytes)
}
