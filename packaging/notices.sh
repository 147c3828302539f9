#!/bin/sh
# Prints the licences of all that is linked into the program, for every platform
# that packages are made for: the modules' own files, as they are.
set -eu
cd "$(dirname "$0")/.."

modules() {
  for arch in amd64 arm64; do
    GOOS=linux GOARCH=$arch go list -deps -f \
      '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/leader-latch
  done | LC_ALL=C sort -u
}

rule() { printf '%s\n' "-------------------------------------------------------------------------------"; }

cat <<'END'
leader-latch is linked with the Go standard library and with the Go modules below,
all unchanged. The source of each is public: at the address above its licence, at
the version beside it, and under that name and version at any Go module proxy.
For the modules under the Mozilla Public License, Version 2.0, this is the notice
of its section 3.2 on where their source can be had.
END
echo
rule
echo "The Go standard library, $(go env GOVERSION)"
echo "https://go.dev"
rule
echo
cat "$(go env GOROOT)/LICENSE"
modules | while read -r path version dir; do
  echo
  rule
  echo "$path $version"
  echo "https://$path"
  rule
  found=
  for file in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE*; do
    test -f "$file" || continue
    found=yes
    echo
    cat "$file"
  done
  test -n "$found" || { echo "no licence in $path" >&2; exit 1; }
done
