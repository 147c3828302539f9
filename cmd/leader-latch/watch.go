package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watch lists groups whenever something has changed, until it is interrupted or its reader
// has gone.
func (e *env) watch(ctx context.Context, list groupList, interval time.Duration) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away is an end in order
	w := watcher{stdout: e.stdout, stderr: e.stderr, asJSON: list.asJSON, terminal: isTerminal(e.stdout)}
	for tick := time.NewTicker(interval); ; {
		known, err := list.ask(ctx)
		if ctx.Err() != nil {
			return exitOK
		}
		if err != nil && !errors.Is(err, errNodeDown) && !w.asked {
			return e.fail(exitFailed, err) // which no waiting cures
		}
		if err := w.saw(known, err, time.Now()); errors.Is(err, syscall.EPIPE) || readerGone(e.stdout) {
			return exitOK
		} else if err != nil {
			return e.fail(exitFailed, err)
		}
		select {
		case <-ctx.Done():
			return exitOK
		case <-tick.C:
		}
	}
}

// watcher prints what a node knows when that is other than before.
type watcher struct {
	stdout, stderr io.Writer
	asJSON         bool
	terminal       bool // stdout is one

	asked bool // the node has answered once, or was down
	begun bool
	shown string // as it is compared; empty: the node is down, or has not been asked yet
	said  string // on stderr, of what is so still
}

// saw takes what a node has answered at a time, or why it has not. The error is that of stdout.
func (w *watcher) saw(known knownGroups, failed error, now time.Time) error {
	hint := ""
	w.asked = true
	switch {
	case errors.Is(failed, errNodeDown):
		hint, w.shown = nodeIsDown, ""
	case failed != nil:
		hint, w.shown = failed.Error(), ""
	default:
		hint = staleHint(known.confirmed)
		if err := w.show(known, now); err != nil {
			return err
		}
	}
	if hint != "" && hint != w.said {
		fmt.Fprintln(w.stderr, hint)
	}
	w.said = hint
	return nil
}

// show prints the groups if something has changed.
func (w *watcher) show(known knownGroups, now time.Time) error {
	print := knownGroups.print
	if w.asJSON {
		print = knownGroups.printLine
	}
	var is, text strings.Builder
	if err := errors.Join(print(lasting(known), &is), print(known, &text)); err != nil {
		return err
	}
	if is.String() == w.shown {
		return nil
	}
	before := ""
	switch {
	case w.asJSON:
	case w.terminal:
		before = "\x1b[H\x1b[2J" // home, and clear
	case w.begun:
		before = "\n" + now.In(time.Local).Format(moment) + "\n"
	}
	w.shown, w.begun = is.String(), true
	_, err := io.WriteString(w.stdout, before+text.String())
	return err
}

// lasting is the groups without how long members are held yet, which changes all the time.
func lasting(known knownGroups) knownGroups {
	known.groups = slices.Clone(known.groups)
	for i, g := range known.groups {
		members := slices.Clone(g.Members)
		for j := range members {
			members[j].Held = min(members[j].Held, 1)
		}
		known.groups[i].Members = members
	}
	return known
}

// readerGone reports whether nobody will read any more what is written to w.
func readerGone(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}
