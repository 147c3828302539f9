package ensemble

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/durable"
	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/state"
)

// ErrLocked is returned by [OpenDir] when another process holds the folder.
var ErrLocked = errors.New("another leader-latch runs on this data folder")

// Dir is a node's data folder, locked. The lock is held from before the first
// listener until the process is gone, so that whoever gets it next knows that
// the process before has no connection left (DESIGN.md, rule 1).
//
//	lock       the lock, with the holder's process id
//	node.json  who the node is: identity, below
//	tokens     while the node joins: what the cluster that it gave up can have given
//	cookie.key the key of the cookie, sealed
//	raft.db    Raft's votes, the open counter, and where the log begins and ends
//	log/       Raft's log
//	snapshots/ Raft's snapshots
//	aside/     Raft's state of a life that ended when the node left its cluster
//	           or joined another; nothing reads it
//
// What may hang in its disk is done on threads of the folder (package diskthread),
// which hold the lock too: it is not free while a write is under way. A commit waits
// for no other files than those of the log store, so these have one for themselves.
type Dir struct {
	path  string
	held  fs.FileInfo        // of lock
	lock  *os.File           // in the table of all other threads: closed last when the process dies, as opened before their sockets
	log   *diskthread.Thread // for raft.db and log/
	files *diskthread.Thread // for all else

	identity atomic.Pointer[identity]
	tokens   atomic.Uint64 // the content of that file; 0: there is none

	writing sync.Mutex // held over a change of identity, to disk; guards life
	life    int        // which of the nodes that were started on the folder may change it: the last

	machine  string                                        // its id; empty: there is none, and no key is kept
	derive   func(cookie string) (*clusterport.Key, error) // a seam of tests
	deriving sync.Mutex                                    // held over that, and over a change of sealed
	sealed   atomic.Pointer[[]string]                      // the lines of cookie.key
}

// identity is the content of node.json. It is written before anything that
// depends on it is done.
type identity struct {
	Format    int          `json:"format"` // the level of what may be in the folder: it rises with the cluster's
	Node      state.NodeID `json:"node_id"`
	Cluster   string       `json:"cluster_id"` // empty: it has none yet
	TokenBase uint64       `json:"token_base"`

	// Settled says that Raft's state in the folder counts from here on, and
	// may not be lost. While it is false, what lies there is of a life before.
	Settled bool `json:"settled"`

	// Join is the node, name@host:port, through which this one still has to be
	// added to a cluster. With a cluster of its own it has been accepted there.
	Join string `json:"join,omitempty"`

	// Leaving says that the node has asked to be removed: when it has been, it
	// begins anew instead of stopping for good.
	Leaving bool `json:"leaving,omitempty"`

	// Left says that the node has founded its cluster only because it left
	// another one. It is none to be looked for by leader_latch.join.
	Left bool `json:"left,omitempty"`

	// Aside says that what Raft has in the folder is of the life before, and
	// has to be set aside.
	Aside bool `json:"aside,omitempty"`

	// Recovery is how far a recovery has come, empty if there is none.
	Recovery recoveryState `json:"recovery,omitempty"`

	// Sum is the CRC-32C of all else, from level 2 on: one wrong bit in the id is another
	// node, which is a member of nothing. In memory it is empty.
	Sum string `json:"sum,omitempty"`
}

