package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"leaderlatch/riakconf"
)

// installedCommand answers what the packages' scripts have to know of the service that
// is installed: they read no riak.conf by themselves. --help does not list it, and
// [commands] does not have it.
var installedCommand = command{
	name:  "installed",
	args:  "state-folder|cookie-file",
	short: "say where things of the installed service are",
	long: `Prints one path, by the configuration file that the unit of the packages gives the
service: that of --config in LEADER_LATCH_OPTIONS or of LEADER_LATCH_CONFIG in
/etc/default/leader-latch or /etc/sysconfig/leader-latch, else /etc/riak/riak.conf.

  state-folder   the folder of the service's own state
  cookie-file    the file with the secret of the cluster; nothing where none is set`,
	setup: func(e *env, _ *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(_ context.Context, _ string, args []string) int {
			if len(args) != 1 {
				return e.usageError("installed", "say what to print: state-folder or cookie-file")
			}
			path, err := unitConfig(environmentFiles)
			if err != nil {
				return e.fail(exitFailed, err)
			}
			find := map[string]func(string) (string, error){"state-folder": riakconf.DataDir, "cookie-file": riakconf.CookieFile}[args[0]]
			if find == nil {
				return e.usageError("installed", "there is no %q", args[0])
			}
			found, err := find(path)
			switch {
			case err != nil:
				return e.problems(exitFailed, nil, err)
			case strings.Contains(found, "\n"): // a script takes a line
				return e.fail(exitFailed, fmt.Errorf("the path %q has an end of line in it", found))
			case found != "":
				fmt.Fprintln(e.stdout, found)
			}
			return exitOK
		}
	},
}

// environmentFiles are those of the unit, in its order.
var environmentFiles = []string{"/etc/default/leader-latch", "/etc/sysconfig/leader-latch"}

// unitConfig is the configuration file of the service as the unit starts it, by the
// unit's environment files. Those that are missing do not count.
func unitConfig(files []string) (string, error) {
	environment := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		readEnvironment(string(text), environment)
	}
	path := environment["LEADER_LATCH_CONFIG"]
	if path == "" {
		path = defaultConfig
	}
	fs := newFlags(serveCommand.name, &path)
	serveCommand.setup(&env{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}, fs)
	if err := fs.Parse(strings.Fields(environment["LEADER_LATCH_OPTIONS"])); err != nil {
		return "", fmt.Errorf("LEADER_LATCH_OPTIONS: %w", err)
	}
	return filepath.Join("/", path), nil // systemd starts services there
}

// readEnvironment adds the variables of an environment file as systemd reads it: lines
// of NAME=VALUE, the value in quotes or not, and comments behind # or ;. A later line
// wins. Of systemd's rules those on escapes and lines that go on are left out.
func readEnvironment(text string, into map[string]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, value, found := strings.Cut(line, "=")
		if !found || line[0] == '#' || line[0] == ';' {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
			value = value[1 : n-1]
		}
		into[strings.TrimSpace(name)] = value
	}
}
