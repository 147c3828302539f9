package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

var ensembleStatusCommand = command{
	name:  "ensemble-status",
	args:  "[root|N]",
	short: "print Riak's report on the consensus system",
	long: `Prints the report of riak-admin ensemble-status: without an argument the
summary, with root or a number the peers of that ensemble. What an operator may
have to change is said on stderr.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, "print the state that the report is made from")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 1 {
				return e.usageError("ensemble-status", "one ensemble at a time, not %d", len(args))
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			var s ensembleStatus
			if err := newAdmin(conf).get(ctx, "/ensemble-status", nil, &s); err != nil {
				return e.nodeError(err)
			}
			for _, hint := range s.Hints {
				fmt.Fprintln(e.stderr, hint)
			}
			var err error
			switch {
			case *asJSON:
				err = e.printJSON(s.Report)
			case len(args) == 1:
				err = s.Report.Detail(e.stdout, args[0])
			default:
				err = s.Report.Summary(e.stdout)
			}
			if err != nil {
				return e.fail(exitFailed, err)
			}
			return exitOK
		}
	},
}
