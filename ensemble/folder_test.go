package ensemble

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/replica/replicatest"
	"leaderlatch/ensemble/state"
)

// testFolder is an empty folder with a thread.
func testFolder(t *testing.T) Folder { return folderAt(t, t.TempDir()) }

func folderAt(t *testing.T, path string) Folder {
	thread := diskthread.Start()
	t.Cleanup(thread.Close)
	return Folder{Path: path, Thread: thread, There: func() error { return nil }}
}

// testRaftLog is Raft's logger into the test's output.
func testRaftLog(t *testing.T) hclog.Logger {
	return raftLogger(testLog(t), func(state.NodeID) string { return "" })
}

// on makes files where there is so much room.
func on(room *atomic.Int64) func(string) (StateFile, error) {
	return func(name string) (StateFile, error) { return replicatest.Create(room, name) }
}
