package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"

	"github.com/spf13/pflag"

	"leaderlatch/packaging"
)

// commit is stamped in by the Makefile.
var commit string

var versionCommand = command{
	name:  "version",
	short: "print the version of this program",
	long: `Prints the version of this program and, in brackets, the commit that it was built
from: 0.9.0 (67516f8). With -dirty behind the commit, it was built from changed
files. Without brackets, the build did not know its commit. It does not ask the
node that runs: cluster status says which version that is.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		return func(_ context.Context, _ string, args []string) int {
			if len(args) > 0 {
				return e.usageError("version", "unknown argument %q", args[0])
			}
			fmt.Fprintln(e.stdout, versionText())
			return exitOK
		}
	},
}

// versionText is the version with the commit, for people.
func versionText() string {
	if of := cmp.Or(commit, commitByGo()); of != "" {
		return fmt.Sprintf("%s (%s)", packaging.Version(), of)
	}
	return packaging.Version()
}

// commitByGo is the commit that the Go toolchain has noted in a binary built without
// the Makefile, as the Makefile would write it. It is empty where none was noted.
func commitByGo() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	return commitOf(info.Settings)
}

func commitOf(settings []debug.BuildSetting) (short string) {
	dirty := ""
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			short = s.Value[:min(7, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if short == "" {
		return ""
	}
	return short + dirty
}
