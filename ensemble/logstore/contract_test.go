package logstore

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What raft expects of its stores is written down nowhere but in
// raft.InmemStore, on which its own tests run. So the same table runs on that
// store, on ours, and on ours closed and opened again before each call.
type store interface {
	raft.LogStore
	raft.StableStore
}

var _ store = (*Store)(nil)

var stores = map[string]func(*testing.T) store{
	"InmemStore":    func(*testing.T) store { return raft.NewInmemStore() },
	"Store":         func(t *testing.T) store { return openTemp(t) },
	"Append":        func(t *testing.T) store { return appending{openTemp(t)} },
	"StoreReopened": func(t *testing.T) store { return reopened{t, filepath.Join(t.TempDir(), "raft.db")} },
	"Raised": func(t *testing.T) store {
		s := openTemp(t)
		check(t, s.Raise(Format))
		return s
	},
	"RaisedReopened": func(t *testing.T) store {
		path := filepath.Join(t.TempDir(), "raft.db")
		check(t, mustOpen(t, path, Options{Format: Format}).Close())
		return reopened{t, path}
	},
}

var contract = []struct {
	name string
	do   func(t *testing.T, s store)
}{
	{"an empty log has the indexes 0 and 0", func(t *testing.T, s store) {
		wantBounds(t, s, 0, 0)
	}},
	{"an entry that is not there is ErrLogNotFound itself", func(t *testing.T, s store) {
		for _, index := range []uint64{0, 1, 7} {
			if err := s.GetLog(index, new(raft.Log)); err != raft.ErrLogNotFound { // raft compares so
				t.Errorf("GetLog(%d): error %v", index, err)
			}
		}
		mustStore(t, s, 5, 6)
		for _, index := range []uint64{0, 4, 7} {
			if err := s.GetLog(index, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Errorf("GetLog(%d): error %v", index, err)
			}
		}
	}},
	{"an entry comes back with all its fields", func(t *testing.T, s store) {
		for i, l := range []*raft.Log{
			{Index: 1, Term: 1, Type: raft.LogNoop},
			{Index: 2, Term: 3, Type: raft.LogConfiguration, Data: []byte{0, 1, 255}, AppendedAt: time.Unix(1e9, 7)},
			{Index: 3, Term: 1 << 63, Type: 255, Data: bytes.Repeat([]byte("d"), 70_000), Extensions: []byte("x")},
		} {
			if err := s.StoreLog(l); err != nil {
				t.Fatal(err)
			}
			got := raft.Log{Data: []byte("old"), Extensions: []byte("old"), AppendedAt: time.Unix(1, 1)}
			if err := s.GetLog(uint64(i+1), &got); err != nil {
				t.Fatal(err)
			}
			wantSame(t, &got, l)
		}
	}},
	{"the first entry may have any index", func(t *testing.T, s store) {
		mustStore(t, s, 1000, 1002)
		wantBounds(t, s, 1000, 1002)
	}},
	{"entries are appended one by one and in batches", func(t *testing.T, s store) {
		mustStore(t, s, 1, 1)
		mustStore(t, s, 2, 9)
		mustStore(t, s, 10, 10)
		wantLog(t, s, 1, 10)
	}},
	{"a batch may be empty", func(t *testing.T, s store) {
		if err := s.StoreLogs(nil); err != nil {
			t.Error(err)
		}
		wantBounds(t, s, 0, 0)
	}},
	{"a batch may be large", func(t *testing.T, s store) {
		mustStore(t, s, 1, 5000)
		wantLog(t, s, 1, 5000)
	}},
	{"the beginning can be deleted", func(t *testing.T, s store) {
		mustStore(t, s, 1, 10)
		mustDelete(t, s, 1, 4)
		wantLog(t, s, 5, 10)
		mustDelete(t, s, 5, 5)
		wantLog(t, s, 6, 10)
	}},
	{"the end can be deleted", func(t *testing.T, s store) {
		mustStore(t, s, 1, 10)
		mustDelete(t, s, 8, 10)
		wantLog(t, s, 1, 7)
	}},
	{"the end can be deleted entry by entry", func(t *testing.T, s store) {
		mustStore(t, s, 1, 200)
		for last := uint64(199); last > 0; last-- {
			mustDelete(t, s, last+1, 200)
			wantBounds(t, s, 1, last)
			mustStore(t, s, last+1, last+1)
			mustDelete(t, s, last+1, last+1)
		}
	}},
	{"what was deleted at the end is written anew", func(t *testing.T, s store) {
		mustStore(t, s, 1, 10)
		mustDelete(t, s, 8, 10)
		for i := uint64(8); i <= 9; i++ {
			if err := s.StoreLog(&raft.Log{Index: i, Term: 99}); err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || l.Term != 99 {
				t.Errorf("entry %d: term %d, error %v", i, l.Term, err)
			}
		}
		wantBounds(t, s, 1, 9)
	}},
	{"all can be deleted, and another log begun", func(t *testing.T, s store) {
		mustStore(t, s, 5, 10)
		mustDelete(t, s, 5, 10)
		wantBounds(t, s, 0, 0)
		mustStore(t, s, 21, 22)
		wantLog(t, s, 21, 22)
	}},
	{"more can be deleted than there is", func(t *testing.T, s store) {
		mustStore(t, s, 5, 10)
		mustDelete(t, s, 1, 6)
		wantLog(t, s, 7, 10)
		mustDelete(t, s, 9, 100)
		wantLog(t, s, 7, 8)
		mustDelete(t, s, 1, 100)
		wantBounds(t, s, 0, 0)
	}},
	{"long ranges can be deleted at both ends", func(t *testing.T, s store) {
		mustStore(t, s, 1, 3092)
		mustDelete(t, s, 1, 1029)
		wantLog(t, s, 1030, 3092)
		mustDelete(t, s, 1040, 3092)
		wantLog(t, s, 1030, 1039)
	}},
	{"a value that is not there is an error with the text not found", func(t *testing.T, s store) {
		if _, err := s.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
			t.Errorf("error %v", err)
		}
	}},
	{"a number that is not there is 0", func(t *testing.T, s store) {
		if n, err := s.GetUint64([]byte("CurrentTerm")); n != 0 || err != nil {
			t.Errorf("%d, error %v", n, err)
		}
	}},
	{"values and numbers are kept and replaced", func(t *testing.T, s store) {
		for _, v := range []string{"n1", "another node", ""} {
			if err := s.Set([]byte("LastVoteCand"), []byte(v)); err != nil {
				t.Fatal(err)
			}
			got, err := s.Get([]byte("LastVoteCand"))
			if string(got) != v || got == nil || err != nil {
				t.Errorf("%q, error %v, want %q", got, err, v)
			}
		}
		for _, n := range []uint64{7, 8, 1<<64 - 1, 0} {
			if err := s.SetUint64([]byte("CurrentTerm"), n); err != nil {
				t.Fatal(err)
			}
			if got, err := s.GetUint64([]byte("CurrentTerm")); got != n || err != nil {
				t.Errorf("%d, error %v, want %d", got, err, n)
			}
		}
	}},
	{"log and values do not disturb each other", func(t *testing.T, s store) {
		if err := s.Set(number(1), []byte("v")); err != nil {
			t.Fatal(err)
		}
		mustStore(t, s, 1, 3)
		mustDelete(t, s, 1, 3)
		if v, err := s.Get(number(1)); string(v) != "v" || err != nil {
			t.Errorf("%q, error %v", v, err)
		}
	}},
}

