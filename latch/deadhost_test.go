package latch_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace is set for the process that runs in a network of its own.
const inNamespace = "LATCH_TEST_NETWORK_NAMESPACE"

// TestDeadHost: the connections of a host that vanishes without a word end after
// 8 to 12 s (PROTOCOL.md, Time limits), idle ones and those with bytes under way.
// The host is the loopback interface of a new network namespace, which is taken
// down: from then on no packet passes. A process of its own lives in it.
func TestDeadHost(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		deadHost(t)
		return
	}
	t.Parallel()
	out, err := isolated(t, syscall.CLONE_NEWNET).CombinedOutput()
	if refused(err) { // without privileges a user namespace may still get one
		out, err = isolated(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNET).CombinedOutput()
	}
	switch {
	case refused(err) && os.Getuid() != 0:
		t.Skipf("the kernel gives no network namespace to users: %v", err)
	case err != nil || !strings.Contains(string(out), "--- PASS: TestDeadHost"):
		t.Errorf("in a network namespace: %v\n%s", err, out)
	default:
		t.Logf("in a network namespace:\n%s", out)
	}
}

// isolated is the command that runs this test in new namespaces.
func isolated(t *testing.T, namespaces uintptr) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestDeadHost$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if namespaces&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func refused(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL)
}

func deadHost(t *testing.T) {
	setLoopback(t, true)
	f := serve(t)
	f.join("idle", "a", "a")
	busy := f.join("busy", "a", "a")
	leaving := f.join("leaving", "a", "a")
	for _, c := range []*client{busy, leaving} {
		c.send("?")
		c.want("ERROR")
	}
	eventually(t, "nothing is queued", func() bool { return f.s.Queued() == 0 })

	setLoopback(t, false)
	start := time.Now()
	f.e.Push("busy", "b")
	f.e.End("leaving", "a") // our own FIN is not acknowledged either
	ended := make(map[string]time.Duration)
	for len(ended) < 3 && time.Since(start) < 30*time.Second {
		for _, c := range f.e.Closings() {
			if _, ok := ended[c.Group]; !ok {
				ended[c.Group] = time.Since(start)
				t.Logf("%s: ended after %v, acknowledged %v", c.Group, ended[c.Group], c.Acknowledged)
				if c.Acknowledged {
					t.Errorf("%s was given back as acknowledged", c.Group)
				}
				if want := map[string]string{"idle": "silent", "busy": "silent", "leaving": ""}[c.Group]; c.Why != want {
					t.Errorf("%s was given back because %q, want %q", c.Group, c.Why, want)
				}
			}
		}
		time.Sleep(10 * time.Millisecond) // the loop is the clock of this test
	}
	for _, group := range []string{"idle", "busy"} {
		if d := ended[group]; d < 8*time.Second || d > 12*time.Second {
			t.Errorf("%s: ended after %v, want 8 to 12 s", group, d)
		}
	}
	if d := ended["leaving"]; d < 400*time.Millisecond || d > 4*time.Second {
		t.Errorf("leaving: given back after %v, want CloseGrace, 400 ms", d)
	}
	if n := f.s.Queued(); n > 0 {
		t.Errorf("%d bytes are still queued", n)
	}
}

// setLoopback takes the loopback interface up or down.
func setLoopback(t *testing.T, up bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
	flags := ifr.Uint16() &^ unix.IFF_UP
	if up {
		flags |= unix.IFF_UP
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}
