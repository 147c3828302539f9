package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"leaderlatch/ensemble"
	"leaderlatch/riakconf"
)

// env is what a command has of the world.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	stdin          io.Reader
	lookup         func(ctx context.Context, host string) ([]string, error) // [net.Resolver.LookupHost]
}

// Exit codes, as packaging/OPERATING.md lists them.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitPermanent = 3 // will never work without a change by a person; the unit does not restart
)

// exitCode is 3 for what no restart cures. A port may come free, and an address come up;
// a privilege does not.
func exitCode(err error) int {
	var p *ensemble.PermanentError
	var bind *bindError
	if errors.As(err, &p) || errors.As(err, &bind) && errors.Is(err, syscall.EACCES) {
		return exitPermanent
	}
	return exitFailed
}

// usageError says what is wrong with the arguments of a command.
func (e *env) usageError(c, format string, args ...any) int {
	fmt.Fprintf(e.stderr, "leader-latch %s: %s; see leader-latch %s --help\n", c, fmt.Sprintf(format, args...), c)
	return exitUsage
}

// fail prints an error and gives the code for it.
func (e *env) fail(code int, err error) int {
	fmt.Fprintf(e.stderr, "leader-latch: %v\n", err)
	return code
}

// nodeIsDown is said of a node that does not run: Riak's words.
const nodeIsDown = "Node is not running!"

// nodeError prints why the node gave no answer.
func (e *env) nodeError(err error) int {
	if err == errNodeDown {
		fmt.Fprintln(e.stderr, nodeIsDown)
		return exitFailed
	}
	return e.fail(exitFailed, err)
}

func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// problems prints what is wrong with a configuration, a line each.
func (e *env) problems(code int, warnings []riakconf.Problem, err error) int {
	e.warnings(warnings)
	fmt.Fprintln(e.stderr, err)
	return code
}

func (e *env) warnings(warnings []riakconf.Problem) {
	for _, w := range warnings {
		fmt.Fprintf(e.stderr, "warning: %v\n", w)
	}
}

// load reads the configuration for a command that only has to find the node:
// warnings were given when that started.
func (e *env) load(config string) (*riakconf.Config, int) {
	conf, _, err := riakconf.Load(config)
	if err != nil {
		return nil, e.problems(exitPermanent, nil, err)
	}
	return conf, exitOK
}
