package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"leaderlatch/riakconf"
)

var chkconfigCommand = command{
	name:  "chkconfig",
	short: "check the configuration file",
	long: `Checks the configuration file. Prints "config is OK" and exits with 0, or prints
every problem to stderr, each with file, line, key and cure, and exits with 1.
Warnings go to stderr too and do not count; one is of names of hosts for which
this machine finds no address within 3 s.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("chkconfig", "unknown argument %q", args[0])
			}
			conf, warnings, err := riakconf.Load(config)
			if err != nil {
				return e.problems(exitFailed, warnings, err)
			}
			e.warnings(warnings)
			for _, w := range e.unresolved(ctx, conf) {
				fmt.Fprintln(e.stderr, "warning:", w)
			}
			fmt.Fprintln(e.stdout, "config is OK")
			return exitOK
		}
	},
}
