package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"leaderlatch/packaging"
	"leaderlatch/riakconf"
)

// documentsCommand writes what the packages have beside the binary. It is for
// whoever makes packages, so --help does not list it, and [commands] does not
// have it.
var documentsCommand = command{
	name:  "documents",
	args:  "FOLDER",
	short: "write man pages and shell completions",
	long: `Writes man pages and completions for bash, zsh and fish, made from the table of
commands and the table of settings. SOURCE_DATE_EPOCH is the date on them.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(_ context.Context, _ string, args []string) int {
			if len(args) != 1 {
				return e.usageError("documents", "name one folder")
			}
			if err := writeDocuments(args[0], e.getenv("SOURCE_DATE_EPOCH")); err != nil {
				return e.fail(exitFailed, err)
			}
			return exitOK
		}
	},
}

// documentsFolder is where the packages have the documents of the repository.
const documentsFolder = "/usr/share/doc/leader-latch"

func writeDocuments(dir, epoch string) error {
	date := ""
	if seconds, err := time.ParseDuration(epoch + "s"); err == nil {
		date = time.Unix(int64(seconds.Seconds()), 0).UTC().Format(time.DateOnly)
	}
	all := map[string]func(w *bytes.Buffer){
		"leader-latch.8":      func(w *bytes.Buffer) { manProgram(w, date) },
		"leader-latch.conf.5": func(w *bytes.Buffer) { manSettings(w, date) },
		"leader-latch.bash":   func(w *bytes.Buffer) { bashCompletion(w) },
		"leader-latch.zsh":    func(w *bytes.Buffer) { zshCompletion(w) },
		"leader-latch.fish":   func(w *bytes.Buffer) { fishCompletion(w) },
	}
	for _, p := range riakPrograms() {
		all[p.name+".8"] = func(w *bytes.Buffer) { manRiak(w, p, date) }
	}
	for name, write := range all {
		var b bytes.Buffer
		write(&b)
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manProgram writes the man page of the program, with all its commands.
func manProgram(w io.Writer, date string) {
	manTitle(w, "leader-latch", "8", date, "leader election service")
	manSection(w, "SYNOPSIS", "")
	fmt.Fprintf(w, ".B leader\\-latch\n.I COMMAND\n[flags] [args]\n")
	manSection(w, "DESCRIPTION", `A client connects, sends JOIN <group> <client> and is told, on that connection,
who leads its group, at once and at every change, for as long as it stays
connected.

Every command takes --config PATH (-c), else LEADER_LATCH_CONFIG, else
`+defaultConfig+`, and --help.`)
	manSection(w, "COMMANDS", "")
	for _, c := range commands() {
		fmt.Fprintf(w, ".SS \"%s\"\n%s\n", roff(strings.TrimSpace(c.name+" [flags] "+c.args)), roff(c.long))
		for _, f := range c.flags() {
			_, usage := pflag.UnquoteUsage(f)
			manItem(w, flagUsage(f), usage)
		}
	}
	manSection(w, "EXIT STATUS", "")
	manItem(w, "0", "done")
	manItem(w, "1", "failed")
	manItem(w, "2", "wrong usage")
	manItem(w, "3", "will never work without a change by a person; the unit does not start the service again")
	manSection(w, "SIGNALS", "")
	manItem(w, "SIGTERM, SIGINT", "serve closes its clients, leaders first, and exits with 0; a second one ends it at once")
	manItem(w, "SIGHUP", "serve opens its log files again")
	manItem(w, "SIGPIPE", "has no effect: a closed stderr costs lines of the log, not the service")
	manSection(w, "ENVIRONMENT", "")
	manItem(w, "LEADER_LATCH_CONFIG", "the file with the settings, unless --config names one. The unit has it from /etc/default/leader-latch or /etc/sysconfig/leader-latch, which a shell does not read")
	manItem(w, "LEADER_LATCH_OPTIONS", "in those files alone: flags of serve; they win over the settings")
	manItem(w, "NOTIFY_SOCKET, WATCHDOG_USEC", "set by systemd: where serve says that it is ready and well")
	manItem(w, "WAIT_FOR_ERLANG", "how many seconds riak start waits for the node; 15 if unset")
	manSection(w, "FILES", "")
	manItem(w, defaultConfig, "the settings; Riak's file will do")
	manItem(w, "/etc/riak/leader-latch.conf", "read after it, and wins: for this service's own settings where Riak reads riak.conf too")
	manItem(w, "/var/lib/riak/leader_latch", "the service's state, and the socket that the commands talk over")
	manItem(w, "/var/log/riak", "the logs: console.log, error.log, crash.log")
	manItem(w, "/etc/default/leader-latch, /etc/sysconfig/leader-latch", "environment of the unit leader-latch.service")
	manItem(w, "/var/lib/leader-latch", "what the package's scripts have to remember")
	manItem(w, documentsFolder+"/OPERATING.md", "how a cluster is changed, and what the lines of the log mean")
	manItem(w, documentsFolder+"/INSTALLING.md", "upgrades, a machine on which Riak runs, containers")
	manItem(w, documentsFolder+"/PROTOCOL.md, CLIENTS.md", "what clients say and hear, and what they may rely on")
	manReasons(w)
	manLogLines(w)
	manSection(w, "SEE ALSO", "")
	fmt.Fprintf(w, ".BR leader\\-latch.conf (5)\n")
}

// manRiak writes the man page of riak or riak-admin.
func manRiak(w io.Writer, p riakProgram, date string) {
	manTitle(w, p.name, "8", date, p.short)
	manSection(w, "SYNOPSIS", "")
	fmt.Fprintf(w, ".B %s\n.I COMMAND\n[args]\n", roff(p.name))
	manSection(w, "DESCRIPTION", `The leader election service has those of Riak's commands that make sense for
it, so that operators' scripts go on working: the texts and exit codes are
Riak's. Other commands of Riak say what to do instead and exit with 1. The
configuration is LEADER_LATCH_CONFIG, else `+defaultConfig+`.`)
	manSection(w, "COMMANDS", "")
	for _, c := range p.commands {
		manItem(w, strings.TrimSpace(c.name+" "+c.args), c.short)
	}
	manSection(w, "SEE ALSO", "")
	fmt.Fprintf(w, ".BR leader\\-latch (8)\n")
}

// manSettings writes the man page of the configuration file.
func manSettings(w io.Writer, date string) {
	manTitle(w, "leader-latch.conf", "5", date, "settings of the leader election service")
	manSection(w, "DESCRIPTION", `The service reads Riak's riak.conf, and after it leader-latch.conf in the same
folder, which has the same syntax and wins. A setting is a line

  key = value

and # begins a comment. Keys that are not listed here are Riak's and are left
alone. Those whose names begin with leader_latch are flags of leader-latch serve
too, but for those that end in $name, and for secrets.`)
	manSection(w, "SETTINGS", "")
	for _, k := range riakconf.Keys() {
		if k.Foreign {
			continue
		}
		def := k.Note
		if k.Default != "" {
			def = k.Default
		}
		manItem(w, k.Name, fmt.Sprintf("%s (%v; default: %s)", k.Help, k.Type, def))
	}
	manSection(w, "SEE ALSO", "")
	fmt.Fprintf(w, ".BR leader\\-latch (8)\n")
}

func manTitle(w io.Writer, name, section, date, short string) {
	fmt.Fprintf(w, ".TH %s %s \"%s\" \"%s\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), section, date, roff("leader-latch "+packaging.Version()), roff(name), roff(short))
}

func manSection(w io.Writer, title, text string) {
	fmt.Fprintf(w, ".SH %s\n", title)
	if text != "" {
		fmt.Fprintln(w, roff(text))
	}
}

func manItem(w io.Writer, term, text string) {
	fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(term), roff(text))
}

// roff is a text as troff's input: what would be a command is none, an empty
// line begins a paragraph, indented lines stay as they are.
func roff(text string) string {
	escape := strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace
	var b strings.Builder
	indented := false
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		switch in := strings.HasPrefix(line, "  "); {
		case in && !indented:
			b.WriteString(".nf\n")
			indented = true
		case !in && indented:
			b.WriteString(".fi\n")
			indented = false
		}
		switch {
		case line == "":
			b.WriteString(".PP")
		case line[0] == '.', line[0] == '\'':
			b.WriteString(`\&` + escape(line))
		default:
			b.WriteString(escape(line))
		}
	}
	if indented {
		b.WriteString("\n.fi")
	}
	return b.String()
}

// flags are the command's flags, in the order of its help, --config first.
func (c command) flags() (all []*pflag.Flag) {
	config := defaultConfig
	fs := newFlags(c.name, &config)
	c.setup(&env{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}, fs)
	fs.VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	return all
}

func flagUsage(f *pflag.Flag) string {
	name, _ := pflag.UnquoteUsage(f)
	usage := "--" + f.Name
	if f.Shorthand != "" {
		usage = "-" + f.Shorthand + ", " + usage
	}
	return strings.TrimSpace(usage + " " + name)
}

// takesValue reports whether the word behind the flag belongs to it.
func takesValue(f *pflag.Flag) bool { return f.NoOptDefVal == "" }

// words are what may stand behind a command that is no flag: of "effective" or
// "join NODE|leave [NODE]" those in small letters.
func (c command) words() (all []string) {
	for _, w := range strings.FieldsFunc(c.args, func(r rune) bool { return strings.ContainsRune(" []|", r) }) {
		if strings.ToLower(w) == w {
			all = append(all, w)
		}
	}
	return all
}

func bashCompletion(w io.Writer) {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	fmt.Fprintf(w, `# bash completion for leader-latch
_leader_latch() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
  if [ "$before" = --config ] || [ "$before" = -c ]; then
    COMPREPLY=($(compgen -f -- "$word"))
    return
  fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "%s" -- "$word"))
    return
  fi
  case ${COMP_WORDS[1]} in
