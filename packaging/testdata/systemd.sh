# Played inside a machine that systemd has booted, by test-systemd.sh.
set -Eeuo pipefail
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
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
dpkg -i /previous.deb
is ActiveState inactive
sed -i 's/^## \(listener.leader_latch.internal\)/\1/' $conf
systemctl start leader-latch
is ActiveState active
join a
status=$(cat "/proc/$(property MainPID)/status")
grep -q '^CapBnd:	0000000000000000$' <<<"$status"
grep -q '^NoNewPrivs:	1$' <<<"$status"
grep -q '^Seccomp:	2$' <<<"$status"
is LimitNOFILE 1048576 # where the machine lets the unit have it
test "$(stat -c %U "/proc/$(property MainPID)")" = riak
systemctl stop leader-latch
hung_up

echo "-- with two other nodes it is a cluster of three"
# calm, so that a stall of a busy machine is no fault.
printf '%s\n' 'leader_latch.minimum_nodes = 3' 'leader_latch.timing = calm' >>$conf
systemctl start leader-latch
cp /usr/sbin/leader-latch /usr/local/sbin/other-node # which no package upgrades
for n in 2 3; do
  install -d -o riak -g riak /srv/node$n /srv/node$n/etc
  sed "s/127\.0\.0\.1/127.0.0.$n/; s|/var/l[io][bg]/riak|/srv/node$n|" $conf >/srv/node$n/etc/riak.conf
  systemd-run --quiet --unit=node$n --property=Type=notify --uid=riak --gid=riak other-node serve --config /srv/node$n/etc/riak.conf
  other-node cluster join riak@127.0.0.1 --config /srv/node$n/etc/riak.conf
done
# whole waits until all three are up and vote.
whole() {
  for _ in $(seq 600); do
    leader-latch cluster status >/cluster
    if [ "$(grep -cE '^riak@127\.0\.0\.[123] +up +yes ' /cluster)" = 3 ] && leader-latch wait; then return; fi
    sleep 0.1
  done
  cat /cluster
  fail "it is not a cluster of three"
}
# The members of the other nodes have descriptors of their own. Each can be asked
# for one answer, behind whatever it has been sent.
declare -A member
join_at() { # NODE GROUP NAME LEADER
  local answer fd
  exec {fd}<>"/dev/tcp/127.0.0.$1/5323"
  member[$3]=$fd
  echo "JOIN $2 $3" >&"$fd"
  told "$3" "LEADER $4"
}
told() { # NAME LINE
  local answer
  read -r -t 30 answer <&"${member[$1]}"
  test "$answer" = "$2" || fail "$1 got $answer, not $2"
}
nothing_more() { # GROUP NAME
  echo "JOIN again again" >&"${member[$2]}"
  told "$2" "ALREADY_JOINED $1 $2"
}
gone() { # NAME
  local answer
  if read -r -t 30 answer <&"${member[$1]}"; then fail "$1 got $answer"; fi
}
whole
for i in $(seq 20); do # a leader at each of the other nodes, with members everywhere
  join_at $((2 + i % 2)) kept$i kept$i-lead kept$i-lead
  join_at $((3 - i % 2)) kept$i kept$i-next kept$i-lead
done

upgrade() { # DEB: led has its leader at the node, and kept1 a member
  local before
  before=$(property MainPID)
  join_at 1 kept1 visitor kept1-lead
  join_at 1 led led-lead led-lead
  join_at 2 led led-next led-lead
  join_at 3 led led-last led-lead
  grep ' raft leader ' /cluster
  dpkg -i "$1"
  is ActiveState active
  is NRestarts 0
  test "$before" != "$(property MainPID)"
  whole
  gone visitor
  gone led-lead
  for name in led-next led-last; do
    told $name "LEADER led-next"
    nothing_more led $name
  done
  for i in $(seq 20); do
    nothing_more kept$i kept$i-lead
    nothing_more kept$i kept$i-next
  done
  join_at 1 led led-lead led-next # it comes back, as the last one
  for name in led-next led-last; do nothing_more led $name; done
  for name in led-last led-next led-lead; do exec {member[$name]}>&-; done
}
echo "-- an upgrade restarts it in order: members of other nodes notice nothing"
upgrade /leader-latch.deb
echo "-- and once more, where another node is the raft leader"
upgrade /leader-latch.deb

