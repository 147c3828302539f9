package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// ErrVersion is that of data in a format that this program does not know: a newer
// one has written them.
var ErrVersion = errors.New("written by a newer version of this program; run that one")

// ErrDamaged is that of a file, or an entry in it, that is not as it was written.
var ErrDamaged = errors.New("damaged")

// ErrStalled: the disk does not answer.
var ErrStalled = errors.New("the disk hangs")

// An entry on disk is a record, format 1. Numbers are big endian.
//
//	 0  4  CRC-32C of all that follows, begun with the file's salt
//	 4  4  length of the record without its padding
//	 8  8  index of the first entry of its batch: of what was written at once
//	16  8  index
//	24  8  term
//	32  8  appended at, seconds since 1970, signed
//	40  4  appended at, nanoseconds below 1e9
//	44  4  length of the extensions
//	48  1  type
//	49     extensions, then data
//	       zeros, up to a multiple of 8
const (
	recordHeader = 49
	recordAlign  = 8
)

// maxRecord bounds what is read as one record. Raft's own entries, and those of
// the state, are far smaller.
const maxRecord = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends the record of an entry to b.
func appendRecord(b []byte, salt uint32, batch uint64, l *raft.Log) ([]byte, error) {
	size := recordHeader + len(l.Extensions) + len(l.Data)
	if size > maxRecord {
		return nil, fmt.Errorf("store entry %d of %d bytes: that is too long", l.Index, len(l.Data))
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint64(b, batch)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.AppendedAt.Nanosecond()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, byte(l.Type))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	binary.BigEndian.PutUint32(b[start:], crc32.Update(salt, castagnoli, b[start+4:]))
	return append(b, make([]byte, padded(size)-size)...), nil
}

// padded is what a record of some size takes in the file.
func padded(size int) int { return (size + recordAlign - 1) &^ (recordAlign - 1) }

// record is one that has been found whole: its bytes, without padding.
type record []byte

// parseRecord gives the record at the beginning of b; false if there is none, or
// none that is whole.
func parseRecord(b []byte, salt uint32) (record, bool) {
	if len(b) < recordHeader {
		return nil, false
	}
	size := int(binary.BigEndian.Uint32(b[4:]))
	if size < recordHeader || size > maxRecord || padded(size) > len(b) {
		return nil, false
	}
	r := record(b[:size])
	return r, crc32.Update(salt, castagnoli, r[4:]) == binary.BigEndian.Uint32(r)
}

func (r record) batch() uint64 { return binary.BigEndian.Uint64(r[8:]) }
func (r record) index() uint64 { return binary.BigEndian.Uint64(r[16:]) }

// entry fills l, which refers to the bytes of the record then.
func (r record) entry(l *raft.Log) error {
	nanos, extensions := binary.BigEndian.Uint32(r[40:]), uint64(binary.BigEndian.Uint32(r[44:]))
	if nanos >= 1e9 || extensions > uint64(len(r)-recordHeader) {
		return fmt.Errorf("entry with an impossible length or time: %w", ErrDamaged)
	}
	payload := r[recordHeader:]
	*l = raft.Log{
		Type:       raft.LogType(r[48]),
		Index:      r.index(),
		Term:       binary.BigEndian.Uint64(r[24:]),
		AppendedAt: time.Unix(int64(binary.BigEndian.Uint64(r[32:])), int64(nanos)), // the zero time stays IsZero
		Data:       payload[extensions:],
	}
	if extensions > 0 {
		l.Extensions = payload[:extensions:extensions]
	}
	return nil
}
