package replica

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

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

// testLog is a logger into the test's output.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func poll(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// testRaftLog is Raft's logger into the test's output.
func testRaftLog(t *testing.T) hclog.Logger {
	return raftLogger(testLog(t), func(state.NodeID) string { return "" })
}

// on makes files where there is so much room.
func on(room *atomic.Int64) func(string) (StateFile, error) {
	return func(name string) (StateFile, error) { return replicatest.Create(room, name) }
}
