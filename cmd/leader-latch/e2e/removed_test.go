package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/riakconf"
)

// folder is the node's data folder.
func (p *proc) folder() string {
	p.t.Helper()
	conf, _, err := riakconf.Load(p.conf)
	if err != nil {
		p.t.Fatal(err)
	}
	return conf.DataDir()
}

// A node whose data folder is taken from it notices, closes its clients' connections, and
// ends with the code on which nobody starts it anew: what it would go on to acknowledge no
// restart would find. It touches nothing of what has come in the folder's place.
func TestANodeEndsWhenItsFolderIsTakenAway(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(folder string) error{
		"removed":    os.RemoveAll,
		"moved away": func(folder string) error { return os.Rename(folder, folder+".away") },
		"replaced": func(folder string) error {
			return errors.Join(
				os.Rename(folder, folder+".away"), os.Mkdir(folder, 0o750),
				os.WriteFile(filepath.Join(folder, "lock"), []byte("another's\n"), 0o600),
				os.WriteFile(filepath.Join(folder, "admin.sock"), []byte("another's\n"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, t.TempDir())
			a := p.join("g", "a", "a")
			folder := p.folder()
			taken := time.Now()
			if err := take(folder); err != nil {
				t.Fatal(err)
			}
			a.wantEnd()
			noticed := time.Since(taken)
			p.wantExit(exitPermanent)
			if noticed > 5*time.Second {
				t.Errorf("noticed after %v", noticed)
			}
			log := p.logText()
			if !strings.Contains(log, "[error] cannot serve error=\"the data folder "+folder+" was removed, moved away or replaced") || !strings.Contains(log, "put that folder back") {
				t.Errorf("the log does not name the folder and the cure:\n%s", log)
			}
			if name == "replaced" {
				for _, file := range []string{"lock", "admin.sock"} {
					if b, err := os.ReadFile(filepath.Join(folder, file)); string(b) != "another's\n" {
						t.Errorf("%s of the other folder: %q, %v", file, b, err)
					}
				}
			}
		})
	}
}

// An admin socket that was removed comes back by itself, and the log says so once.
func TestARemovedAdminSocketIsMadeAgain(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	a := p.join("g", "a", "a")
	socket := filepath.Join(p.folder(), "admin.sock")
	for round := range 2 {
		removed := time.Now()
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
		p.until("the node answers commands again", func() bool {
			_, err := p.command("ping")
			return err == nil
		})
		if d := time.Since(removed); d > 5*time.Second {
			t.Errorf("made again after %v", d)
		}
		if info, err := os.Lstat(socket); err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("the socket is %v, %v", info, err)
		}
		p.until("a line", func() bool { return strings.Count(p.logText(), "admin socket") == round+1 })
	}
	if log := p.logText(); strings.Count(log, "[warning] the admin socket was removed, and has been made again") != 2 {
		t.Errorf("not one warning for each time:\n%s", log)
	}
	a.send("?\n")
	a.want("ERROR") // its client has noticed nothing
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}
