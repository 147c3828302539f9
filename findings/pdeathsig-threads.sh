#!/usr/bin/env bash
# setpriv --pdeathsig KILL (util-linux 2.38.1 of Debian 12), started from a thread of a program in
# Python, Java or Go (shown with those at hand).
#
# Seen: the program behind setpriv is killed while the one that has started it runs on: at
# once when the thread ends that has started it. A thread of Python or Java ends with its
# work; one of Go ends with a goroutine that has it for itself (runtime.LockOSThread). Started
# by a thread that goes on, the program runs on.
#
# Expected: that the parent whose death counts is the process, as for getppid; setpriv's manual has
# nothing but "parent". That it is a thread is said by prctl's, in the kernel's manual.
#
# For a user of leader election: who starts the leader's program in the thread that has heard
# LEADER kills it when that thread returns, and goes on to lead without it. The thread that starts
# it has to stay and wait for its end, as it should anyway; in Java an own thread, not one
# of a pool.
set -euo pipefail

tmp=$(mktemp -d)
# shellcheck disable=SC2317 # trap calls it
end() {
  for file in "$tmp"/*.pid; do
    [ ! -e "$file" ] || kill -KILL "$(cat "$file")" || true
  done 2>/dev/null
  rm -rf "$tmp"
}
trap end EXIT
changed=0
want() { # WHAT SEEN BEFORE
  echo "$1: $2"
  [ "$2" = "$3" ] || { echo "  changed: it was $3"; changed=1; }
}

(cd "$tmp" && apt-get download -qq util-linux=2.38.1-5+deb12u3 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
dpkg -x "$tmp"/util-linux_*.deb "$tmp/root"
export SETPRIV=$tmp/root/usr/bin/setpriv

# The program: it says that it runs, and waits for 60 s at most.
cat >"$tmp/program" <<'EOF'
#!/bin/sh
echo $$ >"$1.new"
mv "$1.new" "$1.pid"
exec sleep 60
EOF
chmod +x "$tmp/program"

# Each of these starts the program in a thread, waits until it runs, has the thread stay or end, and
# waits for a line before it ends itself.
cat >"$tmp/start.py" <<'EOF'
import os, subprocess, sys, threading, time

kind, program, name = sys.argv[1:]
stay = threading.Event()
def work():
    subprocess.Popen([os.environ["SETPRIV"], "--pdeathsig", "KILL", program, name])
    while not os.path.exists(name + ".pid"):
        time.sleep(0.05)
    if kind == "stays":
        stay.wait()
thread = threading.Thread(target=work)
thread.start()
sys.stdin.readline()
stay.set()
EOF
cat >"$tmp/Start.java" <<'EOF'
import java.io.File;
import java.util.concurrent.CountDownLatch;

class Start {
    public static void main(String[] args) throws Exception {
        var stay = new CountDownLatch(1);
        new Thread(() -> {
            try {
                new ProcessBuilder(System.getenv("SETPRIV"), "--pdeathsig", "KILL", args[1], args[2]).start();
                while (!new File(args[2] + ".pid").exists()) Thread.sleep(50);
                if (args[0].equals("stays")) stay.await();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }).start();
        System.in.read();
        stay.countDown();
        System.exit(0);
    }
}
EOF
cat >"$tmp/start.go" <<'EOF'
package main

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

func main() {
	go func() {
		runtime.LockOSThread() // without an unlock: the thread ends with the goroutine
		if err := exec.Command(os.Getenv("SETPRIV"), "--pdeathsig", "KILL", os.Args[2], os.Args[3]).Start(); err != nil {
			panic(err)
		}
		for {
			if _, err := os.Stat(os.Args[3] + ".pid"); err == nil && os.Args[1] == "ends" {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	os.Stdin.Read(make([]byte, 1))
}
EOF
(cd "$tmp" && go build -o start-go start.go)
python3 --version
java --version | sed -n 1p
go version

gone() { # PID: it has ended, or is a zombie
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  [[ $stat = *") Z "* ]]
}
round() { # KIND NAME COMMAND...: what becomes of the program, and that its starter is there
  local kind=$1 name=$tmp/$2-$1 left=600
  shift 2
  exec 4> >(exec "$@" "$kind" "$tmp/program" "$name")
  local starter=$!
  until [ -e "$name.pid" ]; do
    [ $((left -= 1)) -gt 0 ] || { echo "$name: never started" >&2; exit 1; }
    sleep 0.1
  done
  left=200
  [ "$kind" = ends ] || left=20
  until gone "$(cat "$name.pid")" || [ $((left -= 1)) = 0 ]; do sleep 0.1; done
  if gone "$(cat "$name.pid")"; then said="was killed"; else said="runs"; fi
  if gone $starter; then said="$said, its starter has ended"; fi
  exec 4>&-
  wait $starter || true
}
for kind in stays ends; do
  before=$([ $kind = stays ] && echo runs || echo "was killed")
  round $kind python python3 "$tmp/start.py"
  want "Python, the thread $kind" "$said" "$before"
  round $kind java java "$tmp/Start.java"
  want "Java, the thread $kind  " "$said" "$before"
  round $kind go "$tmp/start-go"
  want "Go, the thread $kind    " "$said" "$before"
done
exit $changed
