package state

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

// everyOp has one operation of each kind that the first version had, but Remove; no field zero.
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

// raising is an entry that only version 2 can hold.
var raising = Entry{At: everyOp.At, Ops: []Op{Raise{2}, Renew{2048, 1}, Remove{"n3"}}}

// lifting is another one.
var lifting = Entry{At: everyOp.At, Ops: []Op{Lift{1444000000123456}, Renew{2048, 1}}}

func TestEntryRoundTrip(t *testing.T) {
	for _, c := range []struct {
		level uint64
		entry Entry
	}{{1, everyOp}, {2, everyOp}, {2, raising}, {2, lifting}} {
		got, err := Decode(Encode(c.level, c.entry))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c.entry) {
			t.Errorf("level %d:\n got %v\nwant %v", c.level, got, c.entry)
		}
	}
}

// Old bytes stay readable, and what is written at a level stays what it was, byte for
// byte: the samples of version 1 were written by the first program.
func TestFormatsStayReadable(t *testing.T) {
	s := New()
	s.Apply(1, everyOp, nil)
	s.Apply(2, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1}}}, nil)
	s.Apply(3, Entry{At: everyOp.At, Ops: []Op{Join{2048, 1, "spark", "worker-2"}, Join{2048, 2, "spark", "worker-3"}}}, nil)
	removing := Entry{At: everyOp.At, Ops: []Op{Remove{"n2"}, Remove{"n3"}}}
	r := New()
	r.Apply(1, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1}}}, nil)
	r.Apply(2, removing, nil) // one with a session, one that never had any
	raised, err := restoreBytes(snapshotOf(s))
	if err != nil {
		t.Fatal(err)
	}
	raised.Apply(4, raising, nil)
	for name, now := range map[string][]byte{
		"entry-v1.hex":            Encode(1, everyOp),
		"entry-remove-v1.hex":     Encode(1, removing),
		"entry-v2.hex":            Encode(2, raising),
		"entry-lift-v2.hex":       Encode(2, lifting),
		"snapshot-v2.hex":         snapshotOf(raised),
		"snapshot-v1.hex":         snapshotOf(s),
		"snapshot-removed-v1.hex": snapshotOf(r),
	} {
		text, err := os.ReadFile(filepath.Join("../../testdata/disk", name))
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
		if strings.HasPrefix(name, "entry") {
			_, err = Decode(sample)
		} else {
			_, err = restoreBytes(sample)
		}
		if err != nil {
			t.Errorf("%s is not read any more: %v", name, err)
		}
	}
}

func TestNewerFormatsAreRefused(t *testing.T) {
	entry := Encode(NewestLevel, everyOp)
	entry[0]++
	if _, err := Decode(entry); !errors.Is(err, ErrFormat) {
		t.Errorf("entry of a newer version: %v", err)
	}
	if _, err := Decode(Encode(NewestLevel, Entry{Ops: []Op{Raise{NewestLevel + 1}}})); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer level in an entry that can be read: %v", err)
	}
	if _, err := Decode([]byte{levels[NewestLevel].entry, 0, 1, 200}); !errors.Is(err, ErrFormat) {
		t.Errorf("operation of an unknown kind: %v", err)
	}
	s := New()
	s.level = NewestLevel
	snapshot := snapshotOf(s)
	snapshot[0]++
	if _, err := restoreBytes(snapshot); !errors.Is(err, ErrFormat) {
		t.Errorf("snapshot of a newer version: %v", err)
	}
	snapshot[0]--
	snapshot[1]++
	if _, err := restoreBytes(snapshot); !errors.Is(err, ErrFormat) {
		t.Errorf("snapshot of a newer level: %v", err)
	}
}

func TestDamagedBytesAreRefused(t *testing.T) {
	entry := Encode(NewestLevel, everyOp)
	for n := range entry {
		if _, err := Decode(entry[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of an entry were read without an error", n, len(entry))
		}
	}
	if _, err := Decode(append(entry, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an entry with a byte more: %v", err)
	}
	for _, newer := range []Entry{raising, lifting} {
		old := Encode(NewestLevel, newer)
		old[0] = 1
		if _, err := Decode(old); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a %T in an entry of version 1: %v", newer.Ops[0], err)
		}
	}
	s := New()
	s.Apply(1, Entry{Ops: []Op{Open{Node: "n1", Counter: 1}}}, nil)
	s.Apply(2, Entry{Ops: []Op{Join{1024, 1, "g", "a"}}}, nil)
	s.Apply(3, raising, nil)
	snapshot := snapshotOf(s)
	for n := range snapshot {
		if _, err := restoreBytes(snapshot[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of a snapshot were read without an error", n, len(snapshot))
		}
	}
	snapshot[1] = 1 // the level: such a state has a snapshot of version 1
	if _, err := restoreBytes(snapshot); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a snapshot of version 2 of a state of level 1: %v", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(Encode(NewestLevel, everyOp))
	f.Add(Encode(1, everyOp))
	f.Add(Encode(1, Entry{Ops: []Op{Remove{"n1"}}}))
	f.Add(Encode(2, raising))
	f.Add(Encode(2, lifting))
	f.Add([]byte{levels[NewestLevel].entry, 0, 0xff, 0xff, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		entry, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(Encode(NewestLevel, entry))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Ops, entry.Ops) {
			t.Errorf("\n got %v\nwant %v", again, entry)
		}
		New().Apply(1, entry, nil)
	})
}

func FuzzRestoreState(f *testing.F) {
	s := New()
	s.Apply(1, everyOp, nil)
	f.Add(snapshotOf(s))
	s.Apply(2, raising, nil)
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
