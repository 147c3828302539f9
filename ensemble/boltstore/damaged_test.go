package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

func TestOpenRefuses(t *testing.T) {
	put := func(index uint64, v []byte) func(log, stable *bolt.Bucket) error {
		return func(log, _ *bolt.Bucket) error { return log.Put(key(index), v) }
	}
	remove := func(index uint64) func(log, stable *bolt.Bucket) error {
		return func(log, _ *bolt.Bucket) error { return log.Delete(key(index)) }
	}
	bit := func(index uint64) []byte {
		b := encode(entry(index))
		b[20] ^= 1
		return b
	}
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		is   error
		want string
	}{
		{"an empty file", write(nil), ErrDamaged, "empty: damaged"},
		{"a text", write([]byte("hello\n")), ErrDamaged, ""},
		{"a long text", write(bytes.Repeat([]byte("hello\n"), 10_000)), ErrDamaged, ""},
		{"zeros", write(make([]byte, 32<<10)), ErrDamaged, ""},
		{"a bbolt file of something else", func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
		}, ErrDamaged, "not a log store"},
		{"an entry missing", with10(remove(4)), ErrDamaged, "entries 1 to 10: 4 is not where it should be"},
		{"two entries missing", with10(remove(8), remove(9)), ErrDamaged, "entries 1 to 10: 8 is not where it should be"},
		{"an entry too far", with10(put(12, encode(entry(12)))), ErrDamaged, "entries 1 to 12: 11 is not where it should be"},
		{"a key too long", with10(func(log, _ *bolt.Bucket) error { return log.Put([]byte("\x00\x00\x00\x00\x00\x00\x00\x05x"), nil) }),
			ErrDamaged, "entries 1 to 10: 6 is not where it should be"},
		{"the only key too short", func(t *testing.T, path string) {
			mustOpen(t, path, Options{}).Close()
			damage(t, path, func(log, _ *bolt.Bucket) error { return log.Put([]byte("k"), nil) })
		}, ErrDamaged, ""},
		{"the first entry damaged", with10(put(1, bit(1))), ErrDamaged, "entry with a wrong checksum"},
		{"the last entry damaged", with10(put(10, bit(10))), ErrDamaged, "entry with a wrong checksum"},
		{"the last entry of a newer version", with10(put(10, []byte{2})), ErrVersion, "entry format 2: written by a newer version"},
		{"the first entry of a newer version", with10(put(1, []byte{9, 9})), ErrVersion, "entry format 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			tt.make(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(path, Options{OnError: func(error) { t.Error("OnError was called") }})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "open log store "+path+": ") {
				t.Errorf("error %v, want %v with %q", err, tt.is, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file was changed (error %v)", err)
			}
		})
	}
}

func write(b []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// with10 makes a store of the entries 1 to 10, damaged.
func with10(changes ...func(log, stable *bolt.Bucket) error) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		s := mustOpen(t, path, Options{})
		mustStore(t, s, 1, 10)
		s.Close()
		for _, c := range changes {
			damage(t, path, c)
		}
	}
}

// A file that is cut off or has a wrong page is refused, or serves and says so
// when it comes to the damage; it never takes the process down, as bbolt alone
// would.
func TestNoDamageMakesItPanic(t *testing.T) {
	const n, page = 300, 4096
	path := filepath.Join(t.TempDir(), "raft.db")
	s := mustOpen(t, path, Options{})
	mustStore(t, s, 1, n)
	if err := s.StoreLog(&raft.Log{Index: n + 1, Data: bytes.Repeat([]byte("x"), 3*page)}); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, n+2, n+9)
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	type change struct {
		name string
		b    []byte
	}
	var changes []change
	for size := page / 2; size < len(good); size += page / 2 {
		changes = append(changes, change{fmt.Sprintf("cut off at %d", size), good[:size]})
	}
	for i := 0; i < len(good); i += page {
		next := good[(i+page)%len(good):][:page]
		for name, b := range map[string][]byte{
			"zeros": make([]byte, page), "ones": bytes.Repeat([]byte{255}, page), "the next page": next,
		} {
			changes = append(changes, change{fmt.Sprintf("page %d is %s", i/page, name),
				slices.Concat(good[:i], b, good[i+page:])})
		}
	}

	refused, failed := 0, 0
	for _, c := range changes {
		path := filepath.Join(t.TempDir(), "raft.db")
		write(c.b)(t, path)
		s, err := Open(path, Options{InitialMmapSize: smallMap})
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: error %v", c.name, err)
			}
			refused++
			continue
		}
		err = readAll(s)
		if err == nil {
			err = s.StoreLogs(entries(n+10, n+11))
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: error %v", c.name, err)
			}
			failed++
		}
		s.Close()
	}
	t.Logf("of %d damaged files %d were refused, %d failed when used", len(changes), refused, failed)
	if refused < len(changes)/4 {
		t.Errorf("only %d of %d were refused: does the damage hit anything?", refused, len(changes))
	}
}

func readAll(s *Store) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i <= last; i++ {
		if err := s.GetLog(i, new(raft.Log)); err != nil {
			return err
		}
	}
	return nil
}