// sum is what Sum has to be, if it is there: no older program, which knows nothing of it,
// reads a folder of that level.
func (id identity) sum() string {
	id.Sum = ""
	b, _ := json.Marshal(id) // which cannot fail
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// OpenDir locks the data folder, making it when it is missing, and reads who
// the node is; a folder without a node gets a new identity. It waits for a
// process that holds the lock until ctx is done, and then gives an error that
// wraps [ErrLocked]. An error that a restart cannot cure is a
// [PermanentError].
func OpenDir(ctx context.Context, path string) (*Dir, error) {
	if err := CheckOwner(path); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, permanent.Errorf("data folder: %w; make it writable for the user that the service runs as, or set platform_data_dir", err)
	}
	if err := ensureMode(path, 0o750); err != nil {
		return nil, permanent.Errorf("data folder: %w; give it to the user that the service runs as", err)
	}
	kind, err := fileSystemOf(path)
	if err == nil {
		err = checkFileSystem(path, kind)
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, path)
	if err != nil {
		return nil, err
	}
	held, err := lock.Stat()
	if err != nil {
		lock.Close()
		return nil, permanent.Errorf("data folder: %w", err)
	}
	d := &Dir{
		path: path, held: held, lock: lock, log: diskthread.Start(int(lock.Fd())), files: diskthread.Start(int(lock.Fd())),
		derive: clusterport.DeriveKey,
	}
	err = d.files.Do(func() error {
		d.readKeys()
		return d.readIdentity()
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// ensureMode gives a folder its mode, whatever the umask is. One that has it already
// it leaves alone: that would wait for a disk that hangs.
func ensureMode(path string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return os.Chmod(path, mode)
}

// CheckOwner refuses to work as root in a folder of another user, existing or
// to be made: the files that root would leave there, that user's service could
// not open. The error is a [PermanentError].
func CheckOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		return CheckOwner(filepath.Dir(path))
	}
	if err != nil {
		return &PermanentError{Err: err}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		name := fmt.Sprintf("'#%d'", st.Uid)
		if u, err := user.LookupId(fmt.Sprint(st.Uid)); err == nil {
			name = u.Username
		}
		return permanent.Errorf("%s belongs to user %d and this process runs as root; start it as that user (sudo -u %s leader-latch serve), or chown the folder to root", path, st.Uid, name)
	}
	return nil
}

// lockDir takes the lock on the folder. A process that was killed just now
// may hold it until its last connection is closed.
func lockDir(ctx context.Context, path string) (*os.File, error) {
	name := filepath.Join(path, "lock")
	// Neither opening a file that is there nor reading it so waits for a disk that
	// hangs, on which the holder is to be named; nor does closing it.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, permanent.Errorf("data folder: %w; give it to the user that the service runs as", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, permanent.Errorf("data folder: lock %s: %w; it must be on a local file system", name, err)
		}
		select {
		case <-ctx.Done():
			holder, _ := io.ReadAll(f)
			f.Close()
			return nil, fmt.Errorf("data folder %s: %w (process %s); stop that one first, or give this one a platform_data_dir of its own",
				path, ErrLocked, strings.TrimSpace(string(holder)))
		case <-time.After(20 * time.Millisecond):
		}
	}
	// Who holds it is for people only; failing to say so is no reason to stop.
	os.WriteFile(name, fmt.Appendln(nil, os.Getpid()), 0o600)
	return f, nil
}