func TestContract(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			for _, c := range contract {
				t.Run(c.name, func(t *testing.T) { c.do(t, open(t)) })
			}
		})
	}
}

// openTemp opens a store in a folder of its own and closes it after the test.
func openTemp(t testing.TB) *Store {
	t.Helper()
	s := mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// smallSegment makes many files of a few entries.
const smallSegment = 16 << 10

func mustOpen(t testing.TB, path string, o Options) *Store {
	t.Helper()
	if o.SegmentSize == 0 {
		o.SegmentSize = smallSegment
	}
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entry is the one that mustStore writes at index.
func entry(index uint64) *raft.Log {
	return &raft.Log{
		Index: index, Term: index/10 + 1, Type: raft.LogCommand,
		Data:       fmt.Appendf(nil, "%0*d", index%300, index),
		AppendedAt: time.Unix(1_700_000_000+int64(index), int64(index)),
	}
}

func entries(first, last uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, entry(i))
	}
	return logs
}

func mustStore(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	if err := s.StoreLogs(entries(first, last)); err != nil {
		t.Fatal(err)
	}
}

func mustDelete(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	if err := s.DeleteRange(first, last); err != nil {
		t.Fatal(err)
	}
}

func wantBounds(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	if got, err := s.FirstIndex(); got != first || err != nil {
		t.Errorf("FirstIndex is %d, error %v, want %d", got, err, first)
	}
	if got, err := s.LastIndex(); got != last || err != nil {
		t.Errorf("LastIndex is %d, error %v, want %d", got, err, last)
	}
}

