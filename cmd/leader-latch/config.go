package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"leaderlatch/riakconf"
)

var configCommand = command{
	name:  "config",
	args:  "effective",
	short: "print the settings that are in effect",
	long: `Prints the settings that are in effect: those of the files, after includes,
duplicates and references, and then the defaults of other keys, each marked with
# default. Files and folders of this service are printed in full. Keys that have
no effect here, as they are Riak's, are marked with # not used here. What it prints
can be read as a riak.conf. Flags of serve are not known to it.

A value that chkconfig refuses is printed as it is. The problem is then said on
stderr, and the exit code is 1; with --json it is 0, as that gives what the files
say and does not judge it.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, `print {"settings":[["key","value"],...]}, without the defaults, or {"error":{...}}`)
		return func(_ context.Context, config string, args []string) int {
			switch {
			case len(args) == 0:
				return e.usageError("config", "say what to do: config effective")
			case args[0] != "effective":
				return e.usageError("config", "there is no config %s, only config effective", args[0])
			case len(args) > 1:
				return e.usageError("config", "unknown argument %q", args[1])
			}
			settings, err := riakconf.Read(config)
			if *asJSON {
				return e.settingsJSON(config, settings, err)
			}
			if err != nil {
				return e.problems(exitFailed, nil, err)
			}
			if _, err := io.WriteString(e.stdout, effectiveText(settings.Effective())); err != nil {
				return e.fail(exitFailed, err)
			}
			if _, _, err := riakconf.Load(config); err != nil {
				return e.problems(exitFailed, nil, err)
			}
			return exitOK
		}
	},
}

// settingsJSON prints the settings, or the problem in their place. What only chkconfig
// would refuse is said on stderr.
func (e *env) settingsJSON(config string, settings *riakconf.Settings, problem error) int {
	var v any = settings
	code := exitOK
	if problem != nil {
		v, code = problem, exitFailed
	}
	if err := json.NewEncoder(e.stdout).Encode(v); err != nil {
		return e.fail(exitFailed, err)
	}
	if _, _, err := riakconf.Load(config); err != nil && problem == nil {
		e.problems(code, nil, err)
	}
	return code
}

// effectiveText is the settings as the lines of a riak.conf. A value that no
// line can hold, as it can come from a file or the environment, stands there
// as a comment.
func effectiveText(settings []riakconf.Setting) string {
	var b strings.Builder
	for _, s := range settings {
		value := cmp.Or(s.Path, s.Value)
		var marks []string
		if s.Default {
			marks = append(marks, "default")
		}
		if s.Idle {
			marks = append(marks, "not used here")
		}
		switch {
		case !fitsLine(value):
			fmt.Fprintf(&b, "# %s = %q # no line can hold this value\n", s.Key, value)
		case marks != nil:
			fmt.Fprintf(&b, "%s = %s # %s\n", s.Key, value, strings.Join(marks, ", "))
		default:
			fmt.Fprintf(&b, "%s = %s\n", s.Key, value)
		}
	}
	return b.String()
}

// fitsLine reports whether a value is read back as it is when it is written
// behind key = (riak.conf rules 1, 3, 15, 16, 18 and 20).
func fitsLine(value string) bool {
	return value != "" &&
		utf8.ValidString(value) &&
		!strings.ContainsAny(value, "#\n") &&
		!strings.HasSuffix(value, "\r") &&
		strings.Trim(value, " \t") == value &&
		!strings.ContainsFunc(value, func(r rune) bool { return r > unicode.MaxLatin1 })
}
