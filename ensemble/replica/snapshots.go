package replica

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/durable"
	"leaderlatch/ensemble/permanent"
)

// snapshots are Raft's snapshots in the folder. The folder's thread makes their calls
// to the disk one by one, so that other files of the folder need not wait for a whole
// snapshot. There are the newest snapshot and the one before:
//
//	snapshots/<term>-<index>-<ms>/
//	    state.bin  the state
//	    meta.json  what Raft knows of it
//
// While a snapshot is written, its folder's name ends in .tmp. These are the files of
// [raft.FileSnapshotStore], which does two things otherwise:
//
//  1. It leaves a snapshot that has failed, or that a crash has interrupted, on the disk and
//     open. A disk that is full would stay so.
//  2. It passes over a snapshot that it cannot read. Raft then takes the one before, though
//     the log may not have what came between. A node would forget what it has acknowledged.
//     So the stable store notes the name of the newest snapshot, and Raft is shown one
//     snapshot only: see choose.
type snapshots struct {
	path   string
	thread *diskthread.Thread
	there  func() error // whether the folder at the path is still this one
	store  store
	log    hclog.Logger
	newest atomic.Pointer[raft.SnapshotMeta] // nil: there is none
	sound  string                            // the snapshot that was verified when it was chosen, until it is opened; used on the thread
	tried  int64                             // how large the last one had become for which there was no room; used on the thread
	small  atomic.Bool                       // there was no room for the last one

	room      func(index uint64, bytes int64) error // refuses a snapshot for which so much more is to be written; called on the thread
	completed func(*raft.SnapshotMeta) error        // is told of a snapshot that is on disk
	failed    func(index uint64, err error)         // is told of one that cannot be written, or read; it is called by Raft
	unread    func(name string, err error)          // is told if the newest cannot be read any more; likewise
	create    func(name string) (StateFile, error)  // a seam of tests of failing disks
}

// StateFile is where the state of a snapshot is written.
type StateFile interface {
	io.WriteCloser
	Sync() error
}

// snapshotMeta is the first line of meta.json. The second is metaSum of it.
type snapshotMeta struct {
	raft.SnapshotMeta
	CRC []byte // of the state
}

var snapshotCRC = crc64.MakeTable(crc64.ECMA)

func metaSum(line []byte) []byte {
	return fmt.Appendf(nil, "%08x\n", crc32.Checksum(line, crc32.MakeTable(crc32.Castagnoli)))
}

const unfinished = ".tmp"

// newestKey is the stable store's for the name of the newest snapshot.
var newestKey = []byte("NewestSnapshot")

// newSnapshots opens the snapshots that go with a log. Nobody else has the folder: whatever is
// unfinished there is of a process that is gone.
func newSnapshots(f Folder, log store, logger hclog.Logger) (*snapshots, error) {
	s := &snapshots{
		path:      filepath.Join(f.Path, "snapshots"),
		thread:    f.Thread,
		there:     f.There,
		store:     log,
		log:       logger,
		room:      func(uint64, int64) error { return nil },
		completed: func(*raft.SnapshotMeta) error { return nil },
		failed:    func(uint64, error) {},
		unread:    func(string, error) {},
		create: func(name string) (StateFile, error) {
			return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		},
	}
	var ids []snapshotID
	err := s.thread.Do(func() (err error) {
		if err := os.MkdirAll(s.path, 0o750); err != nil {
			return err
		}
		all, err := os.ReadDir(s.path)
		if err != nil {
			return err
		}
		for _, e := range all {
			if !strings.HasSuffix(e.Name(), unfinished) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(s.path, e.Name())); err != nil {
				return err
			}
		}
		ids, err = s.ids()
		return err
	})
	if err != nil {
		return nil, err
	}
	switch noted, err := log.Get(newestKey); {
	case err == nil:
		if id, ok := parseSnapshotID(string(noted)); ok && !slices.Contains(ids, id) {
			ids = append(ids, id) // which is lost
		}
	case err.Error() != "not found":
		return nil, err
	}
	slices.SortFunc(ids, func(a, b snapshotID) int { return b.compare(a) })
	return s, s.choose(ids)
}

