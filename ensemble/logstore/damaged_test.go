package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Each case is a store that holds the entries 1 to 300 in several files, of which
// the last begins at some entry, and a change behind its back.
func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, f folder)
		is     error
		want   string
	}{
		{"an empty file", writeDB(nil), ErrDamaged, "empty: damaged"},
		{"a bit of the meta page of the last transaction", flipNewestMeta, ErrDamaged, "is not what was written"},
		{"a text", writeDB([]byte("hello\n")), ErrDamaged, ""},
		{"a long text", writeDB(bytes.Repeat([]byte("hello\n"), 10_000)), ErrDamaged, ""},
		{"zeros", writeDB(make([]byte, 32<<10)), ErrDamaged, ""},
		{"a bbolt file of something else", changeDB(func(tx *bolt.Tx) error {
			return errors.Join(tx.DeleteBucket(logBucket), tx.DeleteBucket(stableBucket))
		}), ErrDamaged, "not a log store"},
		{"a store that had its log in the bbolt file", changeDB(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("log"))
			return errors.Join(err, tx.DeleteBucket(logBucket))
		}), ErrDamaged, "before the first release"},
		{"an extent of another length", changeDB(func(tx *bolt.Tx) error {
			return tx.Bucket(logBucket).Put(extentKey, []byte("12345678"))
		}), ErrDamaged, "the extent of the log has 8 bytes"},
		{"no extent", changeDB(func(tx *bolt.Tx) error {
			return tx.Bucket(logBucket).Delete(extentKey)
		}), ErrDamaged, "has a log, and where that begins and ends is lost"},
		{"no extent, and one file is left", func(t *testing.T, f folder) {
			for i := range len(f.files) - 1 {
				check(t, os.Remove(f.segment(i)))
			}
			changeDB(func(tx *bolt.Tx) error { return tx.Bucket(logBucket).Delete(extentKey) })(t, f)
		}, ErrDamaged, "has a log, and where that begins and ends is lost"},
		{"no extent, and files without entries", func(t *testing.T, f folder) {
			for i := range f.files {
				check(t, os.WriteFile(f.segment(i), f.read(t, i)[:segmentHeader], 0o600))
			}
			changeDB(func(tx *bolt.Tx) error { return tx.Bucket(logBucket).Delete(extentKey) })(t, f)
		}, ErrDamaged, "has a log, and where that begins and ends is lost"},
		{"a bit of the extent's key", changeDB(func(tx *bolt.Tx) error {
			b := tx.Bucket(logBucket)
			return errors.Join(b.Put([]byte("extenu"), b.Get(extentKey)), b.Delete(extentKey))
		}), ErrDamaged, "has a log, and where that begins and ends is lost"},
		{"no folder of the log", func(t *testing.T, f folder) { check(t, os.RemoveAll(LogDir(f.path))) },
			ErrDamaged, "log is missing"},
		{"the first file missing", func(t *testing.T, f folder) { check(t, os.Remove(f.segment(0))) },
			ErrDamaged, "entry 1 is missing"},
		{"a file in the middle missing", func(t *testing.T, f folder) { check(t, os.Remove(f.segment(1))) },
			ErrDamaged, "the one before ends at"},
		{"the last file missing", func(t *testing.T, f folder) { check(t, os.Remove(f.segment(-1))) },
			ErrDamaged, ".log is missing"},
		{"the last file is another", func(t *testing.T, f folder) { check(t, os.WriteFile(f.segment(-1), f.read(t, 0), 0o600)) },
			ErrDamaged, "the header is not what was written"},
		{"a text in place of the last file", func(t *testing.T, f folder) { check(t, os.WriteFile(f.segment(-1), []byte("hello"), 0o600)) },
			ErrDamaged, "not a part of a log"},
		{"a file of a newer version", f300(-1, func(b []byte) []byte { b[19] = 2; return b }), ErrVersion, "log format 2: written by a newer version"},
		{"a bit of a header", f300(-1, func(b []byte) []byte { b[25] ^= 1; return b }), ErrDamaged, "the header is not what was written"},
		{"a bit of the first entry", f300(0, func(b []byte) []byte { b[segmentHeader+30] ^= 1; return b }), ErrDamaged, "entry 1 cannot be read, and later ones can"},
		{"a bit in the middle of the last file", f300(-1, func(b []byte) []byte { b[f300Middle(b)] ^= 1; return b }), ErrDamaged, "cannot be read, and later ones can"},
		{"a hole in the middle of the last file", f300(-1, func(b []byte) []byte { clear(b[f300Middle(b):][:600]); return b }), ErrDamaged, "cannot be read, and later ones can"},
		{"the end of the first file cut off", f300(0, func(b []byte) []byte { return b[:len(b)-600] }), ErrDamaged, "the one before ends at"},
		{"the end of the first file is zeros", f300(0, func(b []byte) []byte { clear(b[len(b)-600:]); return b }), ErrDamaged, "the one before ends at"},
		{"an entry at another's place", f300(0, func(b []byte) []byte {
			one := mustRecord(t, binary.BigEndian.Uint32(b[24:]), 1, entry(1))
			two := mustRecord(t, binary.BigEndian.Uint32(b[24:]), 2, entry(7))
			return append(append(b[:segmentHeader+len(one)], two...), b[segmentHeader+len(one)+len(two):]...)
		}), ErrDamaged, "entry 7 is at the place of 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t, 1)
			tt.change(t, f)
			f.wantRefused(t, tt.is, tt.want)
		})
	}
}

