package ensemble

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/diskthread"
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
		return permanent("data folder %s is on a network file system (%s), where neither its lock nor a flush can be relied on; set platform_data_dir to a folder on a local disk", path, name)
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

// spaceEvery is how often the free space is looked at.
const spaceEvery = 5 * time.Second

// checkSpace reports an error if there is too little space to go on: a write that
// fails half way would end the node without order.
func (n *Node) checkSpace() error {
	var free uint64
	err := n.dir.files.Do(func() (err error) {
		free, err = n.cfg.freeSpace(n.dir.path)
		return err
	})
	if err != nil {
		n.log.Debug("free space cannot be found out", "error", err)
		return nil
	}
	if free >= n.cfg.MinimumFree {
		return nil
	}
	return fmt.Errorf("disk: only %d MiB are free in %s and leader_latch.minimum_free_space asks for %d; make room", free>>20, n.dir.path, n.cfg.MinimumFree>>20)
}

// watchSpace ends the node in order before its disk is full. It has a goroutine of
// its own, for the file system may hang.
func (n *Node) watchSpace() {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.done:
			return
		case <-tick.C:
		}
		if err := n.checkSpace(); err != nil {
			n.failed(&orderlyError{err})
			return
		}
	}
}

// hangLimit is how long anything but the log may take in the folder. That is longer than
// for the log: a whole snapshot may be flushed, or read to see whether it is sound, in one
// call, and no client waits for it.
const hangLimit = 30 * time.Second

// watchFiles ends the node when its disk hangs while it has to do with other files than the
// log's. Without it nothing would tell: no snapshot would be taken any more, the free space
// not be looked at, and Raft wait for a snapshot that it installs, deaf to all others.
func (n *Node) watchFiles() {
	if err := n.dir.files.Watch(n.cfg.hangLimit, n.done); err != nil {
		n.failed(fmt.Errorf("disk: something in %s has taken over %v: %w", n.dir.path, n.cfg.hangLimit, err))
	}
}

// folderEvery is how often the node looks whether its folder is still there.
const folderEvery = time.Second

// watchFolder ends the node when its folder is not at its path any more: what it writes
// then no restart finds. From then on it stores nothing, so that it confirms nothing,
// neither to clients nor to other nodes; its connections are closed, leaders first.
func (n *Node) watchFolder() {
	tick := time.NewTicker(folderEvery)
	defer tick.Stop()
	for gone := false; ; {
		select {
		case <-n.done:
			return
		case <-tick.C:
		}
		switch err := n.dir.Do(func() error { return nil }); {
		case err == nil:
			gone = false
		case errors.Is(err, diskthread.ErrClosed):
			return
		case !gone: // a path may be changed in two steps
			gone = true
		default:
			n.failed(err)
			n.store.Fail(err)
			return
		}
	}
}
