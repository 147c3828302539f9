package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// ErrVersion is that of an entry in a format that this program does not know:
// a newer one has written it.
var ErrVersion = errors.New("written by a newer version of this program; run that one")

// ErrDamaged is that of a file, or an entry in it, that is not as it was written.
var ErrDamaged = errors.New("damaged")

// ErrStalled: the disk does not answer.
var ErrStalled = errors.New("the disk hangs")

// An entry on disk, format 1. Numbers are big endian; every entry has exactly
// one encoding.
//
//	 0  1  format, 1
//	 1  1  type
//	 2  8  index
//	10  8  term
//	18  8  appended at, seconds since 1970, signed
//	26  4  appended at, nanoseconds below 1e9
//	30  4  length of the extensions
//	34     extensions, then data
//	    4  CRC-32C of all before
const (
	entryFormat  = 1
	entryHeader  = 34
	entryTrailer = crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode relies on bbolt to refuse values of 2 GiB and more.
func encode(l *raft.Log) []byte {
	b := make([]byte, 0, entryHeader+len(l.Extensions)+len(l.Data)+entryTrailer)
	b = append(b, entryFormat, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.AppendedAt.Nanosecond()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decode fills l from b and keeps no reference to b. Its errors are ErrVersion
// and ErrDamaged.
func decode(b []byte, l *raft.Log) error {
	if len(b) > 0 && b[0] != entryFormat {
		return fmt.Errorf("entry format %d: %w", b[0], ErrVersion)
	}
	if len(b) < entryHeader+entryTrailer {
		return fmt.Errorf("entry of %d bytes, too short: %w", len(b), ErrDamaged)
	}
	end := len(b) - entryTrailer
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return fmt.Errorf("entry with a wrong checksum: %w", ErrDamaged)
	}
	nanos, extensions := binary.BigEndian.Uint32(b[26:]), uint64(binary.BigEndian.Uint32(b[30:]))
	if nanos >= 1e9 || extensions > uint64(end-entryHeader) {
		return fmt.Errorf("entry with an impossible length or time: %w", ErrDamaged)
	}
	payload := bytes.Clone(b[entryHeader:end])
	*l = raft.Log{
		Type:       raft.LogType(b[1]),
		Index:      binary.BigEndian.Uint64(b[2:]),
		Term:       binary.BigEndian.Uint64(b[10:]),
		AppendedAt: time.Unix(int64(binary.BigEndian.Uint64(b[18:])), int64(nanos)), // the zero time stays IsZero
		Data:       payload[extensions:],
	}
	if extensions > 0 {
		l.Extensions = payload[:extensions:extensions]
	}
	return nil
}
