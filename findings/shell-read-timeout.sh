#!/usr/bin/env bash
# `read -r -t 1 line` when the second ends in the middle of a line: busybox ash 1.35.0,
# ksh93u+m 1.0.4, zsh 5.9, mksh 59c (Debian 12).
#
# Seen: mksh, as bash, returns more than 128 and leaves the part that has come in the
# variable. ash and ksh93 return 1, which is what they return at the end of the file, and
# throw the part away, so that the next read gives the second half of the line as if it
# were one. zsh looks at the clock only until a first byte is there; then it waits for the
# line end for as long as that takes.
#
# Expected: that what four shells call by one name and one option keeps what it has read,
# or at least says that time is up.
#
# For a user of leader election: the client in bash that puts the parts of a line together
# cannot be run by ash or ksh: each silent second is the end of the connection there, and
# a line that came in two packets is a wrong line. In zsh a peer that vanished in the
# middle of a line holds up the client that wanted to look after it each second.
set -euo pipefail

tmp=$(mktemp -d)
trap 'wait; rm -rf "$tmp"' EXIT
changed=0
want() { # WHAT SEEN BEFORE
  echo "$1: $2"
  [ "$2" = "$3" ] || { echo "  changed: it was $3"; changed=1; }
}

(cd "$tmp" && apt-get download -qq busybox-static=1:1.35.0-4+deb12u1+b1 ksh93u+m=1.0.4-3 mksh=59c-28+deb12u1 \
  zsh=5.9-4+b15 zsh-common=5.9-4 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
bin=$tmp/root/bin

# shellcheck disable=SC2016 # for the shells below
program='for i in 1 2 3; do read -r -t 1 line; echo "$? <$line>"; done'
halves() { # half a line, the other half and one more line 2.5 s later, the end of the file
  printf 'LEADER worker-1'
  sleep 2.5
  printf '2\nLEADER b\n'
}
ask() { # SHELL...
  halves | timeout 20 "$@" -c "$program" | paste -sd,
}
want "mksh       " "$(ask "$bin/mksh")" "142 <LEADER worker-1>,142 <>,0 <2>"
want "busybox ash" "$(ask "$bin/busybox" ash)" "1 <>,1 <>,0 <2>"
want "ksh93      " "$(ask "$bin/ksh93")" "1 <>,1 <>,0 <2>"
want "zsh        " "$(ask "$bin/zsh" -f)" "0 <LEADER worker-12>,0 <LEADER b>,1 <>"
eof() { "$@" -c 'read -r -t 1 line; echo $?' </dev/null; }
want "at the end of the file, busybox ash and ksh93" "$(eof "$bin/busybox" ash), $(eof "$bin/ksh93")" "1, 1"
exit $changed
