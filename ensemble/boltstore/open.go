package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = time.Second

// Options are the settings of a Store. The zero Options are good.
type Options struct {
	// InitialMmapSize is how much of the address space is set aside for the
	// file, in bytes; 0 means 64 MiB. When the file outgrows it, all calls wait
	// for a moment.
	InitialMmapSize int

	// StallLimit is how long a write may take. A longer one is an error that
	// wraps ErrStalled. Default 5 s.
	StallLimit time.Duration

	// OnError is called with the first error that makes the store useless. The
	// call that failed waits for it, and so do writes, so it must not use the
	// store. The process should end: see the package comment.
	// When a write hangs, so does Close.
	OnError func(error)

	// BeforeCommit, if set, is called in every write before it goes to disk.
	// Tests and benchmarks make slow disks by it.
	BeforeCommit func()

	// openFile stands in for os.OpenFile in tests of failing disks.
	openFile func(string, int, os.FileMode) (*os.File, error)
}

// Open opens the store at path, or makes one (mode 0600) if there is no file.
// The caller holds the lock of the data folder; the file has one of its own
// too, for which Open waits up to 1 s. It reads the index of the whole file: a
// missing entry between the first and the last is an error, and so is a page
// that is cut off, empty or not its own. errors.Is tells ErrVersion and
// ErrDamaged, with which trying again is useless, from the rest.
func Open(path string, opts Options) (*Store, error) {
	db, err := open(path, opts)
	if err != nil {
		return nil, fmt.Errorf("open log store %s: %w", path, explain(err))
	}
	s := &Store{db: db, onError: opts.OnError, beforeCommit: opts.BeforeCommit, closed: make(chan struct{})}
	if opts.StallLimit == 0 {
		opts.StallLimit = 5 * time.Second
	}
	go s.watch(opts.StallLimit)
	return s, nil
}

func open(path string, opts Options) (db *bolt.DB, err error) {
	o := &bolt.Options{
		Timeout:         lockTimeout,
		InitialMmapSize: opts.InitialMmapSize,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true, // one page less to write in a commit, and Open reads the index anyway
		NoStatistics:    true,
		OpenFile:        opts.openFile,
	}
	if o.InitialMmapSize == 0 {
		o.InitialMmapSize = 64 << 20
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = create(path)
	case err == nil && info.Size() == 0:
		err = fmt.Errorf("empty: %w", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	if err := guard(func() error { return examine(path) }); err != nil {
		return nil, err
	}
	err = guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, o)
		return err
	})
	return db, err
}

// create makes a file with empty buckets. It appears under its name when it is
// complete and on disk: a crash leaves either no file or a good one.
func create(path string) error {
	unfinished := path + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(unfinished, 0o600, &bolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err1 := tx.CreateBucket(logBucket)
		_, err2 := tx.CreateBucket(stableBucket)
		return errors.Join(err1, err2)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(unfinished, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// examine reads the file without writing to it. When bbolt opens one for
// writing it meets damage in a goroutine of its own, where nobody can catch the
// panic.
func examine(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		logs, stable := tx.Bucket(logBucket), tx.Bucket(stableBucket)
		if logs == nil || stable == nil {
			return errors.New("not a log store")
		}
		first, last := bounds(logs)
		next := first
		err := logs.ForEach(func(k, v []byte) error {
			if index, err := parseKey(k); err != nil || index != next {
				return fmt.Errorf("entries %d to %d: %d is not where it should be", first, last, next)
			}
			if next++; next > first+1 && next <= last {
				return nil // all entries are decoded when they are used; here the ends will do
			}
			return getLog(logs, next-1, new(raft.Log))
		})
		if err != nil {
			return err
		}
		return stable.ForEach(func(k, v []byte) error { return nil })
	})
}

// guard turns into errors what bbolt does on a damaged file: panics, and faults
// of the memory map where the file is shorter than it says.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: %w", r, ErrDamaged)
		}
	}()
	return f()
}

// explain names what is behind an error of opening.
func explain(err error) error {
	var system syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("another process uses it, and still did after %v: %w", lockTimeout, err)
	case errors.Is(err, ErrVersion), errors.Is(err, ErrDamaged), errors.As(err, &system):
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrDamaged)
}
