# What the scripts share that are played inside a machine that systemd has booted.
set -Eeuo pipefail
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
conf=/etc/riak/riak.conf

trap 'echo "$0: line $LINENO failed"; systemctl status leader-latch || true; journalctl --no-pager -u leader-latch -n 50' ERR
fail() { echo "$0: line ${BASH_LINENO[0]}: $*"; false; }
said() { grep -qF -- "$1" /said || { cat /said; fail "nothing said of: $1"; }; }
property() { systemctl show -p "$1" --value leader-latch; }
is() { test "$(property "$1")" = "$2" || fail "$1 is $(property "$1"), not $2"; }
eventually() { # PROPERTY VALUE
  for _ in $(seq 600); do
    if [ "$(property "$1")" = "$2" ]; then return; fi
    sleep 0.1
  done
  is "$1" "$2"
}
join() { # NAME
  leader-latch wait --timeout 60s
  exec 5<>/dev/tcp/127.0.0.1/5323
  echo "JOIN test_group $1" >&5
  read -r -t 30 answer <&5
  test "$answer" = "LEADER $1" || fail "JOIN was answered $answer"
}
hung_up() {
  ends 5
  exec 5>&-
}
ends() { # DESCRIPTOR: the next thing there is the end, within the time
  local answer code=0
  read -r -t 30 answer <&"$1" || code=$?
  test $code = 1 || fail "the member got ${answer:-nothing}"
}
limits() { awk '/^Max open files/ {print $4, $5}' "/proc/$1/limits"; } # PID
