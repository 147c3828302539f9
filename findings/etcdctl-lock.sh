#!/usr/bin/env bash
# etcd and etcdctl 3.4.23 (Debian 12): `etcdctl lock NAME -- COMMAND` whose lease runs out.
#
# Seen: when etcdctl is held up for longer than its lease (--ttl 2), another one gets the
# lock and starts its command; the first command runs on beside it. When the first
# etcdctl runs again, it does not end its command either, but waits for it to end by
# itself. It then exits with 0, as if it had had the lock all the time. Without a command,
# it does end by itself when its lease is gone, with status 1.
#
# Expected: `lock NAME COMMAND` means that COMMAND runs while the lock is held; so that it
# is ended when the lock is lost, or etcdctl says at least, by its status, that it was.
#
# For a user of leader election: two leaders act at once, for as long as the first one
# likes, after a pause or a broken link of 2 s. The command has to look after itself:
# by a fencing token, or by a parent that ends it when the election is lost.
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
    [ $((left -= 1)) -gt 0 ] || { echo "waited in vain: $*" >&2; exit 1; }
    sleep 0.1
  done
}

(cd "$tmp" && apt-get download -qq etcd-server=3.4.23-4+b4 etcd-client=3.4.23-4+b4 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
export ETCDCTL_API=3 PATH="$tmp/root/usr/bin:$PATH"
etcd --version | sed -n 1p

read -r client peer < <(python3 -c '
import socket
a, b = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
print(a.getsockname()[1], b.getsockname()[1])')
client=http://127.0.0.1:$client peer=http://127.0.0.1:$peer
etcd --data-dir "$tmp/data" --listen-client-urls "$client" --advertise-client-urls "$client" --listen-peer-urls "$peer" \
  --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$tmp/etcd.log" 2>&1 &
pids+=($!)
export ETCDCTL_ENDPOINTS=$client
# shellcheck disable=SC2317 # until_so calls it
healthy() { etcdctl endpoint health >/dev/null 2>&1; }
until_so 30 healthy

# The command writes as long as it acts, until it is told that it is enough, for 60 s at most.
cat >"$tmp/act" <<'EOF'
n=0
while [ ! -e "$1.enough" ] && [ $((n += 1)) -lt 600 ]; do echo acts >>"$1"; sleep 0.1; done
EOF
lines() { if [ -e "$tmp/$1" ]; then wc -l <"$tmp/$1"; else echo 0; fi; }
acts() { # NAME: it has acted since it was asked
  local before
  before=$(lines "$1")
  sleep 0.5
  [ "$(lines "$1")" -gt "$before" ]
}
who() { for name in first second; do if acts $name; then echo -n "$name acts "; fi; done; }

etcdctl lock --ttl 2 backup -- sh "$tmp/act" "$tmp/first" &
first=$!
pids+=("$first")
until_so 20 acts first
etcdctl lock --ttl 2 backup -- sh "$tmp/act" "$tmp/second" &
second=$!
pids+=("$second")
want "the first has the lock             " "$(who)" "first acts "
kill -STOP $first
until_so 30 acts second
want "its etcdctl was held up            " "$(who)" "first acts second acts "
kill -CONT $first
sleep 5
want "its etcdctl runs again, for 5 s    " "$(who)" "first acts second acts "
lease=$(etcdctl lease list | grep -c '^found 1 ' || true)
want "leases that are left               " "$lease" "1"
: >"$tmp/first.enough"
: >"$tmp/second.enough"
code=0
wait $first || code=$?
want "the first command ended by itself, etcdctl's status" "$code" "0"
wait $second || true

etcdctl lock --ttl 2 other >"$tmp/bare" 2>"$tmp/bare.err" &
bare=$!
pids+=("$bare")
until_so 20 grep -q other "$tmp/bare"
kill -STOP $bare
# shellcheck disable=SC2317 # until_so calls it
no_lease() { ! etcdctl lease list | grep -q '^[0-9a-f]\{16\}'; }
until_so 30 no_lease
kill -CONT $bare
# shellcheck disable=SC2317 # until_so calls it
bare_ended() { ! kill -0 "$bare" 2>/dev/null; }
until_so 30 bare_ended
code=0
wait $bare || code=$?
want "without a command, held up and going on, etcdctl's status" "$code" "1"
exit $changed
