#!/bin/bash
# Boots a copy of a root with systemd, in namespaces and a control group of its
# own, and plays testdata/systemd.sh or systemd-rpm.sh in it. test.sh calls it.
#
#   test-systemd.sh deb|rpm FOLDER   FOLDER/root is the root to copy
set -Eeuo pipefail

if [ "$1" = boot ]; then # as the first process in the namespaces
  root=$2
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs tmpfs "$root/run"
  mount --bind /dev "$root/dev"
  # SuccessAction of the unit gives the exit code.
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" \
    /lib/systemd/systemd --unit=test.service --log-level=notice --log-target=journal
fi

kind=$1 tmp=$2 root=$2/booted
trap 'umount "$root"; rmdir "$root"' EXIT
mkdir "$root"
mount -t tmpfs booted "$root"
cp -a "$tmp/root/." "$root"
cp packaging/INSTALLING.md packaging/testdata/systemd-lib.sh packaging/testdata/blocks.sh "$root"
mkdir "$root/packages"
if [ "$kind" = deb ]; then
  cp packaging/testdata/systemd.sh "$root/test.sh"
  cp dist/leader-latch_*_"$(dpkg --print-architecture)".deb "$root/leader-latch.deb"
  cp dist/previous/leader-latch_*.deb "$root/previous.deb"
  cp dist/leader-latch-riak-admin_*.deb "$root/leader-latch-riak-admin.deb"
  cp dist/*_"$(dpkg --print-architecture)".deb dist/*_all.deb "$tmp"/riak_*.deb "$root/packages"
else
  cp packaging/testdata/systemd-rpm.sh "$root/test.sh"
  cp dist/leader-latch-0*."$(uname -m)".rpm "$tmp"/base-*.rpm "$root/packages"
  cp dist/previous/leader-latch-0*.rpm "$root/packages/previous.rpm"
fi
cat >"$root/etc/systemd/system/test.service" <<END
[Unit]
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/bin/bash /test.sh >/test.out 2>&1'
END

group=$(findmnt -t cgroup2 -n -o TARGET | head -n 1)/leader-latch-test.$$
mkdir "$group"
code=0
(
  echo $BASHPID >"$group/cgroup.procs"
  # 600 s are far more than it takes.
  exec timeout -s KILL 600 unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child "$0" boot "$root" </dev/null
) || code=$?
for _ in $(seq 100); do # the control groups are gone a little later than their processes
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.1
done
cat "$root/test.out" || true
exit $code
