package ensemble

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
)

// networkFileSystems are those on which neither the lock on the folder nor a
// flush is what it is on a disk (statfs(2)).
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.CEPH_SUPER_MAGIC: "Ceph",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.AFS_FS_MAGIC:     "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.V9FS_MAGIC:       "9P",
}

// checkFileSystem refuses a folder on a file system of that type.
func checkFileSystem(path string, kind int64) error {
	if name := networkFileSystems[kind]; name != "" {
		return permanent.Errorf("data folder %s is on a network file system (%s), where neither its lock nor a flush can be relied on; set platform_data_dir to a folder on a local disk", path, name)
	}
	return nil
}

func fileSystemOf(path string) (kind int64, err error) {
	var fs unix.Statfs_t
	err = unix.Statfs(path, &fs)
	return int64(fs.Type), err
}

// freeSpace is how many bytes a process of this user may still write.
func freeSpace(path string) (uint64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	return fs.Bavail * uint64(fs.Bsize), err
}

// folderWatch ends a node whose folder it cannot go on in.
type folderWatch struct {
	dir         *Dir
	minimumFree uint64
	freeSpace   func(path string) (uint64, error)
	hangLimit   time.Duration
	failed      func(error) // ends the node
	done        <-chan struct{}
	log         *slog.Logger
}

// spaceEvery is how often the free space is looked at.
const spaceEvery = 5 * time.Second

// hangLimit is how long anything but the log may take in the folder. That is longer than
// for the log: a whole snapshot may be flushed, or read to see whether it is sound, in one
// call, and no client waits for it.
const hangLimit = 30 * time.Second

// folderEvery is how often the node looks whether its folder is still there.
const folderEvery = time.Second

// checkSpace reports an error if there is too little space to go on: a write that
// fails half way would end the node without order.
func (w *folderWatch) checkSpace() error {
	var free uint64
	err := w.dir.files.Do(func() (err error) {
		free, err = w.freeSpace(w.dir.path)
		return err
	})
	if err != nil {
		w.log.Debug("free space cannot be found out", "error", err)
		return nil
	}
	if free >= w.minimumFree {
		return nil
	}
	return fmt.Errorf("disk: only %d MiB are free in %s and leader_latch.minimum_free_space asks for %d; make room", free>>20, w.dir.path, w.minimumFree>>20)
}

// watchSpace ends the node in order before its disk is full. It has a goroutine of
// its own, for the file system may hang.
func (w *folderWatch) watchSpace() {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		if err := w.checkSpace(); err != nil {
			w.failed(&orderlyError{err})
			return
		}
	}
}

// watchFiles ends the node when its disk hangs while it has to do with other files than the
// log's. Without it nothing would tell: no snapshot would be taken any more, the free space
// not be looked at, and Raft wait for a snapshot that it installs, deaf to all others.
func (w *folderWatch) watchFiles() {
	if err := w.dir.files.Watch(w.hangLimit, w.done); err != nil {
		w.failed(fmt.Errorf("disk: something in %s has taken over %v: %w", w.dir.path, w.hangLimit, err))
	}
}

// watchFolder ends the node when its folder is not at its path any more: what it writes
// then no restart finds. From then on it stores nothing, so that it confirms nothing,
// neither to clients nor to other nodes; its connections are closed, leaders first.
func (w *folderWatch) watchFolder(store *logstore.Store) {
	tick := time.NewTicker(folderEvery)
	defer tick.Stop()
	for gone := false; ; {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		switch err := w.dir.Do(func() error { return nil }); {
		case err == nil:
			gone = false
		case errors.Is(err, diskthread.ErrClosed):
			return
		case !gone: // a path may be changed in two steps
			gone = true
		default:
			w.failed(err)
			store.Fail(err)
			return
		}
	}
}

// roomForSnapshot refuses a snapshot if, with so many bytes, it would leave less than the node
// needs to go on: the log has all that would be in it.
func (w *folderWatch) roomForSnapshot(bytes int64) error {
	free, err := w.freeSpace(w.dir.path)
	if err != nil || free >= w.minimumFree+uint64(bytes) {
		return nil
	}
	return fmt.Errorf("only %d MiB are free in %s, which is too little for %d MiB of a snapshot beside the %d MiB of leader_latch.minimum_free_space; make room: without snapshots the log grows, until the node ends",
		free>>20, w.dir.path, bytes>>20, w.minimumFree>>20)
}
