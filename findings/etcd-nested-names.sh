#!/usr/bin/env bash
# etcd and etcdctl 3.4.23 (Debian 12): `etcdctl elect` and `etcdctl lock` by names with a slash.
#
# Seen: the elections "backup" and "backup/db" are not two. While db-1 leads "backup/db",
# the only candidate of "backup" waits, and who asks for the leader of "backup" is told
# db-1, by the key of the other election. When db-1 goes, the candidate leads. The other way
# round nobody waits: with "backup" led, "backup/db" elects at once, and after that "backup"
# keeps its leader. Locks do the same. "backup-2" is an election of its own.
#
# Expected: a name is a name, as the slash has no meaning in etcd's keys; and if names were
# nested, that this goes in both directions.
#
# For a user of leader election: groups that are named like paths elect nobody where
# another group lies below them, and whoever watches the upper one takes a stranger for its
# leader. A tool that takes over names from etcd should know that these were one group; the
# groups of a service that compares names as a whole are two.
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
  local left=$(($1 * 10))
  shift
  until "$@"; do
    [ $((left -= 1)) -gt 0 ] || return 1
    sleep 0.1
  done
}

(cd "$tmp" && apt-get download -qq etcd-server=3.4.23-4+b4 etcd-client=3.4.23-4+b4 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
export ETCDCTL_API=3 PATH="$tmp/root/usr/bin:$PATH"
etcd --version | sed -n 1p

# Two free ports below those that the kernel gives to whoever connects meanwhile.
read -r client peer < <(python3 -c '
import random, socket
free = []
while len(free) < 2:
    try:
        free.append(socket.create_server(("127.0.0.1", random.randrange(10000, 30000))))
    except OSError:
        pass
print(*(s.getsockname()[1] for s in free))')
client=http://127.0.0.1:$client peer=http://127.0.0.1:$peer
etcd --data-dir "$tmp/data" --listen-client-urls "$client" --advertise-client-urls "$client" --listen-peer-urls "$peer" \
  --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$tmp/etcd.log" 2>&1 &
pids+=($!)
export ETCDCTL_ENDPOINTS=$client
# shellcheck disable=SC2317 # until_so calls it
healthy() { etcdctl --command-timeout 1s endpoint health >/dev/null 2>&1; }
until_so 60 healthy || { cat "$tmp/etcd.log" >&2; exit 1; }

# etcdctl prints its key, and elect and --listen a name, when somebody leads or it holds the lock.
start() { # FILE ARGUMENT...
  rm -f "$tmp/$1"
  etcdctl "${@:2}" >"$tmp/$1" 2>&1 &
  pid=$!
  pids+=("$pid")
}
has_it() { if until_so "$2" test -s "$tmp/$1"; then echo yes; else echo no; fi; } # FILE SECONDS
leader() { # of backup, as --listen has it, without the number of the lease
  start listen elect --listen backup
  has_it listen 30 >/dev/null
  kill "$pid"
  sed 's,/[0-9a-f]\{10\,\}$,/...,' "$tmp/listen" | head -2 | paste -sd' '
}

start below elect backup/db db-1
first=$pid
want "elect backup/db          " "$(has_it below 30)" yes
start beside elect backup-2 c-1
want "elect backup-2           " "$(has_it beside 30)" yes
start above elect backup b-1
want "elect backup, 5 s later  " "$(has_it above 5)" no
want "the leader of backup     " "$(leader)" "backup/db/... db-1"
kill -INT "$first"
want "elect backup, without it " "$(has_it above 30)" yes
start again elect backup/db db-2
want "elect backup/db, again   " "$(has_it again 30)" yes
want "the leader of backup     " "$(leader)" "backup/... b-1"

start lock-below lock jobs/db
first=$pid
want "lock jobs/db             " "$(has_it lock-below 30)" yes
start lock-above lock jobs
want "lock jobs, 5 s later     " "$(has_it lock-above 5)" no
kill -INT "$first"
want "lock jobs, without it    " "$(has_it lock-above 30)" yes
start lock-again lock jobs/db
want "lock jobs/db, again      " "$(has_it lock-again 30)" yes
exit $changed
