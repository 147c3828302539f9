#!/usr/bin/env bash
# gawk 5.2.1 (Debian 12): a connection by /inet with PROCINFO[..., "READ_TIMEOUT"].
#
# Seen: when the time ends in the middle of a line, getline returns neither 1, 0 nor -1 but
# the number of bytes that have come, here 15 for "LEADER worker-1"; it sets no record, and
# has thrown these bytes away. From then on it returns 0, the end of the file, though the
# connection is open and the rest of the line and another one come. With
# PROCINFO[..., "RETRY"] as well, it returns -2, and gives the whole line later.
#
# Expected: -1, which the manual has for a read that fails, at any time limit; that the end
# of the file follows without RETRY, it says, too.
#
# For a user of leader election: a client by gawk that wakes up each second
# takes such a moment for a line, as 15 > 0, and then for the end of its connection,
# which is still a member's and may lead. It needs RETRY, and to look for == 1.
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

(cd "$tmp" && apt-get download -qq gawk=1:5.2.1-2 libsigsegv2=2.14-1 libmpfr6 libreadline8 2>apt) ||
  { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)
gawk() { timeout 20 env LC_ALL=C LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/usr/bin/gawk" "$@"; }
gawk --version | sed -n 1p

# A server that says half a line, and the other half and one more line 3 s later.
exec 3< <(exec python3 -c '
import socket, threading, time
def talk(peer):
    peer.sendall(b"LEADER worker-1")
    time.sleep(3)
    try:
        peer.sendall(b"2\nLEADER b\n")
    except OSError:
        pass
    peer.close()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=talk, args=(listener.accept()[0],)).start()
')
pids+=($!)
read -r -t 20 -u 3 port

# shellcheck disable=SC2016 # awk's dollars and quotes
program='BEGIN {
  server = "/inet/tcp/0/127.0.0.1/" port
  PROCINFO[server, "READ_TIMEOUT"] = 1000
  if (retry) PROCINFO[server, "RETRY"] = 1
  for (i = 0; i < 12; i++) {
    line = ""
    got = (server |& getline line)
    if (got == last && got == -2) continue # still waiting
    said = said (said == "" ? "" : ", ") got (line == "" ? "" : " " line)
    last = got
    if (!retry && i == 2 || retry && got == 0) break
  }
  print said
}'
want "READ_TIMEOUT" "$(gawk -v port="$port" "$program")" "15, 0, 0"
want "READ_TIMEOUT and RETRY" "$(gawk -v port="$port" -v retry=1 "$program")" "-2, 1 LEADER worker-12, 1 LEADER b, 0"
exit $changed
