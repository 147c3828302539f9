#!/usr/bin/env bash
# nc of netcat-openbsd 1.219 (Debian 12), with a standard input that stays open.
#
# Seen: when the server closes by FIN, nc neither ends nor closes its standard output, so
# that a reader behind it waits on; what is typed then is still read and sent. When
# the server resets the connection, it ends, with status 0, as after an orderly end.
#
# Expected: the other way round, if at all: an orderly end reaches the reader as the end
# of the file, as with ncat, nc.traditional and busybox nc, and a reset is an error.
#
# For a user of leader election: a loop behind `{ echo JOIN backup me; sleep infinity; } |
# nc HOST PORT |` believes for ever that it leads when its node has been stopped or
# killed, unless the server resets who stays at a FIN.
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

(cd "$tmp" && apt-get download -qq netcat-openbsd=1.219-1 libbsd0 libmd0 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)

# A server that answers a JOIN, and ends the connection at a further line as the first one
# says; then it says whether the client closes its side within 3 s.
exec 3< <(exec python3 -c '
import socket, struct
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    peer = listener.accept()[0]
    line = peer.recv(99)
    peer.sendall(b"LEADER me\n")
    peer.recv(99)
    if b"reset" in line:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        print("ended", flush=True)
        continue
    peer.shutdown(socket.SHUT_WR)
    peer.settimeout(3)
    try:
        said = "its side closed" if peer.recv(99) == b"" else "bytes"
    except TimeoutError:
        said = "its side open"
    print(said, flush=True)
    peer.settimeout(10)
    try:
        print(peer.recv(99).decode().strip() or "nothing", flush=True)
    except TimeoutError:
        print("nothing", flush=True)
')
pids+=($!)
read -r -t 20 -u 3 port

mkfifo "$tmp/in" "$tmp/out"
start() { # GROUP: nc between two pipes, 4 is what it reads, 5 what it writes
  (exec env LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/bin/nc.openbsd" 127.0.0.1 "$port" <"$tmp/in" >"$tmp/out") &
  client=$!
  pids+=("$client")
  exec 4>"$tmp/in" 5<"$tmp/out"
  echo "JOIN $1 me" >&4
  read -r -t 10 -u 5 line
  echo "$1: $line"
  echo "JOIN $1 me" >&4
}
# shellcheck disable=SC2317 # until_so calls it
ended() { ! kill -0 "$client" 2>/dev/null; }
loop() { # what a reader behind nc sees within a second
  local code=0
  read -r -t 1 -u 5 _ || code=$?
  if [ $code -gt 128 ]; then echo "waits on"; elif [ $code = 0 ]; then echo "reads a line"; else echo "ends"; fi
}

start fin
read -r -t 20 -u 3 side
want "3 s after the server's FIN, nc" "$(if ended; then echo ended; else echo "still there"; fi), $side" "still there, its side open"
want "the loop behind it" "$(loop)" "waits on"
echo "JOIN fin again" >&4
read -r -t 20 -u 3 late
want "what is typed then is sent" "$late" "JOIN fin again"
exec 4>&-
until_so 10 ended || kill -KILL "$client"
exec 5<&-

start reset
until_so 10 ended || true
code=0
wait "$client" || code=$?
want "after the server's reset, nc" "$(if ended; then echo "ended with $code"; else echo "still there"; fi)" "ended with 0"
want "the loop behind it" "$(loop)" "ends"
exit $changed
