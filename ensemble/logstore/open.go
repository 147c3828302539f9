package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/durable"
)

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = time.Second

// Options are the settings of a Store. The zero Options are good.
type Options struct {
	// Format is the version that is to be written, see [Store.Raise]; 0: that of what is
	// there. A new store begins with 1.
	Format int

	// SegmentSize is at how many bytes a file of the log is full. Default 8 MiB,
	// which are set aside when it is made.
	SegmentSize int64

	// StallLimit is how long a write may take. A longer one is an error that
	// wraps ErrStalled. Default 5 s.
	StallLimit time.Duration

	// OnError is called with the first error that makes the store useless. The
	// call that failed waits for it, and so do writes and AwaitFlushed, so it must
	// not use the store. The process should end: see the package comment.
	// When a write hangs, so does Close.
	OnError func(error)

	// Thread is where files are written, and descriptors for that are opened and
	// closed; nil: wherever it is asked for. Reading goes through the memory map
	// of bbolt, or descriptors of all other threads.
	Thread *diskthread.Thread

	// There, if set, is called on the thread before a file is made, opened for writing or
	// removed by its path, once the store is open: an error, if the folder at that path
	// is another one by now, keeps the store from doing so.
	There func() error

	// BeforeCommit, if set, is called in every write before it goes to disk.
	// Tests and benchmarks make slow disks by it.
	BeforeCommit func()

	// openFile stands in for os.OpenFile in tests of failing disks.
	openFile func(string, int, os.FileMode) (*os.File, error)
}

