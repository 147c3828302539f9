package ensemble

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/diskthread"
)

// snapshots are Raft's, in the folder, on the folder's thread: call by call, so that
// other files of the folder need not wait for a whole snapshot.
type snapshots struct {
	*raft.FileSnapshotStore
	thread *diskthread.Thread
	newest atomic.Pointer[raft.SnapshotMeta] // nil: there is none

	completed func(*raft.SnapshotMeta) error // is told of a snapshot that is on disk
}

func newSnapshots(d *Dir, log hclog.Logger) (s *snapshots, err error) {
	s = &snapshots{thread: d.files, completed: func(*raft.SnapshotMeta) error { return nil }}
	return s, s.thread.Do(func() (err error) {
		if s.FileSnapshotStore, err = raft.NewFileSnapshotStoreWithLogger(d.path, 2, log); err != nil {
			return err
		}
		all, err := s.FileSnapshotStore.List()
		if len(all) > 0 {
			s.newest.Store(all[0])
		}
		return err
	})
}

// Create implements [raft.SnapshotStore].
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, t raft.Transport) (sink raft.SnapshotSink, err error) {
	err = s.thread.Do(func() error {
		sink, err = s.FileSnapshotStore.Create(version, index, term, c, at, t)
		return err
	})
	return &snapshotSink{sink, s, raft.SnapshotMeta{Index: index, Term: term}}, err
}

// List implements [raft.SnapshotStore].
func (s *snapshots) List() (all []*raft.SnapshotMeta, err error) {
	err = s.thread.Do(func() error {
		all, err = s.FileSnapshotStore.List()
		return err
	})
	return all, err
}

// Open implements [raft.SnapshotStore].
func (s *snapshots) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	err = s.thread.Do(func() error {
		meta, r, err = s.FileSnapshotStore.Open(id)
		return err
	})
	return meta, &snapshotReader{r, s.thread}, err
}

type snapshotSink struct {
	raft.SnapshotSink
	of   *snapshots
	meta raft.SnapshotMeta
}

func (s *snapshotSink) Write(b []byte) (n int, err error) {
	err = s.of.thread.Do(func() error {
		n, err = s.SnapshotSink.Write(b)
		return err
	})
	return n, err
}

// errOvertaken: Raft would take its log to end there.
var errOvertaken = errors.New("there is a newer snapshot by now")

func (s *snapshotSink) Close() error {
	overtaken := false
	err := s.end(func() error { // one at a time, as all on the thread
		before := s.of.newest.Load()
		if overtaken = before != nil && before.Index > s.meta.Index; overtaken {
			return s.SnapshotSink.Cancel()
		}
		if err := s.SnapshotSink.Close(); err != nil {
			return err
		}
		s.of.newest.Store(&s.meta)
		return nil
	})
	switch {
	case err != nil:
		return err
	case overtaken:
		return errOvertaken
	}
	return s.of.completed(&s.meta)
}

func (s *snapshotSink) Cancel() error { return s.end(s.SnapshotSink.Cancel) }

// end ends the snapshot. If that fails, Raft's sink leaves its file open.
func (s *snapshotSink) end(f func() error) error {
	err := s.of.thread.Do(f)
	if err != nil {
		diskthread.Keep(s)
	}
	return err
}

type snapshotReader struct {
	r      io.ReadCloser
	thread *diskthread.Thread
}

func (s *snapshotReader) Read(b []byte) (n int, err error) {
	err = s.thread.Do(func() error {
		n, err = s.r.Read(b)
		return err
	})
	return n, err
}

func (s *snapshotReader) Close() error { return s.thread.Do(s.r.Close) }
