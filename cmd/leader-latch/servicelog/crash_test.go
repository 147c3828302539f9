package servicelog

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/riakconf"
)

// The file of crashes is made anew where it was moved away or removed, though
// nothing is written to it. One that cannot be made is told of once.
func TestTheFileOfCrashesIsMadeAnew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "crash.log")
	var told strings.Builder
	l := &Log{Logger: slog.New(slog.NewTextHandler(&told, nil)), crash: &crashFile{name: name}}
	if err := l.crash.open(); err != nil {
		t.Fatal(err)
	}
	defer diskthread.SetCrashOutput(nil)
	after := func(do error) {
		t.Helper()
		if do != nil {
			t.Fatal(do)
		}
		l.tendCrashes((*crashFile).look)
	}
	uses := func() bool {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return os.SameFile(info, l.crash.file)
	}

	first := l.crash.file
	if after(nil); l.crash.file != first {
		t.Error("opened again for nothing")
	}
	if after(os.Rename(name, name+".1")); !uses() || os.SameFile(l.crash.file, first) {
		t.Error("the new file is not in use")
	}
	after(errors.Join(os.Remove(name), os.Mkdir(name, 0o750)))
	after(nil) // told once
	if after(os.Remove(name)); !uses() {
		t.Error("the newest file is not in use")
	}
	if text := told.String(); strings.Count(text, cannotReopen) != 1 || strings.Count(text, "\n") != 1 {
		t.Errorf("told\n%s\nwant once: %s", text, cannotReopen)
	}
}

// It is looked after from time to time.
func TestTheFileOfCrashesIsTended(t *testing.T) {
	name := filepath.Join(t.TempDir(), "crash.log")
	defer diskthread.SetCrashOutput(nil)
	synctest.Test(t, func(t *testing.T) {
		l := &Log{Logger: slog.New(slog.DiscardHandler), crash: &crashFile{name: name}, hangups: make(chan os.Signal)}
		if err := l.crash.open(); err != nil {
			t.Fatal(err)
		}
		go l.tend()
		defer close(l.hangups)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tendEvery)
		synctest.Wait()
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	})
}

// The file of crashes is rotated at a start.
func TestRotationOfCrashes(t *testing.T) {
	today, yesterday := time.Now(), time.Now().Add(-24*time.Hour)
	for _, c := range []struct {
		name     string
		size     int64
		rotation string
		keep     int
		last     time.Time
		want     string // the names that are there afterwards
	}{
		{"it has room", 6, "$D0", 5, today, "crash.log crash.log.0"},
		{"it is full", 5, "$D0", 5, today, "crash.log.0 crash.log.1"},
		{"it may be of any size", 0, "$D0", 5, today, "crash.log crash.log.0"},
		{"it is yesterday's", 6, "$D0", 5, yesterday, "crash.log.0 crash.log.1"},
		{"another schedule is not known", 6, "$W0", 5, yesterday, "crash.log crash.log.0"},
		{"one old one is kept", 5, "$D0", 1, today, "crash.log.0"},
		{"no old one is kept", 5, "$D0", 0, today, "crash.log.0"}, // that one is an older setting's
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "crash.log")
			for _, n := range []string{name, name + ".0"} {
				if err := os.WriteFile(n, []byte("panic"), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chtimes(name, c.last, c.last); err != nil {
				t.Fatal(err)
			}
			f := &crashFile{name: name}
			if err := f.rotate(riakconf.Log{CrashSize: c.size, CrashRotation: c.rotation, CrashKeep: c.keep}); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("there are %s, want %s", got, c.want)
			}
		})
	}
}
