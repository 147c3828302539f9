// Package replicatest helps to test what keeps snapshots.
package replicatest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"leaderlatch/ensemble/diskthread"
)

// File is on a disk that may be full.
type File struct {
	*os.File
	room *atomic.Int64
}

// Create makes a file where there is room for so many bytes.
func Create(room *atomic.Int64, name string) (*File, error) {
	f, err := os.Create(name)
	return &File{f, room}, err
}

func (f *File) Write(b []byte) (int, error) {
	left := max(0, min(f.room.Load(), int64(len(b))))
	n, err := f.File.Write(b[:left])
	f.room.Add(-int64(n))
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	return n, err
}

// Sync fails where nothing fits any more: that is flushed too late.
func (f *File) Sync() error {
	if f.room.Load() <= 0 {
		return syscall.ENOSPC
	}
	return f.File.Sync()
}

// Want checks which snapshots lie in a data folder, finished or not, and that nothing there is
// open on its thread.
func Want(t *testing.T, folder string, thread *diskthread.Thread, when string, want ...string) {
	t.Helper()
	var names []string
	var open int
	thread.Do(func() error {
		all, err := os.ReadDir(filepath.Join(folder, "snapshots"))
		if err != nil {
			t.Error(err)
		}
		for _, e := range all {
			names = append(names, e.Name())
		}
		open = Open(t, folder, "/proc/thread-self")
		return nil
	})
	if !slices.Equal(names, want) || open != 0 {
		t.Errorf("%s: there are %q, want %q; %d files are open", when, names, want, open)
	}
}

// Open counts the descriptors in a table that are open on snapshots of a data folder.
func Open(t *testing.T, folder, table string) (n int) {
	links, err := filepath.Glob(table + "/fd/*")
	if err != nil || len(links) == 0 {
		t.Error(table, err)
	}
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.HasPrefix(to, filepath.Join(folder, "snapshots")) {
			n++
		}
	}
	return n
}
