#!/usr/bin/env bash
# CPython 3.11.2 (Debian 12): a socket with settimeout, and makefile on top of it.
#
# Seen: after a first time limit, every further read of the file raises
# OSError: cannot read from timed out object. The socket is as good as before: a line that
# has come meanwhile is still read from it by recv. The second exception is no
# TimeoutError, so that a loop that goes on at TimeoutError ends at its second round.
#
# Expected: that each read has the time that settimeout gives it, as with recv of the
# same socket, which goes on after any number of limits.
#
# For a user of leader election: a client that wakes up each second, by settimeout and
# readline, ends after 2 s of silence, and a member that leads is silent for days.
# Either it waits by select before it reads by recv, or it keeps its own buffer.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
version=3.11.2-6+deb12u9
(cd "$tmp" && apt-get download -qq python3.11-minimal=$version libpython3.11-minimal=$version libpython3.11-stdlib=$version \
  libexpat1 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu* "$tmp"/root/lib/*-linux-gnu*)

cat >"$tmp/makefile.py" <<'EOF'
import socket, sys

changed = False
def want(what, seen, before):
    global changed
    print(f"{what}: {seen}")
    if seen != before:
        print(f"  changed: it was {before}")
        changed = True

def outcome(read):
    try:
        return repr(read())
    except OSError as e:
        return f"{type(e).__name__}: {e}"

print(sys.version.split()[0])
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.settimeout(0.5)
lines = client.makefile("r", newline="\n")
want("recv, nothing there      ", outcome(lambda: client.recv(99)), "TimeoutError: timed out")
want("recv, nothing there again", outcome(lambda: client.recv(99)), "TimeoutError: timed out")
want("readline, nothing there  ", outcome(lines.readline), "TimeoutError: timed out")
server.sendall(b"LEADER me\n")
client.settimeout(20)
want("readline, a line is there", outcome(lines.readline), "OSError: cannot read from timed out object")
want("recv, the same line      ", outcome(lambda: client.recv(99)), "b'LEADER me\\n'")
sys.exit(changed)
EOF
env -i PYTHONHOME="$tmp/root/usr" LD_LIBRARY_PATH="${libs[0]}" timeout 20 "$tmp/root/usr/bin/python3.11" -S "$tmp/makefile.py"
