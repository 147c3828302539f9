#!/usr/bin/env bash
# Who is left with the connection when a client is killed that has started a program: PHP 8.2,
# LuaSocket 3.1.0, newLISP 10.7.5, zsh 5.9, ksh93u+m 1.0.4, Tcl 8.6.13, gawk 5.2.1 (Debian 12).
#
# Seen: a program that was started in the background, and knows nothing of it, has the
# connection in PHP (exec as well as proc_open), LuaSocket, newLISP and zsh's zsh/net/tcp: the
# server sees no end when the client is killed, until that program has ended, too. In Tcl and
# gawk the end comes with the death of the client. So it does in ksh93, though the two lines
# read as in bash, `exec 3<>/dev/tcp/HOST/PORT` and `PROGRAM &`, and in bash they mean the other.
#
# Expected: that what opens a socket for a script keeps it from what the script starts, as
# Python, Perl and Ruby do; or, for the shells, that descriptor 3 goes to the program, as a shell
# hands on what exec has opened.
#
# For a user of leader election: where a started program holds the connection, a dead leader
# leads on for as long as it runs: a log reader or a daemon that was started once is enough.
# In ksh93 the opposite: the program that acts for the leader, and should hold the
# membership until it has ended, does not, and its successor acts beside it; PROGRAM 3<&3 &
# hands it on.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd "$tmp" && apt-get download -qq php8.2-cli=8.2.36-1~deb12u1 libonig5 libsodium23 libargon2-1 libxml2 libpcre2-8-0 \
  lua5.4=5.4.4-3+deb12u1 lua-socket=3.1.0-1+b1 newlisp=10.7.5-2+b2 zsh=5.9-4+b15 zsh-common=5.9-4 ksh93u+m=1.0.4-3 \
  tcl8.6=8.6.13+dfsg-2 libtcl8.6=8.6.13+dfsg-2 gawk=1:5.2.1-2 libsigsegv2=2.14-1 libmpfr6 libreadline8 2>apt) ||
  { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done

# A program that runs until it is told that it is enough, or for 60 s.
cat >"$tmp/program" <<'EOF'
#!/bin/sh
: >"$0.started"
n=0
while [ ! -e "$0.enough" ] && [ $((n += 1)) -lt 600 ]; do sleep 0.1; done
EOF
chmod +x "$tmp/program"

# Clients. Each connects to the port that it is given, says a line, starts the program that it is
# given in the background, and waits.
cat >"$tmp/exec.php" <<'EOF'
<?php
$peer = fsockopen("127.0.0.1", $argv[1]);
fwrite($peer, "JOIN backup me\n");
exec("$argv[2] >/dev/null 2>&1 &");
sleep(60);
EOF
cat >"$tmp/proc_open.php" <<'EOF'
<?php
$peer = fsockopen("127.0.0.1", $argv[1]);
fwrite($peer, "JOIN backup me\n");
$process = proc_open([$argv[2]], [], $pipes);
sleep(60);
EOF
cat >"$tmp/luasocket.lua" <<'EOF'
local socket = require("socket")
local peer = socket.connect("127.0.0.1", arg[1])
peer:send("JOIN backup me\n")
os.execute(arg[2] .. " &")
socket.sleep(60)
EOF
cat >"$tmp/newlisp.lsp" <<'EOF'
(set 'peer (net-connect "127.0.0.1" (int (main-args 2))))
(net-send peer "JOIN backup me\n")
(process (main-args 3))
(sleep 60000)
EOF
cat >"$tmp/zsh.zsh" <<'EOF'
zmodload zsh/net/tcp zsh/zselect
ztcp 127.0.0.1 $1
print JOIN backup me >&$REPLY
$2 &
zselect -t 6000
EOF
cat >"$tmp/bash.sh" <<'EOF'
exec 3<>/dev/tcp/127.0.0.1/$1
echo JOIN backup me >&3
$2 &
read -r -t 60 _ <&3
EOF
cp "$tmp/bash.sh" "$tmp/ksh93.sh"
# shellcheck disable=SC2016 # the client's dollars
sed 's/\$2 &/$2 3<\&3 \&/' "$tmp/bash.sh" >"$tmp/ksh93-3.sh"
cat >"$tmp/tcl.tcl" <<'EOF'
set peer [socket 127.0.0.1 [lindex $argv 0]]
puts $peer "JOIN backup me"
flush $peer
exec [lindex $argv 1] &
after 60000
EOF
cat >"$tmp/gawk.awk" <<'EOF'
BEGIN {
  peer = "/inet/tcp/0/127.0.0.1/" ARGV[1]
  print "JOIN backup me" |& peer
  fflush(peer)
  system(ARGV[2] " &")
  peer |& getline
}
EOF
cat >"$tmp/kill.py" <<'EOF'
import glob, os, shutil, signal, socket, subprocess, sys, time

tmp = sys.argv[1]
root = tmp + "/root"
lib, = glob.glob(root + "/usr/lib/*-linux-gnu*")
env = dict(os.environ, LD_LIBRARY_PATH=lib, LUA_CPATH=lib + "/lua/5.4/?.so", LUA_PATH=root + "/usr/share/lua/5.4/?.lua",
           TCL_LIBRARY=root + "/usr/share/tcltk/tcl8.6")
zsh = ["bin/zsh", "-fc", f'module_path=({lib}/zsh/5.9); . "$@"', "zsh"]
listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(30)
changed = False

for file, before, command in [
    ("exec.php", "program", ["usr/bin/php8.2", "-n"]),
    ("proc_open.php", "program", ["usr/bin/php8.2", "-n"]),
    ("luasocket.lua", "program", ["usr/bin/lua5.4"]),
    ("newlisp.lsp", "program", ["usr/bin/newlisp"]),
    ("zsh.zsh", "program", zsh),
    ("bash.sh", "program", ["/bin/bash"]),
    ("ksh93.sh", "client", ["bin/ksh93"]),
    ("ksh93-3.sh", "program", ["bin/ksh93"]),
    ("tcl.tcl", "client", ["usr/bin/tclsh8.6"]),
    ("gawk.awk", "client", ["usr/bin/gawk", "-f"]),
]:
    program = shutil.copy(tmp + "/program", f"{tmp}/{file}.program")
    client = subprocess.Popen([os.path.join(root, command[0]), *command[1:], f"{tmp}/{file}",
                               str(listener.getsockname()[1]), program],
                              env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        server, _ = listener.accept()
        server.settimeout(30)
        assert server.recv(99).startswith(b"JOIN backup me")
        deadline = time.monotonic() + 30
        while not os.path.exists(program + ".started"):
            assert time.monotonic() < deadline, file + ": the program was not started"
            time.sleep(0.05)
        client.kill()
        client.wait()
        server.settimeout(2)
        try:
            end, said = server.recv(99), "client"
        except TimeoutError:
            open(program + ".enough", "w").close()
            server.settimeout(30)
            end, said = server.recv(99), "program"
        assert end == b""
        server.close()
    finally:
        try:
            os.killpg(client.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    print(f"{file:14} the connection ends with the {said}")
    if said != before:
        print(f"  changed: it was the {before}")
        changed = True
sys.exit(changed)
EOF
timeout 300 python3 "$tmp/kill.py" "$tmp"
