package state

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
		Open{"n1", 3, "boot", 2 * time.Second, 2400 * time.Millisecond, "riak@10.0.0.1", "10.0.0.1:5324", 1, 0},
		Renew{1025, 1},
		Join{1025, 2, "spark", "worker-1"},
		Leave{1025, 3, 2, 0},
		End{1025, 4, 0},
		Expire{1025, 1, 0, ""},
	},
}

// raising is an entry that only version 2 can hold.
var raising = Entry{At: everyOp.At, Ops: []Op{Raise{2}, Renew{2048, 1}, Remove{"n3"}}}

// lifting is another one.
var lifting = Entry{At: everyOp.At, Ops: []Op{Lift{1444000000123456}, Renew{2048, 1}}}

// keeping is one that only version 3 can hold: each operation that ends memberships, with
// its reason and without, and each that concerns keyed members.
var keeping = Entry{At: everyOp.At, Ops: []Op{
	Raise{3},
	Open{"n1", 9, "boot", 2 * time.Second, 2400 * time.Millisecond, "riak@10.0.0.1", "10.0.0.1:5324", 3, ReasonSessionLost},
	KeyedJoin{Join{2049, 1, "spark", "worker-1"}, KeyOf("spark", "worker-1", "secret of worker-1"), 2 * time.Second},
	Join{2049, 2, "spark", "worker-2"},
	StepDown{2049, 3, 1, 1444000000123456 + 2050},
	Leave{2049, 4, 2, ReasonReset},
	Leave{2049, 5, 99, 0},
	End{2049, 6, ReasonNodeStopped},
	End{2049, 7, 0},
	Expire{2049, 7, ReasonNodeLost, "n2"},
	Expire{2049, 8, 0, ""},
}}

func TestEntryRoundTrip(t *testing.T) {
	for _, c := range []struct {
		level uint64
		entry Entry
	}{{1, everyOp}, {2, everyOp}, {2, raising}, {2, lifting}, {3, everyOp}, {3, keeping}} {
		got, err := decode(Encode(c.level, c.entry), built)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c.entry) {
			t.Errorf("level %d:\n got %v\nwant %v", c.level, got, c.entry)
		}
	}
}

// Before the level has risen an entry has no reasons, whoever told some: it has the bytes
// that it ever had.
func TestReasonsAreWrittenFromTheirLevelOn(t *testing.T) {
	told, untold := []Op{Open{Node: "n1", Reason: ReasonNodeRestarted}, Leave{1, 2, 3, ReasonStuck}, End{1, 2, ReasonRemoved}, Expire{1, 2, ReasonNodeLost, "n2"}},
		[]Op{Open{Node: "n1"}, Leave{1, 2, 3, 0}, End{1, 2, 0}, Expire{1, 2, 0, ""}}
	for level := uint64(FirstLevel); level <= built; level++ {
		same := bytes.Equal(Encode(level, Entry{Ops: told}), Encode(level, Entry{Ops: untold}))
		if want := level < KeyedLevel; same != want {
			t.Errorf("level %d: the same without reasons: %v, want %v", level, same, want)
		}
	}
}

// Old bytes stay readable, and what is written at a level stays what it was, byte for
// byte: the samples of version 1 were written by the first program. Those of a level that
// NewestLevel has not reached nobody has written yet: they may change with it.
func TestFormatsStayReadable(t *testing.T) {
	s := New()
	s.Apply(1, everyOp, nil)
	s.Apply(2, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1, 0}}}, nil)
	s.Apply(3, Entry{At: everyOp.At, Ops: []Op{Join{2048, 1, "spark", "worker-2"}, Join{2048, 2, "spark", "worker-3"}}}, nil)
	removing := Entry{At: everyOp.At, Ops: []Op{Remove{"n2"}, Remove{"n3"}}}
	r := New()
	r.Apply(1, Entry{At: everyOp.At, Ops: []Op{Open{"n2", 1, "boot", time.Second, 2 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 1, 0}}}, nil)
	r.Apply(2, removing, nil) // one with a session, one that never had any
	raised, err := restoreBytes(snapshotOf(s))
	if err != nil {
		t.Fatal(err)
	}
	raised.Apply(4, raising, nil)
	kept := stateOf(t, keptEntries)
	for name, now := range map[string][]byte{
		"entry-v3.hex":            Encode(3, keeping),
		"snapshot-v3.hex":         snapshotOf(kept),
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
			_, err = decode(sample, built)
		} else {
			_, err = restoreBytes(sample)
		}
		if err != nil {
			t.Errorf("%s is not read any more: %v", name, err)
		}
	}
}

