# Played inside a machine that systemd has booted, by test-systemd.sh: the deb.
. /systemd-lib.sh
document=/INSTALLING.md
. /blocks.sh
echo 'APT::Get::Assume-Yes "true"; quiet "2"; Dpkg::Use-Pty "0";' >/etc/apt/apt.conf.d/yes

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
is LimitNOFILE 1048576
hard=$(limits 1) # which is what the machine lets systemd have
hard=${hard#* }
if [ "$hard" -gt 1048576 ]; then hard=1048576; fi
test "$(limits "$(property MainPID)")" = "$hard $hard"
test "$(stat -c %U "/proc/$(property MainPID)")" = riak
systemctl stop leader-latch
hung_up

echo "-- with two other nodes, on a host of their own behind a cable, it is a cluster of three"
echo 'leader_latch.timing = calm' >>$conf # so that a stall of a busy machine is no fault
cp -p $conf /alone.conf
mv /var/lib/riak/leader_latch /var/lib/riak/alone
ip netns add others
ip link add cable type veth peer name cable netns others
ip address add 192.0.2.1/24 dev cable
ip link set cable up
ip -n others address add 192.0.2.2/24 dev cable
ip -n others address add 192.0.2.3/24 dev cable
ip -n others link set cable up
ip -n others link set lo up
sed -i 's/127\.0\.0\.1/192.0.2.1/' $conf
systemctl start leader-latch
cp /usr/sbin/leader-latch /usr/local/sbin/other-node # which no package upgrades
for n in 2 3; do
  install -d -o riak -g riak /srv/node$n /srv/node$n/etc
  sed "s/192\.0\.2\.1/192.0.2.$n/; s|/var/l[io][bg]/riak|/srv/node$n|" $conf >/srv/node$n/etc/riak.conf
  systemd-run --quiet --unit=node$n --property=Type=notify --property=NetworkNamespacePath=/run/netns/others --uid=riak --gid=riak other-node serve --config /srv/node$n/etc/riak.conf
  other-node cluster join riak@192.0.2.1 --config /srv/node$n/etc/riak.conf
done
# whole waits until all three are up and vote.
whole() {
  for _ in $(seq 600); do
    leader-latch cluster status >/cluster
    if [ "$(grep -cE '^riak@192\.0\.2\.[123] +up +yes ' /cluster)" = 3 ] && leader-latch wait; then return; fi
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
  exec {fd}<>"/dev/tcp/192.0.2.$1/5323"
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
gone() { ends "${member[$1]}"; } # NAME
whole
for i in $(seq 20); do # a leader at each of the other nodes, with members everywhere
  join_at $((2 + i % 2)) kept$i kept$i-lead kept$i-lead
  join_at $((3 - i % 2)) kept$i kept$i-next kept$i-lead
done

# joins_at joins groups at another node, one after the other, as long as /joining is
# there, and prints what each was answered and after how many microseconds.
joins_at() { # NODE
  local n begun answer fd
  for ((n = 0; ; n++)); do
    begun=${EPOCHREALTIME/./}
    exec {fd}<>"/dev/tcp/192.0.2.$1/5323"
    echo "JOIN asked$1-$n me" >&"$fd"
    read -r -t 30 answer <&"$fd" || answer=closed
    echo "$((${EPOCHREALTIME/./} - begun)) $answer"
    exec {fd}>&-
    if [ ! -e /joining ]; then return; fi
    sleep 0.02
  done
}
upgrade() { # FOLDER NUMBER, of the block in INSTALLING.md: led has its leader at the node, and kept1 a member
  local before
  before=$(property MainPID)
  join_at 1 kept1 visitor kept1-lead
  join_at 1 led led-lead led-lead
  join_at 2 led led-next led-lead
  join_at 3 led led-last led-lead
  grep ' raft leader ' /cluster
  touch /joining
  joins_at 2 >/joins2 &
  joins_at 3 >/joins3 &
  block Upgrading "$2" | sed "s|_amd64|_$(dpkg --print-architecture)|" >/commands
  (cd "$1" && DEBIAN_FRONTEND=noninteractive bash -ex /commands </dev/null)
  is ActiveState active
  is NRestarts 0
  test "$before" != "$(property MainPID)"
  whole
  rm /joining
  wait
  if grep -v ' LEADER me$' /joins2 /joins3; then
    tail -n 30 /var/log/riak/console.log /srv/node[23]/console.log
    fail "a JOIN at another node was refused"
  fi
  echo "$(cat /joins2 /joins3 | wc -l) JOINs at other nodes meanwhile, the longest of $(($(sort -n /joins2 /joins3 | tail -n 1 | cut -d ' ' -f 1) / 1000)) ms"
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
echo "-- an upgrade, as INSTALLING.md says, restarts it in order: members of other nodes notice nothing"
mkdir /new /old
cp /packages/leader-latch_*.deb /new
ln /previous.deb "/old/leader-latch_previous_$(dpkg --print-architecture).deb"
installed() { dpkg-query -W -f '${Version}' leader-latch; }
was=$(installed)
upgrade /new 1
test "$(installed)" = "$(dpkg-deb -f /leader-latch.deb Version)"
echo "-- and back, where another node is the raft leader"
upgrade /old 2
test "$(installed)" = "$was"
upgrade /new 1

echo "-- the other nodes leave"
for n in 2 3; do
  other-node cluster leave --config /srv/node$n/etc/riak.conf
  systemctl stop node$n
done
gone kept1-lead
test "$(leader-latch cluster status | grep -c '^riak@')" = 1
systemctl stop leader-latch
cp -p /alone.conf $conf
rm -r /var/lib/riak/leader_latch
mv /var/lib/riak/alone /var/lib/riak/leader_latch
systemctl start leader-latch
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
printf '[Service]\nWatchdogSec=2\nLimitNOFILE=15000\n' >/run/systemd/system/leader-latch.service.d/test.conf
systemctl daemon-reload
echo "leader_latch.dead_man_switch = off" >>$conf # which would be quicker
systemctl restart leader-latch
test "$(limits "$(property MainPID)")" = "15000 15000"
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
cp -p /etc/default/leader-latch /good.environment
echo 'LEADER_LATCH_OPTIONS=--no-such-flag' >>/etc/default/leader-latch
if systemctl restart leader-latch; then fail "it starts with a wrong flag"; fi
is ActiveState failed
is ExecMainStatus 2
is NRestarts 0
cp -p /good.environment /etc/default/leader-latch

echo "-- what may pass is tried again until it has passed"
echo "listener.leader_latch.other = 198.51.100.1:5323" >>$conf # no address of this machine
if systemctl restart leader-latch; then fail "it starts without its address"; fi
for _ in $(seq 600); do
  if [ "$(property NRestarts)" -ge 2 ]; then break; fi
  sleep 0.1
done
eventually ExecMainStatus 1
cp -p /good.conf $conf
join a
is ActiveState active
exec 5>&-

echo "-- removed and installed again, it is enabled as before, and not started"
systemctl enable --now leader-latch
join a
dpkg -r leader-latch-riak-admin leader-latch
hung_up
dpkg -i /leader-latch.deb /leader-latch-riak-admin.deb
systemctl is-enabled --quiet leader-latch
is ActiveState inactive
systemctl start leader-latch
join a

echo "-- where policy-rc.d forbids it, it is neither restarted nor removed"
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
before=$(property MainPID)
dpkg -i /leader-latch.deb >/said 2>&1
said "process $before goes on with the version before"
if dpkg -P leader-latch-riak-admin leader-latch >/said 2>&1; then fail "it is purged"; fi
said "leader-latch.service runs, and may not be stopped (policy-rc.d); stop it first"
test "$before" = "$(property MainPID)"
test "$(dpkg-query -W -f '${Status}' leader-latch)" = "purge ok installed"
rm /usr/sbin/policy-rc.d

echo "-- purge stops it and removes its state"
dpkg -P leader-latch
hung_up
test ! -e /data/riak/leader_latch
cmp $conf /good.conf
if systemctl is-enabled leader-latch 2>/dev/null; then fail "it is enabled"; fi

read_as_written() { (cd /packages && DEBIAN_FRONTEND=noninteractive bash -ex /commands </dev/null); }

echo "-- as INSTALLING.md says: beside Riak, then after it"
rm -rf /etc/riak /var/log/riak
dpkg -i /packages/riak_*.deb # a stand-in
block Installed | sed -n '/^apt/s/ # .*//p' | sed "s|dist/||; s|_amd64|_$(dpkg --print-architecture)|" >/commands
read_as_written
block "Beside a running Riak" >/etc/riak/leader-latch.conf
sed -n 's/^  `\(install .*\)`\.$/\1/p' /INSTALLING.md >/commands
block Installed 2 >>/commands
read_as_written
is ActiveState active
join a
test -s /var/log/leader-latch/console.log
test ! -e /var/log/riak/console.log
block "After Riak" >/commands
grep -q '^apt purge riak' /commands
read_as_written
hung_up
is ActiveState active
test "$(riak ping)" = pong
join a
test -e /var/lib/riak/leader_latch/node.json

echo "-- a port below 1024"
mkdir -p /etc/systemd/system/leader-latch.service.d
block Installed 3 >/etc/systemd/system/leader-latch.service.d/port.conf
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
cp -a /etc/riak /srv/riak
sed -i 's/:523$/:5323/' /srv/riak/leader-latch.conf
echo 'LEADER_LATCH_CONFIG=/srv/riak/riak.conf' >>/etc/default/leader-latch
mkdir -p /etc/sysconfig
echo 'LEADER_LATCH_OPTIONS=--timing=quick' >/etc/sysconfig/leader-latch
systemctl restart leader-latch
hung_up
join a
leader-latch cluster status --json | grep -q '"timing": "quick"'
