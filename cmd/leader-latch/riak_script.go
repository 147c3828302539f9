package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"leaderlatch/packaging"
)

func riakScript() riakProgram {
	return riakProgram{
		name:    "riak",
		short:   "Riak's commands for the service",
		unknown: exitOK,
		commands: []riakCommand{
			{"start", "", "start the node in the background", (*riak).start},
			{"stop", "", "stop the node", (*riak).stop},
			{"restart", "", "stop and start the node", (*riak).restart},
			{"ping", "", "say pong if the node runs", (*riak).ping},
			{"chkconfig", "", "check the configuration file", own(chkconfigCommand)},
			{"config effective", "", "print the settings that are in effect", own(configCommand, "effective")},
			{"version", "", "print the version of this program", (*riak).version},
			{"getpid", "", "print the process id of the node", (*riak).getpid},
			{"console", "", "say how to run the node in the foreground", (*riak).console},
			{"config", "", "list the commands that begin with config", (*riak).config},
			{"config describe", "[VARIABLE]", "say where settings are described", (*riak).describe},
		},
		elsewhere: elsewhere([]string{"attach", "attach-direct", "ertspath", "escript", "top"}, map[string]string{
			"config generate": "nothing is generated from riak.conf",
		}),
	}
}

func (r *riak) ping(ctx context.Context, _ []string) int {
	if !r.running(ctx) {
		return r.notResponding()
	}
	fmt.Fprintln(r.stdout, "pong")
	return exitOK
}

// enoughFiles is the limit of open files below which Riak warns.
const enoughFiles = 65536

func (r *riak) start(ctx context.Context, _ []string) int {
	if r.running(ctx) {
		fmt.Fprintln(r.stderr, "Node is already running!")
		return exitFailed
	}
	if n := r.service.files(); n < enoughFiles {
		fmt.Fprintf(r.stdout, "!!!!\n!!!! WARNING: ulimit -n is %d; %d is the recommended minimum.\n!!!!\n", n, enoughFiles)
	}
	seconds, err := strconv.Atoi(r.getenv("WAIT_FOR_ERLANG"))
	if err != nil || seconds < 1 {
		seconds = 15
	}
	within := time.Duration(seconds) * time.Second
	if r.service.start(ctx, within, r.running) != nil {
		fmt.Fprintf(r.stdout, `riak failed to start within %d seconds,
see the output of 'riak console' for more information.
If you want to wait longer, set the environment variable
WAIT_FOR_ERLANG to the number of seconds to wait.
`, seconds)
		return exitFailed
	}
	return exitOK
}

func (r *riak) stop(ctx context.Context, _ []string) int {
	if !r.running(ctx) {
		return r.notRunning()
	}
	if err := r.service.stop(ctx); err != nil {
		return r.fail(exitFailed, err)
	}
	fmt.Fprintln(r.stdout, "ok")
	return exitOK
}

func (r *riak) notRunning() int {
	fmt.Fprintln(r.stdout, "Node is not running!")
	return r.notResponding()
}

func (r *riak) restart(ctx context.Context, args []string) int {
	if code := r.stop(ctx, args); code != exitOK {
		return code
	}
	return r.start(ctx, args)
}

func (r *riak) version(context.Context, []string) int {
	fmt.Fprintln(r.stdout, packaging.Version())
	return exitOK
}

func (r *riak) getpid(ctx context.Context, _ []string) int {
	if !r.running(ctx) {
		return r.notRunning()
	}
	pid, err := r.service.pid()
	if err != nil {
		return r.fail(exitFailed, err)
	}
	fmt.Fprintln(r.stdout, pid)
	return exitOK
}

func (r *riak) console(ctx context.Context, _ []string) int {
	if r.running(ctx) {
		fmt.Fprintln(r.stdout, "Node is already running - use 'riak attach' instead")
		return exitFailed
	}
	fmt.Fprintln(r.stdout, "There is no console here: run the node in the foreground by leader-latch serve, as its user")
	return exitFailed
}

func (r *riak) config(context.Context, []string) int {
	fmt.Fprint(r.stdout, "Valid commands for riak config are:\n  riak config effective\n  riak config describe VARIABLE\n")
	return exitFailed
}

func (r *riak) describe(_ context.Context, args []string) int {
	if len(args) > 0 {
		fmt.Fprintf(r.stdout, "%s: see leader-latch.conf(5)\n", args[0])
		return exitFailed
	}
	fmt.Fprint(r.stdout, "riak config describe requires a variable name to query\n  Try `riak config describe setting.name`\n")
	return exitFailed
}