// wantRefused expects an error of Open, which leaves the files as they are.
func (f folder) wantRefused(t *testing.T, is error, want string) {
	t.Helper()
	before := f.contents(t)
	_, err := Open(f.path, Options{OnError: func(error) { t.Error("OnError was called") }})
	if !errors.Is(err, is) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "open log store "+f.path+": ") {
		t.Fatalf("error %v, want %v with %q", err, is, want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %v", err)
	}
	if after := f.contents(t); !slices.Equal(before, after) {
		t.Error("the files were changed")
	}
}

// What the crash of a machine leaves of a batch that was being written, whichever
// of its pages came to the disk, is no damage: nobody was told that it is there.
func TestWhatACrashLeavesIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := mustOpen(t, path, Options{SegmentSize: 1 << 20, Format: 2})
	mustStore(t, s, 1, 40)
	end := s.segments[0].end
	mustStore(t, s, 41, 60)
	after := s.segments[0].end
	name := s.segments[0].path
	s.Close()
	good, err := os.ReadFile(name)
	check(t, err)

	whatSectorsLeave(t, path, name, good, end, after)
}

// whatSectorsLeave has, of a log of 60 entries, the ones from 41 on in a part of the
// file, of which a crash leaves some sectors.
func whatSectorsLeave(t *testing.T, path, name string, good []byte, from, to int64) {
	const sector = 512
	for n := int64(0); n < 200; n++ {
		b := bytes.Clone(good)
		for at, i := from, int64(0); at < to; at, i = min(at-at%sector+sector, to), i+1 {
			if n&(1<<(i%8)) == 0 {
				clear(b[at:min(at-at%sector+sector, to)]) // this sector was not written
			}
		}
		check(t, os.WriteFile(name, b, 0o600))
		s := mustOpen(t, path, Options{SegmentSize: 1 << 20})
		_, last := s.bounds()
		if last < 40 || last > 60 {
			t.Fatalf("sectors %b: the log ends at %d", n, last)
		}
		mustStore(t, s, last+1, last+1)
		wantLog(t, s, 1, last+1)
		s.Close()
		s = mustOpen(t, path, Options{SegmentSize: 1 << 20}) // nothing of the batch comes back
		wantLog(t, s, 1, last+1)
		mustDelete(t, s, 41, last+1)
		s.Close()
	}
}

// A file has the length that was set aside for it, or it was cut off by something else, were
// it at the end of an entry.
func TestAShorterLastFileIsRefused(t *testing.T) {
	f := newFolder(t, 2)
	s := mustOpen(t, f.path, Options{})
	last := s.segments[len(s.segments)-1]
	check(t, s.Close())
	good := f.read(t, -1)
	sizes := []int64{0, segmentHeader - 1, segmentHeader + 1, last.end - 1, last.end, last.end + 1, last.end + 8, int64(len(good)) - 1}
	for _, i := range []int{0, 1, len(last.offsets) / 2, len(last.offsets) - 1} {
		at := int64(last.offsets[i])
		sizes = append(sizes, at, at+8)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f300(-1, func([]byte) []byte { return good[:size] })(t, f)
			f.wantRefused(t, ErrDamaged, "")
		})
	}
	f300(-1, func([]byte) []byte { return good })(t, f)
	s = mustOpen(t, f.path, Options{})
	defer s.Close()
	wantLog(t, s, 1, 300)
}

