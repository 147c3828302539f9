package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"leaderlatch/riakconf"
)

// Under the names riak-admin and riak this program has Riak's commands, as far
// as they make sense here, so that operators' scripts go on working. Their texts
// and exit codes are Riak's; the cases in testdata/riak-admin are Riak's own
// output.

// riakCommand is one command of riak or riak-admin.
type riakCommand struct {
	name  string // one or two words
	args  string // as in Riak's usage; those in brackets may be left out
	short string
	run   func(r *riak, ctx context.Context, args []string) int
}

// riakProgram is riak or riak-admin.
type riakProgram struct {
	name     string
	short    string // for the man page
	commands []riakCommand
	// elsewhere are Riak's other commands, with what to do instead if there
	// is something.
	elsewhere map[string]string
	// unknown is the exit code for a command that neither has.
	unknown int
}

func riakPrograms() []riakProgram { return []riakProgram{riakAdmin(), riakScript()} }

// riakNode is what the commands need of the node of this machine; [admin] has
// it.
type riakNode interface {
	get(ctx context.Context, path string, query url.Values, v any) error
	post(ctx context.Context, path string, query url.Values, v any) error
}

// riak is one call of riak or riak-admin.
type riak struct {
	*env
	conf    *riakconf.Config
	node    riakNode
	service riakService
}

// runAs runs the command line under the name that the program was called by.
func runAs(ctx context.Context, e *env, name string, args []string) int {
	for _, p := range riakPrograms() {
		if p.name == filepath.Base(name) {
			return p.run(ctx, e, args)
		}
	}
	return run(ctx, e, args)
}

func (p riakProgram) run(ctx context.Context, e *env, args []string) int {
	return p.runOn(ctx, e, args, func(conf *riakconf.Config) (riakNode, riakService) {
		return newAdmin(conf), newRiakService(conf)
	})
}

// runOn is run with the node and the service that connect gives.
func (p riakProgram) runOn(ctx context.Context, e *env, args []string, connect func(*riakconf.Config) (riakNode, riakService)) int {
	c, typed, rest := p.find(args)
	if c == nil {
		return p.other(e, args)
	}
	if least, most := c.arity(); len(rest) < least || len(rest) > most {
		fmt.Fprintln(e.stdout, strings.TrimSpace(fmt.Sprintf("Usage: %s %s %s", p.name, typed, c.args)))
		return exitFailed
	}
	path := e.getenv("LEADER_LATCH_CONFIG")
	if path == "" {
		path = defaultConfig
	}
	r := &riak{env: e}
	if c.name == "version" || c.name == "chkconfig" || c.name == "config effective" {
		return c.run(r, ctx, append(rest, "--config", path)) // they need no node
	}
	conf, code := e.load(path)
	if conf == nil {
		return min(code, exitFailed)
	}
	if !mayOperate(conf.DataDir()) {
		fmt.Fprintln(e.stdout, "You need to be root or use sudo to run this command")
		return exitFailed
	}
	r.conf = conf
	r.node, r.service = connect(conf)
	return c.run(r, ctx, rest)
}

// find gives the command that the line begins with, as it was typed, and the
// words behind it. Riak takes _ for - in many of them.
func (p riakProgram) find(args []string) (c *riakCommand, typed string, rest []string) {
	for words := min(2, len(args)); words > 0; words-- {
		typed := strings.Join(args[:words], " ")
		name := strings.ReplaceAll(typed, "_", "-")
		if _, ok := p.elsewhere[name]; ok {
			break
		}
		for _, c := range p.commands {
			if c.name == name {
				return &c, typed, args[words:]
			}
		}
	}
	return nil, "", nil
}

// other answers what is no command here.
func (p riakProgram) other(e *env, args []string) int {
	if len(args) == 0 {
		p.usage(e.stdout)
		return p.unknown
	}
	for words := min(2, len(args)); words > 0; words-- {
		typed := strings.Join(args[:words], " ")
		if instead, ok := p.elsewhere[strings.ReplaceAll(typed, "_", "-")]; ok {
			if instead == "" {
				instead = "it makes no sense for this service"
			}
			fmt.Fprintf(e.stdout, "%s %s is a command of Riak alone: %s\n", p.name, typed, instead)
			return exitFailed
		}
	}
	p.usage(e.stdout)
	if args[0] == "cluster" { // riak-admin cluster, and what is no subcommand of it
		return exitOK
	}
	return p.unknown
}

func (p riakProgram) usage(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s COMMAND\n\nThe commands of Riak that this service has:\n", p.name)
	for _, c := range p.commands {
		fmt.Fprintf(w, "  %-38s %s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
	}
}

// arity is how many arguments the command takes.
func (c riakCommand) arity() (least, most int) {
	for _, word := range strings.Fields(c.args) {
		most++
		if !strings.HasPrefix(word, "[") {
			least++
		}
	}
	return least, most
}

// mayOperate reports whether this user is root or the one to whom the folder,
// existing or to be made, belongs.
func mayOperate(path string) bool {
	if os.Geteuid() == 0 {
		return true
	}
	owner, err := ownerOf(path)
	return err == nil && int(owner.Uid) == os.Geteuid()
}

// ownerOf gives the owner of a folder, or of the nearest one above it that
// exists and can be seen.
func ownerOf(path string) (*syscall.Stat_t, error) {
	info, err := os.Stat(path)
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) && filepath.Dir(path) != path {
		return ownerOf(filepath.Dir(path))
	}
	if err != nil {
		return nil, err
	}
	return info.Sys().(*syscall.Stat_t), nil
}

// running reports whether the node answers.
func (r *riak) running(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return r.node.get(ctx, "/ping", nil, nil) == nil
}

// notResponding is what ping says of a node that is down.
func (r *riak) notResponding() int {
	fmt.Fprintf(r.stderr, "Node '%s' not responding to pings.\n", r.conf.NodeName)
	return exitFailed
}

// elsewhere makes the table of commands that are not here.
func elsewhere(plain []string, instead map[string]string) map[string]string {
	for _, name := range plain {
		if _, ok := instead[name]; !ok {
			instead[name] = ""
		}
	}
	return instead
}

// own runs one of leader-latch's own commands.
func own(c command, before ...string) func(*riak, context.Context, []string) int {
	return func(r *riak, ctx context.Context, args []string) int {
		return min(c.run(ctx, r.env, "", slices.Concat(before, args)), exitFailed)
	}
}
