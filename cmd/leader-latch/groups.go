package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"leaderlatch/ensemble"
)

var groupsCommand = command{
	name:  "groups",
	args:  "[GROUP]",
	short: "list groups, their leaders and members",
	long: `Lists the groups: the leader first, then the other members in order of
succession, with the node that each is connected to. The token rises with every
change of a group's leader. Clients of this node that wait for a name that a
member has are listed as waiting. With GROUP, only that group; exits with 1 if
there is none.

The role of a keyed member has ",keyed" added; or ",held", while its connection to
this node has ended and it may come back; or ",away", while it has not come back
since its node was stopped or started again. --json says for how long one is held.

A node without a majority lists what it knew last, and says so on stderr; with
--json each group is "stale" then.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 1 {
				return e.usageError("groups", "one group at a time, not %d", len(args))
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			query := url.Values{}
			if len(args) == 1 {
				query.Set("group", args[0])
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			var groups []ensemble.Group
			var confirmed ensemble.Confirmed
			node := newAdmin(conf)
			err := node.get(ctx, "/groups", query, &groups)
			if err == nil {
				err = node.get(ctx, "/groups/confirmed", nil, &confirmed)
			}
			var refused *adminError
			if errors.As(err, &refused) && refused.status == http.StatusNotFound {
				err = nil // the node runs an older version, which cannot say
			}
			if err != nil {
				return e.nodeError(err)
			}
			if hint := staleHint(confirmed); hint != "" {
				defer fmt.Fprintln(e.stderr, hint)
			}
			if len(args) == 1 && len(groups) == 0 {
				return e.fail(exitFailed, fmt.Errorf("there is no group %q", args[0]))
			}
			print := func() error { return printGroups(e.stdout, groups) }
			if *asJSON {
				print = func() error { return e.printJSON(groups) }
			}
			if err := print(); err != nil {
				return e.fail(exitFailed, err)
			}
			return exitOK
		}
	},
}

// staleHint says that what is listed may not be so any more; empty: it is so.
func staleHint(c ensemble.Confirmed) string {
	switch {
	case c.Missing == "":
		return ""
	case c.Last == nil:
		return "no majority has confirmed this since the node's start: it is what its data folder knows; " + c.Missing
	}
	return fmt.Sprintf("no majority confirms this: it is what was known at %s; %s", c.Last.In(time.Local).Format(moment), c.Missing)
}

const moment = "2006-01-02 15:04:05"

func printGroups(w io.Writer, groups []ensemble.Group) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tCLIENT\tROLE\tNODE\tSINCE\tTOKEN")
	for _, g := range groups {
		for i, m := range g.Members {
			role, since, token := "member", m.Since, ""
			if i == 0 {
				role, since, token = "leader", g.Since, fmt.Sprint(g.Token)
			}
			switch {
			case m.Away:
				role += ",away"
			case m.Held > 0:
				role += ",held"
			case m.Keyed:
				role += ",keyed"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, m.Client, role, m.Node, since.In(time.Local).Format(moment), token)
		}
		for _, wt := range g.Waiting {
			fmt.Fprintf(t, "%s\t%s\twaiting\tname held through %s\t\t\n", g.Name, wt.Client, wt.Holder)
		}
	}
	return t.Flush()
}
