//go:build faults

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mountDisk gives the host a small disk of its own.
func (h *host) mountDisk() {
	h.t.Helper()
	h.mount(h.newImage())
}

// mountSlowableDisk gives the host one that slowDisk can make slow, if the machine permits.
// It takes more of the processor.
func (h *host) mountSlowableDisk() {
	h.t.Helper()
	image := h.newImage()
	var err error
	if h.image, err = mountImage(image); err != nil {
		h.t.Logf("no disk can be slow: %v", err)
	}
	h.mount(image)
}

func (h *host) newImage() (name string) {
	h.t.Helper()
	name = filepath.Join(h.dir, fmt.Sprint("image-", h.n))
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Truncate(name, 256<<20); err != nil {
		h.t.Fatal(err)
	}
	h.must("", "mkfs.ext4", "-q", "-m", "0", name)
	return name
}

func (h *host) mount(image string) {
	h.t.Helper()
	h.disk = filepath.Join(h.dir, fmt.Sprint("disk-", h.n))
	if err := os.Mkdir(h.disk, 0o755); err != nil {
		h.t.Fatal(err)
	}
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

// slowDisk has each flush to the host's disk take so much longer, until heal is called. What
// changes a file's length or place takes two.
func (h *host) slowDisk(each time.Duration) (heal func(), err error) {
	if h.image == nil {
		return nil, errNoSlowDisk
	}
	h.image.slower(each)
	return sync.OnceFunc(func() { h.image.slower(-each) }), nil
}

var errNoSlowDisk = errors.New("this disk cannot be slow: it is not mounted by mountSlowableDisk, or there is no /dev/fuse")

// A slow disk is slow for one who flushes now and then, and for one who does nothing else,
// and afterwards it is what it was.
func TestFaultADiskIsSlow(t *testing.T) {
	const each, times = 50 * time.Millisecond, 20
	h := newNetwork(t, 1).hosts[0]
	h.mountSlowableDisk()
	f, err := os.Create(filepath.Join(h.disk, "flushed"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	mean := func(pause time.Duration) (all time.Duration) {
		for i := range times {
			time.Sleep(rand.N(pause + 1))
			began := time.Now()
			if _, err := f.WriteAt(fmt.Append(nil, i), 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
			all += time.Since(began)
		}
		return all / times
	}
	well := mean(0)
	heal, err := h.slowDisk(each)
	if err != nil {
		t.Skip(err)
	}
	busy, rare := mean(0), mean(2*each)
	heal()
	t.Logf("a flush takes %v, on the slow disk %v one after the other and %v now and then", well, busy, rare)
	for _, slow := range []time.Duration{busy, rare} {
		if slow < each || slow > 10*each { // the machine may be loaded
			t.Errorf("a flush takes %v on the slow disk, want %v and little more", slow, each)
		}
	}
	if healed := mean(0); healed > each {
		t.Errorf("a flush takes %v when the disk is well again", healed)
	}
}
