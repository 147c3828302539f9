//go:build faults

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// left is what a node has at a time when all is well: files of its data folder by kind,
// and what its process has.
type left struct {
	unfinished, snapshots, segments, files int // all other files: files
	folder, removed, sockets               int // open descriptors: of files of the folder, of files that are removed, of sockets
	threads                                int
}

// mostLeft is what there may be. The rest of it is of what documents say: nothing unfinished;
// two snapshots; a log of 96 MiB in files of 8 MiB, one of which is being written, and one
// that is about to go; raft.db, node.json, lock, admin.sock and, of a life before, aside.
// Open are the lock three times, raft.db, and each file of the log for reading, the last for
// writing too. The service needs a thread for each of its two disks, and what Go takes.
func (a *attacker) mostLeft(now left) left {
	const segments, aside = 96/8 + 2, 1 + 2*3 + 1 + 96/8 + 2
	return left{
		unfinished: 0, snapshots: 2, segments: segments, files: 4 + aside,
		folder: 5 + now.segments, removed: 0, sockets: a.crowd.size() + 32*len(a.nodes),
		threads: 40,
	}
}

func (l left) within(most left) bool {
	return l.unfinished <= most.unfinished && l.snapshots <= most.snapshots && l.segments <= most.segments && l.files <= most.files &&
		l.folder <= most.folder && l.removed <= most.removed && l.sockets <= most.sockets && l.threads <= most.threads
}

func (l left) String() string {
	return fmt.Sprintf("%10d | %9d | %8d | %5d | %6d | %7d | %7d | %7d", l.unfinished, l.snapshots, l.segments, l.files, l.folder, l.removed, l.sockets, l.threads)
}

const leftHead = "| node | when | unfinished | snapshots | segments | files | folder | removed | sockets | threads |\n|---|---|---|---|---|---|---|---|---|---|"

// left counts what the node has now. What goes while it is counted is not there.
func (n *node) left() (l left) {
	filepath.WalkDir(n.state(), func(name string, d fs.DirEntry, err error) error {
		switch in := filepath.Base(filepath.Dir(name)); {
		case err != nil:
		case strings.HasSuffix(name, ".tmp"), strings.HasSuffix(name, ".new"):
			l.unfinished++
		case strings.Contains(name, "/aside/"):
			l.files++
		case in == "snapshots":
			l.snapshots++
		case in == "log":
			l.segments++
		case !d.IsDir() && filepath.Base(filepath.Dir(filepath.Dir(name))) != "snapshots":
			l.files++
		}
		return nil
	})
	process := n.process()
	if process == nil {
		return l
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", process.Pid))
	l.threads = len(tasks)
	tables := map[string]bool{} // of descriptors: threads for disks have tables of their own
	for _, task := range tasks {
		entries, _ := os.ReadDir(task + "/fd")
		var table []string
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(task, "fd", e.Name())); err == nil {
				table = append(table, e.Name()+" "+to)
			}
		}
		if whole := strings.Join(table, "\n"); tables[whole] {
			continue
		} else {
			tables[whole] = true
		}
		for _, fd := range table {
			switch {
			case strings.HasSuffix(fd, " (deleted)"):
				l.removed++
			case strings.Contains(fd, n.state()):
				l.folder++
			case strings.Contains(fd, " socket:"):
				l.sockets++
			}
		}
	}
	return l
}

// nothingLeft expects that no node has more than it may, before the faults or after them,
// and logs what each has.
func (a *attacker) nothingLeft(when string) {
	a.t.Helper()
	var table strings.Builder
	fmt.Fprintf(&table, "what nodes have %s:\n%s\n", when, leftHead)
	for _, n := range a.nodes {
		l := n.left()
		most := a.mostLeft(l)
		for end := time.Now().Add(20 * time.Second); !l.within(most) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			l = n.left() // a snapshot may be under way
			most = a.mostLeft(l)
		}
		fmt.Fprintf(&table, "| %d | %s | %v |\n| | may | %v |\n", n.n, when, l, most)
		if !l.within(most) {
			a.t.Errorf("node %d has more than it may %s:\n%s\n| %d | is  | %v |\n| %d | may | %v |", n.n, when, leftHead, n.n, l, n.n, most)
		}
	}
	a.t.Log(table.String())
}
