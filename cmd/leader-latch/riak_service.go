package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/riakconf"
)

// riakService starts and stops the node of this machine.
type riakService interface {
	files() int        // the limit of open files of what start starts
	pid() (int, error) // of the node, which runs
	// start returns when the node runs, by the answer of running; with an
	// error if it does not within the time.
	start(ctx context.Context, within time.Duration, running func(context.Context) bool) error
	stop(ctx context.Context) error // returns when the node is gone
}

// Where the packages put the program and its unit.
const (
	installedProgram = "/usr/sbin/leader-latch"
	installedUnit    = "leader-latch.service"
)

// newRiakService gives systemd's unit where the node is that of the package
// and systemd runs, else a plain process.
func newRiakService(conf *riakconf.Config) riakService {
	p := process{conf}
	exe, _ := os.Executable()
	_, err := os.Stat("/run/systemd/system")
	if err == nil && exe == installedProgram && conf.Path == defaultConfig {
		return systemdUnit{p}
	}
	return p
}

// process is a node that runs in the background, without a supervisor.
type process struct{ conf *riakconf.Config }

func (p process) files() int { return openFiles() }

func (p process) lock() string { return filepath.Join(p.conf.DataDir(), "lock") }

// pid reads the file on which the node holds its lock. It leaves no time of access behind, which
// would wait for a disk that hangs, unless the file is another user's.
func (p process) pid() (int, error) {
	f, err := os.OpenFile(p.lock(), os.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.Open(p.lock())
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// start starts the node in a session of its own, as the user to whom the data
// belong if this one is root.
func (p process) start(ctx context.Context, within time.Duration, running func(context.Context) bool) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	path, err := filepath.Abs(p.conf.Path)
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "serve", "--config", path)
	cmd.Args[0] = "leader-latch" // not riak, as this process is called
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		if cmd.SysProcAttr.Credential, err = credential(p.conf.DataDir()); err != nil {
			return err
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // until this process ends; the node lives on
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !running(ctx) {
		select {
		case err := <-ended:
			return fmt.Errorf("the node ended: %v", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryAsking):
		}
	}
	return nil
}

// credential is the user to whom a folder belongs, with his group.
func credential(path string) (*syscall.Credential, error) {
	owner, err := ownerOf(path)
	if err != nil {
		return nil, err
	}
	c := &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	if u, err := user.LookupId(strconv.Itoa(int(owner.Uid))); err == nil {
		if gid, err := strconv.Atoi(u.Gid); err == nil {
			c.Gid = uint32(gid)
		}
	}
	return c, nil
}

// stopWithin is far more than a graceful stop takes.
const stopWithin = 4 * stopPatience

// stop waits for the lock, which goes with the process, and not for the
// process id: a process that nobody has waited for keeps that.
func (p process) stop(ctx context.Context) error {
	pid, err := p.pid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	for {
		f, err := os.Open(p.lock())
		if err != nil {
			return err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		f.Close()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs after %v", pid, stopWithin)
		case <-time.After(retryAsking):
		}
	}
}

// systemdUnit is the node that systemd starts and stops. It must be systemd
// that stops it: the unit starts again whatever ends by itself.
type systemdUnit struct{ process }

func (systemdUnit) files() int { return math.MaxInt } // the unit sees to it

func (u systemdUnit) start(ctx context.Context, _ time.Duration, running func(context.Context) bool) error {
	if err := u.systemctl(ctx, "start"); err != nil {
		return err
	}
	if !running(ctx) {
		return errNodeDown
	}
	return nil
}

func (u systemdUnit) stop(ctx context.Context) error { return u.systemctl(ctx, "stop") }

func (u systemdUnit) systemctl(ctx context.Context, verb string) error {
	out, err := exec.CommandContext(ctx, "systemctl", verb, installedUnit).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s %s: %w: %s", verb, installedUnit, err, strings.TrimSpace(string(out)))
	}
	return nil
}
