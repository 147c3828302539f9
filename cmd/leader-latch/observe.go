package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

var observeCommand = command{
	name:  "observe",
	args:  "GROUP...",
	short: "print who leads groups, now and at each change",
	long: `Prints who leads each GROUP, at once and at each change, a line each:

    spark LEADER worker-1 17
    spark NO_LEADER 18

It joins no group, and takes a connection for each. When its server ends, it goes on
with the next one, and prints nothing that is older than what it has printed. With
--json a line is an object; its leader is empty where nobody leads.

It runs until it is interrupted or nobody reads what it prints; with --once until it
has printed each group once, or --timeout is over, which is a failure.

With --exec it prints nothing, and runs a command of the shell at each change instead,
one at a time. LEADER_LATCH_GROUP, LEADER_LATCH_LEADER (empty: nobody leads) and
LEADER_LATCH_TOKEN say what has changed. Of changes that come while one runs, the last
one of each group is kept. A command that fails is told of, and with --once a failure.
When observe is ended by SIGINT or SIGTERM, so is the command, with what it has started
in its process group.

The servers are those of --server, else of LEADER_LATCH_SERVERS, else the listeners of
the file with the settings (only those with extensions, if any has), else
127.0.0.1:5326 and 127.0.0.1:5323. A listener has to have extensions:
leader_latch.extensions.<listener> = on. If none has, observe ends with 3.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		o := observing{env: e}
		names := fs.StringSlice("server", nil, "a `host:port` to connect to; several, separated by commas, are tried in turn")
		fs.BoolVar(&o.asJSON, "json", false, "print JSON, an object in a line")
		fs.StringVar(&o.script, "exec", "", "run this `command` of the shell at each change")
		fs.BoolVar(&o.once, "once", false, "end when each group was printed once")
		timeout := timeoutFlag(fs)
		return func(ctx context.Context, config string, groups []string) int {
			wrong := func() error {
				switch {
				case len(groups) == 0:
					return errors.New("a group is missing")
				case fs.Changed("exec") && o.script == "":
					return errors.New("the command of --exec is empty")
				case o.script != "" && o.asJSON:
					return errors.New("--exec prints nothing, so --json has no effect; leave one of them out")
				case fs.Changed("timeout") && !o.once:
					return errors.New("--timeout is for --once; without that observe runs until it is interrupted")
				case fs.Changed("server") && len(*names) == 0:
					return errors.New("--server is empty; name a server, or leave the flag out")
				}
				for _, g := range groups {
					if !isLatchName(g) {
						return fmt.Errorf("%q is no name of a group: it has 1 to 255 bytes of printable ASCII, without spaces", g)
					}
				}
				return nil
			}
			if err := wrong(); err != nil {
				return e.usageError("observe", "%v", err)
			}
			servers, code, err := e.servers(*names, config)
			switch {
			case err != nil && code == exitUsage:
				return e.usageError("observe", "%v", err)
			case err != nil:
				return e.problems(code, nil, err)
			}
			slices.Sort(groups)
			o.groups, o.servers = slices.Compact(groups), servers
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if o.once {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("no server has told who leads within %v", *timeout))
				defer cancel()
			}
			return o.run(ctx)
		}
	},
}

// observing is what the command is to do.
type observing struct {
	*env
	groups       []string
	servers      []server
	asJSON, once bool
	script       string // empty: it prints
}

// errOver is that there is nothing more to be done.
var errOver = errors.New("over")

// run observes until ctx is done.
func (o *observing) run(parent context.Context) int {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	n, down := newNews(), &outage{to: o.stderr, groups: make(map[string]bool)}
	for _, g := range o.groups {
		w := &watch{group: g, servers: o.servers, news: n, down: down}
		go func() { cancel(w.run(ctx)) }()
	}
	show := func(c leaderChange) error { return printChange(o.stdout, c, o.asJSON) }
	if o.script != "" {
		show = func(c leaderChange) error { return o.runScript(ctx, c) }
	} else {
		signal.Ignore(syscall.SIGPIPE) // a reader that goes away is an end in order
		go func() { cancel(untilReaderGone(ctx, o.stdout)) }()
	}
	failed := false
	for shown := make(map[string]bool); !o.once || len(shown) < len(o.groups); {
		c, err := n.next(ctx)
		if err == nil {
			err = show(c)
		}
		_, exit := errors.AsType[*exec.ExitError](err)
		switch {
		case errors.Is(err, errOver) || errors.Is(err, syscall.EPIPE) || errors.Is(context.Cause(parent), context.Canceled):
			return exitOK
		case errors.Is(err, errNoExtensions):
			return o.fail(exitPermanent, err)
		case exit:
			fmt.Fprintf(o.stderr, "leader-latch: the command failed for %s %s: %v\n", c.Group, c.line(), err)
			failed = true
		case err != nil:
			return o.fail(exitFailed, err)
		}
		shown[c.Group] = true
	}
	if failed {
		return exitFailed
	}
	return exitOK
}

// untilReaderGone waits until nobody reads any more what is written to w.
func untilReaderGone(ctx context.Context, w io.Writer) error {
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if readerGone(w) {
				return errOver
			}
		}
	}
}

// leaderChange is who leads a group, as of a change.
type leaderChange struct {
	Time   time.Time `json:"time"` // when it was heard of
	Group  string    `json:"group"`
	Leader string    `json:"leader"` // empty: nobody leads
	Token  uint64    `json:"token"`
}

func printChange(w io.Writer, c leaderChange, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(c)
	}
	_, err := fmt.Fprintf(w, "%s %s\n", c.Group, c.line())
	return err
}

// line is the change as a server says it.
func (c leaderChange) line() string {
	if c.Leader == "" {
		return fmt.Sprintf("NO_LEADER %d", c.Token)
	}
	return fmt.Sprintf("LEADER %s %d", c.Leader, c.Token)
}

// runScript runs the command of the shell for a change. It is ended with ctx, and with it what it
// has started, but for what has left its process group.
func (o *observing) runScript(ctx context.Context, c leaderChange) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", o.script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(cmd.Environ(), "LEADER_LATCH_GROUP="+c.Group, "LEADER_LATCH_LEADER="+c.Leader, fmt.Sprintf("LEADER_LATCH_TOKEN=%d", c.Token))
	cmd.Stdout, cmd.Stderr = o.stdout, o.stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what has not ended in time
		return context.Cause(ctx)
	}
	return err
}

// news keeps the newest change of each group until it is taken. Older ones are dropped: by its
// token (PROTOCOL.md, rule 23). Its methods may be called from any goroutine.
type news struct {
	mu     sync.Mutex
	newest map[string]leaderChange
	fresh  []string // groups whose newest change was not taken yet, in the order of coming
	wake   chan struct{}
}

func newNews() *news {
	return &news{newest: make(map[string]leaderChange), wake: make(chan struct{}, 1)}
}

// add takes a change in.
func (n *news) add(c leaderChange) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last, known := n.newest[c.Group]
	if known && c.Token <= last.Token {
		return
	}
	n.newest[c.Group] = c
	if known && c.Leader == "" && last.Leader == "" { // nobody, as before
		return
	}
	if !slices.Contains(n.fresh, c.Group) {
		n.fresh = append(n.fresh, c.Group)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// next gives the next change, or the cause of the context's end.
func (n *news) next(ctx context.Context) (leaderChange, error) {
	for {
		n.mu.Lock()
		if len(n.fresh) > 0 {
			c := n.newest[n.fresh[0]]
			n.fresh = n.fresh[1:]
			n.mu.Unlock()
			return c, nil
		}
		n.mu.Unlock()
		select {
		case <-n.wake:
		case <-ctx.Done():
			return leaderChange{}, context.Cause(ctx)
		}
	}
}