// Where entries are deleted, or a batch is given up, the file ends with the last one for a
// moment. Between whichever two steps a crash comes, what it leaves opens, gets its length
// again, and is held against it.
func TestACrashAmidACutLeavesAGoodFile(t *testing.T) {
	for _, format := range []int{1, 2} { // 1: raised, before the cut
		for _, deleted := range []uint64{0, 1, 150, 299} { // 0: there is a torn entry
			t.Run(fmt.Sprintf("made in format %d, the last %d of 300 deleted", format, deleted), func(t *testing.T) {
				f := newFolder(t, format)
				mustOpen(t, f.path, Options{Format: 2}).Close()
				if deleted == 0 {
					f300(-1, func(b []byte) []byte { b[f300Middle(b)*2+16] = 1; return b })(t, f)
				}
				var crashed []string
				crash := func() {
					crashed = append(crashed, t.TempDir())
					check(t, os.CopyFS(crashed[len(crashed)-1], os.DirFS(filepath.Dir(f.path))))
				}
				s := mustOpen(t, f.path, Options{BeforeCommit: crash})
				mustDelete(t, s, 301-deleted, 300)
				crash()
				last := s.segments[len(s.segments)-1]
				check(t, s.Close())
				if len(crashed) < 3 {
					t.Fatalf("%d commits", len(crashed)-1)
				}

				amid := 0
				for i, dir := range crashed {
					wantGoodAfterCrash(t, filepath.Join(dir, "raft.db"), dir, 300-deleted)
					if i == 0 {
						continue
					}
					// Of what was done since the commit before, nothing is on disk, or the cut alone.
					before := crashed[i-1]
					wantGoodAfterCrash(t, filepath.Join(dir, "raft.db"), before, 300-deleted)
					if noted(t, dir) == uint64(last.end) {
						amid++
						check(t, os.Truncate(filepath.Join(before, "log", filepath.Base(last.path)), last.end))
						wantGoodAfterCrash(t, filepath.Join(dir, "raft.db"), before, 300-deleted)
					}
				}
				if amid != 1 {
					t.Errorf("%d times the notes said that there is a cut", amid)
				}
			})
		}
	}
}

// noted is the length of the last file that is noted in a folder.
func noted(t *testing.T, dir string) (length uint64) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "raft.db"), 0o600, &bolt.Options{ReadOnly: true})
	check(t, err)
	err = db.View(func(tx *bolt.Tx) error {
		e, _, err := readExtent(tx)
		length = e.length
		return err
	})
	check(t, errors.Join(err, db.Close()))
	return length
}

// wantGoodAfterCrash expects that a copy of a raft.db and of the log in a folder opens, with
// the entries up to least, and perhaps ones up to 300; and that no end of what is written
// from then on can go away.
func wantGoodAfterCrash(t *testing.T, db, logIn string, least uint64) {
	t.Helper()
	f := folder{path: filepath.Join(t.TempDir(), "raft.db")}
	check(t, os.CopyFS(LogDir(f.path), os.DirFS(filepath.Join(logIn, "log"))))
	b, err := os.ReadFile(db)
	check(t, err)
	check(t, os.WriteFile(f.path, b, 0o600))
	s := mustOpen(t, f.path, Options{})
	_, end := s.bounds()
	if end < least || end > 300 {
		t.Errorf("the log ends at %d", end)
	}
	mustStore(t, s, end+1, end+1)
	wantLog(t, s, 1, end+1)
	last := s.segments[len(s.segments)-1]
	check(t, s.Close())
	info, err := os.Stat(last.path)
	check(t, err)
	if info.Size() < smallSegment {
		t.Errorf("the last file has %d bytes", info.Size())
	}
	f.files = []string{last.path}
	for _, size := range []int64{info.Size() - 1, last.end, int64(last.offsets[len(last.offsets)-1])} {
		check(t, os.Truncate(last.path, size))
		f.wantRefused(t, ErrDamaged, "bytes of")
	}
}

