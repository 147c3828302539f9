#!/usr/bin/env bash
# setpriv --pdeathsig KILL (util-linux 2.38.1) in front of timeout (coreutils 9.1), of
# busybox timeout (1.35.0) and of flock (util-linux 2.38.1), all of Debian 12.
#
# Seen: when the shell that started them is killed, the program behind coreutils' timeout
# and behind flock runs on, while the one behind busybox timeout ends. The signal is
# for the process that setpriv became, and is not passed on to children. coreutils' timeout
# and flock run the program as a child; being killed by KILL they cannot end it. busybox
# timeout becomes the program, and has a child that looks at the clock. The child of flock
# goes on holding the lock, too.
#
# Expected: two programs of one name that may be exchanged for one another; and that a
# program which has to end with its parent does, whatever is put in front of it.
#
# For a user of leader election: `setpriv --pdeathsig KILL timeout 1h PROGRAM &` lets PROGRAM
# outlive the script which is the member, beside its successor. setpriv has to
# stand last, directly in front of PROGRAM: then it ends when timeout or flock ends, so
# that each of them needs a setpriv of its own.
set -euo pipefail

tmp=$(mktemp -d)
# shellcheck disable=SC2317 # trap calls it
end() {
  for file in "$tmp"/*.pid; do
    [ ! -e "$file" ] || kill -KILL "$(cat "$file")" || true
  done 2>/dev/null
  wait
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

(cd "$tmp" && apt-get download -qq util-linux=2.38.1-5+deb12u3 coreutils=9.1-1 \
  busybox-static=1:1.35.0-4+deb12u1+b1 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
bin=$tmp/root/usr/bin
setpriv=("$bin/setpriv" --pdeathsig KILL)

# The program writes until it is killed, or for 30 s.
cat >"$tmp/program" <<'EOF'
echo $$ >"$1.pid"
n=0
while [ $((n += 1)) -lt 300 ]; do echo acts >>"$1"; sleep 0.1; done
EOF
acts() { # NAME: it has acted since it was asked
  local before=0
  [ ! -e "$tmp/$1" ] || before=$(wc -l <"$tmp/$1")
  sleep 0.5
  [ -e "$tmp/$1" ] && [ "$(wc -l <"$tmp/$1")" -gt "$before" ]
}
killed() { # NAME COMMAND...: what becomes of the program when the shell that started it is killed
  local name=$1 shell
  shift
  # shellcheck disable=SC2016 # for that shell
  bash -c '"$@" >"$0" 2>&1 & wait' /dev/null "$@" sh "$tmp/program" "$tmp/$name" >/dev/null 2>&1 &
  shell=$!
  until_so 20 acts "$name" || { echo "$name: never started"; exit 1; }
  kill -KILL $shell
  { wait $shell || true; } 2>/dev/null
  sleep 1
  if acts "$name"; then echo "runs on"; else echo "has ended"; fi
}
want "setpriv PROGRAM                  " "$(killed none "${setpriv[@]}")" "has ended"
want "setpriv timeout PROGRAM          " "$(killed timeout "${setpriv[@]}" "$bin/timeout" 60)" "runs on"
want "setpriv busybox timeout PROGRAM  " "$(killed busybox "${setpriv[@]}" "$tmp/root/bin/busybox" timeout 60)" "has ended"
want "setpriv flock PROGRAM            " "$(killed flock "${setpriv[@]}" "$bin/flock" "$tmp/lock")" "runs on"
code=0
"$bin/flock" -n "$tmp/lock" true || code=$?
want "flock by another one, meanwhile  " "$code" "1"
want "setpriv timeout setpriv PROGRAM  " \
  "$(killed both "${setpriv[@]}" "$bin/timeout" 60 "${setpriv[@]}")" "has ended"
exit $changed
