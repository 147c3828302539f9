package servicelog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fileTest is a log file with small limits, under a clock that stands still.
type fileTest struct {
	*logFile
	t    *testing.T
	dir  string
	time time.Time
	told []string
}

// lineLength is that of the line of a word of one letter.
const lineLength = int64(len(timeFormat) + len(" w\n"))

// newFileTest opens a file for three lines of which two old ones are kept.
func newFileTest(t *testing.T) *fileTest {
	f := &fileTest{t: t, dir: t.TempDir()}
	f.time = time.Date(2026, 5, 4, 19, 7, 12, 0, time.FixedZone("", 5*3600))
	f.open()
	t.Cleanup(func() { f.logFile.close() })
	return f
}

func (f *fileTest) open() {
	f.t.Helper()
	var err error
	warn := func(msg string, err error) { f.told = append(f.told, fmt.Sprint(msg, ": ", err)) }
	f.logFile, err = openFile(filepath.Join(f.dir, "log"), 3*lineLength, 2, func() time.Time { return f.time }, warn)
	if err != nil {
		f.t.Fatal(err)
	}
}

// again opens the file again, last written at that time.
func (f *fileTest) again(last time.Time) {
	f.t.Helper()
	f.logFile.close()
	if err := os.Chtimes(f.name, last, last); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func (f *fileTest) log(words ...string) {
	f.t.Helper()
	for _, w := range words {
		if err := f.write(entry{at: f.time, level: slog.LevelInfo, text: w}); err != nil {
			f.t.Fatalf("%s: %v", w, err)
		}
	}
}

// want expects these files in the folder, with the words of these lines.
func (f *fileTest) want(files map[string]string) {
	f.t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if err != nil {
			f.t.Fatal(err)
		}
		words := logStamp.ReplaceAllString(string(b), "")
		got[e.Name()] = strings.TrimSuffix(strings.ReplaceAll(words, "\n", " "), " ")
	}
	if !maps.Equal(got, files) {
		f.t.Errorf("got  %q\nwant %q", got, files)
	}
}

func (f *fileTest) rename(from, to string) {
	f.t.Helper()
	if err := os.Rename(filepath.Join(f.dir, from), filepath.Join(f.dir, to)); err != nil {
		f.t.Fatal(err)
	}
}

// riak.conf rule 60, with other numbers.
func TestAFullLogFileRotates(t *testing.T) {
	f := newFileTest(t)
	f.log("a", "b", "c")
	f.want(map[string]string{"log": "a b c"})
	f.log("d")
	f.want(map[string]string{"log": "d", "log.0": "a b c"})
	f.log("e", "f", "g", "h", "i", "j")
	f.want(map[string]string{"log": "j", "log.0": "g h i", "log.1": "d e f"})
	long := strings.Repeat("x", int(4*lineLength)) // has a file of its own
	f.log(long, "k")
	f.want(map[string]string{"log": "k", "log.0": long, "log.1": "j"})
	f.log("l")
	f.again(f.time) // the size is that of the file
	f.log("m", "n")
	f.want(map[string]string{"log": "n", "log.0": "k l m", "log.1": long})
}

func TestTheLogFileRotatesAtLocalMidnight(t *testing.T) {
	f := newFileTest(t)
	f.time = time.Date(2026, 5, 4, 23, 59, 59, 999e6, f.time.Location())
	f.log("a")
	f.time = f.time.Add(time.Millisecond) // 19:00 UTC
	f.log("b")
	f.want(map[string]string{"log": "b", "log.0": "a"})
	f.time = f.time.Add(24*time.Hour - time.Millisecond)
	f.log("c") // UTC has had its midnight
	f.want(map[string]string{"log": "b c", "log.0": "a"})
	f.time = f.time.AddDate(1, 0, 0) // the same day of another year
	f.tend(false)                    // no line is needed
	f.want(map[string]string{"log": "", "log.0": "b c", "log.1": "a"})
	f.time = f.time.AddDate(0, 0, 7)
	f.tend(false) // a quiet week takes nothing away
	f.log("d")
	f.want(map[string]string{"log": "d", "log.0": "b c", "log.1": "a"})
}

