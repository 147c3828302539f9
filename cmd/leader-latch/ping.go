package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

var pingCommand = command{
	name:  "ping",
	short: "say pong if the local node runs",
	long:  `Prints "pong" and exits with 0 if the node of this machine runs; else exits with 1.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("ping", "unknown argument %q", args[0])
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			var pong string
			switch err := newAdmin(conf).get(ctx, "/ping", nil, &pong); {
			case err == errNodeDown:
				fmt.Fprintf(e.stderr, "Node '%s' not responding to pings.\n", conf.NodeName)
				return exitFailed
			case err != nil:
				return e.fail(exitFailed, err)
			}
			fmt.Fprint(e.stdout, pong)
			return exitOK
		}
	},
}
