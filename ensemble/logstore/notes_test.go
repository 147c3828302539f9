package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// Each case is a store of format 2 with the entries 1 to 300, and a change of its raft.db.
func TestOpenRefusesNotes(t *testing.T) {
	change := func(f func([]byte) []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			b := tx.Bucket(notesBucket)
			return b.Put(notesKey, f(bytes.Clone(b.Get(notesKey))))
		}
	}
	summed := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[4:], notesSum(b))
		return b
	}
	for _, tt := range []struct {
		name   string
		change func(tx *bolt.Tx) error
		is     error
		want   string
	}{
		{"none", func(tx *bolt.Tx) error { return tx.Bucket(notesBucket).Delete(notesKey) }, ErrDamaged, "notes of 0 bytes"},
		{"no bucket", func(tx *bolt.Tx) error { return tx.DeleteBucket(notesBucket) }, ErrDamaged, "not a log store"},
		{"a bit of the checksum", change(func(b []byte) []byte { b[4] ^= 1; return b }), ErrDamaged, "the notes are not what was written"},
		{"a bit of the extent", change(func(b []byte) []byte { b[23] ^= 1; return b }), ErrDamaged, "the notes are not what was written"},
		{"a bit of a value", change(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), ErrDamaged, "the notes are not what was written"},
		{"the last value is missing", change(func(b []byte) []byte { return b[:len(b)-len("LastVoteCand")-8-len("node-7")] }), ErrDamaged, "the notes are not what was written"},
		{"the format before", change(func(b []byte) []byte { b[3] = 1; return summed(b) }), ErrDamaged, "the notes are not what was written"},
		{"a newer format", change(func(b []byte) []byte { b[3] = 3; return summed(b) }), ErrVersion, "notes of format 3: written by a newer version"},
		{"a value that is longer than they are", change(func(b []byte) []byte { b[notesHeader] = 255; return summed(b) }), ErrDamaged, "end within a value"},
		{"half a value", change(func(b []byte) []byte { return summed(append(b, 0, 0, 0)) }), ErrDamaged, "end within a value"},
		{"a value twice", change(func(b []byte) []byte { return summed(append(b, b[notesHeader:]...)) }), ErrDamaged, "twice"},
		{"written by another transaction", change(func(b []byte) []byte { return b }), ErrDamaged, "the notes are of transaction"},
		{"both formats", func(tx *bolt.Tx) error {
			_, err1 := tx.CreateBucket(logBucket)
			_, err2 := tx.CreateBucket(stableBucket)
			return errors.Join(err1, err2)
		}, ErrDamaged, "not a log store"},
		{"one bucket of the format before", func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(stableBucket)
			return err
		}, ErrDamaged, "not a log store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t, 2)
			s := mustOpen(t, f.path, Options{})
			check(t, s.SetUint64([]byte("CurrentTerm"), 7))
			check(t, s.Set([]byte("LastVoteCand"), []byte("node-7")))
			s.Close()
			changeDB(tt.change)(t, f)
			f.wantRefused(t, tt.is, tt.want)
		})
	}
}

// A bit that is wrong anywhere in raft.db is noticed, or changes nothing: no term, vote or
// counter goes back or away, and no entry.
func TestOneWrongBitOfRaftDBIsNoticed(t *testing.T) {
	f := newFolder(t, 2)
	values := map[string][]byte{
		"CurrentTerm": number(7), "LastVoteTerm": number(7), "LastVoteCand": []byte("c1fce8cb7abd7623ead6f0b83d8b0079"), "counter": number(3),
	}
	s := mustOpen(t, f.path, Options{})
	for _, n := range []uint64{6, 7} { // of the transactions before, something is left in the file
		check(t, s.SetUint64([]byte("CurrentTerm"), n))
		check(t, s.SetUint64([]byte("LastVoteTerm"), n))
		check(t, s.Set([]byte("LastVoteCand"), []byte("4bb394cbf26c8dd34f564c6587f4c970")))
	}
	for k, v := range values {
		check(t, s.Set([]byte(k), v))
	}
	var used []int // pages
	check(t, s.db.View(func(tx *bolt.Tx) error {
		for i := 0; ; i++ {
			page, err := tx.Page(i)
			if page == nil {
				return err
			}
			if page.Type != "free" {
				used = append(used, i)
			}
		}
	}))
	s.Close()
	good, err := os.ReadFile(f.path)
	check(t, err)
	before := f.contents(t)
	refused, all := 0, 0
	try := func(at int, bit byte) {
		all++
		b := bytes.Clone(good)
		b[at] ^= bit
		check(t, os.WriteFile(f.path, b, 0o600))
		s, err := Open(f.path, Options{SegmentSize: smallSegment})
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Errorf("byte %d: error %v", at, err)
			}
			refused++
		} else {
			if first, last := s.bounds(); first != 1 || last != 300 {
				t.Errorf("byte %d: the log has the entries %d to %d", at, first, last)
			}
			for k, want := range values {
				if v, err := s.Get([]byte(k)); !bytes.Equal(v, want) || err != nil {
					t.Errorf("byte %d: %s is %q, error %v", at, k, v, err)
				}
			}
			s.Close()
		}
		check(t, os.WriteFile(f.path, good, 0o600))
		for i, b := range f.contents(t) {
			if b != before[i] {
				t.Fatalf("byte %d: the files of the log were changed", at)
			}
		}
	}
	for _, page := range used {
		for i, b := range good[page*os.Getpagesize():][:os.Getpagesize()] {
			if b != 0 || i < 128 { // its headers
				try(page*os.Getpagesize()+i, 1<<(i%8))
			}
		}
	}
	t.Logf("of %d bits %d were refused", all, refused)
	if refused < 100 {
		t.Errorf("only %d of %d were refused", refused, all)
	}
}