// Midnight may pass while the service does not run.
func TestYesterdaysLogFileRotatesAtAStart(t *testing.T) {
	f := newFileTest(t)
	f.log("a")
	f.again(f.time.Add(-20 * time.Hour))
	f.log("b")
	f.want(map[string]string{"log": "b", "log.0": "a"})
}

// Nothing has to be logged for a file to rotate: its queue sees to it.
func TestAQuietLogFileRotatesAtMidnight(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "log")
	synctest.Test(t, func(t *testing.T) {
		f, err := openFile(name, fileSize, fileKeep, time.Now, quietly(t))
		if err != nil {
			t.Fatal(err)
		}
		log, stop := runQueue(t, slog.LevelInfo, f)
		log.Info("line")
		time.Sleep(25 * time.Hour)
		stop()
	})
	old, err := os.ReadFile(name + ".0")
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, string(old), "[info] line")
	if info, err := os.Stat(name); err != nil || info.Size() != 0 {
		t.Errorf("the new file: %v, %v", info, err)
	}
}

// What logrotate and people do to a log file.
func TestOthersWorkOnTheLogFile(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f *fileTest) error
		want map[string]string // after a, what was done, b
	}{
		{"moved away", func(f *fileTest) error { return os.Rename(f.name, f.name+".moved") },
			map[string]string{"log": "b", "log.moved": "a"}},
		{"removed", func(f *fileTest) error { return os.Remove(f.name) },
			map[string]string{"log": "b"}},
		{"removed with its folder", func(f *fileTest) error { return os.RemoveAll(f.dir) },
			map[string]string{"log": "b"}},
		{"moved away and made anew", func(f *fileTest) error {
			return errors.Join(os.Rename(f.name, f.name+".moved"), os.WriteFile(f.name, nil, 0o640))
		}, map[string]string{"log": "b", "log.moved": "a"}},
		{"cut short", func(f *fileTest) error { return os.Truncate(f.name, 0) },
			map[string]string{"log": "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFileTest(t)
			f.log("a")
			if err := c.do(f); err != nil {
				t.Fatal(err)
			}
			f.time = f.time.Add(lookEvery)
			f.log("b")
			f.want(c.want)
			f.log("c", "d") // fits: the size is that of the new file
			if strings.Contains(c.want["log"], "a") {
				t.Fatal("the case is wrong")
			}
			c.want["log"] = "b c d"
			f.want(c.want)
		})
	}
}

// Between two looks at the name the moved file goes on; SIGHUP does not wait
// for the next one.
func TestTheNameIsLookedAtOnceASecond(t *testing.T) {
	f := newFileTest(t)
	f.time = f.time.Add(lookEvery)
	f.log("a")
	f.rename("log", "moved")
	f.time = f.time.Add(lookEvery - 1)
	f.log("b")
	f.want(map[string]string{"moved": "a b"})
	f.tend(true)
	f.log("c")
	f.want(map[string]string{"log": "c", "moved": "a b"})
	f.rename("log", "again")
	f.time = f.time.Add(-time.Hour) // a clock that is set back
	f.log("d")
	f.want(map[string]string{"log": "d", "again": "c", "moved": "a b"})
}

// Two processes may write the same file, as Riak does under its name.
func TestAnotherProcessRotatedTheFile(t *testing.T) {
	f := newFileTest(t)
	f.log("a", "b", "c")
	f.rename("log", "log.0")
	f.log("d") // full, but not the file that has the name now
	f.want(map[string]string{"log": "d", "log.0": "a b c"})
}

// A file that cannot be opened again: what was moved away is better than
// nothing, and old files are not shifted out for it.
func TestALogFileThatCannotBeReplaced(t *testing.T) {
	f := newFileTest(t)
	f.log("a", "b", "c", "d")
	if err := errors.Join(os.Rename(f.name, f.name+".moved"), os.Mkdir(f.name, 0o750)); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"e", "f", "g", "h"} {
		f.time = f.time.Add(lookEvery)
		f.log(w)
	}
	f.want(map[string]string{"log.moved": "d e f g h", "log.0": "a b c"})
	if want := cannotReopen + ": open " + f.name + ": is a directory"; len(f.told) != 1 || f.told[0] != want {
		t.Errorf("told %q, want once %q", f.told, want)
	}
	if err := os.Remove(f.name); err != nil {
		t.Fatal(err)
	}
	f.time = f.time.Add(lookEvery)
	f.log("i")
	f.want(map[string]string{"log": "i", "log.moved": "d e f g h", "log.0": "a b c"})
}

