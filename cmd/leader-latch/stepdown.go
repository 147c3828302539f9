package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/pflag"
)

var stepDownCommand = command{
	name:  "step-down",
	args:  "GROUP",
	short: "have the leader of a group let the next member lead",
	long: `Has the leader of GROUP step down, wherever it is connected, and returns when the
next member leads, with its name and token. The former leader stays in the group, or
comes back to it, as the last in line. Where nobody would follow nothing is done.

The connection of a leader without a hold is closed: its client takes that for the loss
of its leadership, and joins again. A keyed leader with a hold keeps its connection. It
is promised nothing from then on, and the next one leads when its last promise is over:
after its hold, or after 2.4 s if that is longer (1 with leader_latch.timing = quick, 7
with calm).

With --token the leader steps down only if it leads with that token, as groups lists it:
so a leader that has just changed does not step down by mistake.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		var token tokenFlag
		fs.Var(&token, "token", "only if the leader has this token")
		timeout := timeoutFlag(fs)
		return func(ctx context.Context, config string, args []string) int {
			switch {
			case len(args) == 0:
				return e.usageError("step-down", "the group is missing")
			case len(args) > 1:
				return e.usageError("step-down", "one group at a time, not %d", len(args))
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			query := url.Values{"group": {args[0]}}
			if token != 0 {
				query.Set("token", token.String())
			}
			ctx, cancel := context.WithTimeout(ctx, *timeout)
			defer cancel()
			var next stepDownAnswer
			if err := newAdmin(conf).post(ctx, "/groups/step-down", withPatience(ctx, query), &next); err != nil {
				if refused, ok := errors.AsType[*adminError](err); ok && refused.status == http.StatusNotFound {
					err = errors.New("the node runs an older version, which has no step-down; restart it")
				}
				return e.nodeError(err)
			}
			fmt.Fprintf(e.stdout, "%s leads %s, with the token %d\n", next.Leader, args[0], next.Token)
			return exitOK
		}
	},
}

// stepDownAnswer is who leads after a step-down.
type stepDownAnswer struct {
	Leader string `json:"leader"`
	Token  uint64 `json:"token"`
}

// tokenFlag is the token of a leader, as a [pflag.Value]; 0: whatever it is.
type tokenFlag uint64

func (t *tokenFlag) String() string { return strconv.FormatUint(uint64(*t), 10) }
func (t *tokenFlag) Type() string   { return "token" }

// Set takes a number above 0, as all tokens are.
func (t *tokenFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return errors.New("write the token as groups lists it, a number")
	}
	*t = tokenFlag(n)
	return nil
}
