#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12): `check` at a server whose process never accepts.
#
# Seen: a server that listens and never calls accept stays UP, check after check, with a
# plain `check` and with an empty `option tcp-check` alike. No connection enters the queue
# of the listener, as HAProxy resets it in place of the last step of its opening: no
# process ever sees it, and the queue never fills. A check that sends something
# completes the opening; two of these fill the queue of such a server, and it is DOWN.
#
# Expected: that a check which connects takes a place in the queue, as a client
# does, so that a server that does not accept is found by the checks themselves.
#
# For a user of leader election: a node whose process is stopped or deadlocked is UP for
# HAProxy, and clients are sent to it, as long as its kernel runs. A check that joins a
# group (JOIN checks haproxy, LEADER expected) finds out; one that only connects cannot.
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

(cd "$tmp" && apt-get download -qq haproxy=2.6.12-1+deb12u4 libopentracing-c-wrapper0 libopentracing1 liblua5.3-0 \
  libpcre2-8-0 libpcre2-posix3 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)
haproxy() { exec env LD_LIBRARY_PATH="${libs[0]}" "$tmp/root/usr/sbin/haproxy" "$@"; }
(haproxy -v) | sed -n 1p

cat >"$tmp/servers.py" <<'EOF'
import socket, sys, time

# Three listeners with room for one or two connections that wait to be accepted.
listeners = [socket.create_server(("127.0.0.1", 0), backlog=1) for _ in range(3)]
plain, empty, sends = (l.getsockname()[1] for l in listeners)
with open(sys.argv[1] + "/cfg", "w") as f:
    f.write(f"""
global
  stats socket {sys.argv[1]}/stats
defaults
  mode tcp
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout check 1s
  default-server inter 100ms fall 2
backend plain
  server n1 127.0.0.1:{plain} check
backend empty
  option tcp-check
  server n1 127.0.0.1:{empty} check
backend sends
  option tcp-check
  tcp-check connect
  tcp-check send "JOIN checks haproxy\\n"
  server n1 127.0.0.1:{sends} check
""")
print("%d %d %d" % (plain, empty, sends), flush=True)
time.sleep(300)
EOF
exec 3< <(exec python3 "$tmp/servers.py" "$tmp")
pids+=($!)
read -r -t 20 -u 3 plain empty sends
(haproxy -db -f "$tmp/cfg" >"$tmp/log" 2>&1) &
pids+=($!)

cat >"$tmp/look.py" <<'EOF'
import csv, io, socket, sys, time

def status():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1] + "/stats")
        s.sendall(b"show stat\n")
        text = s.makefile().read()
    return {row["# pxname"]: f'{row["status"]} {row["check_status"].lstrip("* ")}'
            for row in csv.DictReader(io.StringIO(text)) if row["svname"] == "n1"}

def queue(port):
    with open("/proc/net/tcp") as table:
        for line in table:
            _, local, _, state, queues, *_ = line.split()
            if local.endswith(f":{port:04X}") and state == "0A":  # listens
                return int(queues.split(":")[1], 16)

def wait_for(met):
    deadline = time.monotonic() + 60
    while True:
        try:
            if met(now := status()):
                return now
        except OSError:
            now = "HAProxy does not answer"
        if time.monotonic() > deadline:
            print("  changed, or never there:", now)
            sys.exit(1)
        time.sleep(0.1)

wait_for(lambda now: now["sends"].startswith("DOWN"))
ports = dict(zip(("plain", "empty", "sends"), map(int, sys.argv[2:])))
print("a check that sends: DOWN, connections in the queue:", queue(ports["sends"]))
changed = queue(ports["sends"]) == 0
since = time.monotonic()
while time.monotonic() < since + 5:  # some 50 checks more
    now = status()
    time.sleep(0.1)
for name in "plain", "empty":
    print(f"{name} check, 5 s later: {now[name]}, connections in the queue: {queue(ports[name])}")
    changed |= now[name] != "UP L4OK" or queue(ports[name]) != 0
sys.exit(changed)
EOF
timeout 90 python3 "$tmp/look.py" "$tmp" "$plain" "$empty" "$sends"
