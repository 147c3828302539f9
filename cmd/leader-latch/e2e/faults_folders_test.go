//go:build faults

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What happens to a node's data folder.
func (a *attacker) folderFaults() []fault {
	return []fault{
		{"damaged file", func(r *rand.Rand) (func(), string) { // the node starts and has forgotten nothing, or says what to do
			n, release, done := a.killOne(r)
			if n == nil {
				return nil, ""
			}
			before := n.identity()
			what, err := damage(r, n.state())
			if err != nil {
				a.t.Error(err)
			}
			n.mayBeRemoved(true)
			return func() {
				release()
				a.crowd.running.Go(func() {
					a.comesBack(n, before, what)
					done()
				})
			}, fmt.Sprintf("of node %d: %s", n.n, what)
		}, time.Second},
		{"vanished folder", func(r *rand.Rand) (func(), string) { // moved away, perhaps with another in its place; it comes back, or it is lost
			n, release, done := a.holdOne(r)
			if n == nil {
				return nil, ""
			}
			n.mayBeRemoved(true)
			away, replaced, lost := n.state()+".away", r.IntN(2) == 0, r.IntN(3) == 0
			if err := os.Rename(n.state(), away); err != nil {
				a.t.Error(err)
			}
			if replaced {
				if err := os.Mkdir(n.state(), 0o750); err != nil {
					a.t.Error(err)
				}
			}
			vanished := time.Now()
			n.awaitEnd(30 * time.Second)
			took(a.t, "a folder vanished: the node ended", time.Since(vanished), 5*time.Second)
			if said := n.said(); !n.endedForGood() || !strings.Contains(said, "cannot serve error=\"the data folder "+n.state()+" was removed, moved away or replaced") || !strings.Contains(said, "put that folder back") {
				a.t.Errorf("node %d, whose folder has vanished, ended for good: %v, and said\n%s", n.n, n.endedForGood(), said)
			}
			return func() {
				if lost {
					n.beginAnew()
				} else {
					if err := os.RemoveAll(n.state()); err != nil {
						a.t.Error(err)
					}
					if err := os.Rename(away, n.state()); err != nil {
						a.t.Error(err)
					}
					n.mayStart()
				}
				release()
				done()
			}, fmt.Sprintf("of node %d, an empty one in its place: %v, for good: %v", n.n, replaced, lost)
		}, 2 * time.Second},
		{"interrupted recover", func(r *rand.Rand) (func(), string) { // all nodes but one are lost for good
			done, ok := a.changeMembers()
			if !ok {
				return nil, ""
			}
			last := a.nodes[r.IntN(len(a.nodes))]
			releaseLast := last.hold()
			var lost []*node
			for _, n := range a.nodes {
				if n != last {
					lost = append(lost, n)
				}
			}
			releaseLost := each(lost, (*node).hold)
			for _, n := range a.nodes {
				n.signal(syscall.SIGKILL)
			}
			for _, n := range a.nodes {
				n.awaitEnd(30 * time.Second)
			}
			for _, n := range lost {
				if err := os.RemoveAll(filepath.Join(n.disk, "data")); err != nil {
					a.t.Error(err)
				}
			}
			interrupted := last.recover(r)
			return func() {
				releaseLast()
				releaseLost()
				done()
			}, fmt.Sprintf("of node %d, %d times", last.n, interrupted)
		}, time.Second},
	}
}

// state is where the node's data folder is.
func (n *node) state() string { return filepath.Join(n.disk, "data", "leader_latch") }

// identity is what the node's folder says of who the node is.
func (n *node) identity() (id struct {
	Node     string `json:"node_id"`
	Recovery string `json:"recovery"`
}) {
	b, err := os.ReadFile(filepath.Join(n.state(), "node.json"))
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil {
		n.host.t.Error(err)
	}
	return id
}

