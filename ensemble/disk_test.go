package ensemble

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/diskthread"
)

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	for kind, name := range map[int64]string{0x6969: "NFS", 0xff534d42: "CIFS", 0xfe534d42: "SMB", 0xc36400: "Ceph", 0x01021997: "9P"} {
		err := checkFileSystem("/data", kind)
		if _, permanent := errors.AsType[*PermanentError](err); !permanent || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "platform_data_dir") {
			t.Errorf("%x: %v", kind, err)
		}
	}
	for name, kind := range map[string]int64{"ext4": 0xef53, "XFS": 0x58465342, "Btrfs": 0x9123683e, "tmpfs": 0x01021994, "overlay": 0x794c7630, "ZFS": 0x2fc12fc1} {
		if err := checkFileSystem("/data", kind); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	kind, err := fileSystemOf(t.TempDir())
	if err != nil || kind == 0 {
		t.Errorf("type %x, %v", kind, err)
	}
}

// Before its disk is full a node ends in order: members leave, and successors are
// named at once. It does not start before there is room again.
func TestANodeEndsInOrderBeforeItsDiskIsFull(t *testing.T) {
	var free atomic.Uint64
	free.Store(100 << 20)
	few := func(c *Config) {
		c.MinimumFree = 64 << 20
		c.freeSpace = func(string) (uint64, error) { return free.Load(), nil }
	}
	path := t.TempDir()
	n := startNode(t, path, few)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	free.Store(10 << 20)
	select {
	case <-n.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if err := n.Err(); !strings.Contains(err.Error(), "10 MiB") || !strings.Contains(err.Error(), "leader_latch.minimum_free_space") {
		t.Errorf("failed with %v", err)
	}
	if !a.membership.Live() {
		t.Error("the lease was ended without order")
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	a.wantClosed()
	n.fsm.read(func(s *State) {
		if len(s.sessions) != 0 {
			t.Error("the session was not ended")
		}
	})
	n.dir.Close()

	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cfg := Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: steady, MinimumNodes: 1, Key: testKey, Logger: testLog(t)}
	few(&cfg)
	_, err = Start(dir, cfg)
	if _, permanent := errors.AsType[*PermanentError](err); err == nil || permanent || !strings.Contains(err.Error(), "make room") {
		t.Errorf("started with %v", err)
	}
	if free, err := freeSpace(path); err != nil || free == 0 {
		t.Errorf("free space %d, %v", free, err)
	}
}

// A node whose disk hangs with other files than the log's ends, as with the log's: nobody
// waits for a snapshot, but none would ever be taken again.
func TestANodeEndsWhenASnapshotHangs(t *testing.T) {
	n := startNode(t, t.TempDir(), func(c *Config) { c.hangLimit = 2 * time.Second })
	a := join(t, n, "g", "a")
	a.wantTold("a")
	goOn := make(chan struct{})
	comesBack := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(comesBack) // before the folder is closed
	go n.dir.files.Do(func() error { <-goOn; return nil })
	taken := make(chan error, 1)
	go func() { taken <- n.raft.Snapshot().Error() }()
	select {
	case <-n.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if err := n.Err(); !errors.Is(err, diskthread.ErrHangs) || !strings.Contains(err.Error(), n.dir.path) {
		t.Errorf("failed with %v", err)
	}
	a.wantClosed()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Stop(ctx); err == nil {
		t.Error("stopped without an error")
	}
	comesBack()
	<-taken // whatever has become of it
}
