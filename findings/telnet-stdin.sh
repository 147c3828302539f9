#!/usr/bin/env bash
# telnet of inetutils 2.4 (Debian 12) with a standard input that is no terminal.
#
# Seen: what was in the pipe or the file before the connection was there is thrown away with
# the end of the input that follows it: telnet says "Connected", sends nothing, and exits
# with 0. The same line is sent if the input stays open for a moment behind it.
#
# Expected: that all of the input is sent, and status 0 means that it was, as with any
# other program that copies its input to a connection.
#
# For a user of leader election: `echo JOIN backup me | telnet HOST PORT` in a script or a
# health check never joins, and looks as if it had connected and left in order.
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
(cd "$tmp" && apt-get download -qq inetutils-telnet=2:2.4-2+deb12u3 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
telnet() { timeout 20 "$tmp/root/usr/bin/inetutils-telnet" 127.0.0.1 "$port"; }

# A server that says what came on each connection.
exec 3< <(exec python3 -c '
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    with listener.accept()[0] as peer:
        print(b"".join(iter(lambda: peer.recv(99), b"")), flush=True)
')
pids+=($!)
read -r -t 20 -u 3 port
heard() { read -r -t 20 -u 3 bytes && echo "$bytes"; }

echo 'JOIN backup me' >"$tmp/file"
code=0
echo 'JOIN backup me' | telnet >"$tmp/out" 2>&1 || code=$?
want "from a pipe       " "$(grep -c Connected "$tmp/out") Connected, status $code, the server got $(heard)" \
  "1 Connected, status 0, the server got b''"
code=0
telnet <"$tmp/file" >"$tmp/out" 2>&1 || code=$?
want "from a file       " "$(grep -c Connected "$tmp/out") Connected, status $code, the server got $(heard)" \
  "1 Connected, status 0, the server got b''"
code=0
{ echo 'JOIN backup me'; sleep 2; } | telnet >"$tmp/out" 2>&1 || code=$?
want "and 2 s more of it" "$(grep -c Connected "$tmp/out") Connected, status $code, the server got $(heard)" \
  "1 Connected, status 0, the server got b'JOIN backup me\\r\\n'"
exit $changed
