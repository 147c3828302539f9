package servicelog

import (
	"io/fs"
	"os"
	"strings"
	"time"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/riakconf"
)

// crashFile is where the Go runtime writes what it prints to stderr when the
// process crashes (log.crash.*, riak.conf rule 59). As a crash ends the
// process, it is rotated at a start only.
type crashFile struct {
	name string
	file fs.FileInfo // the one that is open

	failing bool // it could not be opened again, which was told
}

// rotate begins a new file at a start, if the one there is full or of another
// day.
func (f *crashFile) rotate(c riakconf.Log) error {
	info, err := os.Stat(f.name)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil // opening it says what is wrong, if anything is
	}
	full := c.CrashSize > 0 && info.Size() >= c.CrashSize
	daily := strings.HasPrefix(c.CrashRotation, "$D")
	if full || daily && day(info.ModTime()) != day(time.Now()) {
		return shift(f.name, c.CrashKeep)
	}
	return nil
}

// open has crashes written to the file that now has the name.
func (f *crashFile) open() error {
	file, err := openAppend(f.name)
	if err != nil {
		return err
	}
	defer file.Close() // the runtime gets a descriptor of its own
	info, err := file.Stat()
	if err != nil {
		return err
	}
	f.file = info
	return diskthread.SetCrashOutput(file)
}

// look opens the file under the name again, if that is another one by now.
func (f *crashFile) look() error {
	if info, err := os.Stat(f.name); err == nil && os.SameFile(info, f.file) {
		return nil
	}
	return f.open()
}
