#!/usr/bin/env bash
# github.com/spf13/pflag v1.0.10: a value behind the equals sign of a short flag, and numbers.
#
# Seen: -c=FILE is FILE and --config= is empty, but -c= is a file named "=". So
# `-c="$file"` with an empty variable is neither the default nor an error. And an integer
# with a zero in front is octal, in Int as in the others: --port=0100 is 64, and --port=08
# is refused.
#
# Expected: short and long forms of one flag that differ in nothing but the name; and
# decimal numbers, as the flags of most programs have them.
#
# For a user of leader election: scripts should say -c "$file", apart. A tool that takes ports
# or limits by Int of pflag listens elsewhere than was written; the values of riak.conf,
# which are decimal with zeros in front, cannot be handed to it as they are.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
cat >main.go <<'EOF'
package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

func main() {
	changed := false
	for _, c := range []struct{ arg, before string }{
		{"-c=riak.conf", `file "riak.conf", port 5323`},
		{"--config=riak.conf", `file "riak.conf", port 5323`},
		{"-c=", `file "=", port 5323`},
		{"--config=", `file "", port 5323`},
		{"--port=100", `file "default", port 100`},
		{"--port=0100", `file "default", port 64`},
		{"--port=08", `refused`},
	} {
		flags := pflag.NewFlagSet("tool", pflag.ContinueOnError)
		flags.Usage = func() {}
		file := flags.StringP("config", "c", "default", "")
		port := flags.Int("port", 5323, "")
		got := "refused"
		if err := flags.Parse([]string{c.arg}); err == nil {
			got = fmt.Sprintf("file %q, port %d", *file, *port)
		}
		fmt.Printf("%-18s  %s\n", c.arg, got)
		if got != c.before {
			fmt.Printf("  changed: it was %s\n", c.before)
			changed = true
		}
	}
	if changed {
		os.Exit(1)
	}
}
EOF
export GOFLAGS=-mod=mod GOWORK=off
{
  go mod init flags
  go get github.com/spf13/pflag@v1.0.10
  go build -o flags .
} >log 2>&1 || { cat log >&2; exit 1; }
timeout 30 ./flags