// Where a disk loses a page that it said it has written, the one is there that was at its
// place before, which is right in itself: bbolt takes it, with the term and the vote of then.
func TestAPageFromBeforeIsNoticed(t *testing.T) {
	for _, size := range []int{1, 2000} { // of a value; one that is large gets the notes a page of their own
		t.Run(fmt.Sprint("a value of ", size), func(t *testing.T) {
			f := newFolder(t, 1)
			s := mustOpen(t, f.path, Options{})
			check(t, s.Set([]byte("value"), make([]byte, size)))
			check(t, s.Raise(2))
			var files [][]byte // after each transaction
			for n := range uint64(8) {
				check(t, s.SetUint64s(Number{[]byte("CurrentTerm"), n}, Number{[]byte("LastVoteTerm"), n}))
				b, err := os.ReadFile(f.path)
				check(t, err)
				files = append(files, b)
			}
			s.Close()
			now, page, refused := files[len(files)-1], os.Getpagesize(), 0
			for _, before := range files[:len(files)-1] {
				for at := 2 * page; at < len(before); at += page {
					old, is := before[at:at+page], now[at:at+page]
					if binary.NativeEndian.Uint64(is) != uint64(at/page) || binary.NativeEndian.Uint64(old) != uint64(at/page) || bytes.Equal(old, is) {
						continue // one was never written, or both are the same
					}
					check(t, os.WriteFile(f.path, bytes.Join([][]byte{now[:at], old, now[at+page:]}, nil), 0o600))
					s, err := Open(f.path, Options{SegmentSize: smallSegment})
					if err != nil {
						if !errors.Is(err, ErrDamaged) {
							t.Errorf("page %d: error %v", at/page, err)
						}
						refused++
						continue
					}
					if n, err := s.GetUint64([]byte("LastVoteTerm")); n != 7 || err != nil {
						t.Errorf("page %d: the term is %d, error %v", at/page, n, err)
					}
					s.Close()
				}
			}
			if refused == 0 {
				t.Error("none was refused")
			}
		})
	}
}

// wantFormat expects that a store writes a format, and raft.db to be it.
func wantFormat(t *testing.T, s *Store, want int) {
	t.Helper()
	if is, err := s.Format(); is != want || err != nil {
		t.Errorf("format %d, error %v; want %d", is, err, want)
	}
	check(t, s.db.View(func(tx *bolt.Tx) error {
		var buckets []string
		err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			buckets = append(buckets, string(name))
			return nil
		})
		if got, want := fmt.Sprint(buckets), map[int]string{1: "[segments stable]", 2: "[notes]"}[want]; got != want {
			t.Errorf("raft.db has the buckets %s, want %s", got, want)
		}
		return err
	}))
}

