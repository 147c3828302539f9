package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// While a node serves, no thread that shares its table of descriptors with the
// connections of clients has a file of the folders for data and logs open for writing:
// such a thread could not be killed while the disk hangs. One file is excepted, as only
// a crash writes to it.
func TestNoThreadHasBothConnectionsAndFilesToWriteTo(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "log.console = both", "log.console.level = debug")
	folders := []string{filepath.Join(dir, "data"), filepath.Join(dir, "log")}
	const clients = 20
	var load sync.WaitGroup
	defer load.Wait()
	over := make(chan struct{})
	defer close(over)
	p.join("g", "first", "first")
	for i := range clients {
		load.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-over:
					return
				default:
				}
				p.join(fmt.Sprintf("load-%d-%d", i, j), "a", "a").Close()
			}
		})
	}
	found := map[string]bool{}
	for range 50 {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
		if err != nil || len(tasks) == 0 {
			t.Fatal(tasks, err)
		}
		for _, task := range tasks {
			sockets, files := tableOf(task, folders)
			if sockets > 0 && len(files) > 0 {
				t.Fatalf("thread %s of %d has %d sockets, and can write to %v", filepath.Base(task), p.cmd.Process.Pid, sockets, files)
			}
			for _, f := range files {
				found[filepath.Base(f)] = true
			}
			found["sockets"] = found["sockets"] || sockets > 1
		}
	}
	for _, name := range []string{"sockets", "raft.db", "console.log", "error.log"} {
		if !found[name] {
			t.Errorf("no thread has %s open; there are %v", name, found)
		}
	}
}

// tableOf gives how many sockets a thread has, and which files in these folders, but for
// that of crashes, it has open for writing.
func tableOf(task string, folders []string) (sockets int, files []string) {
	links, _ := filepath.Glob(task + "/fd/*")
	for _, l := range links {
		fd, _ := strconv.Atoi(filepath.Base(l))
		to, err := os.Readlink(l)
		info, err2 := os.ReadFile(fmt.Sprintf("%s/fdinfo/%d", task, fd))
		if err != nil || err2 != nil || fd < 3 {
			continue // closed by now; or inherited
		}
		if strings.HasPrefix(to, "socket:") {
			sockets++
		}
		_, flags, _ := strings.Cut(string(info), "flags:\t")
		flags, _, _ = strings.Cut(flags, "\n")
		mode, _ := strconv.ParseInt(flags, 8, 64)
		for _, folder := range folders {
			if strings.HasPrefix(to, folder+"/") && mode&int64(os.O_WRONLY|os.O_RDWR) != 0 && filepath.Base(to) != "crash.log" {
				files = append(files, to)
			}
		}
	}
	return sockets, files
}