// keptEntries make a state that has all that one of version 3 can have: two orphaned
// sessions, a keyed member that has moved with a longer hold, plain ones beside them, and
// leaders that were.
var keptEntries = []Entry{
	{At: everyOp.At, Ops: []Op{Found{"0123456789abcdef", 1444000000123456}, Activate{}, Raise{3}}},
	{At: everyOp.At, Ops: []Op{
		Open{"n1", 1, "boot", 2 * time.Second, 2400 * time.Millisecond, "riak@10.0.0.1", "10.0.0.1:5324", 3, 0},
		Open{"n2", 1, "boot", 6 * time.Second, 7 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 3, 0},
	}},
	{At: everyOp.At, Ops: []Op{
		KeyedJoin{Join{2048, 1, "spark", "worker-1"}, KeyOf("spark", "worker-1", "secret of worker-1"), 2 * time.Second},
		Join{2048, 2, "spark", "worker-2"},
		KeyedJoin{Join{2049, 1, "spark", "worker-3"}, KeyOf("spark", "worker-3", "secret of worker-3"), 0},
		Join{2049, 2, "plain", "worker-2"},
	}},
	{At: everyOp.At.Add(time.Second), Ops: []Op{StepDown{2048, 3, 1, 1444000000123456 + 3072}}},
	{At: everyOp.At.Add(time.Minute), Ops: []Op{
		KeyedJoin{Join{2049, 3, "spark", "worker-1"}, KeyOf("spark", "worker-1", "secret of worker-1"), 7 * time.Second},
		KeyedJoin{Join{2048, 4, "other", "worker-4"}, KeyOf("other", "worker-4", "secret of worker-4"), time.Second},
		End{2048, 5, ReasonNodeStopped},
		Open{"n2", 2, "boot", 6 * time.Second, 7 * time.Second, "riak@10.0.0.2", "10.0.0.2:5324", 3, ReasonNodeRestarted},
	}},
}

// stateOf is the state that entries make, each as it is written.
func stateOf(t testing.TB, entries []Entry) *State {
	s := New()
	for i, e := range entries {
		e, err := decode(Encode(built, e), built)
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(uint64(i+1), e, nil)
	}
	return s
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
	if _, err := Restore(bytes.NewReader(snapshot)); !errors.Is(err, ErrFormat) {
		t.Errorf("snapshot of a newer version: %v", err)
	}
	snapshot[0]--
	snapshot[1]++
	if _, err := Restore(bytes.NewReader(snapshot)); !errors.Is(err, ErrFormat) {
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
	newer := []Op{Raise{2}, Lift{1}}
	for _, op := range keeping.Ops {
		switch op.(type) {
		case Raise, Join:
		default:
			newer = append(newer, op)
		}
	}
	for _, op := range newer {
		old := Encode(built, Entry{Ops: []Op{op}})
		old[0] = byte(opKind(old[3]).since()) - 1
		if _, err := decode(old, built); old[0] > 0 && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%#v in an entry of version %d: %v", op, old[0], err)
		}
	}
	if _, err := decode([]byte{3, 0, 1, byte(kindEnd | withReason), 0, 1, 1}, built); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an End with a reason that is none: %v", err)
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
	kept := snapshotOf(stateOf(t, keptEntries))
	for n := range kept {
		if _, err := restoreBytes(kept[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of a snapshot of version 3 were read without an error", n, len(kept))
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
	f.Add(Encode(3, keeping))
	f.Add([]byte{levels[NewestLevel].entry, 0, 0xff, 0xff, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		entry, err := decode(b, built)
		if err != nil {
			return
		}
		again, err := decode(Encode(built, entry), built)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Ops, entry.Ops) {
			t.Errorf("\n got %v\nwant %v", again, entry)
		}
		// What was read may be applied, and the state written, at any level.
		for level := uint64(FirstLevel); level <= built; level++ {
			s := New()
			s.Apply(1, Entry{Ops: []Op{Raise{level}}}, nil)
			s.Apply(2, entry, nil)
			s.Apply(3, entry, nil)
			if _, err := restoreBytes(snapshotOf(s)); err != nil {
				t.Errorf("at level %d: %v", level, err)
			}
		}
	})
}

func FuzzRestoreState(f *testing.F) {
	s := New()
	s.Apply(1, everyOp, nil)
	f.Add(snapshotOf(s))
	s.Apply(2, raising, nil)
	f.Add(snapshotOf(s))
	f.Add(snapshotOf(stateOf(f, keptEntries)))
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
		for g := range s.Groups() {
			s.Changes(g.Name)
		}
		index := s.Index()
		for _, ses := range slices.Collect(s.Sessions()) { // whatever it holds can go on, and end
			index++
			s.Apply(index, Entry{Ops: []Op{
				KeyedJoin{Join{ses.Incarnation, ses.Sign + 1, "g", "a"}, Key{}, 1}, End{ses.Incarnation, ses.Sign + 2, ReasonNodeStopped},
			}}, nil)
			s.Apply(index, Entry{Ops: []Op{Expire{ses.Incarnation, ses.Sign, ReasonNodeLost, ses.Node}}}, nil)
		}
	})
}