// choose finds the snapshot from which Raft goes on: the newest. If that cannot be read, an
// older one will do, or none, where the log has all that came since, up to where the newest
// ended.
func (s *snapshots) choose(ids []snapshotID) error {
	var newest *raft.SnapshotMeta
	var unread error
	for _, id := range ids {
		var meta *snapshotMeta
		err := s.thread.Do(func() (err error) {
			meta, err = s.verify(id)
			return err
		})
		if err == nil {
			newest = &meta.SnapshotMeta
			break
		}
		if unread == nil {
			unread = err
		}
	}
	first, err := s.store.FirstIndex()
	if err != nil {
		return err
	}
	from := uint64(1)
	if newest != nil {
		from = newest.Index + 1
	}
	switch {
	case unread != nil && (first > from || !s.logHas(ids[0])):
		return fmt.Errorf("the newest snapshot, of entry %d, cannot be read, and the log does not have all that is in it: %w; %s", ids[0].index, unread, permanent.CureFolder)
	case first > from:
		return fmt.Errorf("the log begins at entry %d and there is no snapshot of what was before; %s", first, permanent.CureFolder)
	case unread != nil:
		s.log.Warn("the newest snapshot cannot be read; the node goes on from what was before, and its log", "entry", from, "error", unread)
	}
	s.newest.Store(newest)
	return nil
}

// logHas reports whether the last entry of a snapshot is in the log.
func (s *snapshots) logHas(id snapshotID) bool {
	var l raft.Log
	return s.store.GetLog(id.index, &l) == nil && l.Term == id.term
}

// snapshotID is the name of a snapshot.
type snapshotID struct {
	term, index uint64
	ms          int64
}

func (id snapshotID) String() string { return fmt.Sprintf("%d-%d-%d", id.term, id.index, id.ms) }

func parseSnapshotID(name string) (id snapshotID, ok bool) {
	_, err := fmt.Sscanf(name, "%d-%d-%d", &id.term, &id.index, &id.ms)
	return id, err == nil && id.String() == name
}

// compare says which one Raft takes for the newer.
func (id snapshotID) compare(other snapshotID) int {
	return cmp.Or(cmp.Compare(id.term, other.term), cmp.Compare(id.index, other.index), cmp.Compare(id.ms, other.ms))
}

// ids are the snapshots that are there by name. It is called on the thread, as the next
// ones.
func (s *snapshots) ids() (ids []snapshotID, err error) {
	all, err := os.ReadDir(s.path)
	for _, e := range all {
		if id, ok := parseSnapshotID(e.Name()); ok {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// read reads what Raft knows of a snapshot.
func (s *snapshots) read(id snapshotID) (*snapshotMeta, error) {
	name := filepath.Join(s.path, id.String(), "meta.json")
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	meta := new(snapshotMeta)
	b, sum, _ := bytes.Cut(b, []byte("\n"))
	if len(sum) > 0 && !bytes.Equal(sum, metaSum(b)) { // older programs write none
		return nil, fmt.Errorf("%s is not what was written", name)
	}
	if err := json.Unmarshal(b, meta); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if meta.ID != id.String() || meta.Term != id.term || meta.Index != id.index {
		return nil, fmt.Errorf("%s is of snapshot %s, of entry %d of term %d", name, meta.ID, meta.Index, meta.Term)
	}
	if meta.Version != 1 {
		return nil, fmt.Errorf("%s has version %d", name, meta.Version)
	}
	return meta, nil
}

// verify reads a snapshot to see whether it is what was written. Who opens it next need
// not do so again: at the start a large state is read twice, not three times.
func (s *snapshots) verify(id snapshotID) (*snapshotMeta, error) {
	meta, f, err := s.open(id)
	if err != nil {
		return nil, err
	}
	s.sound = meta.ID
	return meta, f.Close()
}

// open opens the state of a snapshot, which is what was written.
func (s *snapshots) open(id snapshotID) (meta *snapshotMeta, f *os.File, err error) {
	if meta, err = s.read(id); err != nil {
		return nil, nil, err
	}
	if f, err = os.Open(filepath.Join(s.path, id.String(), "state.bin")); err != nil {
		return nil, nil, err
	}
	if s.sound == meta.ID {
		s.sound = ""
		return meta, f, nil
	}
	sum := crc64.New(snapshotCRC)
	_, err = io.Copy(sum, f)
	if err == nil && !bytes.Equal(sum.Sum(nil), meta.CRC) {
		err = fmt.Errorf("%s is not what was written", f.Name())
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return meta, f, nil
}

// reap removes all snapshots but two. One that cannot be removed, it tries again after
// the next one.
func (s *snapshots) reap(newest string, before *raft.SnapshotMeta) {
	ids, err := s.ids()
	for _, id := range ids {
		if name := id.String(); name != newest && (before == nil || name != before.ID) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.path, name)))
		}
	}
	if err != nil {
		s.log.Warn("old snapshots cannot be removed", "error", err)
	}
}

