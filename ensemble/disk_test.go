package ensemble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
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
	n.replica.Read(func(s *state.State) {
		for range s.Sessions() {
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
	go func() { taken <- snapshot(n) }()
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

// A snapshot for which there is no room beside minimum_free_space is not begun, and one that
// becomes larger than there is room for is given up in time. The node goes on, says the
// sizes, and takes one when there is room again.
func TestASnapshotLeavesTheMinimumFree(t *testing.T) {
	const minimum = 64 << 20
	var free, least atomic.Int64
	var said lines
	free.Store(1 << 40)
	n := startNode(t, t.TempDir(), func(c *Config) {
		c.MinimumFree = minimum
		c.freeSpace = func(string) (uint64, error) { return uint64(free.Load()), nil }
		c.createState = func(name string) (replica.StateFile, error) {
			f, err := os.Create(name)
			return &spaceTaker{f, &free, &least}, err
		}
		c.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&said, t.Output()), nil))
	})
	a := join(t, n, "g", "a")
	a.wantTold("a")
	small := func() {
		t.Helper()
		least.Store(free.Load())
		err := snapshot(n)
		if err == nil {
			t.Fatal("it was taken")
		}
		for _, want := range []string{fmt.Sprintf("only %d MiB are free", free.Load()>>20), "64 MiB of leader_latch.minimum_free_space", n.dir.path, "make room"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if n := least.Load(); n < minimum {
			t.Errorf("%d bytes were left", n)
		}
		wantSnapshots(t, n.dir, "refused")
	}
	free.Store(minimum + 1<<20)
	small()

	// With a large state, of which nobody knows beforehand how large it is.
	n.replica.Inside().Change(func(s *state.State) *state.State {
		at := s.Index()
		crowd := []state.Op{state.Open{Node: "crowd", Counter: 1, Boot: "boot", Lease: time.Hour, Expiry: time.Hour, Name: "crowd@127.0.0.1", Address: "127.0.0.1:1", Reads: 1}}
		for i := range uint64(200_000) {
			crowd = append(crowd, state.Join{
				Incarnation: state.Incarnation(state.PositionOf(at, 0)), Seq: i + 1, Group: "crowd", Client: strings.Repeat("c", 100) + fmt.Sprint(i),
			})
		}
		s.Apply(at, state.Entry{Ops: crowd}, nil)
		if g, _ := s.Group("crowd"); len(g.Members) != len(crowd)-1 {
			t.Fatalf("%d members", len(g.Members))
		}
		return s
	})
	free.Store(minimum + 10<<20)
	err := snapshot(n)
	if err == nil || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("taken: %v", err)
	}
	if left := least.Load(); left < minimum {
		t.Errorf("%d bytes were left", left)
	}
	if left := least.Load(); left == free.Load() {
		t.Error("it was not begun")
	}
	free.Store(minimum + 10<<20)
	small() // without having been begun
	if least.Load() != free.Load() {
		t.Error("it was begun again, though it cannot fit")
	}
	free.Store(minimum + 100<<20)
	if err := snapshot(n); err != nil {
		t.Errorf("with room: %v", err)
	}
	if err := n.Err(); err != nil || !a.membership.Live() {
		t.Errorf("failed: %v", err)
	}
	if n := said.count("make room"); n != 3 {
		t.Errorf("three refusals are said %d times:\n%s", n, said.text())
	}
}

// spaceTaker is a file that takes of the free space of a disk what is written to it.
type spaceTaker struct {
	*os.File
	free, least *atomic.Int64
}

func (f *spaceTaker) Write(b []byte) (int, error) {
	if left := f.free.Add(-int64(len(b))); left < f.least.Load() {
		f.least.Store(left)
	}
	return f.File.Write(b)
}
