package ensemble

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everyOp has one operation of each kind, no field zero.
var everyOp = Entry{
	At: time.UnixMilli(1444000000123),
	Ops: []Op{
		Found{"0123456789abcdef", 1444000000123456},
		Activate{},
		Open{"n1", 3, "boot", 2 * time.Second, 2400 * time.Millisecond, "riak@10.0.0.1", "10.0.0.1:5324", 1},
		Renew{1025, 1},
		Join{1025, 2, "spark", "worker-1"},
		Leave{1025, 3, 2},
		End{1025, 4},
		Expire{1025, 1},
	},
}

func TestEntryRoundTrip(t *testing.T) {
	got, err := decodeEntry(encodeEntry(everyOp))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, everyOp) {
		t.Errorf("\n got %v\nwant %v", got, everyOp)
	}
}

// Old bytes stay readable: the samples were written by version 1.
func TestFormatsStayReadable(t *testing.T) {
	s := NewState()
	s.Apply(1, everyOp, nil)
	s.Apply(2, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1}}}, nil)
	s.Apply(3, Entry{At: everyOp.At, Ops: []Op{Join{2048, 1, "spark", "worker-2"}, Join{2048, 2, "spark", "worker-3"}}}, nil)
	removing := Entry{At: everyOp.At, Ops: []Op{Remove{"n2"}, Remove{"n3"}}}
	r := NewState()
	r.Apply(1, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1}}}, nil)
	r.Apply(2, removing, nil) // one with a session, one that never had any
	for name, now := range map[string][]byte{
		"entry-v1.hex":            encodeEntry(everyOp),
		"entry-remove-v1.hex":     encodeEntry(removing),
		"snapshot-v1.hex":         snapshotOf(s),
		"snapshot-removed-v1.hex": snapshotOf(r),
	} {
		text, err := os.ReadFile(filepath.Join("../testdata/disk", name))
		if err != nil {
			t.Fatal(err)
		}
		sample, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(now) != hex.EncodeToString(sample) {
			t.Errorf("%s: written differently now: a new format needs a new version\n got %x\nwant %x", name, now, sample)
		}
	}
}

func TestNewerFormatsAreRefused(t *testing.T) {
	entry := encodeEntry(everyOp)
	entry[0]++
	if _, err := decodeEntry(entry); !errors.Is(err, ErrFormat) {
		t.Errorf("entry of version 2: %v", err)
	}
	if _, err := decodeEntry([]byte{entryVersion, 0, 1, 200}); !errors.Is(err, ErrFormat) {
		t.Errorf("operation of an unknown kind: %v", err)
	}
	snapshot := snapshotOf(NewState())
	snapshot[0]++
	if _, err := restoreBytes(snapshot); !errors.Is(err, ErrFormat) {
		t.Errorf("snapshot of version 2: %v", err)
	}
}

func TestDamagedBytesAreRefused(t *testing.T) {
	entry := encodeEntry(everyOp)
	for n := range entry {
		if _, err := decodeEntry(entry[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of an entry were read without an error", n, len(entry))
		}
	}
	if _, err := decodeEntry(append(entry, 0)); !errors.Is(err, errCorrupt) {
		t.Errorf("an entry with a byte more: %v", err)
	}
	s := NewState()
	s.Apply(1, Entry{Ops: []Op{Open{Node: "n1", Counter: 1}}}, nil)
	s.Apply(2, Entry{Ops: []Op{Join{1024, 1, "g", "a"}}}, nil)
	snapshot := snapshotOf(s)
	for n := range snapshot {
		if _, err := restoreBytes(snapshot[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of a snapshot were read without an error", n, len(snapshot))
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(everyOp))
	f.Add(encodeEntry(Entry{Ops: []Op{Remove{"n1"}}}))
	f.Add([]byte{entryVersion, 0, 0xff, 0xff, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		entry, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := decodeEntry(encodeEntry(entry))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Ops, entry.Ops) {
			t.Errorf("\n got %v\nwant %v", again, entry)
		}
		NewState().Apply(1, entry, nil)
	})
}

func FuzzRestoreState(f *testing.F) {
	s := NewState()
	s.Apply(1, everyOp, nil)
	f.Add(snapshotOf(s))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := restoreBytes(b)
		if err != nil {
			return
		}
		again, err := restoreBytes(snapshotOf(s))
		if err != nil {
			t.Fatal(err)
		}
		if string(snapshotOf(again)) != string(snapshotOf(s)) {
			t.Error("a restored state has another snapshot")
		}
	})
}