// A store writes the first format, which older programs read, until it is told to write
// another; then it does for good, and loses nothing.
func TestRaise(t *testing.T) {
	values := map[string][]byte{"CurrentTerm": number(7), "LastVoteCand": []byte("node-7"), "empty": {}}
	wantAll := func(t *testing.T, s *Store, last uint64) {
		t.Helper()
		if last == 0 {
			wantBounds(t, s, 0, 0)
		} else {
			wantLog(t, s, 1, last)
		}
		for k, want := range values {
			if v, err := s.Get([]byte(k)); !bytes.Equal(v, want) || err != nil {
				t.Errorf("%s is %q, error %v", k, v, err)
			}
		}
		if _, err := s.Get([]byte("other")); err != errNotFound {
			t.Errorf("a value that is not there: error %v", err)
		}
	}
	for name, raise := range map[string]func(t *testing.T, s *Store) *Store{
		"while it is open": func(t *testing.T, s *Store) *Store {
			check(t, s.Raise(2))
			return s
		},
		"when it is opened": func(t *testing.T, s *Store) *Store { return mustReopen(t, s, Options{Format: 2}) },
	} {
		for _, last := range []uint64{0, 10, 300} {
			t.Run(fmt.Sprintf("%s, with %d entries", name, last), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "raft.db")
				s := mustOpen(t, path, Options{Format: 1})
				for k, v := range values {
					check(t, s.Set([]byte(k), v))
				}
				for i := uint64(1); i <= last; i += 10 {
					mustStore(t, s, i, i+9)
				}
				wantFormat(t, s, 1)
				s = raise(t, mustReopen(t, s, Options{Format: 1}))
				wantFormat(t, s, 2)
				wantAll(t, s, last)
				mustStore(t, s, last+1, last+300) // in new files, too
				mustDelete(t, s, last+200, last+300)
				check(t, s.Set([]byte("LastVoteCand"), values["LastVoteCand"]))
				for _, format := range []int{0, 1, 2} {
					s = mustReopen(t, s, Options{Format: format})
					check(t, s.Raise(format))
					wantFormat(t, s, 2)
					wantAll(t, s, last+199)
				}
				s.Close()
			})
		}
	}
}

func mustReopen(t *testing.T, s *Store, o Options) *Store {
	t.Helper()
	path := s.db.Path()
	check(t, s.Close())
	return mustOpen(t, path, o)
}

func TestThereIsNoNewerFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	if _, err := Open(path, Options{Format: Format + 1}); err == nil {
		t.Error("it opens")
	}
	s := mustOpen(t, path, Options{})
	defer s.Close()
	if err := s.Raise(Format + 1); err == nil {
		t.Error("it is written")
	}
}

// A crash amid the change of the format leaves one or the other, of which nothing is lost.
func TestACrashLeavesOneFormat(t *testing.T) {
	crashed := t.TempDir()
	calls := 0
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "raft.db"), Options{})
	mustStore(t, s, 1, 300)
	check(t, s.SetUint64([]byte("CurrentTerm"), 7))
	s.beforeCommit = func() {
		calls++
		check(t, os.CopyFS(crashed, os.DirFS(dir)))
	}
	check(t, s.Raise(2))
	s.Close()
	if calls != 1 {
		t.Fatalf("%d commits", calls)
	}
	for dir, format := range map[string]int{crashed: 1, dir: 2} {
		s := mustOpen(t, filepath.Join(dir, "raft.db"), Options{})
		wantFormat(t, s, format)
		wantLog(t, s, 1, 300)
		if n, err := s.GetUint64([]byte("CurrentTerm")); n != 7 || err != nil {
			t.Errorf("term %d, error %v", n, err)
		}
		check(t, s.Raise(2))
		wantLog(t, s, 1, 300)
		s.Close()
	}
}

// What the file of format 1 has is what it always had: an older program goes on with it.
func TestFormat1IsWrittenUntilTheRaise(t *testing.T) {
	s := openTemp(t)
	check(t, s.SetUint64([]byte("CurrentTerm"), 7))
	check(t, s.Set([]byte("LastVoteCand"), []byte("node-7")))
	mustStore(t, s, 5, 9)
	mustDelete(t, s, 5, 6)
	got := map[string]string{}
	check(t, s.db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				got[string(name)+" "+string(k)] = fmt.Sprintf("%x", v)
				return nil
			})
		})
	}))
	want := map[string]string{
		"segments extent":     "00000000000000070000000000000005",
		"stable CurrentTerm":  "0000000000000007",
		"stable LastVoteCand": "6e6f64652d37",
	}
	if !maps.Equal(got, want) {
		t.Errorf("raft.db has %q, want %q", got, want)
	}
	b, err := os.ReadFile(s.segments[0].path)
	check(t, err)
	if format := binary.BigEndian.Uint32(b[16:]); format != 1 || !bytes.Equal(b[36:40], make([]byte, 4)) {
		t.Errorf("the header is %x", b[:segmentHeader])
	}
}

func TestNotesOnDisk(t *testing.T) {
	n := notes{0x4546, extent{0x4142, 0x4344, 8 << 20}, map[string][]byte{"b": []byte("xyz"), "a": nil}}
	want := "00000002" + "9a38524a" + "0000000000004546" +
		"0000000000004142" + "0000000000004344" + "0000000000800000" +
		"00000001" + "00000000" + "61" +
		"00000001" + "00000003" + "62" + "78797a"
	if got := fmt.Sprintf("%x", n.encode()); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
}
