package servicelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// logFile is a log file that rotates when it is full and at local midnight:
// name.0 is the newest of the old ones (riak.conf rule 60). What others do
// with it is noticed within a second, before the next entry: a file that was
// moved away or removed is made anew, one that was cut short or rotated by
// another process is taken as it is.
type logFile struct {
	name string
	max  int64 // bytes
	keep int   // old files
	now  func() time.Time
	warn func(msg string, err error)

	file    *os.File
	regular bool      // not a pipe or a device, which do not rotate
	size    int64     // bytes
	day     int       // of the first entry in it
	looked  time.Time // when the name was last compared with the file
	gone    error     // the file is removed, and cannot be made anew for this reason
	torn    bool      // the last entry was written in part
	retry   time.Time // when to try again to rotate
	trouble string    // last warned of
}

// openFile opens a log file to append to it. Its folder is made if it is
// missing, the file too, with mode 0640 whatever the umask is.
func openFile(name string, max int64, keep int, now func() time.Time, warn func(string, error)) (*logFile, error) {
	f := &logFile{name: name, max: max, keep: keep, now: now, warn: warn}
	file, err := openAppend(name)
	if err != nil {
		return nil, err
	}
	return f, f.use(file)
}

func (f *logFile) write(e entry) error {
	if since := f.now().Sub(f.looked); since < 0 || since >= lookEvery {
		f.look()
	}
	line := e.line()
	f.rotate(int64(len(line)))
	if f.gone != nil {
		return f.gone
	}
	if f.size == 0 {
		f.day = day(f.now())
	}
	if f.torn {
		line = "\n" + line
	}
	n, err := f.file.WriteString(line)
	f.size += int64(n)
	f.torn = err != nil && (n > 0 || f.torn)
	return err
}

func (f *logFile) tend(reopen bool) {
	if reopen {
		f.retry, f.trouble = time.Time{}, ""
		f.reopen()
	} else {
		f.look()
	}
	f.rotate(0)
}

func (f *logFile) close() { f.file.Close() }

// use takes an open file for the log.
func (f *logFile) use(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	if f.file != nil {
		f.file.Close()
	}
	f.file, f.regular, f.size = file, info.Mode().IsRegular(), info.Size()
	f.day = day(info.ModTime().In(f.now().Location()))
	f.looked, f.gone, f.torn = f.now(), nil, false
	return nil
}

// What is told of files that cannot be used as they should.
const (
	cannotReopen = "log file cannot be opened again; the old one stays in use"
	cannotRotate = "log file cannot be rotated and goes on growing"
)

// lookEvery is the least time between two looks at the file's name.
const lookEvery = time.Second

// look finds out whether the file is still the one under its name, and opens
// that one if not. It says whether the right one is open.
func (f *logFile) look() bool {
	f.looked = f.now()
	named, err := os.Stat(f.name)
	open, openErr := f.file.Stat()
	if err != nil || openErr != nil || !os.SameFile(named, open) {
		return f.reopen()
	}
	f.size, f.gone = open.Size(), nil
	return true
}

// reopen opens the file under its name. If it cannot, the one that was moved
// away stays in use; one that was removed takes nothing.
func (f *logFile) reopen() bool {
	file, err := openAppend(f.name)
	if err == nil {
		err = f.use(file)
	}
	if err == nil {
		f.trouble = ""
		return true
	}
	if info, statErr := f.file.Stat(); statErr == nil && info.Sys().(*syscall.Stat_t).Nlink == 0 {
		f.gone = err // the queue tells of lines that are lost
		return false
	}
	f.tell(cannotReopen, err)
	return false
}

// rotate renames the file and begins a new one, if it is of another day or
// has no room for more bytes.
func (f *logFile) rotate(more int64) {
	now := f.now()
	due := func() bool {
		return f.regular && f.size > 0 && f.gone == nil && (f.day != day(now) || f.size+more > f.max)
	}
	if !due() || now.Before(f.retry) {
		return
	}
	if !f.look() || !due() { // another process may just have done it
		return
	}
	if err := shift(f.name, f.keep); err != nil {
		f.retry = now.Add(time.Minute)
		f.tell(cannotRotate, err)
		return
	}
	f.reopen()
}

// tell warns of something that goes on, once.
func (f *logFile) tell(trouble string, err error) {
	if f.trouble != trouble {
		f.trouble = trouble
		f.warn(trouble, err)
	}
}

// day numbers the days of the calendar.
func day(t time.Time) int { return t.Year()*1000 + t.YearDay() }

// shift renames name to name.0, name.0 to name.1 and so on; of those, keep
// stay.
func shift(name string, keep int) error {
	if keep == 0 {
		return os.Remove(name)
	}
	for i := keep - 1; i > 0; i-- {
		err := os.Rename(fmt.Sprintf("%s.%d", name, i-1), fmt.Sprintf("%s.%d", name, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(name, name+".0")
}

// openAppend opens a file to append to it, and makes it with its folder if it
// is missing.
func openAppend(name string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND
	f, err := os.OpenFile(name, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := makeFolder(filepath.Dir(name)); err != nil {
		return nil, err
	}
	f, err = os.OpenFile(name, flags|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	f.Chmod(0o640) // fails only if somebody else has just made the file, with a mode of theirs
	return f, nil
}

// makeFolder makes a folder and those above it, with mode 0750 whatever the
// umask is.
func makeFolder(name string) error {
	err := os.Mkdir(name, 0o750)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := makeFolder(filepath.Dir(name)); err != nil {
			return err
		}
		return makeFolder(name)
	case errors.Is(err, fs.ErrExist):
		return nil // or it is a file, and opening one in it says so
	case err != nil:
		return err
	}
	return os.Chmod(name, 0o750)
}

// cureFile says what to do about a log file that cannot be opened.
func cureFile(key string, err error) error {
	var path *fs.PathError
	if !errors.As(err, &path) { // it says so itself
		return fmt.Errorf("%s: %w", key, err)
	}
	return fmt.Errorf("%s: %w; make it writable for the user that the service runs as, or set %s or platform_log_dir to a place that is", key, err, key)
}
