package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/state"
)

var explainCommand = command{
	name:  "explain",
	args:  "[GROUP]",
	short: "say how leaders changed last, and why",
	long: `Lists the last changes of leaders, the newest one last: when, who led before
and who leads, the token, the reason in a word, the node where the former leader
was connected, and the node that has seen the reason. -- is nobody, or nothing.
Below that the reasons are said in plain words. Every node says the same.

With GROUP, its last changes, 16 at most, and what to look at after the newest
one. A group that nobody leads any more is known for a while. Exits with 1 if the
group is not known. Without GROUP, the last changes of all groups, of which 1,000
are kept.

The table cuts names in the middle where a line would be longer than 120
characters; --json has them whole. A node without a majority lists what it knew
last, and says so on stderr. Changes are kept from level 3 of the formats on.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, "print JSON: all changes, unless --last is given")
		last := countFlag(20)
		fs.Var(&last, "last", "how many changes at most")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 1 {
				return e.usageError("explain", "one group at a time, not %d", len(args))
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			most := int(last)
			if *asJSON && !fs.Changed("last") {
				most = state.MaxRecent
			}
			return e.explain(ctx, newAdmin(conf), append(args, "")[0], most, *asJSON)
		}
	},
}

// countFlag is how many of something, as a [pflag.Value].
type countFlag int

func (c *countFlag) String() string { return strconv.Itoa(int(*c)) }
func (c *countFlag) Type() string   { return "number" }

// Set takes a number above 0.
func (c *countFlag) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return errors.New("write a number above 0, for example 20")
	}
	*c = countFlag(n)
	return nil
}

// answers is what a command needs of a node that it only asks.
type answers interface {
	get(ctx context.Context, path string, query url.Values, v any) error
}

func (e *env) explain(ctx context.Context, node answers, group string, most int, asJSON bool) int {
	changes, err := askChanges(ctx, node, group)
	var confirmed ensemble.Confirmed
	if err == nil {
		err = node.get(ctx, "/groups/confirmed", nil, &confirmed)
	}
	if err != nil {
		return e.nodeError(err)
	}
	if hint := staleHint(confirmed); hint != "" {
		defer fmt.Fprintln(e.stderr, hint)
	}
	shown := changes[max(0, len(changes)-most):]
	var text string
	switch {
	case group == "":
		text = reasonsIn(shown)
	case len(changes) > 0:
		text = explained(changes[len(changes)-1])
	default:
		var groups []ensemble.Group
		if err := node.get(ctx, "/groups", url.Values{"group": {group}}, &groups); err != nil {
			return e.nodeError(err)
		}
		if len(groups) == 0 || groups[0].Leader == "" {
			return e.fail(exitFailed, fmt.Errorf("no group %q is known: nobody leads it, and none of the last %d changes of leaders was in it", group, state.MaxRecent))
		}
		text = fmt.Sprintf("%s leads since %s. No change of the group's leader is known since changes are kept.", groups[0].Leader, groups[0].Since.In(time.Local).Format(moment))
	}
	print := func() error { return printChanges(e.stdout, shown, text) }
	if asJSON {
		print = func() error { return e.printJSON(shown) }
	}
	if err := print(); err != nil {
		return e.fail(exitFailed, err)
	}
	return exitOK
}

// errOlderExplains is that the node cannot say anything of changes.
var errOlderExplains = errors.New("the node runs an older version, which does not tell changes of leaders; restart it")

// askChanges asks for the changes of a group, or of all.
func askChanges(ctx context.Context, node answers, group string) ([]ensemble.Change, error) {
	query := url.Values{}
	if group != "" {
		query.Set("group", group)
	}
	changes := []ensemble.Change{}
	err := node.get(ctx, "/changes", query, &changes)
	if isRefused(err, http.StatusNotFound) {
		err = errOlderExplains
	}
	return changes, err
}

// isRefused reports whether the node has answered with that status.
func isRefused(err error, status int) bool {
	var refused *adminError
	return errors.As(err, &refused) && refused.status == status
}

// reasonsIn says in plain words what the reasons of these changes mean, a line each, in the
// order in which they come up.
func reasonsIn(changes []ensemble.Change) string {
	var lines []string
	said := map[string]bool{}
	for _, c := range changes {
		if !said[c.Reason] {
			said[c.Reason] = true
			lines = append(lines, fmt.Sprintf("%-*s  %s", reasonWidth, orNone(c.Reason), inGeneral(textOf(c.Reason).because)))
		}
	}
	return strings.Join(lines, "\n")
}

const reasonWidth = len("node_restarted") // of the longest word

// orNone is a cell of a table that may be empty.
func orNone(text string) string { return cmp.Or(text, "--") }

// maxWidth is how wide a table of changes may be.
const maxWidth = 120

// printChanges prints a table of changes, and a text below it.
func printChanges(w io.Writer, changes []ensemble.Change, text string) error {
	rows := [][]string{{"TIME", "GROUP", "FROM", "TO", "TOKEN", "REASON", "NODE", "SEEN BY"}}
	for _, c := range changes {
		rows = append(rows, []string{c.At.In(time.Local).Format(moment), orNone(c.Group), orNone(c.From), orNone(c.To),
			strconv.FormatUint(c.Token, 10), orNone(c.Reason), orNone(c.Node), orNone(c.By)})
	}
	fit(rows, maxWidth, 1, 2, 3, 6, 7)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	if err := t.Flush(); err != nil || text == "" {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", text)
	return err
}

// fit cuts names in these columns of a table so that no row is wider, the longest ones first.
func fit(rows [][]string, width int, names ...int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := names[0]
		for _, i := range names {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		widths[widest]--
	}
	for _, row := range rows[1:] {
		for _, i := range names {
			row[i] = cut(row[i], widths[i])
		}
	}
}

// cut is a name in at most so many bytes, without its middle if it is longer.
func cut(name string, most int) string {
	const gap = ".."
	if len(name) <= most {
		return name
	}
	end := (most - len(gap)) / 2
	return name[:most-len(gap)-end] + gap + name[len(name)-end:]
}
