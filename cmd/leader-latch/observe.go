package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
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

It joins no group. When its server ends, it goes on with the next one, and prints
nothing that is older than what it has printed. It runs until it is ended; with --once
until it has printed each group once. With --json a line is an object; its leader is
empty where nobody leads.

With --exec it prints nothing, and runs a command of the shell at each change instead,
one at a time. LEADER_LATCH_GROUP, LEADER_LATCH_LEADER (empty: nobody leads) and
LEADER_LATCH_TOKEN say what has changed. Of changes that come while one runs, the last
one of each group is kept.

The servers are those of --server, else of LEADER_LATCH_SERVERS, else the listeners of
the file with the settings, else 127.0.0.1:5326 and 127.0.0.1:5323. A listener has to
have extensions: leader_latch.extensions.<listener> = on. If none has, observe ends
with 3.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		names := fs.StringSlice("server", nil, "a `host:port` to connect to; several, separated by commas, are tried in turn")
		asJSON := fs.Bool("json", false, "print JSON, an object in a line")
		script := fs.String("exec", "", "run this `command` of the shell at each change")
		once := fs.Bool("once", false, "end when each group was printed once")
		return func(ctx context.Context, config string, groups []string) int {
			if len(groups) == 0 {
				return e.usageError("observe", "a group is missing")
			}
			for _, g := range groups {
				if !isLatchName(g) {
					return e.usageError("observe", "%q is no name of a group: it has 1 to 255 bytes of printable ASCII, without spaces", g)
				}
			}
			servers, err := e.servers(*names, config)
			if err != nil {
				return e.usageError("observe", "%v", err)
			}
			slices.Sort(groups)
			groups = slices.Compact(groups)
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			n := newNews()
			for _, g := range groups {
				w := &watch{group: g, servers: servers, news: n, log: e.stderr}
				go func() { cancel(w.run(ctx)) }()
			}
			show := func(c leaderChange) error { return printChange(e.stdout, c, *asJSON) }
			if *script != "" {
				show = func(c leaderChange) error { return e.runScript(ctx, *script, c) }
			}
			shown := make(map[string]bool)
			for !*once || len(shown) < len(groups) {
				c, err := n.next(ctx)
				if err == nil {
					err = show(c)
				}
				switch {
				case errors.Is(err, errNoExtensions):
					return e.fail(exitPermanent, err)
				case err != nil:
					return e.fail(exitFailed, err)
				}
				shown[c.Group] = true
			}
			return exitOK
		}
	},
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

// runScript runs a command of the shell for a change. That it fails is said, and is no reason to end.
func (e *env) runScript(ctx context.Context, script string, c leaderChange) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Env = append(cmd.Environ(), "LEADER_LATCH_GROUP="+c.Group, "LEADER_LATCH_LEADER="+c.Leader, fmt.Sprintf("LEADER_LATCH_TOKEN=%d", c.Token))
	cmd.Stdout, cmd.Stderr = e.stdout, e.stderr
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); failed && ctx.Err() == nil {
		fmt.Fprintf(e.stderr, "leader-latch: the command failed for %s %s: %v\n", c.Group, c.line(), err)
		return nil
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

// watch observes one group, at one server after the other.
type watch struct {
	group   string
	servers []server
	news    *news
	log     io.Writer

	answered bool // one has answered once
	silent   bool // it was said that none answers
}

// How often servers are tried: all of them one after the other, and then again after a while.
const (
	observeAgain   = 200 * time.Millisecond
	observeDial    = 2 * time.Second
	observePatient = 10 * time.Second // for the answer to OBSERVE; a server without a majority refuses sooner
)

// A dead server is found within 5 s (PROTOCOL.md, Time limits).
var observeKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

var errNoExtensions = errors.New("has no extensions")

// run observes until ctx is done. An error says that it will never be able to.
func (w *watch) run(ctx context.Context) error {
	for {
		var plain *server
		var why error
		others := false // that may have extensions
		for i := range w.servers {
			s := &w.servers[i]
			err := w.observe(ctx, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			switch {
			case errors.Is(err, errNoExtensions):
				plain = s
			case !s.guessed || !errors.Is(err, syscall.ECONNREFUSED):
				others = true
			}
			why = errors.Join(why, fmt.Errorf("%s %w", s.address, err))
		}
		if plain != nil && !others && !w.answered {
			return plain.noExtensions()
		}
		if !w.silent {
			w.silent = true
			fmt.Fprintf(w.log, "leader-latch: no server tells who leads %s; trying on: %s\n", w.group, strings.ReplaceAll(why.Error(), "\n", "; "))
		}
		select {
		case <-time.After(observeAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noExtensions says what to switch on.
func (s server) noExtensions() error {
	if s.key == "" {
		return fmt.Errorf("%s %w: set leader_latch.extensions.<listener> = on for that listener, or name another one with --server", s.address, errNoExtensions)
	}
	return fmt.Errorf("%s: %s %w: set %s = on and restart the node, or name another listener with --server", s.key, s.address, errNoExtensions, s.toggle)
}

// observe observes at one server until that ends, and says how.
func (w *watch) observe(ctx context.Context, s *server) error {
	dialing, cancel := context.WithTimeout(ctx, observeDial)
	defer cancel()
	conn, err := (&net.Dialer{KeepAliveConfig: observeKeepAlive}).DialContext(dialing, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("cannot be reached: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(observePatient))
	if _, err := fmt.Fprintf(conn, "OBSERVE %s\n", w.group); err != nil {
		return fmt.Errorf("ended the connection: %w", err)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, longestChange)
	for lines.Scan() {
		conn.SetDeadline(time.Time{})
		c, err := parseChange(lines.Text())
		if err != nil {
			return err
		}
		if c.Group = w.group; w.silent {
			w.silent = false
			fmt.Fprintf(w.log, "leader-latch: %s tells who leads %s\n", s.address, w.group)
		}
		w.answered = true
		w.news.add(c)
	}
	switch err := lines.Err(); {
	case err == nil:
		return errors.New("ended the connection")
	case errors.Is(err, bufio.ErrTooLong):
		return errors.New("is no leader-latch: it has sent a line that is too long")
	default:
		return fmt.Errorf("ended the connection: %w", err)
	}
}

// longestChange is more than the longest line of a server that says who leads.
const longestChange = 1024

// parseChange takes a line of a server apart.
func parseChange(line string) (leaderChange, error) {
	c := leaderChange{Time: time.Now()}
	words := strings.Split(line, " ")
	switch {
	case line == "ERROR":
		return c, errNoExtensions
	case line == "JOIN_FAILED SERVICE_UNAVAILABLE":
		return c, errors.New("cannot tell: its node has no majority, or elections are off")
	case len(words) == 3 && words[0] == "LEADER":
		c.Leader = words[1]
	case len(words) != 2 || words[0] != "NO_LEADER":
		return c, fmt.Errorf("is no leader-latch: it has answered %q", line)
	}
	var err error
	if c.Token, err = strconv.ParseUint(words[len(words)-1], 10, 64); err != nil {
		return c, fmt.Errorf("is no leader-latch: it has answered %q", line)
	}
	return c, nil
}

// isLatchName reports whether a group or a client may be called so (PROTOCOL.md, rule 9).
func isLatchName(s string) bool {
	return len(s) > 0 && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}
