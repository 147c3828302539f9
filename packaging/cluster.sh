#!/bin/sh
# Serves three nodes of one cluster on this machine, for "make cluster". An interrupt, or
# SIGTERM, ends them in order; a second one ends them at once.
#
#   cluster.sh PROGRAM FOLDER NETWORK TIMING   nodes on NETWORK.1 to .3, in FOLDER/node1 to node3
set -eu
program=$1 folder=$2 network=$3 timing=$4

for n in 1 2 3; do
  conf=$folder/node$n/etc/riak.conf
  mkdir -p "$folder/node$n/etc" "$folder/node$n/log"
  test -e "$conf" || cat >"$conf" <<END
# One of three nodes of "make cluster". Relative folders are relative to the parent of
# this file's folder.
nodename = riak@$network.$n

# Only loopback addresses below, so this is no secret.
distributed_cookie = for-this-machine-only

strong_consistency = on
listener.leader_latch.internal = $network.$n:5323
listener.leader_latch.keyed = $network.$n:5326
leader_latch.extensions.keyed = on

# Of loopback addresses alone a single node would elect by itself.
leader_latch.minimum_nodes = 3
leader_latch.join = riak@$network.1, riak@$network.2, riak@$network.3
leader_latch.timing = $timing

platform_data_dir = ./data
platform_log_dir = ./log
END
done

# Each node in a session of its own: an interrupt from the terminal would reach it beside
# the signal that is sent here, and two end a node at once.
nodes=
trap 'kill $nodes 2>/dev/null || true' INT TERM
for n in 1 2 3; do
  setsid "$program" serve --config "$folder/node$n/etc/riak.conf" &
  nodes="$nodes $!"
done
echo "Three nodes take clients at $network.1:5323, $network.2:5323 and $network.3:5323."
echo "Keyed members find them at port 5326."
echo "Their logs are $folder/node*/log/console.log. Ctrl-C ends them."
until wait; do :; done