// Create implements [raft.SnapshotStore].
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	id := snapshotID{term, index, time.Now().UnixMilli()}
	if newest := s.newest.Load(); newest != nil && newest.Term == term && newest.Index == index {
		before, _ := parseSnapshotID(newest.ID)
		id.ms = max(id.ms, before.ms+1) // what recover has made counts, whatever the wall clock did
	}
	sink := &snapshotSink{of: s, sum: crc64.New(snapshotCRC)}
	sink.meta.SnapshotMeta = raft.SnapshotMeta{
		Version: version, ID: id.String(),
		Index: index, Term: term, Configuration: c, ConfigurationIndex: at,
	}
	err := s.thread.Do(func() (err error) {
		if err = cmp.Or(s.there(), s.hasRoom(index)); err != nil {
			return err
		}
		if err = os.Mkdir(sink.unfinished(), 0o750); err != nil {
			return err
		}
		if sink.file, err = s.create(filepath.Join(sink.unfinished(), "state.bin")); err != nil {
			err = errors.Join(err, os.RemoveAll(sink.unfinished()))
		}
		return err
	})
	if err != nil {
		s.failed(index, err)
		return nil, err
	}
	return sink, nil
}

// hasRoom refuses a snapshot for which there seems to be too little room. How large it will be
// is not known before: as large as the last one, or as one got for which there was no room, or
// a little larger; for more the sink asks as it is written.
func (s *snapshots) hasRoom(index uint64) error {
	size := s.tried
	if newest := s.newest.Load(); newest != nil {
		size = max(size, newest.Size)
	}
	err := s.room(index, size+flushSnapshotAt)
	s.small.Store(err != nil)
	return err
}

// List implements [raft.SnapshotStore]. It gives no second one for Raft to fall back to.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	if newest := s.newest.Load(); newest != nil {
		return []*raft.SnapshotMeta{newest}, nil
	}
	return nil, nil
}

