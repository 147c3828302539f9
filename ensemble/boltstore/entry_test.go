package boltstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Format 1 for good: these bytes are on disks.
func TestEntryOnDisk(t *testing.T) {
	tests := []struct {
		name string
		l    raft.Log
		want string
	}{
		{"all fields",
			raft.Log{Index: 0x0102030405060708, Term: 9, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ex"), AppendedAt: time.Unix(0x11223344, 0x0a)},
			"01 05 0102030405060708 0000000000000009 0000000011223344 0000000a 00000002 6578 64617461 04876301"},
		{"nothing but an index",
			raft.Log{Index: 1},
			"01 00 0000000000000001 0000000000000000 fffffff1886e0900 00000000 00000000 c6e508f5"},
		{"before 1970",
			raft.Log{Index: 2, AppendedAt: time.Unix(-1, 5)},
			"01 00 0000000000000002 0000000000000000 ffffffffffffffff 00000005 00000000 4ae35bf7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(tt.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(&tt.l); !bytes.Equal(got, want) {
				t.Errorf("encoded as\n%x, want\n%x", got, want)
			}
			var l raft.Log
			if err := decode(want, &l); err != nil {
				t.Fatal(err)
			}
			wantSame(t, &l, &tt.l)
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := encode(&raft.Log{Index: 1, Term: 2, Data: []byte("data"), Extensions: []byte("ex"), AppendedAt: time.Unix(3, 4)})
	changed := func(offset int, b ...byte) []byte {
		c := bytes.Clone(good[:len(good)-entryTrailer])
		copy(c[offset:], b)
		return sealed(c)
	}
	tests := []struct {
		name string
		b    []byte
		is   error
		want string
	}{
		{"nothing", nil, ErrDamaged, "entry of 0 bytes, too short"},
		{"format 0", changed(0, 0), ErrVersion, "entry format 0: written by a newer version"},
		{"format 2", changed(0, 2), ErrVersion, "entry format 2"},
		{"format 2, short", []byte{2}, ErrVersion, "entry format 2"},
		{"too short for a checksum", good[:entryHeader+entryTrailer-1], ErrDamaged, "entry of 37 bytes, too short"},
		{"cut off", good[:len(good)-1], ErrDamaged, "wrong checksum"},
		{"too long", append(bytes.Clone(good), 0), ErrDamaged, "wrong checksum"},
		{"extensions longer than the entry", changed(30, 0, 0, 0, 7), ErrDamaged, "impossible length or time"},
		{"extensions of 4 GiB", changed(30, 255, 255, 255, 255), ErrDamaged, "impossible length or time"},
		{"a second has no 1e9th nanosecond", changed(26, 0x3b, 0x9a, 0xca, 0x00), ErrDamaged, "impossible length or time"},
	}
	for i := range good[1:] {
		b := bytes.Clone(good)
		b[i+1] ^= 0x10
		tests = append(tests, struct {
			name string
			b    []byte
			is   error
			want string
		}{"a bit is wrong", b, ErrDamaged, "wrong checksum"})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := raft.Log{Index: 77}
			err := decode(tt.b, &l)
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %v with %q", err, tt.is, tt.want)
			}
			if l.Index != 77 {
				t.Errorf("the entry was touched: %+v", l)
			}
		})
	}
}

// sealed appends the checksum.
func sealed(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Any bytes, with a right checksum or not: an error of a known kind, or an entry
// that is encoded as the same bytes again.
func FuzzDecode(f *testing.F) {
	for _, l := range []*raft.Log{{}, entry(1), {Index: 2, Data: []byte("data"), Extensions: []byte("ex")}} {
		b := encode(l)
		f.Add(b, false)
		f.Add(b[:len(b)-entryTrailer], true)
	}
	f.Add([]byte{2, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = sealed(bytes.Clone(b))
		}
		var l raft.Log
		if err := decode(b, &l); err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Errorf("error %v is of no kind", err)
			}
			return
		}
		if again := encode(&l); !bytes.Equal(again, b) {
			t.Errorf("%x was encoded again as %x", b, again)
		}
	})
}

// Any entry comes back as it was.
func FuzzEncode(f *testing.F) {
	f.Add(uint64(1), uint64(2), byte(3), int64(4), int64(5), []byte("data"), []byte("extensions"))
	f.Fuzz(func(t *testing.T, index, term uint64, typ byte, sec, nanos int64, data, extensions []byte) {
		want := raft.Log{Index: index, Term: term, Type: raft.LogType(typ), Data: data, Extensions: extensions, AppendedAt: time.Unix(sec, nanos)}
		var got raft.Log
		if err := decode(encode(&want), &got); err != nil {
			t.Fatal(err)
		}
		wantSame(t, &got, &want)
	})
}