// Open opens the store whose bbolt file is at path, with the folder of the log
// beside it, or makes one (modes 0600 and 0700) if there is no file.
// The caller holds the lock of the data folder; the file has one of its own
// too, for which Open waits up to 1 s. It reads the whole log: an entry between the
// first and the last that is missing, or is not what was written, is an error.
// errors.Is tells ErrVersion and ErrDamaged, with which trying again is useless,
// from the rest.
func Open(path string, opts Options) (*Store, error) {
	if opts.StallLimit == 0 {
		opts.StallLimit = 5 * time.Second
	}
	if opts.SegmentSize == 0 {
		opts.SegmentSize = 8 << 20
	}
	s := &Store{
		thread:       opts.Thread,
		dir:          LogDir(path),
		size:         opts.SegmentSize,
		onError:      opts.OnError,
		beforeCommit: opts.BeforeCommit,
		there:        func() error { return nil },
		appended:     make(chan struct{}, 1),
		closed:       make(chan struct{}),
		changing:     newLock(),
		disk:         newLock(),
		tail:         noTail,
	}
	s.landed.L = s.mu.RLocker()
	s.flushed.Store(math.MaxUint64)
	err := s.onDisk(func() (err error) {
		s.db, err = openDB(path, opts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open log store %s: %w", path, explain(err))
	}
	err = s.load()
	if err == nil {
		err = s.raise(opts.Format)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open log store %s: %w", path, err)
	}
	if opts.There != nil {
		s.there = opts.There
	}
	go s.watch(opts.StallLimit)
	go s.flushAppended()
	return s, nil
}

// LogDir is the folder of the log that belongs to the bbolt file at path.
func LogDir(path string) string { return filepath.Join(filepath.Dir(path), "log") }

// load reads the segments. When all is found well it deletes the files that count
// no more, and what a crash has left unfinished at the end.
func (s *Store) load() error {
	e, noted, err := s.notedExtent()
	if err != nil {
		return err
	}
	files, err := os.ReadDir(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.newest == 0:
		return s.onDisk(func() error {
			if err := os.Mkdir(s.dir, 0o700); err != nil {
				return err
			}
			return durable.SyncDir(filepath.Dir(s.dir))
		})
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing: %w", s.dir, ErrDamaged)
	case err != nil:
		return err
	}
	var bases []uint64
	for _, f := range files {
		if base, ok := segmentBase(f.Name()); ok {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	if !noted {
		if err := s.checkFirst(bases); err != nil {
			return err
		}
	}
	var stale []uint64
	counts := bases[:0:0]
	for i, base := range bases {
		switch {
		case base > e.newest, i+1 < len(bases) && bases[i+1] <= min(e.first, e.newest):
			stale = append(stale, base)
		default:
			counts = append(counts, base)
		}
	}
	if e.newest != 0 {
		if err := s.loadSegments(e, counts); err != nil {
			return err
		}
	}
	if len(stale) == 0 {
		return nil
	}
	return s.onDisk(func() error {
		for _, base := range stale {
			if err := os.Remove(segmentPath(s.dir, base)); err != nil {
				return err
			}
		}
		return durable.SyncDir(s.dir)
	})
}

// checkFirst looks at the files of a log of which no extent is noted. A crash leaves one,
// to which no entry was written: the extent is on disk before that. Whatever else is there
// is a log whose extent is lost.
func (s *Store) checkFirst(bases []uint64) error {
	lost := len(bases) > 1
	if len(bases) == 1 {
		b, err := os.ReadFile(segmentPath(s.dir, bases[0]))
		if err != nil {
			return err
		}
		lost = !allZero(b[min(segmentHeader, len(b)):])
	}
	if lost {
		return fmt.Errorf("%s has a log, and where that begins and ends is lost: %w", s.dir, ErrDamaged)
	}
	return nil
}

func (s *Store) loadSegments(e extent, bases []uint64) error {
	s.first = e.first
	next, torn := uint64(0), false
	var buf bytes.Buffer
	for _, base := range bases {
		if torn || next != 0 && next != base {
			return fmt.Errorf("%s: it begins at entry %d, and the one before ends at %d: %w", segmentPath(s.dir, base), base, next-1, ErrDamaged)
		}
		if base == e.newest {
			if err := s.onDisk(func() error { return settle(segmentPath(s.dir, base)) }); err != nil {
				return err
			}
		}
		g, t, err := openSegment(s.dir, base, &buf)
		if err != nil {
			return err
		}
		s.segments = append(s.segments, g)
		next, torn = g.next(), t
	}
	switch {
	case len(bases) == 0 || bases[len(bases)-1] != e.newest:
		return fmt.Errorf("%s is missing: %w", segmentPath(s.dir, e.newest), ErrDamaged)
	case bases[0] > e.first || next < e.first:
		return fmt.Errorf("%s: entry %d is missing: %w", s.dir, e.first, ErrDamaged)
	}
	last := s.segments[len(s.segments)-1]
	if last.length < int64(e.length) {
		return fmt.Errorf("%s has %d bytes of %d: %w", last.path, last.length, e.length, ErrDamaged)
	}
	if err := s.openTail(); err != nil {
		return err
	}
	unfinished := e.length != 0 && int64(e.length) < max(last.length, s.size) // a crash came into a cut
	if torn || unfinished {
		return s.cutTail()
	}
	return nil
}

func openDB(path string, opts Options) (db *bolt.DB, err error) {
	f := files{open: os.OpenFile}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	o := &bolt.Options{
		Timeout:        lockTimeout,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true, // one page less to write in a commit, and Open reads the index anyway
		NoStatistics:   true,
		OpenFile:       f.openFile,
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
	if err := settle(path); err != nil {
		return nil, err
	}
	if err := guard(func() error { return examine(path, f.openFile) }); err != nil {
		return nil, err
	}
	if opts.openFile != nil {
		f.open = opts.openFile
	}
	err = guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, o)
		return err
	})
	return db, err
}

// settle makes what is read of a file from now on what is on disk. A process that was
// killed before a flush had ended leaves in the kernel's cache what looks written and is
// not: taken as it stands, it would be acknowledged, and gone with the power. Where a
// flush had failed, the cache counts it as written; so it is dropped, and read anew.
func settle(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // which is for others to find
	}
	if err == nil {
		err = flush(fd)
		if err == nil {
			err = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
		}
		unix.Close(fd)
	}
	if err != nil {
		return &fs.PathError{Op: "flush", Path: path, Err: err}
	}
	return nil
}

// files are those that bbolt has opened. A panic of bbolt's leaves its file open, and
// that has to be closed on its thread.
type files struct {
	open func(string, int, os.FileMode) (*os.File, error)
	all  []*os.File
}

// openFile opens without keeping the time of reading: mapping a file would otherwise
// note it, and wait for the disk with a lock held that every other thread needs in
// order to end.
func (f *files) openFile(name string, flag int, mode os.FileMode) (*os.File, error) {
	file, err := openNoTime(f.open, name, flag, mode)
	if err == nil {
		f.all = append(f.all, file)
	}
	return file, err
}

// openNoTime opens a file without keeping the time of reading, where that is permitted.
func openNoTime(open func(string, int, os.FileMode) (*os.File, error), name string, flag int, mode os.FileMode) (*os.File, error) {
	file, err := open(name, flag|unix.O_NOATIME, mode)
	if errors.Is(err, fs.ErrPermission) { // the file is another user's
		file, err = open(name, flag, mode)
	}
	return file, err
}

func (f *files) close() {
	for _, file := range f.all {
		file.Close() // fails where bbolt has done it
	}
}

// create makes a file of format 1, with empty buckets. It appears under its name when it is
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
	return durable.SyncDir(filepath.Dir(path))
}