// Open implements [raft.SnapshotStore].
func (s *snapshots) Open(name string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	id, ok := parseSnapshotID(name)
	if !ok {
		return nil, nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	var meta *snapshotMeta
	var f *os.File
	err := s.thread.Do(func() (err error) {
		meta, f, err = s.open(id)
		return err
	})
	if err != nil {
		s.failed(id.index, err)
		if s.isNewest(name) {
			s.unread(name, err)
		}
		return nil, nil, err
	}
	return &meta.SnapshotMeta, &snapshotReader{f, s.thread}, nil
}

func (s *snapshots) isNewest(name string) bool {
	newest := s.newest.Load()
	return newest != nil && newest.ID == name
}

// snapshotSink is a snapshot that is being written.
type snapshotSink struct {
	of   *snapshots
	meta snapshotMeta
	file StateFile
	sum  hash.Hash64

	ended   bool
	outcome error // of its end

	unflushed int // bytes that were written since the last flush
}

// flushSnapshotAt is after how many bytes of a snapshot they are flushed.
const flushSnapshotAt = 4 << 20

// ID implements [raft.SnapshotSink].
func (s *snapshotSink) ID() string { return s.meta.ID }

func (s *snapshotSink) finished() string   { return filepath.Join(s.of.path, s.meta.ID) }
func (s *snapshotSink) unfinished() string { return s.finished() + unfinished }

func (s *snapshotSink) Write(b []byte) (n int, err error) {
	if s.ended {
		return 0, fs.ErrClosed
	}
	err = s.of.thread.Do(func() (err error) {
		if n, err = s.file.Write(b); err != nil {
			return err
		}
		// Now and then, so that no flush takes long: others wait for the thread.
		if s.unflushed += n; s.unflushed >= flushSnapshotAt {
			s.unflushed = 0
			if err = s.file.Sync(); err == nil {
				err = s.hasRoom()
			}
		}
		return err
	})
	s.sum.Write(b[:n])
	s.meta.Size += int64(n)
	if err != nil {
		s.of.failed(s.meta.Index, err)
	}
	return n, err
}

// hasRoom gives the snapshot up in time if it has become larger than there is room for.
func (s *snapshotSink) hasRoom() error {
	err := s.of.room(s.meta.Index, flushSnapshotAt)
	if err != nil {
		s.of.tried = s.meta.Size + flushSnapshotAt
		s.of.small.Store(true)
	}
	return err
}

// errOvertaken: Raft would take its log to end there.
var errOvertaken = errors.New("there is a newer snapshot by now")

func (s *snapshotSink) overtaken() bool {
	newest := s.of.newest.Load()
	return newest != nil && newest.Index > s.meta.Index
}

// Close completes the snapshot. A further call has the outcome of the first, unless the
// snapshot was overtaken since.
func (s *snapshotSink) Close() error {
	switch {
	case s.ended && s.outcome == nil && s.overtaken():
		return errOvertaken
	case s.ended:
		return s.outcome
	}
	err := s.end(func() error { // one at a time, as all on the thread
		if s.overtaken() {
			return errOvertaken
		}
		before := s.of.newest.Load()
		if err := s.complete(); err != nil {
			return err
		}
		s.of.newest.Store(&s.meta.SnapshotMeta)
		s.of.tried = 0
		s.of.reap(s.meta.ID, before)
		return nil
	})
	switch {
	case err == nil:
		if s.outcome = s.of.store.Set(newestKey, []byte(s.meta.ID)); s.outcome == nil {
			s.outcome = s.of.completed(&s.meta.SnapshotMeta)
		}
	case err != errOvertaken:
		s.of.failed(s.meta.Index, err)
	}
	return s.outcome
}

// complete puts the snapshot in its place, on disk before it returns.
func (s *snapshotSink) complete() error {
	if err := errors.Join(s.file.Sync(), s.file.Close()); err != nil {
		return err
	}
	s.meta.CRC = s.sum.Sum(nil)
	b, err := json.Marshal(s.meta)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(s.unfinished(), "meta.json"), slices.Concat(b, []byte("\n"), metaSum(b))); err != nil {
		return err
	}
	if err := os.Rename(s.unfinished(), s.finished()); err != nil {
		return err
	}
	if err := durable.SyncDir(s.of.path); err != nil {
		return errors.Join(err, os.RemoveAll(s.finished()))
	}
	return nil
}

var errCancelled = errors.New("the snapshot was cancelled")

// Cancel gives back what the snapshot has taken, unless it has ended.
func (s *snapshotSink) Cancel() error {
	if s.ended {
		return nil
	}
	if err := s.end(func() error { return errCancelled }); err != errCancelled {
		return err
	}
	return nil
}

// end ends the snapshot. If f fails, nothing is left of it, in the folder or open. In a folder
// that took the place of this one it does nothing.
func (s *snapshotSink) end(f func() error) error {
	s.ended = true
	s.outcome = s.of.thread.Do(func() error {
		if gone := s.of.there(); gone != nil {
			s.file.Close()
			return gone
		}
		err := f()
		if err == nil {
			return nil
		}
		s.file.Close() // fails where f has done it
		if left := os.RemoveAll(s.unfinished()); left != nil {
			err = errors.Join(err, left)
		}
		return err
	})
	if errors.Is(s.outcome, diskthread.ErrClosed) {
		diskthread.Keep(s.file)
	}
	return s.outcome
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