// A crash between the two halves of a change of the files leaves ones that do not
// count.
func TestFilesThatDoNotCountAreDeleted(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f folder){
		"a file was made, and not taken in yet": func(t *testing.T, f folder) {
			check(t, os.WriteFile(segmentPath(LogDir(f.path), 301), []byte("unfinished"), 0o600))
		},
		"the front was deleted": func(t *testing.T, f folder) {
			old := f.read(t, 0)
			s := mustOpen(t, f.path, Options{})
			mustDelete(t, s, 1, 150)
			mustStore(t, s, 301, 310)
			mustDelete(t, s, 301, 310)
			s.Close()
			check(t, os.WriteFile(f.segment(0), old, 0o600))
		},
		"the end was deleted": func(t *testing.T, f folder) {
			old := f.read(t, -1)
			s := mustOpen(t, f.path, Options{})
			mustDelete(t, s, 150, 300)
			mustStore(t, s, 150, 150)
			s.Close()
			check(t, os.WriteFile(f.segment(-1), old, 0o600))
		},
		"all was deleted": func(t *testing.T, f folder) {
			old := f.read(t, 0)
			s := mustOpen(t, f.path, Options{})
			mustDelete(t, s, 1, 300)
			s.Close()
			check(t, os.WriteFile(f.segment(0), old, 0o600))
		},
	} {
		for format := 1; format <= Format; format++ {
			t.Run(fmt.Sprintf("%s, format %d", name, format), func(t *testing.T) {
				f := newFolder(t, format)
				change(t, f)
				s := mustOpen(t, f.path, Options{})
				defer s.Close()
				first, last := uint64(1), uint64(300)
				switch name {
				case "the front was deleted":
					first = 151
				case "the end was deleted":
					last = 150
				case "all was deleted":
					first, last = 0, 0
				}
				wantBounds(t, s, first, last)
				files, err := os.ReadDir(LogDir(f.path))
				check(t, err)
				if len(files) != len(s.segments) {
					t.Errorf("%d files of %d segments are left", len(files), len(s.segments))
				}
				if last > 0 {
					wantLog(t, s, first, last)
					return
				}
				mustStore(t, s, 1, 300)
				wantLog(t, s, 1, 300)
			})
		}
	}
}

// The first file of a log is made before its extent is noted, and no entry is written
// before that.
func TestAFirstFileThatACrashLeftIsDeleted(t *testing.T) {
	g := newSegment("", 1)
	for name, b := range map[string][]byte{
		"nothing of it":      {},
		"its space":          make([]byte, smallSegment),
		"its header":         g.header(),
		"part of its header": g.header()[:20],
		"all of it":          append(g.header(), make([]byte, smallSegment)...),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			mustOpen(t, path, Options{}).Close()
			check(t, os.WriteFile(segmentPath(LogDir(path), 1), b, 0o600))
			s := mustOpen(t, path, Options{})
			defer s.Close()
			wantBounds(t, s, 0, 0)
			mustStore(t, s, 1, 3)
			wantLog(t, s, 1, 3)
		})
	}
}

// A file that is cut off or has a wrong page is refused, or serves and says so
// when it comes to the damage; it never takes the process down, as bbolt alone
// would, and never gives another log than was written.
func TestNoDamageMakesItPanic(t *testing.T) {
	for format := 1; format <= Format; format++ {
		t.Run(fmt.Sprint("format ", format), func(t *testing.T) { noDamageMakesItPanic(t, newFolder(t, format)) })
	}
}

