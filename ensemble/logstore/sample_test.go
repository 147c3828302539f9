package logstore

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// samples has for each format a store as it was written. They are never written again:
// what is on disks out there does not change either.
const samples = "../../testdata/disk"

var writeSample = flag.Bool("write-sample", false, "write a sample of a format to "+samples+" if it is missing")

var sampleLog = []*raft.Log{
	{Index: 41, Term: 2, Type: raft.LogNoop, AppendedAt: time.Unix(1_790_000_000, 123_456_789)},
	{Index: 42, Term: 2, Type: raft.LogCommand, Data: []byte{1, 0, 255, 'x'}, AppendedAt: time.Unix(1_790_000_001, 0)},
	{Index: 43, Term: 3, Type: raft.LogBarrier},
	{Index: 44, Term: 3, Type: raft.LogConfiguration, Data: []byte("configuration"), Extensions: []byte("extensions")},
	{Index: 45, Term: 1 << 40, Type: raft.LogCommand, Data: bytes.Repeat([]byte("large "), 1500), AppendedAt: time.Unix(-1, 1)},
}

func TestEveryFormatIsRead(t *testing.T) {
	for format := 1; format <= Format; format++ {
		t.Run(fmt.Sprint(format), func(t *testing.T) { sampleIsRead(t, format) })
	}
}

func sampleIsRead(t *testing.T, format int) {
	sample := filepath.Join(samples, fmt.Sprint("logstore-v", format))
	if _, err := os.Stat(sample); *writeSample && errors.Is(err, fs.ErrNotExist) {
		check(t, os.Mkdir(sample, 0o755))
		s := mustOpen(t, filepath.Join(sample, "raft.db"), Options{Format: format, SegmentSize: 2048})
		err := errors.Join(
			s.StoreLogs(sampleLog),
			s.SetUint64([]byte("CurrentTerm"), 1<<40),
			s.SetUint64([]byte("LastVoteTerm"), 3),
			s.Set([]byte("LastVoteCand"), []byte("node-7")),
			s.Close())
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir() // opening writes to the files
	check(t, os.CopyFS(dir, os.DirFS(sample)))
	s := mustOpen(t, filepath.Join(dir, "raft.db"), Options{})
	defer s.Close()

	wantFormat(t, s, format)
	wantBounds(t, s, 41, 45)
	for _, want := range sampleLog {
		var l raft.Log
		if err := s.GetLog(want.Index, &l); err != nil {
			t.Fatal(err)
		}
		wantSame(t, &l, want)
	}
	for k, want := range map[string]uint64{"CurrentTerm": 1 << 40, "LastVoteTerm": 3} {
		if n, err := s.GetUint64([]byte(k)); n != want || err != nil {
			t.Errorf("%s is %d, error %v, want %d", k, n, err, want)
		}
	}
	if v, err := s.Get([]byte("LastVoteCand")); string(v) != "node-7" || err != nil {
		t.Errorf("LastVoteCand is %q, error %v", v, err)
	}
	if err := s.StoreLog(entry(46)); err != nil {
		t.Error(err)
	}
}
