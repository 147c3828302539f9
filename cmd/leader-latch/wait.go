package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/pflag"
)

var waitCommand = command{
	name:  "wait",
	short: "wait until a JOIN at the local node would succeed",
	long: `Returns with 0 as soon as a JOIN at the node of this machine would succeed, with
1 when the time is up or when it cannot as the node is configured. The node need
not have been started yet.

With --rolled it also waits until the next node may be stopped: all members of the
cluster have sessions, this one votes if it is to, and all keyed members have come
back whose node was stopped, at whichever node they are then, or were replaced. Run
it on the node that was started last. That is what keeps every keyed leader.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		timeout := timeoutFlag(fs)
		rolled := fs.Bool("rolled", false, "wait until the next node may be stopped")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("wait", "unknown argument %q", args[0])
			}
			conf, code := e.load(config)
			if conf == nil {
				return code
			}
			ctx, cancel := context.WithTimeout(ctx, *timeout)
			defer cancel()
			a, path := newAdmin(conf), "/wait"
			if *rolled {
				path += "/rolled"
			}
			missing := errors.New("the node does not run")
			for {
				err := a.get(ctx, path, withPatience(ctx, url.Values{}), nil)
				var refused *adminError
				switch {
				case err == nil:
					return exitOK
				case errors.As(err, &refused) && refused.status == http.StatusNotFound:
					missing = errors.New("the node runs an older version, which does not know of keyed members; restart it")
				case errors.As(err, &refused):
					if missing = err; refused.status == http.StatusConflict {
						return e.fail(exitFailed, err)
					}
				case ctx.Err() == nil && !errors.Is(err, errNodeDown):
					missing = err
				}
				select {
				case <-time.After(retryAsking):
				case <-ctx.Done():
					return e.fail(exitFailed, fmt.Errorf("not ready after %v: %w", *timeout, missing))
				}
			}
		}
	},
}
