package ensemble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/permanent"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

func TestOneProcessAtATimeHoldsTheFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "leader_latch")
	first, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := OpenDir(ctx, path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("a second one: %v", err)
	}
	// It waits for one that is about to go, and finds the same node.
	got := make(chan *Dir)
	go func() {
		second, err := OpenDir(t.Context(), path)
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	first.Close()
	second := <-got
	defer second.Close()
	if second.id() != first.id() {
		t.Errorf("identity %v, was %v", second.id(), first.id())
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("folder %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"lock", "node.json"} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s %v, %v", name, info.Mode(), err)
		}
	}
}

// One wrong bit of node.json is noticed, or it changes nothing. Unnoticed in the id of the
// node it would be that of another one, which no cluster has as a member.
func TestOneWrongBitOfTheIdentityIsNoticed(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	join(t, n, "g", "a").wantTold("a")
	poll(t, "the level is in the folder", func() bool { return n.dir.id().Format == state.NewestLevel })
	kill(n)
	was, name := n.dir.id(), filepath.Join(path, "node.json")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &Dir{path: path}
		err := d.readIdentity()
		if p := new(PermanentError); err != nil && !errors.As(err, &p) || err == nil && d.id() != was {
			t.Errorf("bit %d of byte %d, %q for %q: %v", i%8, i/8, b[i/8], whole[i/8], err)
		}
	}
}

