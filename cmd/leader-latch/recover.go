package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"

	"leaderlatch/ensemble"
)

var recoverCommand = command{
	name:  "recover",
	short: "make this node a new cluster, after the majority is lost for good",
	long: `For when a majority of the nodes is lost for good, and only then. It makes the
node of this machine the only member of a new cluster. The node must not run. It
keeps what its own log has; what the others decided without it is lost. If several
nodes are left, take one that was up last. The others begin as new nodes, with an
empty data folder, and join it.

The lost nodes must stay off, or come back with an empty data folder: as they are,
they are strangers to the new cluster. After its next start the node waits for as
long as a lease of theirs could last, at least 7 seconds, before it answers a JOIN.
Fencing tokens go on rising. After an interrupted recover the node does not start
until recover was run again.

recover says what it will do and asks, unless --yes is given.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		yes := fs.Bool("yes", false, "do not ask")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("recover", "unknown argument %q", args[0])
			}
			return e.recover(ctx, config, *yes)
		}
	},
}

func (e *env) recover(ctx context.Context, config string, yes bool) int {
	conf, code := e.load(config)
	if conf == nil {
		return code
	}
	if err := checkDataDir(conf); err != nil {
		return e.fail(exitPermanent, err)
	}
	dir, err := openDir(ctx, conf, func(holder int) {
		fmt.Fprintf(e.stderr, "waiting for process %d, which runs the node, to end\n", holder)
	})
	if errors.Is(err, ensemble.ErrLocked) {
		err = fmt.Errorf("%s runs; stop it first: a node is recovered while it is stopped", conf.NodeName)
	}
	if err != nil {
		return e.fail(exitCode(err), err)
	}
	defer dir.Close()
	r, err := ensemble.PlanRecovery(dir, ensemble.Config{
		Name: conf.NodeName, Address: conf.ClusterAddress().String(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return e.fail(exitCode(err), err)
	}
	fmt.Fprintf(e.stdout, "%s will be the only member of a new cluster, with what its own log has.\n", conf.NodeName)
	if lost := r.Lost(); len(lost) > 0 {
		fmt.Fprintf(e.stdout, "These nodes are given up: %s\n", strings.Join(lost, ", "))
	} else {
		fmt.Fprintln(e.stdout, "A recovery was interrupted; it is done once more. The other nodes are given up already.")
	}
	if !yes {
		fmt.Fprint(e.stdout, "Are they lost for good? Type yes to go on: ")
		if answer, _ := bufio.NewReader(e.stdin).ReadString('\n'); strings.TrimSpace(answer) != "yes" {
			fmt.Fprintln(e.stderr, "leader-latch recover: nothing was done")
			return exitFailed
		}
	}
	if err := r.Do(); err != nil {
		return e.fail(exitCode(err), err)
	}
	fmt.Fprintln(e.stdout, "Done. Start the node; then let new nodes join it.")
	return exitOK
}
