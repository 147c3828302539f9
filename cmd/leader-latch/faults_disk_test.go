//go:build faults

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// mountDisk gives the host a small disk of its own.
func (h *host) mountDisk() {
	h.t.Helper()
	image := filepath.Join(h.dir, fmt.Sprint("image-", h.n))
	h.disk = filepath.Join(h.dir, fmt.Sprint("disk-", h.n))
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Mkdir(h.disk, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.must("", "mkfs.ext4", "-q", "-m", "0", image)
	h.must("", "mount", "-o", "loop", image, h.disk)
}

// fillDisk leaves so many bytes free on the host's disk, until heal is called.
func (h *host) fillDisk(free int64) (heal func(), err error) {
	name := filepath.Join(h.disk, "fill")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var at int64
	for size := int64(256 << 20); size >= 1024; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); err != nil {
			size /= 2
			continue
		}
		at += size
	}
	if err := f.Truncate(max(0, at-free)); err != nil {
		return nil, err
	}
	return func() {
		if err := os.Remove(name); err != nil {
			h.t.Error(err)
		}
	}, nil
}

// stallDisk has every write to the host's disk hang, until heal is called or at most
// for the given time. A process of its own sees to that, should this one die.
func (h *host) stallDisk(atMost time.Duration) (heal func(), err error) {
	timer := exec.Command("sh", "-c", fmt.Sprintf("sleep %.1f; exec fsfreeze -u %s", atMost.Seconds(), h.disk))
	timer.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := timer.Start(); err != nil {
		return nil, err
	}
	if _, err = sh("", "fsfreeze", "-f", h.disk); err != nil {
		syscall.Kill(-timer.Process.Pid, syscall.SIGKILL)
		timer.Wait()
		return nil, err
	}
	return func() {
		sh("", "fsfreeze", "-u", h.disk) // fails where the timer was first
		syscall.Kill(-timer.Process.Pid, syscall.SIGKILL)
		timer.Wait()
	}, nil
}
