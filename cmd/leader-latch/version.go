package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// version is stamped in by the Makefile.
var version string

var versionCommand = command{
	name:  "version",
	short: "print the version of this program",
	long:  "Prints the version of this program. It does not ask the node that runs.",
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(_ context.Context, _ string, args []string) int {
			if len(args) > 0 {
				return e.usageError("version", "unknown argument %q", args[0])
			}
			fmt.Fprintf(e.stdout, "leader-latch %s (%s, %s/%s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return exitOK
		}
	},
}

// versionText is the version stamped in, or what the Go toolchain knows of a
// binary that was built without the Makefile.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
