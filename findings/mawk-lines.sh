#!/usr/bin/env bash
# mawk 1.3.4 (Debian 12, where it is awk) behind a connection.
#
# Seen: mawk does not act upon a line before 4,096 bytes have come or the input has
# ended, whatever fflush() says. The same program in gawk 5.2.1 and in the awk of its
# authors (original-awk) acts at once, and so does mawk -W interactive.
#
# Expected: that a line counts when its line end is there; what is commonly held back in a
# pipe is what a program writes, and fflush() cures it.
#
# For a user of leader election: behind `nc ... | awk '/^LEADER/ { ... }'` a member
# does not hear that it leads until some hundreds of changes of leader later, on Debian
# only: a distribution with another awk shows nothing of it.
set -euo pipefail

tmp=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # trap calls it
end() {
  {
    [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" || true
    wait
  } 2>/dev/null
  rm -rf "$tmp"
}
trap end EXIT
changed=0
want() { # WHAT SEEN BEFORE
  echo "$1: $2"
  [ "$2" = "$3" ] || { echo "  changed: it was $3"; changed=1; }
}
(cd "$tmp" && apt-get download -qq mawk=1.3.4.20200120-3.1 gawk=1:5.2.1-2 original-awk=2022-09-12-1 libsigsegv2 libmpfr6 2>apt) ||
  { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)

mkfifo "$tmp/in" "$tmp/out"
# shellcheck disable=SC2016 # awk's dollars
program='/^LEADER/ { print $2, "leads"; fflush() }'
round() { # AWK OPTION...: what it has said within 2 s, and when its input has ended
  local now='' more=''
  (exec env LC_ALL=C LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/usr/bin/$1" "${@:2}" "$program" <"$tmp/in" >"$tmp/out") &
  pids+=($!)
  exec 4>"$tmp/in" 5<"$tmp/out"
  echo 'LEADER me' >&4
  read -r -t 2 -u 5 now || now=nothing
  exec 4>&-
  read -r -t 10 -u 5 more || more=nothing
  exec 5<&-
  said="$now; at the end $more"
}
round mawk
want "mawk               " "$said" "nothing; at the end me leads"
round mawk -W interactive
want "mawk -W interactive" "$said" "me leads; at the end nothing"
round gawk
want "gawk               " "$said" "me leads; at the end nothing"
round original-awk
want "original-awk       " "$said" "me leads; at the end nothing"
exit $changed
