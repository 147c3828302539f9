package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
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
member has are listed as waiting. With GROUP, only that group, and below it since
when its leader leads, why, and who would be next; exits with 1 if there is none.

The role of a keyed member has ",keyed" added; or ",held", while its connection to
this node has ended and it may come back; or ",away", while it has not come back
since its node was stopped or started again. --json says for how long one is held.

With --watch it asks the node again and again, and lists the groups whenever
something has changed, until it is interrupted, or nobody reads it any more. On a
terminal the screen is cleared; elsewhere an empty line and a line with the time
stand between two lists. With --json each list is a line. While the node is down
it goes on, and says so once on stderr.

A node without a majority lists what it knew last, and says so on stderr; with
--json each group is "stale" then.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, "print JSON")
		watch := fs.Bool("watch", false, "list them again whenever something has changed")
		interval := waitFlag(time.Second)
		fs.Var(&interval, "interval", "of --watch: how long to wait between two questions")
		return func(ctx context.Context, config string, args []string) int {
			switch {
			case len(args) > 1:
				return e.usageError("groups", "one group at a time, not %d", len(args))
			case fs.Changed("interval") && !*watch:
				return e.usageError("groups", "--interval is for --watch")
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			list := groupList{node: newAdmin(conf), only: append(args, "")[0], asJSON: *asJSON}
			if *watch {
				return e.watch(ctx, list, time.Duration(interval))
			}
			return e.groups(ctx, list)
		}
	},
}

// groups lists groups once.
func (e *env) groups(ctx context.Context, list groupList) int {
	known, err := list.ask(ctx)
	if err != nil {
		return e.nodeError(err)
	}
	if hint := staleHint(known.confirmed); hint != "" {
		defer fmt.Fprintln(e.stderr, hint)
	}
	if list.only != "" && len(known.groups) == 0 {
		return e.fail(exitFailed, fmt.Errorf("there is no group %q", list.only))
	}
	print := func() error { return known.print(e.stdout) }
	if list.asJSON {
		print = func() error { return e.printJSON(known.groups) }
	}
	if err := print(); err != nil {
		return e.fail(exitFailed, err)
	}
	return exitOK
}

// groupList is a question for groups.
type groupList struct {
	node   answers
	only   string // a group; empty: all
	asJSON bool
}

// knownGroups is what a node knows of groups.
type knownGroups struct {
	groups    []ensemble.Group
	confirmed ensemble.Confirmed
	text      string // below a table of them; empty: none
}

// ask asks the node, which may run an older version.
func (l groupList) ask(ctx context.Context) (known knownGroups, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	query := url.Values{}
	if l.only != "" {
		query.Set("group", l.only)
	}
	if err := l.node.get(ctx, "/groups", query, &known.groups); err != nil {
		return known, err
	}
	if err := l.node.get(ctx, "/groups/confirmed", nil, &known.confirmed); err != nil && !isRefused(err, http.StatusNotFound) {
		return known, err
	}
	if l.only == "" || l.asJSON || len(known.groups) == 0 || known.groups[0].Leader == "" {
		return known, nil
	}
	changes, err := askChanges(ctx, l.node, l.only)
	if isRefused(err, http.StatusConflict) || errors.Is(err, errOlderExplains) {
		err = nil // why is not kept
	}
	known.text = leads(known.groups[0], changes)
	return known, err
}

// leads says since when the leader of a group leads, why, if that is among the changes, and who
// would be next.
func leads(g ensemble.Group, changes []ensemble.Change) string {
	since := fmt.Sprintf("%s leads since %s", g.Leader, g.Since.In(time.Local).Format(moment))
	if i := slices.IndexFunc(changes, func(c ensemble.Change) bool { return c.Token == g.Token && c.To == g.Leader }); i >= 0 {
		since = sinceAndWhy(changes[i])
	}
	next := "nobody"
	if len(g.Members) > 1 {
		next = g.Members[1].Client
	}
	return fmt.Sprintf("%s; %s would be next.", since, next)
}

// print prints a table of the groups, and the text.
func (k knownGroups) print(w io.Writer) error {
	if err := printGroups(w, k.groups); err != nil || k.text == "" {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", k.text)
	return err
}

// printLine prints the groups as JSON in a line.
func (k knownGroups) printLine(w io.Writer) error { return json.NewEncoder(w).Encode(k.groups) }

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
