#!/bin/bash
# Plays what INSTALLING.md says of containers, by podman under the name of docker, with a
# store of its own. test.sh calls it, in a namespace of mounts of its own.
#
#   test-container.sh FOLDER   FOLDER/root is the system of the image
set -Eeuo pipefail
tmp=$1 document=$PWD/packaging/INSTALLING.md here=$1/container group=leader-latch-test.$$
. packaging/testdata/blocks.sh
fail() { echo "test-container.sh: line ${BASH_LINENO[0]}: $*" >&2; false; }

# Without a network, and with what limits and control groups this machine lets
# containers have.
podman() {
  command podman --root "$here/store" --runroot "$here/run" --tmpdir "$here/tmp" --runtime runc \
    --cgroup-manager cgroupfs --log-level error "$@"
}
docker() {
  case $1 in
    build) podman build --isolation chroot --network host --pull=never "${@:2}" ;;
    run) podman run --network none --cgroups no-conmon --cgroupns host --cgroup-parent "/$group" --ulimit nproc=4096 "${@:2}" ;;
    *) podman "$@" ;;
  esac
}
mkdir "$here"
finish() {
  trap - ERR
  podman rm --all --force --time 0
  podman rmi --all --force
  podman unmount --all
  find /sys/fs/cgroup -depth -type d -path "*/$group*" -delete
} >/dev/null 2>&1
exec 9>&2
trap 'echo "test-container.sh: line $LINENO failed" >&9; cat "$here/out" >&9; docker logs latch >&9 2>&9' ERR
trap finish EXIT
tar -C "$tmp/root" --exclude=./var/cache --exclude=./var/lib/apt -c . | podman import --quiet - debian:stable-slim >"$here/out" 2>&1
cp dist/leader-latch_*_"$(dpkg --print-architecture)".deb "$here"
cd "$here"
{
  sed 's/^## \(listener.leader_latch.internal\)/\1/' "$OLDPWD/packaging/riak.conf"
  echo 'log.console = console'
} >riak.conf

block "Without systemd" | sed "s|_amd64|_$(dpkg --print-architecture)|" >Dockerfile
block "Without systemd" 2 >commands
limit=$(ulimit -Hn)
if [ "$limit" != unlimited ] && [ "$limit" -lt 1048576 ]; then sed -i "s/nofile=1048576/nofile=$limit/" commands; fi
played() { grep -m 1 "^docker $1" commands | tee played >&2; . ./played; } # WHICH

# A member of a group, in the container, which says what it is told.
join() {
  coproc {
    trap - ERR # it ends with the container
    docker exec -i latch bash -c '
      exec 5<>/dev/tcp/127.0.0.1/5323
      echo JOIN test_group 1 >&5
      cat <&5
      echo closed'
  }
  exec 5<&"${COPROC[0]}"
  member "LEADER 1"
}
member() {
  local answer
  read -r -t 30 answer <&5
  test "$answer" = "$1" || fail "the member got $answer, not $1"
}
ended() { # CODE
  test "$(timeout 60 bash -c "$(declare -f podman); here=$here; podman wait latch")" = "$1" || fail "it ended otherwise than with $1"
}

played build >out 2>&1
played run >out 2>&1
docker exec latch leader-latch wait --timeout 60s
test "$(played exec 2>out)" = pong
join
docker stop latch >out 2>&1
member closed
ended 0
docker logs latch 2>&1 | grep -q '\[info\] stopped$'

echo "-- the dead-man's switch"
docker start latch >out 2>&1
docker exec latch leader-latch wait --timeout 60s
join
docker exec latch bash -c 'kill -STOP "$(cat /var/lib/riak/leader_latch/lock)"'
ended 137
docker rm latch >out 2>&1
sed -i 's/ --init / /' commands
played run >out 2>&1
ended 3
docker logs latch 2>&1 | grep -q 'have an init be process 1 (docker run --init)'
docker rm latch >out 2>&1