`, strings.Join(names, " "))
	for _, c := range commands() {
		all := c.words()
		for _, f := range c.flags() {
			all = append(all, "--"+f.Name)
		}
		fmt.Fprintf(w, "  %s) COMPREPLY=($(compgen -W \"%s --help\" -- \"$word\")) ;;\n", c.name, strings.Join(all, " "))
	}
	fmt.Fprint(w, `  esac
}
complete -F _leader_latch leader-latch
`)
}

func zshCompletion(w io.Writer) {
	quote := strings.NewReplacer(`'`, `'\''`, `[`, `\[`, `]`, `\]`, `:`, `\:`).Replace
	fmt.Fprint(w, "#compdef leader-latch\nlocal -a commands\ncommands=(\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  '%s:%s'\n", c.name, quote(c.short))
	}
	fmt.Fprint(w, ")\nif (( CURRENT == 2 )); then\n  _describe command commands\n  return\nfi\ncase $words[2] in\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "%s)\n  shift words; (( CURRENT-- ))\n  _arguments '--help[say how it is used]'", c.name)
		for _, f := range c.flags() {
			_, usage := pflag.UnquoteUsage(f)
			value := ""
			switch {
			case f.Name == "config":
				value = ":file:_files"
			case takesValue(f):
				value = ": :"
			}
			fmt.Fprintf(w, " \\\n    '--%s[%s]%s'", f.Name, quote(usage), value)
		}
		if words := c.words(); len(words) > 0 {
			fmt.Fprintf(w, " \\\n    '1: :(%s)'", strings.Join(words, " "))
		}
		fmt.Fprint(w, "\n  ;;\n")
	}
	fmt.Fprint(w, "esac\n")
}

func fishCompletion(w io.Writer) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	fmt.Fprint(w, "complete -c leader-latch -f\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "complete -c leader-latch -n __fish_use_subcommand -a %s -d '%s'\n", c.name, quote(c.short))
		of := fmt.Sprintf("complete -c leader-latch -n '__fish_seen_subcommand_from %s'", c.name)
		for _, f := range c.flags() {
			_, usage := pflag.UnquoteUsage(f)
			value := ""
			switch {
			case f.Name == "config":
				value = " -r -F"
			case takesValue(f):
				value = " -x"
			}
			fmt.Fprintf(w, "%s -l %s%s -d '%s'\n", of, f.Name, value, quote(usage))
		}
		for _, word := range c.words() {
			fmt.Fprintf(w, "%s -a %s\n", of, word)
		}
	}
}
