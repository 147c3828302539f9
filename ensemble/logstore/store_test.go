package logstore

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

func TestTheCallerMayUseAgainWhatItPassedAndWhatItGot(t *testing.T) {
	s := openTemp(t)
	k, v := []byte("key"), []byte("value")
	l := &raft.Log{Index: 1, Data: []byte("data"), Extensions: []byte("more")}
	if err := errors.Join(s.Set(k, v), s.StoreLog(l)); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{k, v, l.Data, l.Extensions} {
		clear(b)
	}
	for range 2 {
		got, err := s.Get([]byte("key"))
		if string(got) != "value" || err != nil {
			t.Errorf("%q, error %v", got, err)
		}
		clear(got)
		var l raft.Log
		if err := s.GetLog(1, &l); string(l.Data) != "data" || string(l.Extensions) != "more" || err != nil {
			t.Errorf("%q %q, error %v", l.Data, l.Extensions, err)
		}
		_ = append(l.Extensions, "overflow"...)
		if string(l.Data) != "data" {
			t.Errorf("data are %q after an append to the extensions", l.Data)
		}
		clear(l.Data)
		clear(l.Extensions)
	}
}

// A gap is Raft's way to say that a snapshot took the place of what was before.
func TestAGapReplacesTheLog(t *testing.T) {
	s := openTemp(t)
	mustStore(t, s, 1, 50)
	mustStore(t, s, 101, 103)
	wantLog(t, s, 101, 103)
	for _, i := range []uint64{1, 50, 100} {
		if err := s.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Errorf("entry %d: error %v", i, err)
		}
	}
}

func TestDeleteWhereNothingIs(t *testing.T) {
	s := openTemp(t)
	mustDelete(t, s, 0, 1<<64-1)
	mustStore(t, s, 5, 10)
	for _, r := range [][2]uint64{{0, 4}, {11, 1<<64 - 1}, {8, 7}, {1<<64 - 1, 0}} {
		mustDelete(t, s, r[0], r[1])
		wantLog(t, s, 5, 10)
	}
	mustDelete(t, s, 0, 1<<64-1)
	wantBounds(t, s, 0, 0)
}

// Calls that would break the rule of no gaps are bugs of the caller: what it
// believes is not what is here. That too is final.
func TestWhatWouldBreakTheLogIsRefusedForGood(t *testing.T) {
	tests := []struct {
		name string
		do   func(*Store) error
		want string
	}{
		{"append below the end", func(s *Store) error { return s.StoreLogs(entries(10, 11)) }, "store entry 10: the log ends at 10"},
		{"append below the beginning", func(s *Store) error { return s.StoreLogs(entries(3, 4)) }, "store entry 3: the log ends at 10"},
		{"index 0", func(s *Store) error { return s.StoreLog(&raft.Log{}) }, "store entry 0: the log ends at 10"},
		{"gap in a batch", func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(11), entry(13)}) }, "store entry 13 where 12 should be"},
		{"delete in the middle", func(s *Store) error { return s.DeleteRange(7, 8) }, "delete entries 7 to 8: that leaves a gap in 5 to 10"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			calls := 0
			s := mustOpen(t, path, Options{OnError: func(error) { calls++ }})
			mustStore(t, s, 5, 10)
			err := tt.do(s)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if again := s.StoreLogs(entries(11, 11)); again != err {
				t.Errorf("then error %v", again)
			}
			if calls != 1 {
				t.Errorf("OnError called %d times", calls)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = mustOpen(t, path, Options{})
			defer s.Close()
			wantLog(t, s, 5, 10)
		})
	}
}

func TestAClosedStoreFailsQuietly(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "raft.db"), Options{
		OnError: func(err error) { t.Errorf("OnError called with %v", err) },
	})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for name, err := range everyCall(s) {
		if err != ErrClosed {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// everyCall makes each call of the store once and returns its error.
func everyCall(s *Store) map[string]error {
	_, first := s.FirstIndex()
	_, last := s.LastIndex()
	_, get := s.Get([]byte("k"))
	_, getUint64 := s.GetUint64([]byte("k"))
	_, format := s.Format()
	return map[string]error{
		"FirstIndex": first, "LastIndex": last, "Get": get, "GetUint64": getUint64, "Format": format,
		"GetLog":      s.GetLog(1, new(raft.Log)),
		"StoreLog":    s.StoreLog(entry(1 << 40)),
		"StoreLogs":   s.StoreLogs(entries(1<<41, 1<<41+1)),
		"Append":      s.Append(entries(1<<42, 1<<42+1)),
		"DeleteRange": s.DeleteRange(1, 1<<50),
		"Set":         s.Set([]byte("k"), []byte("v")),
		"SetUint64":   s.SetUint64([]byte("k"), 1),
		"Raise":       s.Raise(Format),
	}
}

func TestTheFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	mustOpen(t, path, Options{}).Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v", info.Mode())
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unfinished file: %v", err)
	}
}

func TestAnUnfinishedFileOfACrashIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path, Options{})
	defer s.Close()
	mustStore(t, s, 1, 2)
	wantLog(t, s, 1, 2)
}

func TestASecondOpenFailsClearly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := mustOpen(t, path, Options{})
	defer s.Close()
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), path+": another process uses it, and still did after 1s") {
		t.Errorf("error %v", err)
	}
	if !errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, ErrDamaged) {
		t.Errorf("error %v is of the wrong kind", err)
	}
	mustStore(t, s, 1, 1)
}

func TestOpenInAFolderThatIsNotThere(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none", "raft.db"), Options{})
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

// The settings that the measurements asked for; bbolt's defaults differ.
func TestSettings(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "raft.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.db.NoSync || s.db.NoGrowSync || !s.db.NoFreelistSync || s.db.FreelistType != bolt.FreelistMapType {
		t.Errorf("NoSync %t, NoGrowSync %t, NoFreelistSync %t, FreelistType %s",
			s.db.NoSync, s.db.NoGrowSync, s.db.NoFreelistSync, s.db.FreelistType)
	}
}

// Raft reads and deletes from its snapshot and replication goroutines while the
// main one appends.
func TestCallsFromSeveralGoroutines(t *testing.T) {
	s := openTemp(t)
	mustStore(t, s, 1, 10)
	const last = 200
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				index, err := s.LastIndex()
				if err != nil {
					t.Error(err)
					return
				}
				var l raft.Log
				err = s.GetLog(index, &l)
				if first, _ := s.FirstIndex(); err == raft.ErrLogNotFound && first > index {
					continue // deleted meanwhile
				}
				if err != nil || !bytes.Equal(l.Data, entry(index).Data) {
					t.Errorf("entry %d: %+v, error %v", index, l, err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for to := uint64(20); to < last; to += 20 {
			for end := uint64(0); end < to+5; {
				var err error
				if end, err = s.LastIndex(); err != nil {
					t.Error(err)
					return
				}
			}
			if err := s.DeleteRange(1, to); err != nil {
				t.Error(err)
			}
		}
	})
	for i := uint64(11); i <= last; i++ {
		if i%5 == 0 {
			mustStore(t, s, i, i)
		} else {
			mustAppend(t, s, i, i)
		}
	}
	close(stop)
	readers.Wait()
	wantLog(t, s, 181, last)
}