func (d *Dir) readIdentity() error {
	name := filepath.Join(d.path, "node.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.newIdentity()
	}
	if err != nil {
		return permanent.Errorf("data folder: %w; give it to the user that the service runs as", err)
	}
	// The version first: what else is in there depends on it.
	var version struct{ Format int }
	if err := json.Unmarshal(b, &version); err != nil {
		return permanent.Errorf("%s: %w; %s", name, err, permanent.CureFolder)
	}
	if version.Format > state.NewestLevel {
		return permanent.Errorf("%s: data format %d, this program reads up to %d: %w; install that version again", name, version.Format, state.NewestLevel, state.ErrFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	id := new(identity)
	if err := dec.Decode(id); err != nil || id.Format < state.FirstLevel || id.Node == "" || id.Settled && id.Cluster == "" {
		return permanent.Errorf("%s: not what this program writes (%v); %s", name, err, permanent.CureFolder)
	}
	if id.Sum != "" && id.Sum != id.sum() {
		return permanent.Errorf("%s: not what was written: %w; %s", name, state.ErrCorrupt, permanent.CureFolder)
	}
	id.Sum = ""
	hasRaft, err := d.hasRaft()
	if err != nil {
		return permanent.Errorf("data folder: %w", err)
	}
	if id.Settled && !hasRaft {
		return permanent.Errorf("%s is missing though %s says that this node has state; %s", d.raftPath(), name, permanent.CureFolder)
	}
	d.identity.Store(id)
	return d.readTokens()
}

// readTokens reads above which tokens the ones of a cluster that this node founds or joins
// have to be. The file is one of its own, as older programs refuse a node.json with more in it.
func (d *Dir) readTokens() error {
	b, err := os.ReadFile(d.Path("tokens"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tokens, e := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if e == nil && tokens > maxToken {
		e = fmt.Errorf("%d is above every token: %w", tokens, state.ErrCorrupt)
	}
	if err := cmp.Or(err, e); err != nil {
		return permanent.Errorf("%s: %w; %s", d.Path("tokens"), err, permanent.CureFolder)
	}
	d.tokens.Store(tokens)
	return nil
}

// keepTokens has tokens be remembered until they are forgotten.
func (d *Dir) keepTokens(tokens uint64) error {
	if tokens <= d.tokens.Load() {
		return nil
	}
	if err := d.Do(func() error { return durable.WriteFile(d.Path("tokens"), fmt.Appendln(nil, tokens)) }); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	d.tokens.Store(tokens)
	return nil
}

func (d *Dir) forgetTokens() {
	if d.tokens.Swap(0) > 0 {
		d.Remove("tokens") // should that fail, the next cluster has higher ones than it needs
	}
}

// newIdentity makes a node: an empty folder is a new one, never an old one that
// forgot (DESIGN.md, On disk).
func (d *Dir) newIdentity() error {
	switch hasRaft, err := d.hasRaft(); {
	case err != nil:
		return permanent.Errorf("data folder: %w", err)
	case hasRaft:
		return permanent.Errorf("%s is there without node.json; %s", d.raftPath(), permanent.CureFolder)
	}
	id := identity{Format: state.FirstLevel, Node: state.NodeID(randomID())}
	if err := d.writeIdentity(id); err != nil {
		return err
	}
	d.identity.Store(&id)
	return nil
}

// found gives an identity a cluster of its own, with tokens above those that were given.
func (id *identity) found(given uint64) {
	id.Cluster, id.TokenBase = randomID(), max(given, uint64(max(0, time.Now().UnixMicro())))
}

// released is a day before which this program cannot run: a clock that says so is wrong. It
// is set anew with a release, where packaging/changelog.yaml gets its entry.
var released = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// checkClock refuses to found a cluster by a clock that is wrong: whatever its folder has
// forgotten, its tokens would be below.
func checkClock(now, released time.Time) error {
	if !now.Before(released) {
		return nil
	}
	return fmt.Errorf("the clock of this machine says %s, and this program is of %s or later; set the clock right: the fencing tokens of a new cluster begin with its time",
		now.UTC().Format(time.DateTime), released.Format(time.DateOnly))
}

// id gives the identity as it is on disk. It may be called from any goroutine,
// and never waits for the disk.
func (d *Dir) id() identity { return *d.identity.Load() }

func (d *Dir) isSettled() bool { return d.identity.Load().Settled }

// begin gives the folder to a node, and the number by which that may change it.
func (d *Dir) begin() (life int) {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.life++
	return d.life
}

// errFormerLife is that a node would change the folder of the next one.
var errFormerLife = errors.New("this node's life is over")

// change changes the identity, on disk before it returns, for the node whose life
// it is. After an error the identity in memory is as it was; what is on disk,
// nobody knows.
func (d *Dir) change(life int, f func(*identity)) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if life != d.life {
		return errFormerLife
	}
	id := d.id()
	f(&id)
	if err := d.Do(func() error { return d.writeIdentity(id) }); err != nil {
		return err
	}
	d.identity.Store(&id)
	return nil
}

// beginAnew makes the folder that of a new node, which joins through via, or
// is alone if via is empty. What Raft has there goes aside at the next start; the
// tokens that were given by it still count.
func (d *Dir) beginAnew(life int, via string, given uint64) error {
	// Also where it is alone: it may join without ever having elected, and then brings these along.
	if err := d.keepTokens(given); err != nil {
		return err
	}
	return d.change(life, func(id *identity) {
		*id = identity{Format: state.FirstLevel, Node: state.NodeID(randomID()), Join: via, Left: via == "", Aside: true}
		if via == "" {
			id.found(max(given, d.tokens.Load()))
		}
	})
}

// writeIdentity puts node.json in place as a whole, on disk before it returns.
func (d *Dir) writeIdentity(id identity) error {
	if id.Format > state.FirstLevel {
		id.Sum = id.sum()
	}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(d.path, "node.json"), append(b, '\n')); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return nil
}

// clear makes room for the Raft state of a node that is not settled. That of a
// life before goes aside, in the place of what is there; what a start left that
// did not get further was never served from, and goes.
func (d *Dir) clear(life int) error {
	if err := d.Do(d.clearRaft); err != nil || !d.id().Aside {
		return err
	}
	return d.change(life, func(id *identity) { id.Aside = false })
}

func (d *Dir) clearRaft() error {
	aside := d.Path("aside")
	for _, n := range []string{"snapshots", "log", "raft.db"} { // raft.db last: without it there is no state
		if _, err := os.Lstat(d.Path(n)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !d.id().Aside {
			if err := os.RemoveAll(d.Path(n)); err != nil {
				return permanent.Errorf("data folder: %w", err)
			}
			continue
		}
		err := os.MkdirAll(aside, 0o750)
		if err == nil {
			err = os.RemoveAll(filepath.Join(aside, n))
		}
		if err == nil {
			err = os.Rename(d.Path(n), filepath.Join(aside, n))
		}
		if err != nil {
			return permanent.Errorf("data folder: %w", err)
		}
	}
	return nil
}

// ofReplica is the folder as the replica uses it.
func (d *Dir) ofReplica() replica.Folder {
	return replica.Folder{Path: d.path, Thread: d.files, There: d.there}
}

func (d *Dir) raftPath() string { return filepath.Join(d.path, "raft.db") }

func (d *Dir) hasRaft() (bool, error) {
	_, err := os.Stat(d.raftPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Path is where a file of that name lies in the folder.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Do calls f on the folder's thread, if the folder at its path is still the one that is
// locked; else it gives a [PermanentError]. What f does by a path it does in this folder,
// and not in one that took its place.
func (d *Dir) Do(f func() error) error {
	return d.files.Do(func() error { return d.ifThere(f) })
}

func (d *Dir) ifThere(f func() error) error {
	if err := d.there(); err != nil {
		return err
	}
	return f()
}

// there reports an error if the folder at the path is another one, or none. Only the file
// of the lock tells: who removes the folder removes it, and who starts on another one
// locks that one's.
func (d *Dir) there() error {
	name := d.Path("lock")
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
	case err != nil, os.SameFile(info, d.held):
		return nil // what cannot be looked at may still be there
	}
	return permanent.Errorf("the data folder %s was removed, moved away or replaced while this node ran (%s is not the file that it has locked); "+
		"put that folder back in its place, or mount its file system again, and start the node; if it is lost, "+
		"move away what is in its place: the node then starts as a new one, which joins by leader-latch cluster join", d.path, name)
}

// DoWithin is Do, but waits only so long, as a disk may hang.
func (d *Dir) DoWithin(limit time.Duration, f func() error) error {
	return d.files.DoWithin(limit, func() error { return d.ifThere(f) })
}

// Remove removes a file of the folder. It does not wait for a disk that hangs.
func (d *Dir) Remove(name string) error {
	return d.DoWithin(time.Second, func() error { return os.Remove(d.Path(name)) })
}

// Shared is why a kill of this process would close its connections only when the disk
// answers, should it hang; nil: it closes them at once.
func (d *Dir) Shared() error { return cmp.Or(d.log.Shared(), d.files.Shared()) }

// Close gives the lock back, when nothing is under way any more in the folder.
func (d *Dir) Close() error {
	d.log.Close()
	d.files.Close()
	return d.lock.Close()
}

func randomID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// bootID names the machine's present boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