func noDamageMakesItPanic(t *testing.T, f folder) {
	const page = 4096
	refused, cut, all := 0, 0, 0
	for _, name := range append(f.files, f.path) {
		good, err := os.ReadFile(name)
		check(t, err)
		try := func(what string, b []byte) {
			all++
			check(t, os.WriteFile(name, b, 0o600))
			defer os.WriteFile(name, good, 0o600)
			s, err := Open(f.path, Options{SegmentSize: smallSegment})
			if err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("%s, %s: error %v", filepath.Base(name), what, err)
				}
				refused++
				return
			}
			defer s.Close()
			first, last := s.bounds()
			if last != 300 {
				cut++ // a damaged end looks like a write that was interrupted
			}
			for i := first; i <= last && i > 0; i++ {
				var l raft.Log
				if err := s.GetLog(i, &l); err != nil {
					t.Errorf("%s, %s: entry %d: %v", filepath.Base(name), what, i, err)
					break
				}
				wantSame(t, &l, entry(i))
			}
		}
		for size := page / 2; size < len(good); size += page / 2 {
			try(fmt.Sprintf("cut off at %d", size), good[:size])
		}
		for i := 0; i+page <= len(good); i += page {
			next := good[(i+page)%len(good):]
			next = next[:min(page, len(next))]
			for what, b := range map[string][]byte{
				"zeros": make([]byte, page), "ones": bytes.Repeat([]byte{255}, page), "the next page": next,
			} {
				try(fmt.Sprintf("page %d is %s", i/page, what), slices.Concat(good[:i], b, good[i+len(b):]))
			}
		}
	}
	t.Logf("of %d damaged stores %d were refused, %d lost their end", all, refused, cut)
	if refused < all/2 {
		t.Errorf("only %d of %d were refused", refused, all)
	}
}

// Damage that comes after Open is found when the entry is used.
func TestDamageFoundWhenReadingIsFinal(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, s *Store)
		read   func(*Store) error
	}{
		{"a bit of an entry", func(t *testing.T, s *Store) { overwrite(t, s, 5, 30, "x") }, getLog5},
		{"an entry overwritten by another", func(t *testing.T, s *Store) {
			overwrite(t, s, 5, 0, string(mustRecord(t, s.segments[0].salt, 6, &raft.Log{Index: 6})))
		}, getLog5},
		{"the file cut off", func(t *testing.T, s *Store) { check(t, os.Truncate(s.segments[0].path, 100)) }, getLog5},
		{"a number", func(t *testing.T, s *Store) { check(t, s.Set([]byte("term"), []byte("abc"))) },
			func(s *Store) error { _, err := s.GetUint64([]byte("term")); return err }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			s := mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{OnError: func(error) { calls++ }})
			defer s.Close()
			mustStore(t, s, 1, 10)
			tt.damage(t, s)
			first := tt.read(s)
			if !errors.Is(first, ErrDamaged) {
				t.Errorf("error %v, want %v", first, ErrDamaged)
			}
			for name, err := range everyCall(s) {
				if err != first {
					t.Errorf("then %s: error %v", name, err)
				}
			}
			if calls != 1 {
				t.Errorf("OnError was called %d times", calls)
			}
		})
	}
}

func getLog5(s *Store) error { return s.GetLog(5, new(raft.Log)) }

// overwrite changes the file under an open store, some bytes behind the beginning
// of an entry.
func overwrite(t *testing.T, s *Store, index uint64, at int, b string) {
	t.Helper()
	f, err := os.OpenFile(s.segments[0].path, os.O_WRONLY, 0)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(b), int64(s.segments[0].offsets[index-s.segments[0].base])+int64(at))
	check(t, err)
}

// folder is a store that is closed, of the entries 1 to 300.
type folder struct {
	path  string
	files []string // of the log
}

func newFolder(t *testing.T, format int) folder {
	t.Helper()
	f := folder{path: filepath.Join(t.TempDir(), "raft.db")}
	s := mustOpen(t, f.path, Options{Format: format})
	for i := uint64(1); i <= 300; i += 3 {
		mustStore(t, s, i, i+2)
	}
	s.Close()
	files, err := os.ReadDir(LogDir(f.path))
	check(t, err)
	for _, file := range files {
		f.files = append(f.files, filepath.Join(LogDir(f.path), file.Name()))
	}
	if len(f.files) < 3 {
		t.Fatalf("there are only %d files", len(f.files))
	}
	return f
}

// segment is the path of a file; negative numbers count from the end.
func (f folder) segment(i int) string {
	if i < 0 {
		i += len(f.files)
	}
	return f.files[i]
}

func (f folder) read(t *testing.T, i int) []byte {
	t.Helper()
	b, err := os.ReadFile(f.segment(i))
	check(t, err)
	return b
}

