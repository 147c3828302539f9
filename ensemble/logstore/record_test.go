package logstore

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Format 1 for good: these bytes are on disks.
func TestEntryOnDisk(t *testing.T) {
	tests := []struct {
		name  string
		batch uint64
		l     raft.Log
		want  string
	}{
		{"all fields", 0x0102030405060707,
			raft.Log{Index: 0x0102030405060708, Term: 9, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ex"), AppendedAt: time.Unix(0x11223344, 0x0a)},
			"1b1bd826 00000037 0102030405060707 0102030405060708 0000000000000009 0000000011223344 0000000a 00000002 05 6578 64617461 00"},
		{"nothing but an index", 1,
			raft.Log{Index: 1},
			"a9829bf5 00000031 0000000000000001 0000000000000001 0000000000000000 fffffff1886e0900 00000000 00000000 00 00000000000000"},
		{"before 1970", 2,
			raft.Log{Index: 2, AppendedAt: time.Unix(-1, 5)},
			"cb287122 00000031 0000000000000002 0000000000000002 0000000000000000 ffffffffffffffff 00000005 00000000 00 00000000000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(tt.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := appendRecord([]byte("before"), 0x5a175a17, tt.batch, &tt.l)
			if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("encoded as\n%x, want\n%x (error %v)", got[6:], want, err)
			}
			r, ok := parseRecord(want, 0x5a175a17)
			if !ok || r.batch() != tt.batch {
				t.Fatalf("found %t, batch %d", ok, r.batch())
			}
			var l raft.Log
			if err := r.entry(&l); err != nil {
				t.Fatal(err)
			}
			wantSame(t, &l, &tt.l)
		})
	}
}

// Nothing but the bytes that were written is a record.
func TestWhatIsNoRecord(t *testing.T) {
	const salt = 7
	good := mustRecord(t, salt, 1, &raft.Log{Index: 1, Term: 2, Data: []byte("data"), Extensions: []byte("ex"), AppendedAt: time.Unix(3, 4)})
	if _, ok := parseRecord(good, salt); !ok {
		t.Fatal("the good one is refused")
	}
	if _, ok := parseRecord(good, salt+1); ok {
		t.Error("taken with the salt of another file")
	}
	for n := range good {
		if _, ok := parseRecord(good[:n], salt); ok {
			t.Errorf("cut off at %d: taken", n)
		}
	}
	length := len(good) - 1 // there is one byte of padding
	for i := range good[:length] {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if _, ok := parseRecord(b, salt); ok {
			t.Errorf("byte %d changed: taken", i)
		}
	}
	if _, ok := parseRecord(make([]byte, 64), 0); ok {
		t.Error("zeros are taken")
	}
}

func TestARecordThatNoVersionWrites(t *testing.T) {
	for name, l := range map[string]struct {
		at int
		b  []byte
	}{
		"extensions longer than the entry": {44, []byte{0, 0, 0, 7}},
		"extensions of 4 GiB":              {44, []byte{255, 255, 255, 255}},
		"a second has no 1e9th nanosecond": {40, []byte{0x3b, 0x9a, 0xca, 0x00}},
	} {
		r := record(mustRecord(t, 0, 1, &raft.Log{Index: 1, Data: []byte("data"), Extensions: []byte("ex")})[:recordHeader+6])
		copy(r[l.at:], l.b)
		if err := r.entry(new(raft.Log)); err == nil || !strings.Contains(err.Error(), "impossible length or time") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestAnEntryTooLongIsRefused(t *testing.T) {
	if _, err := appendRecord(nil, 0, 1, &raft.Log{Index: 1, Data: make([]byte, maxRecord)}); err == nil {
		t.Error("no error")
	}
}

func mustRecord(t *testing.T, salt uint32, batch uint64, l *raft.Log) []byte {
	t.Helper()
	b, err := appendRecord(nil, salt, batch, l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
