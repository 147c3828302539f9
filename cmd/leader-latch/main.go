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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const defaultConfig = "/etc/riak/riak.conf"

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
		ensembleStatusCommand, clusterCommand, memberStatusCommand, groupsCommand, explainCommand, observeCommand,
		stepDownCommand, waitCommand, recoverCommand, versionCommand,
	}
}

func main() {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, lookup: net.DefaultResolver.LookupHost}
	os.Exit(runAs(context.Background(), e, os.Args[0], os.Args[1:]))
}

// run runs the command line and gives the exit code.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		usage(e.stderr)
		return exitUsage
	}
	var config string
	fs := newFlags("leader-latch", &config)
	fs.SetInterspersed(false) // what stands behind the command's word is the command's
	asked := fs.BoolP("version", "v", false, "")
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		usage(e.stdout)
		return exitOK
	case err != nil:
		fmt.Fprintf(e.stderr, "leader-latch: %v; see leader-latch --help\n", err)
		return exitUsage
	case *asked:
		return versionCommand.run(ctx, e, config, nil)
	case fs.NArg() == 0:
		fmt.Fprintf(e.stderr, "leader-latch: the command is missing, one of %s; see leader-latch --help\n", commandNames())
		return exitUsage
	}
	word, args := fs.Arg(0), fs.Args()[1:]
	if word == "help" {
		if len(args) == 0 || args[0] == "help" {
			usage(e.stdout)
			return exitOK
		}
		word, args = args[0], []string{"--help"}
	}
	for _, c := range append(commands(), documentsCommand, installedCommand) {
		if c.name == word {
			return c.run(ctx, e, config, args)
		}
	}
	fmt.Fprintf(e.stderr, "leader-latch: there is no command %q, only %s; see leader-latch --help\n", word, commandNames())
	return exitUsage
}

// commandNames are the words of the commands, as a sentence has them.
func commandNames() string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return choices(names...)
}

// choices are words of which one is to be chosen.
func choices(words ...string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// run runs the command. Its configuration is the file that was named before its
// word, if one was, unless another one is behind it.
func (c command) run(ctx context.Context, e *env, config string, args []string) int {
	config = cmp.Or(config, e.getenv("LEADER_LATCH_CONFIG"), defaultConfig)
	fs := newFlags(c.name, &config)
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

// newFlags gives a set of flags with the one that every command has.
func newFlags(name string, config *string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors and help are printed by run, each in its place
	fs.SortFlags = false
	fs.VarP((*fileFlag)(config), "config", "c", "the `file` with the settings; riak.conf of a Riak node will do")
	return fs
}

// fileFlag is the name of a file, as a [pflag.Value].
type fileFlag string

func (f *fileFlag) String() string { return string(*f) }
func (f *fileFlag) Type() string   { return "string" }

// Set refuses no name, as a script gives whose variable is not set.
func (f *fileFlag) Set(name string) error {
	if name == "" {
		return errors.New("the name is empty; name a file, or leave the flag out")
	}
	*f = fileFlag(name)
	return nil
}

// waitFlag is how long a command may wait, as a [pflag.Value].
type waitFlag time.Duration

func (p *waitFlag) String() string { return time.Duration(*p).String() }
func (p *waitFlag) Type() string   { return "duration" }

// Set takes a duration above 0.
func (p *waitFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("write a duration above 0, for example 30s or 5m")
	}
	*p = waitFlag(d)
	return nil
}

// timeoutFlag declares --timeout.
func timeoutFlag(fs *pflag.FlagSet) *time.Duration {
	p := waitFlag(60 * time.Second)
	fs.Var(&p, "timeout", "how long to wait")
	return (*time.Duration)(&p)
}

func usage(w io.Writer) {
	fmt.Fprint(w, `leader-latch elects leaders: a client connects, sends JOIN <group> <client>
and is told who leads its group for as long as it stays connected.

Usage: leader-latch COMMAND [flags] [args]

Commands:
`)
	for _, c := range commands() {
		words := strings.TrimSpace(c.name + " " + c.args)
		if len(words) > 28 {
			words += fmt.Sprintf("\n  %28s", "")
		}
		fmt.Fprintf(w, "  %-28s %s\n", words, c.short)
	}
	fmt.Fprintf(w, `
Every command takes --config PATH (-c), else LEADER_LATCH_CONFIG, else
%s, and --help, as help COMMAND prints it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 will never work without a
change by a person.
`, defaultConfig)
}
