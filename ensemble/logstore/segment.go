package logstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/durable"
)

// Format is the newest version that a store reads and writes, of its raft.db and the
// segments of its log. The segments are the same in all; see [notes].
const Format = 2

const segmentFormat = 1

// The log is a row of files, segments, named by the index of their first entry.
// A file has a header, then records; the disk space of all is set aside when the
// file is made, so that a flush has no sizes to write down. After the last record
// there are zeros.
//
//	 0 16  "leader-latch log"
//	16  4  format, 1
//	20  4  CRC-32C of the rest of the header
//	24  4  salt: random, so that no text that a client sends can pass for a record
//	28  8  index of the first entry
//	36  4  zeros
const (
	segmentMagic  = "leader-latch log"
	segmentHeader = 40
	segmentSuffix = ".log"
)

// segment is a file of the log as it is read. The owner guards it.
type segment struct {
	path    string
	base    uint64
	salt    uint32
	file    *os.File // for reading
	offsets []uint32 // of the records
	end     int64    // of the last one
	length  int64    // that the file has at least; changes while disk is held
}

// newSegment is one that is in no file yet.
func newSegment(dir string, base uint64) *segment {
	return &segment{path: segmentPath(dir, base), base: base, salt: rand.Uint32(), end: segmentHeader}
}

func segmentPath(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

// segmentBase gives the index that the name of a file says; false if the file is
// no segment.
func segmentBase(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	base, err := strconv.ParseUint(digits, 10, 64)
	return base, ok && err == nil
}

func (g *segment) next() uint64 { return g.base + uint64(len(g.offsets)) }

// place gives the offsets at which the record of an entry begins and ends.
func (g *segment) place(index uint64) (from, to int64) {
	i := int(index - g.base)
	to = g.end
	if i+1 < len(g.offsets) {
		to = int64(g.offsets[i+1])
	}
	return int64(g.offsets[i]), to
}

// read reads a part of the file.
func (g *segment) read(from, to int64) ([]byte, error) {
	b := make([]byte, to-from)
	if _, err := g.file.ReadAt(b, from); err == io.EOF {
		return nil, fmt.Errorf("%s ends before %d: %w", g.path, to, ErrDamaged)
	} else if err != nil {
		return nil, err
	}
	return b, nil
}

// parse fills l with an entry, of which it has the record. l refers to b then.
func (g *segment) parse(b []byte, index uint64, l *raft.Log) error {
	r, ok := parseRecord(b, g.salt)
	switch {
	case !ok:
		return fmt.Errorf("entry %d with a wrong checksum: %w", index, ErrDamaged)
	case r.index() != index:
		return fmt.Errorf("entry %d is at the place of %d: %w", r.index(), index, ErrDamaged)
	}
	return r.entry(l)
}

// create makes the file of an empty segment, which is on disk under its name when
// it returns, and gives its descriptor for writing.
func (g *segment) create(size int64) (fd int, err error) {
	if fd, err = openForWriting(g.path, unix.O_CREAT|unix.O_EXCL); err != nil {
		return noTail, err
	}
	err = allocate(fd, size)
	if err == nil {
		err = writeAt(fd, g.header(), 0)
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(g.path))
	}
	if err != nil {
		unix.Close(fd)
		return noTail, fmt.Errorf("%s: %w", g.path, err)
	}
	g.length = size
	return fd, nil
}

func openForWriting(path string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|flags, 0o600); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return noTail, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// open opens the file for reading.
func (g *segment) open() (err error) {
	g.file, err = openNoTime(os.OpenFile, g.path, os.O_RDONLY, 0)
	return err
}

func (g *segment) close() error {
	if g.file == nil {
		return nil
	}
	return g.file.Close()
}

func (g *segment) header() []byte {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, segmentFormat)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, g.salt)
	b = binary.BigEndian.AppendUint64(b, g.base)
	b = append(b, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[20:], headerSum(b))
	return b
}

func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:20], castagnoli), castagnoli, b[24:segmentHeader])
}

// openSegment reads a segment, and changes nothing. torn says that behind its last
// record there is something that was not written to its end. The file is read into buf, which
// serves for one after the other.
func openSegment(dir string, base uint64, buf *bytes.Buffer) (g *segment, torn bool, err error) {
	g = newSegment(dir, base)
	if err := g.open(); err != nil {
		return nil, false, err
	}
	if torn, err = g.scan(buf); err != nil {
		g.close()
		return nil, false, fmt.Errorf("%s: %w", g.path, err)
	}
	return g, torn, nil
}

func (g *segment) scan(buf *bytes.Buffer) (torn bool, err error) {
	info, err := g.file.Stat()
	if err != nil {
		return false, err
	}
	buf.Reset()
	buf.Grow(int(info.Size()) + bytes.MinRead) // where it grows step by step, each step copies all
	if _, err := buf.ReadFrom(g.file); err != nil {
		return false, err
	}
	b := buf.Bytes()
	g.length = int64(len(b))
	switch {
	case len(b) < segmentHeader || string(b[:16]) != segmentMagic:
		return false, fmt.Errorf("not a part of a log: %w", ErrDamaged)
	case binary.BigEndian.Uint32(b[16:]) > segmentFormat:
		return false, fmt.Errorf("log format %d: %w", binary.BigEndian.Uint32(b[16:]), ErrVersion)
	case binary.BigEndian.Uint32(b[20:]) != headerSum(b) || binary.BigEndian.Uint64(b[28:]) != g.base:
		return false, fmt.Errorf("the header is not what was written: %w", ErrDamaged)
	}
	g.salt = binary.BigEndian.Uint32(b[24:])
	for {
		r, ok := parseRecord(b[g.end:], g.salt)
		if !ok {
			break
		}
		if r.index() != g.next() {
			return false, fmt.Errorf("entry %d is at the place of %d: %w", r.index(), g.next(), ErrDamaged)
		}
		g.offsets = append(g.offsets, uint32(g.end))
		g.end += int64(padded(len(r)))
	}
	rest := b[g.end:]
	if allZero(rest) {
		return false, nil
	}
	// What is here was being written when the machine went down, or it is damage.
	// Then a later batch may be there, which was written when this was on disk.
	for at := recordAlign; at < len(rest); at += recordAlign {
		if r, ok := parseRecord(rest[at:], g.salt); ok && r.batch() > g.next() {
			return false, fmt.Errorf("entry %d cannot be read, and later ones can: %w", g.next(), ErrDamaged)
		}
	}
	return true, nil
}

var zeros [4 << 10]byte

// allZero reports whether there are only zeros. Most of a log's last file is such.
func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// cut has zeros in a segment's file from an offset on, up to a length, on disk too. A
// crash leaves the file as it was, or one that ends there, or this one.
func cut(fd int, end, length int64) error {
	err := unix.Ftruncate(fd, end)
	if err == nil {
		err = allocate(fd, length)
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	return err
}

// allocate gives a file the length of size, if it is shorter, and sets disk space aside
// for that. Where the file system cannot do that, space is taken when something is written.
// A crash leaves the length that the file had, or this one.
func allocate(fd int, size int64) error {
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return err
	}
	if is.Size < size {
		if err := unix.Ftruncate(fd, size); err != nil {
			return err
		}
	}
	for {
		switch err := unix.Fallocate(fd, 0, 0, size); err {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return nil
		default:
			return err
		}
	}
}

func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

func flush(fd int) error {
	for {
		if err := unix.Fdatasync(fd); err != unix.EINTR {
			return err
		}
	}
}