// wantLog wants the entries of mustStore from first to last, and no others. Of
// a long log it looks at every 97th and at both ends.
func wantLog(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	wantBounds(t, s, first, last)
	for i := first; i <= last; i++ {
		if i > first+10 && i+10 < last && i%97 != 0 {
			continue
		}
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		wantSame(t, &l, entry(i))
	}
	for _, i := range []uint64{first - 1, last + 1} {
		if err := s.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Errorf("entry %d: error %v", i, err)
		}
	}
}

func wantSame(t *testing.T, got, want *raft.Log) {
	t.Helper()
	g, w := *got, *want
	if !g.AppendedAt.Equal(w.AppendedAt) || g.AppendedAt.IsZero() != w.AppendedAt.IsZero() ||
		!bytes.Equal(g.Data, w.Data) || !bytes.Equal(g.Extensions, w.Extensions) {
		t.Errorf("got %+v, want %+v", g, w)
	}
	g.AppendedAt, g.Data, g.Extensions = w.AppendedAt, w.Data, w.Extensions
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %+v, want %+v", g, w)
	}
}

// reopened is a store that is opened for each call and closed after it.
type reopened struct {
	t    *testing.T
	path string
}

func with[T any](r reopened, f func(*Store) (T, error)) (T, error) {
	r.t.Helper()
	s := mustOpen(r.t, r.path, Options{})
	defer s.Close()
	return f(s)
}

func (r reopened) do(f func(*Store) error) error {
	_, err := with(r, func(s *Store) (struct{}, error) { return struct{}{}, f(s) })
	return err
}

func (r reopened) FirstIndex() (uint64, error) { return with(r, (*Store).FirstIndex) }
func (r reopened) LastIndex() (uint64, error)  { return with(r, (*Store).LastIndex) }
func (r reopened) GetLog(i uint64, l *raft.Log) error {
	return r.do(func(s *Store) error { return s.GetLog(i, l) })
}
func (r reopened) StoreLog(l *raft.Log) error {
	return r.do(func(s *Store) error { return s.StoreLog(l) })
}
func (r reopened) StoreLogs(l []*raft.Log) error {
	return r.do(func(s *Store) error { return s.StoreLogs(l) })
}
func (r reopened) DeleteRange(min, max uint64) error {
	return r.do(func(s *Store) error { return s.DeleteRange(min, max) })
}
func (r reopened) Set(k, v []byte) error {
	return r.do(func(s *Store) error { return s.Set(k, v) })
}
func (r reopened) Get(k []byte) ([]byte, error) {
	return with(r, func(s *Store) ([]byte, error) { return s.Get(k) })
}
func (r reopened) SetUint64(k []byte, v uint64) error {
	return r.do(func(s *Store) error { return s.SetUint64(k, v) })
}
func (r reopened) GetUint64(k []byte) (uint64, error) {
	return with(r, func(s *Store) (uint64, error) { return s.GetUint64(k) })
}