// contents is all that is in the files.
func (f folder) contents(t *testing.T) (all []string) {
	t.Helper()
	for _, name := range append(f.files, f.path) {
		b, err := os.ReadFile(name)
		if !errors.Is(err, fs.ErrNotExist) {
			check(t, err)
		}
		all = append(all, string(b))
	}
	return all
}

func writeDB(b []byte) func(*testing.T, folder) {
	return func(t *testing.T, f folder) { check(t, os.WriteFile(f.path, b, 0o600)) }
}

func changeDB(change func(tx *bolt.Tx) error) func(*testing.T, folder) {
	return func(t *testing.T, f folder) {
		db, err := bolt.Open(f.path, 0o600, &bolt.Options{NoFreelistSync: true}) // or opening it is a transaction
		check(t, err)
		check(t, errors.Join(db.Update(change), db.Close()))
	}
}

// flipNewestMeta changes a bit of the meta page that bbolt wrote last.
func flipNewestMeta(t *testing.T, f folder) {
	b, err := os.ReadFile(f.path)
	check(t, err)
	const transaction = 16 + 48 // its number in a page
	newest := b
	if second := b[os.Getpagesize():]; binary.NativeEndian.Uint64(second[transaction:]) > binary.NativeEndian.Uint64(b[transaction:]) {
		newest = second
	}
	newest[transaction+1] ^= 1
	check(t, os.WriteFile(f.path, b, 0o600))
}

// f300 changes a file of the log.
func f300(i int, change func([]byte) []byte) func(*testing.T, folder) {
	return func(t *testing.T, f folder) { check(t, os.WriteFile(f.segment(i), change(f.read(t, i)), 0o600)) }
}

// f300Middle is amid the records of a file.
func f300Middle(b []byte) int { return len(bytes.TrimRight(b, "\x00")) / 2 }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a process that was killed has written and not flushed is flushed before it
// counts: Raft would acknowledge it without another write.
func TestOpenFlushesWhatItFinds(t *testing.T) {
	f := newFolder(t, Format)
	dirty := func(name string) uint64 {
		t.Helper()
		file, err := os.Open(name)
		check(t, err)
		defer file.Close()
		var stat unix.Cachestat_t
		if err := unix.Cachestat(uint(file.Fd()), &unix.CachestatRange{}, &stat, 0); err == unix.ENOSYS {
			t.Skip("this kernel does not tell")
		} else if err != nil {
			t.Fatal(err)
		}
		return stat.Dirty + stat.Writeback
	}
	s := mustOpen(t, f.path, Options{})
	last := s.segments[len(s.segments)-1]
	salt, end := last.salt, last.end
	s.Close()
	write := func(name string, b []byte, at int64) {
		t.Helper()
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		check(t, err)
		defer file.Close()
		_, err = file.WriteAt(b, at)
		check(t, err)
	}
	write(f.segment(-1), mustRecord(t, salt, 301, entry(301)), end)
	meta := make([]byte, 1)
	file, err := os.Open(f.path)
	check(t, err)
	_, err = file.ReadAt(meta, 4096*2) // any byte, written anew as it is
	check(t, err)
	file.Close()
	write(f.path, meta, 4096*2)
	for _, name := range []string{f.segment(-1), f.path} {
		if dirty(name) == 0 {
			t.Skip(name, " is on disk already: this file system keeps nothing back")
		}
	}
	s = mustOpen(t, f.path, Options{})
	defer s.Close()
	wantLog(t, s, 1, 301)
	for _, name := range []string{f.segment(-1), f.path} {
		if n := dirty(name); n > 0 {
			t.Errorf("%d pages of %s are not on disk", n, filepath.Base(name))
		}
	}
}

// One bit that is set is seen wherever it is.
func TestAllZero(t *testing.T) {
	for _, size := range []int{0, 1, 2, len(zeros) - 1, len(zeros), len(zeros) + 1, 3*len(zeros) + 7} {
		b := make([]byte, size)
		if !allZero(b) {
			t.Errorf("%d zeros are not all zeros", size)
		}
		for i := range b {
			b[i] = 1
			if allZero(b) {
				t.Errorf("byte %d of %d is not seen", i, size)
			}
			b[i] = 0
		}
	}
}