// A removed file that cannot be made anew: its lines are errors, which the
// queue counts.
func TestALogFileWithoutAPlace(t *testing.T) {
	f := newFileTest(t)
	f.log("a")
	if err := errors.Join(os.RemoveAll(f.dir), os.WriteFile(f.dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	f.time = f.time.Add(lookEvery)
	for range 2 {
		if err := f.write(entry{at: f.time, level: slog.LevelInfo, text: "b"}); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("write: %v", err)
		}
	}
	if err := os.Remove(f.dir); err != nil {
		t.Fatal(err)
	}
	f.time = f.time.Add(lookEvery)
	f.log("c")
	f.want(map[string]string{"log": "c"})
}

// A file that cannot be renamed goes on, whatever its size, until another
// attempt succeeds: a minute later, or at SIGHUP.
func TestALogFileThatCannotRotate(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  func(f *fileTest)
	}{
		{"a minute later", func(f *fileTest) { f.time = f.time.Add(time.Minute) }},
		{"at SIGHUP", func(f *fileTest) { f.tend(true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFileTest(t)
			old := filepath.Join(f.dir, "log.0", "no file") // a folder that is not empty is in the way
			if err := os.MkdirAll(old, 0o750); err != nil {
				t.Fatal(err)
			}
			f.keep = 1
			f.log("a", "b", "c", "d", "e")
			f.want(map[string]string{"log": "a b c d e"})
			if len(f.told) != 1 || !strings.HasPrefix(f.told[0], cannotRotate+": rename ") {
				t.Errorf("told %q", f.told)
			}
			if err := os.RemoveAll(filepath.Dir(old)); err != nil {
				t.Fatal(err)
			}
			f.log("f")
			f.want(map[string]string{"log": "a b c d e f"}) // not tried at every line
			c.ask(f)
			f.log("g")
			f.want(map[string]string{"log": "g", "log.0": "a b c d e f"})
		})
	}
}

// Whatever the umask of the service is, who is in its group may read its logs.
func TestModesOfLogFiles(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o077))
	name := filepath.Join(dir, "var", "log", "x.log")
	f, err := openFile(name, fileSize, fileKeep, time.Now, quietly(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for path, want := range map[string]fs.FileMode{
		name: 0o640, filepath.Dir(name): 0o750 | fs.ModeDir, filepath.Dir(filepath.Dir(name)): 0o750 | fs.ModeDir,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// A file that is there keeps its content and its mode.
func TestAnExistingLogFileIsAppendedTo(t *testing.T) {
	f := newFileTest(t)
	f.log("a")
	if err := os.Chmod(f.name, 0o604); err != nil {
		t.Fatal(err)
	}
	f.again(f.time)
	f.log("b")
	f.want(map[string]string{"log": "a b"})
	if info, err := os.Stat(f.name); err != nil || info.Mode() != 0o604 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A line that a full disk took in part does not run into the next one.
func TestATornLine(t *testing.T) {
	f := newFileTest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f.logFile.close()
	f.file, f.regular = w, false // a pipe that is full stands for the disk
	failed := make(chan error)
	go func() { failed <- f.write(entry{at: f.time, level: slog.LevelInfo, text: strings.Repeat("x", 1<<20)}) }()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.SetWriteDeadline(time.Unix(1, 0))
	if err := <-failed; err == nil {
		t.Fatal("a pipe took it all")
	}
	if err := f.write(entry{at: f.time, level: slog.LevelInfo, text: "lost"}); err == nil {
		t.Fatal("a pipe took more")
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	w.SetWriteDeadline(time.Time{})
	f.log("a", "b")
	w.Close()
	lines := strings.Split(strings.TrimSuffix(<-text, "\n"), "\n")
	if n := len(lines); n != 3 || !strings.HasSuffix(lines[1], " a") || !strings.HasSuffix(lines[2], " b") {
		t.Errorf("%d lines: %q", n, lines[1:])
	}
}
