package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// watch observes one group, at one server after the other.
type watch struct {
	group   string
	servers []server
	news    *news
	down    *outage

	answered bool // one has answered once
}

// outage tells that servers do not tell who leads, and when they do again: once for all groups.
type outage struct {
	mu     sync.Mutex
	to     io.Writer
	groups map[string]bool // of which nothing is told
}

func (o *outage) begins(group string, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.groups) == 0 {
		fmt.Fprintf(o.to, "leader-latch: no server tells who leads %s; trying on: %s\n", group, strings.ReplaceAll(why.Error(), "\n", "; "))
	}
	o.groups[group] = true
}

func (o *outage) ends(group, address string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.groups[group] {
		if delete(o.groups, group); len(o.groups) == 0 {
			fmt.Fprintf(o.to, "leader-latch: %s tells who leads %s\n", address, group)
		}
	}
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
		w.down.begins(w.group, why)
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
		c.Group, w.answered = w.group, true
		w.down.ends(w.group, s.address)
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
	case len(words) == 3 && words[0] == "LEADER" && isLatchName(words[1]):
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