// What a folder may hold that this program must leave alone. Each says what
// to do, as an error that no restart cures, and changes nothing.
func TestFoldersThatAreRefused(t *testing.T) {
	made := t.TempDir()
	n := startNode(t, made, nil)
	join(t, n, "g", "a").wantTold("a")
	kill(n)
	snapped := t.TempDir() // its log begins behind a snapshot
	n = startNode(t, snapped, nil)
	join(t, n, "g", "a").wantTold("a")
	n.replica.Inside().Trail(1)
	if err := snapshot(n); err != nil {
		t.Fatal(err)
	}
	kill(n)
	identity, err := os.ReadFile(filepath.Join(made, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(filepath.Join(path, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.Remove(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	inSnapshot := func(change func([]byte) []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			names, _ := filepath.Glob(filepath.Join(path, "snapshots", "*", "state.bin"))
			if len(names) != 1 {
				t.Fatalf("snapshots %q", names)
			}
			b, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(names[0], change(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, path string)
		want   string
		is     error
	}{
		{"a damaged snapshot", inSnapshot(func(b []byte) []byte { b[len(b)-1]++; return b }), permanent.CureFolder, nil},
		{"lost snapshots", func(t *testing.T, path string) { os.RemoveAll(filepath.Join(path, "snapshots")) }, permanent.CureFolder, nil},
		{"a newer data format", write("node.json", fmt.Sprintf(`{"format": %d, "what": "ever"}`, state.NewestLevel+1)), "install that version again", state.ErrFormat},
		{"an identity that is no JSON", write("node.json", "node"), permanent.CureFolder, nil},
		{"an identity without a node", write("node.json", `{"format": 1}`), permanent.CureFolder, nil},
		{"an identity with more in it", write("node.json", strings.Replace(string(identity), "{", `{"x": 1,`, 1)), permanent.CureFolder, nil},
		{"a lost raft.db", remove("raft.db"), permanent.CureFolder, nil},
		{"a lost log", func(t *testing.T, path string) { os.RemoveAll(filepath.Join(path, "log")) }, permanent.CureFolder, nil},
		{"a log emptied", func(t *testing.T, path string) {
			os.RemoveAll(filepath.Join(path, "log"))
			os.Mkdir(filepath.Join(path, "log"), 0o700)
		}, permanent.CureFolder, nil},
		{"an empty raft.db", write("raft.db", ""), permanent.CureFolder, nil},
		{"a raft.db of something else", write("raft.db", strings.Repeat("x", 1<<16)), permanent.CureFolder, nil},
		{"a lost identity", remove("node.json"), permanent.CureFolder, nil},
		{"another cluster's identity", write("node.json", strings.Replace(string(identity), `"cluster_id": "`, `"cluster_id": "x`, 1)), permanent.CureFolder, nil},
		{"another token base", write("node.json", strings.Replace(string(identity), `"token_base": 1`, `"token_base": 2`, 1)), permanent.CureFolder, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, from := filepath.Join(t.TempDir(), "copy"), made
			if strings.Contains(c.name, "snapshot") {
				from = snapped
			}
			if out, err := exec.Command("cp", "-a", from, path).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			c.change(t, path)
			before := contents(t, path, "node.json")

			dir, err := OpenDir(t.Context(), path)
			if err == nil {
				defer dir.Close()
				var n *Node
				if n, err = Start(dir, Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: session.Quick, MinimumNodes: 1, Key: testKey, Logger: testLog(t)}); err == nil {
					<-n.Failed()
					err = n.Err()
					stop(t, n)
				}
			}
			var p *PermanentError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want a permanent one, a line with %q", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v is not %v", err, c.is)
			}
			if after := contents(t, path, "node.json"); after != before {
				t.Errorf("node.json was changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func contents(t *testing.T, path, name string) string {
	b, err := os.ReadFile(filepath.Join(path, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// A crash between any two steps of founding is made good by the next start,
// with the identity that was drawn first.
func TestFoundingIsTakenUpWhereItStopped(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, path string)
	}{
		{"after node.json", func(t *testing.T, path string) {
			os.Remove(filepath.Join(path, "raft.db"))
			os.RemoveAll(filepath.Join(path, "snapshots"))
		}},
		{"after Raft's first state", func(*testing.T, string) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			n := startNode(t, path, nil)
			was := n.dir.id()
			kill(n)
			c.crash(t, path)
			was.Settled = false
			if err := (&Dir{path: path}).writeIdentity(was); err != nil {
				t.Fatal(err)
			}
			n = startNode(t, path, nil)
			was.Settled = true
			is := n.dir.id()
			is.Format = was.Format // it rises meanwhile
			if is != was {
				t.Errorf("identity %v, was %v", is, was)
			}
			join(t, n, "g", "a").wantTold("a")
		})
	}
}

// An entry that only a newer program can read stops the node: it may not go
// on with a state that differs from the others'.
func TestANewerLogEntryStopsTheNode(t *testing.T) {
	path := t.TempDir()
	n := startNode(t, path, nil)
	a := join(t, n, "g", "a")
	a.wantTold("a")
	n.replica.Inside().Raft.Apply([]byte{state.NewestLevel + 1}, time.Second).Error()
	<-n.Failed()
	check := func(err error) {
		t.Helper()
		var p *PermanentError
		if !errors.As(err, &p) || !errors.Is(err, state.ErrFormat) || !strings.Contains(err.Error(), "install that version again") {
			t.Errorf("failed with %v", err)
		}
	}
	check(n.Err())
	a.wantClosed() // the node may not speak any more
	if _, err := n.Join("g", "b", a); !errors.Is(err, ErrUnavailable) {
		t.Errorf("JOIN: %v", err)
	}
	kill(n)

	dir, err := OpenDir(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	n, err = Start(dir, Config{Name: "riak@127.0.0.1", Address: "127.0.0.1:5324", Timing: session.Quick, MinimumNodes: 1, Key: testKey, Logger: testLog(t)})
	if err == nil {
		<-n.Failed()
		err = n.Err()
		stop(t, n)
	}
	check(err)
}

// In a folder that took the place of the node's own nothing is made, changed or removed, not
// even in the second until the node notices and ends.
func TestNothingIsWrittenIntoAFolderThatTookThePlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	n := startNode(t, path, nil)
	join(t, n, "g", "a").wantTold("a")
	if err := snapshot(n); err != nil {
		t.Fatal(err)
	}
	begun, err := n.replica.Inside().Snapshots.Create(1, n.replica.Inside().Raft.AppliedIndex(), n.replica.Inside().Raft.CurrentTerm(), raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begun.Write([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(path, os.DirFS(path+".moved")); err != nil {
		t.Fatal(err)
	}
	was := contentOf(t, path)

	elsewhere := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "was removed, moved away or replaced") {
			t.Errorf("%s: %v", what, err)
		}
	}
	elsewhere("a snapshot", snapshot(n))
	elsewhere("a snapshot that was begun before", begun.Close())
	// It begins another file, as none ends before such an entry.
	elsewhere("the log", n.store.StoreLogs([]*raft.Log{{Index: 1 << 40, Term: n.replica.Inside().Raft.CurrentTerm()}}))
	select {
	case <-n.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	elsewhere("the node", n.Err())
	kill(n)
	if is := contentOf(t, path); !maps.Equal(is, was) {
		t.Errorf("in the new folder there are\n%v\nand were\n%v", slices.Sorted(maps.Keys(is)), slices.Sorted(maps.Keys(was)))
	}
}

// contentOf gives the files below a folder, by their names.
func contentOf(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			files[name+"/"] = ""
			return err
		}
		b, err := os.ReadFile(filepath.Join(folder, name))
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
