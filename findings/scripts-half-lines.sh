#!/usr/bin/env bash
# PHP 8.2 fgets, Perl's Net::Telnet 3.05 and LuaSocket 3.1.0 (Debian 12) on a connection
# that brings half a line, waits, and goes on or ends.
#
# Seen: each of them hands out "LEADER worker-1" of "LEADER worker-12" as a line, in another
# case. fgets does when stream_set_timeout's time is up: a string as ever, and the "2" is
# the next line; stream_get_line of the same PHP keeps the half back. getline of Net::Telnet
# keeps it back at the time limit, and gives it when the connection ends. LuaSocket's
# receive("*l") gives nil and "timeout" and the half as a third value, which it has taken
# out of its buffer: who does not look at that gets "2" as the next line, without an error.
#
# Expected: a line is what has a line end; PHP's and Perl's other way to read lines show
# that it can be done.
#
# For a user of leader election: worker-1 is told that it leads, by its own library, while
# worker-12 does. The line end has to be looked for where it is kept (fgets, getline),
# and the third value put in front of the next (LuaSocket: receive takes it as prefix).
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

(cd "$tmp" && apt-get download -qq php8.2-cli=8.2.36-1~deb12u1 libonig5 libsodium23 libargon2-1 libxml2 libpcre2-8-0 \
  lua5.4=5.4.4-3+deb12u1 lua-socket=3.1.0-1+b1 libnet-telnet-perl=3.05-2 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
libs=("$tmp"/root/usr/lib/*-linux-gnu*)
run() { timeout 20 env LD_LIBRARY_PATH="${libs[0]}" "$@"; }

# Two servers that say half a line, and 3 s later the other half and one more line, or
# nothing more.
exec 3< <(exec python3 -c '
import socket, threading, time
def serve(listener, rest):
    while True:
        threading.Thread(target=talk, args=(listener.accept()[0], rest)).start()
def talk(peer, rest):
    peer.sendall(b"LEADER worker-1")
    time.sleep(3)
    try:
        peer.sendall(rest)
    except OSError:
        pass
    peer.close()
for rest in b"2\nLEADER b\n", b"":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(listener, rest)).start()
')
pids+=($!)
read -r -t 20 -u 3 goes_on
read -r -t 20 -u 3 ends

# shellcheck disable=SC2016 # dollars of PHP and Perl
php='$peer = stream_socket_client("tcp://127.0.0.1:" . $argv[1]); stream_set_timeout($peer, 2);
$said = []; for ($i = 0; $i < 3; $i++) $said[] = READ; echo json_encode($said), "\n";'
php() { run "$tmp/root/usr/bin/php8.2" -n -r "${php/READ/$1}" "$goes_on"; }
# shellcheck disable=SC2016
want "PHP fgets, time limit          " "$(php 'fgets($peer)')" '["LEADER worker-1","2\n","LEADER b\n"]'
# shellcheck disable=SC2016
want "PHP stream_get_line, time limit" "$(php 'stream_get_line($peer, 99, "\n")')" \
  '[false,"LEADER worker-12","LEADER b"]'

# shellcheck disable=SC2016
perl='$peer = Net::Telnet->new(Host => "127.0.0.1", Port => $ARGV[0], Timeout => $ARGV[1], Errmode => "return");
print join(",", map { $line = $peer->getline; defined $line ? $line =~ s/\n/\\n/r : $peer->eof ? "end" : "time" } 1..2), "\n"'
telnet() { run perl -I"$tmp/root/usr/share/perl5" -MNet::Telnet -e "$perl" "$@"; }
want "Net::Telnet getline, time limit" "$(telnet "$goes_on" 2)" 'time,LEADER worker-12\n'
want "Net::Telnet getline, the end   " "$(telnet "$ends" 10)" 'LEADER worker-1,end'

cat >"$tmp/read.lua" <<'EOF'
local peer = require("socket").connect("127.0.0.1", arg[1])
peer:settimeout(2)
local said = {}
for i = 1, 3 do
  local line, err = peer:receive("*l") -- the third value is not looked at
  said[i] = line or err
end
print(table.concat(said, ","))
EOF
export LUA_CPATH="${libs[0]}/lua/5.4/?.so" LUA_PATH="$tmp/root/usr/share/lua/5.4/?.lua"
want "LuaSocket receive, time limit  " "$(run "$tmp/root/usr/bin/lua5.4" "$tmp/read.lua" "$goes_on")" \
  'timeout,2,LEADER b'
exit $changed
