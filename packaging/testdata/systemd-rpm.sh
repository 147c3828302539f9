# Played inside a machine that systemd has booted, by test-systemd.sh: the rpm.
. /systemd-lib.sh
rpm() { command rpm --force-debian "$@"; } # Debian's asks for that

echo "-- the package starts nothing; systemctl does, and returns when it serves"
rpmdb --initdb
rpm -i /packages/base-*.rpm
rpm -i /packages/previous.rpm
is ActiveState inactive
sed -i 's/^## \(listener.leader_latch.internal\)/\1/' $conf
echo 'LEADER_LATCH_OPTIONS=--timing=calm' >>/etc/sysconfig/leader-latch
systemctl enable --now leader-latch
is ActiveState active
join 1
leader-latch cluster status --json | grep -q '"timing": "calm"'
before=$(property MainPID)

echo "-- an upgrade restarts it in order"
cp -a $conf /before.conf
rpm -U /packages/leader-latch-0*.rpm
hung_up
is ActiveState active
is NRestarts 0
test "$before" != "$(property MainPID)"
is Result success
systemctl is-enabled leader-latch
cmp $conf /before.conf
grep -q '^LEADER_LATCH_OPTIONS=--timing=calm$' /etc/sysconfig/leader-latch
grep -q ' \[info\] session ended$' /var/log/riak/console.log
join 1
rpm -U --replacepkgs /packages/leader-latch-0*.rpm # again, as after a failure
hung_up
is ActiveState active
join 1

echo "-- killed, it starts again"
kill -KILL "$(property MainPID)"
hung_up
eventually NRestarts 1
eventually ActiveState active
join 1

echo "-- removed, it is stopped, and leaves what is the operator's"
rpm -e leader-latch
hung_up
is LoadState not-found
if systemctl is-enabled leader-latch 2>/dev/null; then fail "it is enabled"; fi
cmp $conf /before.conf
test "$(stat -c %U $conf /var/lib/riak/leader_latch/node.json)" = "root
riak"
getent passwd riak >/passwd
