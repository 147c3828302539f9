# Played inside a machine that systemd has booted, by test-systemd.sh.
set -Eeuo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
conf=/etc/riak/riak.conf

trap 'echo "testdata/systemd.sh: line $LINENO failed"; systemctl status leader-latch || true; journalctl --no-pager -u leader-latch -n 50' ERR
fail() { echo "testdata/systemd.sh: line ${BASH_LINENO[0]}: $*"; false; }
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
  if read -r -t 30 answer <&5; then fail "the member got $answer"; fi
  exec 5>&-
}

echo "-- the package starts nothing; systemctl does, and returns when it serves"
dpkg -i /leader-latch.deb
is ActiveState inactive
sed -i 's/^## \(listener.leader_latch.internal\)/\1/' $conf
systemctl start leader-latch
is ActiveState active
join a
status=$(cat "/proc/$(property MainPID)/status")
grep -q '^CapBnd:	0000000000000000$' <<<"$status"
grep -q '^NoNewPrivs:	1$' <<<"$status"
grep -q '^Seccomp:	2$' <<<"$status"
test "$(stat -c %U "/proc/$(property MainPID)")" = riak

echo "-- an upgrade restarts it in order"
before=$(property MainPID)
dpkg -i /leader-latch.deb
hung_up
is ActiveState active
is NRestarts 0
test "$before" != "$(property MainPID)"
join a

echo "-- killed, it starts again"
kill -KILL "$(property MainPID)"
hung_up
eventually NRestarts 1
eventually ActiveState active

echo "-- data and logs in any folder"
install -d -o riak -g riak /data/riak /home/somebody /home/somebody/log
sed -i 's|^platform_data_dir = .*|platform_data_dir = /data/riak|; s|^platform_log_dir = .*|platform_log_dir = /home/somebody/log|' $conf
systemctl restart leader-latch
join a
test -S /data/riak/leader_latch/admin.sock
grep -q started /home/somebody/log/console.log

echo "-- reload opens the logs again"
mv /home/somebody/log/console.log /home/somebody/log/console.log.old
systemctl reload leader-latch
for _ in $(seq 600); do
  if [ -e /home/somebody/log/console.log ]; then break; fi
  sleep 0.1
done
test -e /home/somebody/log/console.log

echo "-- by Riak's names"
dpkg -i /leader-latch-riak-admin.deb
if riak start; then fail "it runs already"; fi
test "$(riak getpid)" = "$(property MainPID)"
riak-admin test
test "$(riak stop)" = ok
hung_up
is ActiveState inactive
is Result success
riak start
is ActiveState active
riak restart
test "$(riak ping)" = pong

echo "-- hung, it is killed and starts again"
mkdir -p /run/systemd/system/leader-latch.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/leader-latch.service.d/test.conf
systemctl daemon-reload
echo "leader_latch.dead_man_switch = off" >>$conf # which would be quicker
systemctl restart leader-latch
join a
before=$(property NRestarts)
kill -STOP "$(property MainPID)"
hung_up
eventually NRestarts $((before + 1))
eventually ActiveState active
journalctl --no-pager -u leader-latch -o cat >/journal
grep -q 'Watchdog timeout (limit 2s)!' /journal
grep -q 'Main process exited, code=killed, status=9/KILL' /journal

echo "-- what no restart cures is not started again"
cp -p $conf /good.conf
echo "listener.leader_latch.other = 127.0.0.1" >>$conf
if systemctl restart leader-latch; then fail "it starts on a bad file"; fi
is ActiveState failed
is ExecMainStatus 3
is NRestarts 0
cp -p /good.conf $conf

echo "-- purge stops it and removes its state"
systemctl enable --now leader-latch
join a
dpkg -P leader-latch-riak-admin leader-latch
hung_up
test ! -e /data/riak/leader_latch
cmp $conf /good.conf
if systemctl is-enabled leader-latch 2>/dev/null; then fail "it is enabled"; fi
