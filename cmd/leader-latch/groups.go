package main

import (
	"context"
	"fmt"
	"io"
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
there is none.`,
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
			if err := newAdmin(conf).get(ctx, "/groups", query, &groups); err != nil {
				return e.nodeError(err)
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

func printGroups(w io.Writer, groups []ensemble.Group) error {
	const day = "2006-01-02 15:04:05"
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tCLIENT\tROLE\tNODE\tSINCE\tTOKEN")
	for _, g := range groups {
		for i, m := range g.Members {
			role, since, token := "member", m.Since, ""
			if i == 0 {
				role, since, token = "leader", g.Since, fmt.Sprint(g.Token)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, m.Client, role, m.Node, since.In(time.Local).Format(day), token)
		}
		for _, wt := range g.Waiting {
			fmt.Fprintf(t, "%s\t%s\twaiting\tname held through %s\t\t\n", g.Name, wt.Client, wt.Holder)
		}
	}
	return t.Flush()
}
