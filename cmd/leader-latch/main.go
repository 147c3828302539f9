// Command leader-latch is a leader election service: clients open a TCP
// connection, send JOIN <group> <client> and are told, on that connection, who
// leads. It reads Riak's riak.conf.
//
// This package is the only one that knows all others. [serve] wires them: the
// configuration of riakconf to a node of ensemble and the servers of latch.
// The other commands ask the node that runs on this machine, over a Unix
// socket in its data folder (admin.go), and print.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// Exit codes, as packaging/OPERATING.md lists them.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitPermanent = 3 // will never work without a change by a person; the unit does not restart
)

const defaultConfig = "/etc/riak/riak.conf"

// env is what a command has of the world.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	stdin          io.Reader
}

// command is one of the words after leader-latch.
type command struct {
	name  string
	args  string // for the usage line
	short string
	long  string
	// setup declares the command's own flags and gives what runs it. The
	// configuration file's path comes from --config.
	setup func(e *env, fs *pflag.FlagSet) func(ctx context.Context, config string, args []string) int
}

func commands() []command {
	return []command{
		serveCommand, chkconfigCommand, configCommand, pingCommand,
		ensembleStatusCommand, clusterCommand, memberStatusCommand, groupsCommand, waitCommand, recoverCommand, versionCommand,
	}
}

func main() {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	os.Exit(runAs(context.Background(), e, os.Args[0], os.Args[1:]))
}

// run runs the command line and gives the exit code.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		usage(e.stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		usage(e.stdout)
		return exitOK
	case "--version":
		args = []string{"version"}
	case documentsCommand.name:
		return documentsCommand.run(ctx, e, args[1:])
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, e, args[1:])
		}
	}
	fmt.Fprintf(e.stderr, "leader-latch: no command %q; leader-latch --help lists them\n", args[0])
	return exitUsage
}

func (c command) run(ctx context.Context, e *env, args []string) int {
	fs := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors and help are printed here, each in its place
	fs.SortFlags = false
	config := e.getenv("LEADER_LATCH_CONFIG")
	if config == "" {
		config = defaultConfig
	}
	addConfigFlag(fs, &config)
	run := c.setup(e, fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(e.stdout, "Usage: leader-latch %s\n\n%s\n\nFlags:\n%s", strings.TrimSpace(c.name+" [flags] "+c.args), strings.TrimSpace(c.long), fs.FlagUsages())
		return exitOK
	case err != nil:
		fmt.Fprintf(e.stderr, "leader-latch %s: %v; leader-latch %s --help lists the flags\n", c.name, err, c.name)
		return exitUsage
	}
	return run(ctx, config, fs.Args())
}

// addConfigFlag declares the flag that every command has.
func addConfigFlag(fs *pflag.FlagSet, config *string) {
	fs.StringVarP(config, "config", "c", *config, "the `file` with the settings; riak.conf of a Riak node will do")
}

func usage(w io.Writer) {
	fmt.Fprint(w, `leader-latch elects leaders: a client connects, sends JOIN <group> <client>
and is told who leads its group for as long as it stays connected.

Usage: leader-latch COMMAND [flags] [args]

Commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
	}
	fmt.Fprintf(w, `
Every command takes --config PATH (-c), else LEADER_LATCH_CONFIG, else
%s, and --help.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 will never work without a
change by a person.
`, defaultConfig)
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
