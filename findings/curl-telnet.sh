#!/usr/bin/env bash
# curl 7.88.1 (Debian 12) with telnet:// and a standard input that stays open.
#
# Seen: once curl has sent what came on its standard input, it waits for more of that and
# looks at nothing else. A line that comes 0.3 s after the JOIN is not shown, and the end
# of the connection is not noticed, though curl has -N, which is said to switch buffering
# off. Both come when something happens on standard input. With `-T .`, whose manual
# speaks of uploads, curl does read both sides: it shows the line at once, and ends when
# the server does. (It then draws its progress meter on stderr, in spite of -s.)
#
# Expected: that telnet:// waits for the socket and for standard input at once, as telnet
# does.
#
# For a user of leader election: behind `{ echo JOIN backup me; sleep infinity; } |`, curl -N
# neither tells who leads nor that its node has gone; `curl -sN -T . telnet://HOST:PORT` does.
set -euo pipefail

version=7.88.1-10+deb12u15
tmp=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # trap calls it
end() {
  exec 4>&- || true
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

(cd "$tmp" && apt-get download -qq curl=$version libcurl4=$version libnghttp2-14 librtmp1 \
  libssh2-1 libpsl5 libldap-2.5-0 libsasl2-2 libbrotli1 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)
curl() { exec env LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/usr/bin/curl" "$@"; }
(curl --version) | sed -n 1p

# A server that answers a line 0.3 s later, and closes 1 s after that.
exec 3< <(exec python3 -c '
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    peer = listener.accept()[0]
    if peer.makefile().readline():
        time.sleep(0.3)
        peer.sendall(b"LEADER me\n")
        time.sleep(1)
    peer.shutdown(socket.SHUT_WR)
    print("closed", flush=True)
    while peer.recv(100):
        pass
    peer.close()
')
pids+=($!)
read -r -t 20 -u 3 port

mkfifo "$tmp/in"
round() { # OPTION...: JOIN, and wait for the server's FIN and 2 s more
  (curl "$@" "telnet://127.0.0.1:$port" <"$tmp/in" >"$tmp/out" 2>/dev/null) &
  client=$!
  pids+=("$client")
  exec 4>"$tmp/in"
  echo "JOIN backup me" >&4
  read -r -t 20 -u 3 _
}
# shellcheck disable=SC2317 # until_so calls it
ended() { ! kill -0 "$client" 2>/dev/null; }
state() { if until_so "$1" ended; then echo ended; else echo "still there"; fi; }

round -sN
now=$(state 2)
want "curl -sN, 2 s after the server's FIN" "$now, has shown '$(cat "$tmp/out")'" "still there, has shown ''"
exec 4>&-
now=$(state 10)
want "curl -sN, after the end of its stdin" "$now, has shown '$(cat "$tmp/out")'" "ended, has shown 'LEADER me'"

round -sN -T .
now=$(state 10)
want "curl -sN -T ., at the server's FIN" "$now, has shown '$(cat "$tmp/out")'" "ended, has shown 'LEADER me'"
exit $changed
