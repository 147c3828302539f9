#!/usr/bin/env bash
# socat 1.7.4.4 (Debian 12) between a connection and a program: EXEC and SYSTEM.
#
# Seen: when the peer closes its side, the program's input ends, and half a second later
# socat ends. With EXEC it sends the program SIGTERM then; with SYSTEM it sends nothing,
# and the program runs on, without a connection, for as long as it likes. The exit status
# of socat is 0 both times.
#
# Expected: that the two, which differ by a shell in between, end their program alike.
#
# For a user of leader election: what a script has to tidy up when it has ceased to lead
# has half a second under EXEC (more by -t), and has to bear a SIGTERM in the middle of
# it. Under SYSTEM nothing ends a script that does not look at its input, so that
# a leader may run on beside its successor.
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
until_so() { # SECONDS COMMAND...
  local left=$(($1 * 20))
  shift
  until "$@"; do
    [ $((left -= 1)) -gt 0 ] || return 1
    sleep 0.05
  done
}

(cd "$tmp" && apt-get download -qq socat=1.7.4.4-2 libwrap0 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)

# A server that answers a line and closes its side.
exec 3< <(exec python3 -c '
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    with listener.accept()[0] as peer:
        peer.recv(99)
        peer.sendall(b"LEADER me\n")
')
pids+=($!)
read -r -t 20 -u 3 port

cat >"$tmp/member" <<'EOF'
trap 'echo TERM >>"$1"; exit' TERM
echo "JOIN backup me"
while read -r word leader; do echo "$word $leader" >>"$1"; done
echo "end of input" >>"$1"
while [ ! -e "$1.enough" ] && [ $((n += 1)) -lt 80 ]; do sleep 0.1; done
echo "tidied up" >>"$1"
EOF
for kind in EXEC SYSTEM; do
  code=0
  timeout 20 env LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/usr/bin/socat" \
    "TCP:127.0.0.1:$port" "$kind:sh $tmp/member $tmp/$kind" || code=$?
  until_so 2 grep -q TERM "$tmp/$kind" || true
  : >"$tmp/$kind.enough"
  until_so 2 grep -q tidied "$tmp/$kind" || true
  last=TERM
  [ $kind = EXEC ] || last="tidied up"
  want "$kind: socat ends with $code, the program" "$(paste -sd, "$tmp/$kind")" "LEADER me,end of input,$last"
done
exit $changed
