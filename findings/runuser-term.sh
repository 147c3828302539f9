#!/usr/bin/env bash
# runuser of util-linux 2.38.1, chpst of runit 2.1.2 and setpriv of util-linux (Debian 12), each
# in front of a program that takes 5 s to stop after SIGTERM. Needs root, as runuser does.
#
# Seen: `runuser -u USER -- COMMAND` stays as COMMAND's parent. It hands on SIGTERM, and 2 s later,
# unasked, SIGKILL, so that the program never ends its work. SIGHUP and SIGUSR1 it neither
# hands on nor obeys: they are gone. Behind chpst and setpriv, which become the program, it gets
# each of them, and has the time that it takes.
#
# Expected: that a program which changes the user for another one, and runs no shell, is out of
# the way then, or hands on what it is sent and leaves it to the sender when SIGKILL is
# due. The 2 s are in the manual of su, not in that of runuser; the lost signals in none.
#
# For a user of leader election: a supervisor that waits 30 s for a node to hand over its
# groups waits in vain when the node was started by runuser: after 2 s it is killed,
# as if by a fault. A reload by SIGHUP never comes. setpriv --reuid or chpst -u instead.
set -euo pipefail

tmp=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # trap calls it
end() {
  for file in "$tmp"/*.pid; do
    [ ! -e "$file" ] || kill -KILL "$(cat "$file")" || true
  done 2>/dev/null
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
until_so() { # SECONDS COMMAND...
  local left=$(($1 * 20))
  shift
  until "$@"; do
    [ $((left -= 1)) -gt 0 ] || return 1
    sleep 0.05
  done
}
[ "$(id -u)" = 0 ] || { echo "runuser is for root" >&2; exit 1; }

(cd "$tmp" && apt-get download -qq util-linux=2.38.1-5+deb12u3 runit=2.1.2-54 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
"$tmp/root/sbin/runuser" --version

# A program that says which signals it got, and takes 5 s to stop after TERM; it ends after 60 s.
cat >"$tmp/program" <<'EOF'
echo $$ >"$1.pid"
trap 'echo HUP >>"$1"' HUP
trap 'echo USR1 >>"$1"' USR1
trap 'echo TERM >>"$1"; sleep 5; echo stopped in order >>"$1"; exit' TERM
echo ready >>"$1"
n=0
while [ $((n += 1)) -lt 600 ]; do sleep 0.1; done
EOF
round() { # NAME COMMAND...: what the program has got and done
  local out=$tmp/$1
  "${@:2}" sh "$tmp/program" "$out" >/dev/null 2>&1 &
  local pid=$!
  pids+=("$pid")
  until_so 30 grep -qs ready "$out" || { echo "$1 never started" >&2; exit 1; }
  for signal in HUP USR1 TERM; do
    kill -$signal $pid
    until_so 2 grep -q $signal "$out" || true
  done
  { wait $pid || true; } 2>/dev/null
  said=$(paste -sd, "$out")
}
round setpriv "$tmp/root/usr/bin/setpriv" --reuid 0
want "setpriv" "$said" "ready,HUP,USR1,TERM,stopped in order"
round chpst "$tmp/root/usr/bin/chpst" -u root
want "chpst  " "$said" "ready,HUP,USR1,TERM,stopped in order"
round runuser "$tmp/root/sbin/runuser" -u root --
want "runuser" "$said" "ready,TERM"
exit $changed
