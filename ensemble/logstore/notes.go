package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// In format 2 the bbolt file holds one value, the notes. So their checksum finds what
// is missing as well as what is wrong, whichever way bbolt came to give it. What was right
// once is found too, where the disk has lost the page that took its place: every transaction
// writes the notes, and puts its number into them. Numbers are big endian.
//
//	 0  4  format, 2
//	 4  4  CRC-32C of the format and of all that follows
//	 8  8  number of bbolt's transaction that wrote them
//	16 24  extent: first, newest, length
//	40     Raft's values in the order of their keys; of each
//	       4  length of the key
//	       4  length of the value
//	          key, value
//
// Format 1 has a bucket for the extent and one for Raft's values, without a checksum.
// A file has one of the two, and its buckets say which.
const notesHeader = 40

var (
	notesBucket = []byte("notes") // notesKey -> notes
	notesKey    = []byte("notes")

	// Format 1.
	logBucket    = []byte("segments") // extentKey -> first, newest
	stableBucket = []byte("stable")   // Raft's key -> value
	extentKey    = []byte("extent")
)

// extent says which part of the files is the log.
type extent struct {
	first  uint64 // entry of the log
	newest uint64 // first entry of the last segment; 0: there is no segment, and the log is empty
	length uint64 // that the last segment's file has at least, see [Store.cutTail]; 0: not known, as in format 1
}

// notes is what is known beside the files of the log.
type notes struct {
	transaction uint64
	extent
	values map[string][]byte // of Raft; numbers are 8 bytes
}

func (n *notes) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, 2)
	b = append(b, 0, 0, 0, 0)
	for _, v := range []uint64{n.transaction, n.first, n.newest, n.length} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, k := range slices.Sorted(maps.Keys(n.values)) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(k)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(n.values[k])))
		b = append(b, k...)
		b = append(b, n.values[k]...)
	}
	binary.BigEndian.PutUint32(b[4:], notesSum(b))
	return b
}

func notesSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[8:])
}

// parseNotes gives the notes that are encoded in b, and refers to it.
func parseNotes(b []byte) (*notes, error) {
	switch {
	case len(b) < notesHeader:
		return nil, fmt.Errorf("notes of %d bytes: %w", len(b), ErrDamaged)
	case binary.BigEndian.Uint32(b) > Format:
		return nil, fmt.Errorf("notes of format %d: %w", binary.BigEndian.Uint32(b), ErrVersion)
	case binary.BigEndian.Uint32(b) != 2 || binary.BigEndian.Uint32(b[4:]) != notesSum(b):
		return nil, fmt.Errorf("the notes are not what was written: %w", ErrDamaged)
	}
	n := &notes{
		transaction: binary.BigEndian.Uint64(b[8:]),
		extent:      extent{binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])},
		values:      map[string][]byte{},
	}
	last := ""
	for b = b[notesHeader:]; len(b) > 0; {
		if len(b) < 8 {
			return nil, fmt.Errorf("the notes end within a value: %w", ErrDamaged)
		}
		k, v := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))
		if b = b[8:]; k+v > uint64(len(b)) {
			return nil, fmt.Errorf("the notes end within a value: %w", ErrDamaged)
		}
		key := string(b[:k])
		if len(n.values) > 0 && key <= last {
			return nil, fmt.Errorf("the notes have a value twice or at another's place: %w", ErrDamaged)
		}
		n.values[key], last = b[k:k+v:k+v], key
		b = b[k+v:]
	}
	return n, nil
}

// readNotes gives the notes in a file of format 2, as the transaction finds them.
func readNotes(tx *bolt.Tx) (*notes, error) {
	n, err := parseNotes(tx.Bucket(notesBucket).Get(notesKey))
	if err != nil {
		return nil, err
	}
	last := uint64(tx.ID())
	if tx.Writable() {
		last--
	}
	if n.transaction != last {
		return nil, fmt.Errorf("the notes are of transaction %d, and the last one was %d: %w", n.transaction, last, ErrDamaged)
	}
	return n, nil
}

// putNotes has the notes be those of a transaction that writes.
func putNotes(tx *bolt.Tx, n *notes) error {
	n.transaction = uint64(tx.ID())
	return tx.Bucket(notesBucket).Put(notesKey, n.encode())
}