// examine reads the file without writing to it. When bbolt opens one for
// writing it meets damage in a goroutine of its own, where nobody can catch the
// panic.
func examine(path string, openFile func(string, int, os.FileMode) (*os.File, error)) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockTimeout, OpenFile: openFile})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := checkPages(path); err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) error {
		format, err := formatOf(tx)
		if err != nil {
			return err
		}
		if format > 1 {
			_, err := readNotes(tx)
			return err
		}
		see := func(k, v []byte) error { return nil }
		return errors.Join(tx.Bucket(logBucket).ForEach(see), tx.Bucket(stableBucket).ForEach(see))
	})
}

// checkPages looks at what bbolt takes on trust.
//
// Of the two meta pages, of the last transaction and of the one before, one may be
// damaged: then bbolt goes by the other, and were that the older one, what was stored
// last would be gone without a word. A crash damages none: what bbolt writes there is in
// one sector.
//
// Of the pages that are in use it notes all when it opens a file for writing, as many as
// their headers say, in a goroutine of its own. Where they say that keys and values are,
// it looks for them, be it beyond the page.
func checkPages(path string) error {
	file, err := openNoTime(os.OpenFile, path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	// A page begins with its number (8 bytes), kind (2), how many elements it has (2), and
	// how many pages follow that belong to it (4).
	const header, metaSize = 16, 64
	var size, last, root, pages, transaction uint64
	for i := range uint64(2) {
		b := make([]byte, header+metaSize)
		if _, err := file.ReadAt(b, int64(i*size)); err != nil {
			return err
		}
		meta := b[header:]
		sum := fnv.New64a()
		sum.Write(meta[:metaSize-8])
		if sum.Sum64() != binary.NativeEndian.Uint64(meta[metaSize-8:]) {
			return fmt.Errorf("meta page %d is not what was written: %w", i, ErrDamaged)
		}
		size = uint64(binary.NativeEndian.Uint32(meta[8:]))
		if transaction = binary.NativeEndian.Uint64(meta[48:]); transaction >= last {
			last, root, pages = transaction, binary.NativeEndian.Uint64(meta[16:]), binary.NativeEndian.Uint64(meta[40:])
		}
	}
	const branch, leaf, bucket = 1, 2, 1 // kinds of pages; of what is in a leaf
	seen := map[uint64]bool{}
	var check func(id uint64) error
	// What is not within its page panics here, see guard. In a small bucket, which is
	// within a leaf, bbolt would look for it in the memory that follows.
	var elements func(page []byte) error
	elements = func(page []byte) error {
		kind, n := binary.NativeEndian.Uint16(page[8:]), binary.NativeEndian.Uint16(page[10:])
		if kind != branch && kind != leaf {
			return fmt.Errorf("a page of kind %d: %w", kind, ErrDamaged)
		}
		for i := range int(n) {
			element := page[header+16*i:]
			if kind == branch {
				if err := check(binary.NativeEndian.Uint64(element[8:])); err != nil {
					return err
				}
				continue
			}
			at, key, value := uint64(binary.NativeEndian.Uint32(element[4:])), uint64(binary.NativeEndian.Uint32(element[8:])), uint64(binary.NativeEndian.Uint32(element[12:]))
			v := element[at+key : at+key+value : at+key+value]
			if binary.NativeEndian.Uint32(element)&bucket == 0 {
				continue
			}
			var err error
			if root := binary.NativeEndian.Uint64(v); root != 0 {
				err = check(root)
			} else {
				err = elements(v[16:])
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	check = func(id uint64) error {
		b := make([]byte, size)
		if id < 2 || id >= pages || seen[id] {
			return fmt.Errorf("page %d is not in its place: %w", id, ErrDamaged)
		}
		seen[id] = true
		if _, err := file.ReadAt(b, int64(id*size)); err != nil {
			return err
		}
		more := uint64(binary.NativeEndian.Uint32(b[12:]))
		if binary.NativeEndian.Uint64(b) != id || id+more >= pages {
			return fmt.Errorf("page %d is not what was written: %w", id, ErrDamaged)
		}
		b = slices.Clip(append(b, make([]byte, more*size)...))
		if _, err := file.ReadAt(b[size:], int64((id+1)*size)); err != nil {
			return err
		}
		return elements(b)
	}
	return check(root)
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