echo "-- the other nodes leave"
for n in 2 3; do
  other-node cluster leave --config /srv/node$n/etc/riak.conf
  systemctl stop node$n
done
gone kept1-lead
test "$(leader-latch cluster status | wc -l)" = 2
sed -i '/^leader_latch\.minimum_nodes/d' $conf
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
grep -q '^config is OK$' /journal

echo "-- what no restart cures is not started again"
cp -p $conf /good.conf
echo "listener.leader_latch.other = 127.0.0.1" >>$conf
if systemctl restart leader-latch; then fail "it starts on a bad file"; fi
is ActiveState failed
is ExecMainStatus 3
is NRestarts 0
journalctl --no-pager -u leader-latch -o cat | grep -q "^$conf:[0-9]*: listener.leader_latch.other: " # from chkconfig
cp -p /good.conf $conf

echo "-- purge stops it and removes its state"
systemctl enable --now leader-latch
join a
dpkg -P leader-latch-riak-admin leader-latch
hung_up
test ! -e /data/riak/leader_latch
cmp $conf /good.conf
if systemctl is-enabled leader-latch 2>/dev/null; then fail "it is enabled"; fi

# README prints the first or a later block of code of a section, as it is.
README() { # HEADING [NUMBER]
  awk -v heading="## $1" -v number="${2:-1}" '
    /^## / {here = $0 == heading}
    here && /^    / {if (!block) count++; block = 1; if (count == number) print substr($0, 5)}
    here && !/^    / && !/^$/ {block = 0}' /README.md | grep .
}
read_as_written() { (cd /packages && DEBIAN_FRONTEND=noninteractive bash -ex /commands </dev/null); }
echo 'APT::Get::Assume-Yes "true"; quiet "2"; Dpkg::Use-Pty "0";' >/etc/apt/apt.conf.d/yes

echo "-- as README says: beside Riak, then after it"
rm -rf /etc/riak /var/log/riak
dpkg -i /packages/riak_*.deb # a stand-in
README Installed | sed -n '/^apt/s/ # .*//p' | sed "s|dist/||; s|_amd64|_$(dpkg --print-architecture)|" >/commands
read_as_written
README "Beside a running Riak" >/etc/riak/leader-latch.conf
sed -n 's/^  `\(install .*\)`\.$/\1/p' /README.md >/commands
README Installed 2 >>/commands
read_as_written
is ActiveState active
join a
test -s /var/log/leader-latch/console.log
test ! -e /var/log/riak/console.log
README "After Riak" >/commands
grep -q '^apt purge riak' /commands
read_as_written
hung_up
is ActiveState active
test "$(riak ping)" = pong
join a
test -e /var/lib/riak/leader_latch/node.json

echo "-- a port below 1024"
mkdir -p /etc/systemd/system/leader-latch.service.d
README Installed 3 >/etc/systemd/system/leader-latch.service.d/port.conf
sed -i 's/:5323$/:523/' /etc/riak/leader-latch.conf
systemctl daemon-reload
systemctl restart leader-latch
hung_up
leader-latch wait --timeout 60s
exec 5<>/dev/tcp/127.0.0.1/523
echo "JOIN test_group a" >&5
read -r -t 30 answer <&5
test "$answer" = "LEADER a"

echo "-- the environment files"
cp -r /etc/riak /srv/riak
sed -i 's/:523$/:5323/' /srv/riak/leader-latch.conf
echo 'LEADER_LATCH_CONFIG=/srv/riak/riak.conf' >>/etc/default/leader-latch
mkdir -p /etc/sysconfig
echo 'LEADER_LATCH_OPTIONS=--timing=quick' >/etc/sysconfig/leader-latch
systemctl restart leader-latch
hung_up
join a
leader-latch cluster status --json | grep -q '"timing": "quick"'