// formatOf tells the format of a bbolt file.
func formatOf(tx *bolt.Tx) (int, error) {
	has := func(bucket []byte) bool { return tx.Bucket(bucket) != nil }
	switch one := has(logBucket) && has(stableBucket); {
	case has(notesBucket) && !has(logBucket) && !has(stableBucket):
		return 2, nil
	case one && !has(notesBucket):
		return 1, nil
	case !one && has([]byte("log")):
		return 0, errors.New("made by a version before the first release, which is not read any more")
	}
	return 0, errors.New("not a log store")
}

// readExtent gives the extent that is noted. None is in a file of format 1 before the log
// has had a file.
func readExtent(tx *bolt.Tx) (e extent, noted bool, err error) {
	if tx.Bucket(notesBucket) != nil {
		n, err := readNotes(tx)
		if err != nil {
			return extent{}, false, err
		}
		return n.extent, true, nil
	}
	v := tx.Bucket(logBucket).Get(extentKey)
	switch {
	case v == nil:
	case len(v) == 16:
		e, noted = extent{first: binary.BigEndian.Uint64(v), newest: binary.BigEndian.Uint64(v[8:])}, true
	default:
		err = fmt.Errorf("the extent of the log has %d bytes instead of 16: %w", len(v), ErrDamaged)
	}
	return e, noted, err
}

// readValue gives a copy of Raft's value of k; nil if there is none.
func readValue(tx *bolt.Tx, k []byte) ([]byte, error) {
	if tx.Bucket(notesBucket) != nil {
		n, err := readNotes(tx)
		if err != nil {
			return nil, err
		}
		return bytes.Clone(n.values[string(k)]), nil
	}
	return bytes.Clone(tx.Bucket(stableBucket).Get(k)), nil
}

// writeNotes notes the extent, unless it is nil, and values, in the format that the file has.
func writeNotes(tx *bolt.Tx, e *extent, values []pair) error {
	if tx.Bucket(notesBucket) != nil {
		n, err := readNotes(tx)
		if err != nil {
			return err
		}
		if e != nil {
			n.extent = *e
		}
		for _, v := range values {
			n.values[string(v.k)] = v.v
		}
		return putNotes(tx, n)
	}
	if e != nil {
		if err := tx.Bucket(logBucket).Put(extentKey, append(number(e.first), number(e.newest)...)); err != nil {
			return err
		}
	}
	for _, v := range values {
		if err := tx.Bucket(stableBucket).Put(v.k, v.v); err != nil {
			return err
		}
	}
	return nil
}

// raiseNotes writes a file of format 1 anew in format 2. length is that of the last
// segment's file.
func raiseNotes(tx *bolt.Tx, length uint64) error {
	e, _, err := readExtent(tx)
	if err != nil {
		return err
	}
	n := notes{extent: e, values: map[string][]byte{}}
	n.length = length
	err = tx.Bucket(stableBucket).ForEach(func(k, v []byte) error {
		n.values[string(k)] = bytes.Clone(v) // which goes with its bucket
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(tx.DeleteBucket(logBucket), tx.DeleteBucket(stableBucket)); err != nil {
		return err
	}
	if _, err := tx.CreateBucket(notesBucket); err != nil {
		return err
	}
	return putNotes(tx, &n)
}

// Format is the version that the store writes.
func (s *Store) Format() (format int, err error) {
	err = s.run(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			format, err = formatOf(tx)
			return err
		})
	})
	return format, err
}

// Raise has the store write a version from now on, which is on disk when it returns. It
// does nothing where the store writes that one, or a higher one: it never goes back.
func (s *Store) Raise(format int) error {
	return s.write(func() error { return s.raise(format) })
}

// raise is [Store.Raise]. s.disk is held.
func (s *Store) raise(format int) error {
	if format > Format {
		return fmt.Errorf("write log format %d: there are versions up to %d", format, Format)
	}
	var is int
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		is, err = formatOf(tx)
		return err
	})
	if err != nil || is >= format {
		return err
	}
	length := int64(0)
	if n := len(s.segments); n > 0 {
		g := s.segments[n-1]
		length = max(g.length, s.size)
		err := s.onDisk(func() error { // nothing may be noted that a crash could take
			if err := allocate(s.tail, length); err != nil {
				return err
			}
			return unix.Fsync(s.tail)
		})
		if err != nil {
			return err
		}
		g.length = length
	}
	return s.update(func(tx *bolt.Tx) error { return raiseNotes(tx, uint64(length)) })
}