// damage changes one file of a folder, whichever: a bit of it is another, or it ends
// earlier, or it is gone.
func damage(r *rand.Rand, folder string) (what string, err error) {
	var files []string
	if err := filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "lock" { // that one is for people
			files = append(files, name)
		}
		return err
	}); err != nil {
		return "", err
	}
	name := files[r.IntN(len(files))]
	short, _ := filepath.Rel(folder, name)
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	switch how := r.IntN(3); {
	case how == 0 || len(b) == 0:
		return short + " removed", os.Remove(name)
	case how == 1:
		to := r.IntN(len(b))
		return fmt.Sprintf("%s cut from %d bytes to %d", short, len(b), to), os.Truncate(name, int64(to))
	}
	at, bit := r.IntN(len(b)), r.IntN(8)
	for range 100 { // rather where something is
		if b[at] != 0 {
			break
		}
		at = r.IntN(len(b))
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{b[at] ^ 1<<bit}, int64(at))
	return fmt.Sprintf("%s with another bit %d in byte %d of %d", short, bit, at, len(b)), err
}

// cures are what a node says to do that does not start on its folder.
var cures = []string{
	"restore the whole data folder from one copy, or move it away to start as a new node",
	"move it away and let the node join as a new one",
	"install that version again",
}

// comesBack waits until a node with a damaged folder is one of all again, as who it was, or
// has ended for good, with the cure. Then its machine is replaced.
func (a *attacker) comesBack(n *node, before any, what string) {
	for end := time.Now().Add(2 * settleTime); !a.crowd.stopped(); time.Sleep(100 * time.Millisecond) {
		switch {
		case n.endedForGood():
			said := n.said()
			if !strings.Contains(said, n.state()) || !slices.ContainsFunc(cures, func(cure string) bool { return strings.Contains(said, cure) }) {
				a.t.Errorf("node %d, with %s, ended without the file or a cure:\n%s", n.n, what, said)
			}
			a.tally("damage: ended with exit code 3")
			n.beginAnew()
			return
		case a.one():
			if after := n.identity(); any(after) != before {
				a.t.Errorf("node %d, with %s, was %v and has started as %v", n.n, what, before, after)
			}
			a.tally("damage: started")
			n.mayBeRemoved(false)
			return
		case time.Now().After(end):
			a.t.Errorf("node %d, with %s, neither serves nor ends; end of its log:\n%s", n.n, what, n.tail())
			return
		}
	}
}

// recover makes the node, which must not run, the only one of its cluster. It is killed
// amid that some times before, on a slow disk: so between any two flushes.
func (n *node) recover(r *rand.Rand) (interrupted int) {
	const begun, most = "begun", 200 * time.Millisecond
	if heal, err := n.slowDisk(20 * time.Millisecond); err == nil {
		defer heal()
	}
	for range 1 + r.IntN(4) {
		newest := newestSnapshot(n)
		reached := func() bool { return n.identity().Recovery == begun }
		if r.IntN(2) == 0 { // when Raft's state is of the new cluster, and the folder does not say so yet
			reached = func() bool { return newestSnapshot(n) > newest }
		}
		cmd := n.program("recover", "--yes")
		if err := cmd.Start(); err != nil {
			n.host.t.Error(err)
			return
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			cmd.Wait()
		}()
		for runs := true; runs && !reached(); {
			select {
			case <-ended:
				runs = false
			case <-time.After(time.Millisecond):
			}
		}
		time.Sleep(time.Duration(r.Int64N(int64(most))))
		cmd.Process.Kill()
		<-ended
		if n.identity().Recovery != begun {
			continue
		}
		interrupted++
		if code, said := n.once("serve"); code != exitPermanent || !strings.Contains(said, "run leader-latch recover again") {
			n.host.t.Errorf("node %d, after an interrupted recovery, ended with %d, and said\n%s", n.n, code, said)
		}
	}
	before := n.identity().Recovery
	code, said := n.once("recover", "--yes")
	whole := before != begun && code == exitPermanent && strings.Contains(said, "there is nothing to recover") // it was killed when all was done
	if code != exitOK && !whole {
		n.host.t.Errorf("recover of node %d ended with %d, and said\n%s", n.n, code, said)
	}
	return interrupted
}

// once runs a command on the node's host.
func (n *node) once(args ...string) (code int, said string) {
	cmd := n.program(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	n.do(func() { err = cmd.Start() })
	if err != nil {
		n.host.t.Error(err)
		return
	}
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

// said is what the present process, or the last one, has logged.
func (n *node) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logText()[n.begins:]
}

func (n *node) endedForGood() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.final
}
