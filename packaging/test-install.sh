#!/bin/bash
# Installs, upgrades and removes the packages of one kind in copies of a root,
# which are in memory.
# test.sh calls it, in namespaces of its own.
#
#   test-install.sh deb|rpm FOLDER   FOLDER/root is the root to copy
set -Eeuo pipefail
kind=$1 tmp=$2 root=$2/copy/root
mkdir -p "$tmp/copy"
ip link set lo up
mount -t proc proc /proc

fail() { echo "test-install.sh: line ${BASH_LINENO[0]}: $*" >&2; exit 1; }
trap 'echo "test-install.sh: line $LINENO failed; the last output:" >&2; cat "$tmp/out" >&2' ERR

# new_root gives an empty machine.
new_root() {
  if mountpoint -q "$tmp/copy"; then umount "$root/proc" "$root" "$tmp/copy"; fi
  mount -t tmpfs copy "$tmp/copy"
  mkdir "$root" "$tmp/copy/upper" "$tmp/copy/work"
  mount -t overlay copy -o "lowerdir=$tmp/root,upperdir=$tmp/copy/upper,workdir=$tmp/copy/work" "$root"
  mount -t proc proc "$root/proc"
  if [ "$kind" = rpm ]; then
    rpm --root "$root" --initdb
    rpm --root "$root" -i "$tmp"/base-*.rpm 2>"$tmp/out"
  fi
}

# The packages are installed without a terminal: whoever asked would get no answer.
run() { setsid "$@" </dev/null >"$tmp/out" 2>&1; }
said() { grep -qF -- "$1" "$tmp/out" || fail "nothing said of: $1"; }
within() { chroot "$root" "$@"; }
if [ "$kind" = deb ]; then
  current=$(echo dist/leader-latch_*_"$(dpkg --print-architecture)".deb)
  previous=$(echo dist/previous/leader-latch_*.deb)
  names=$(echo dist/leader-latch-riak-admin_*.deb)
  put() { cp "$@" "$root/tmp/" && run chroot "$root" dpkg -i "${@/#*\//\/tmp\/}"; }
  get() { cp "$1" "$root/tmp/" && run chroot "$root" apt install "/tmp/${1##*/}"; }
  upgrade() { put "$@"; }
  downgrade() { put "$@"; }
  remove() { run chroot "$root" dpkg -r "$@"; }
  purge() { run chroot "$root" dpkg -P "$@"; }
  contents() { within dpkg -L "$1"; }
else
  current=$(echo dist/leader-latch-0*."$(uname -m)".rpm)
  previous=$(echo dist/previous/leader-latch-0*.rpm)
  names=$(echo dist/leader-latch-riak-admin-*.rpm)
  put() { run rpm --root "$root" -i "$@"; }
  get() { run dnf --assumeyes --installroot="$root" --releasever=1 --disablerepo='*' install "./$1"; }
  upgrade() { run rpm --root "$root" -U --replacepkgs "$@"; }
  downgrade() { run rpm --root "$root" -U --oldpackage "$@"; }
  remove() { run rpm --root "$root" -e "$@"; }
  purge() { remove "$@"; }
  contents() { rpm --root "$root" -ql "$1"; }
fi

# listing prints mode, owner and name of the package's files.
listing() {
  contents "$1" | sort -u | while read -r name; do
    if [ ! -d "$root$name" ] || [ -L "$root$name" ]; then within stat -c '%a %U:%G %N' "$name" | tr -d \'; fi
  done
}
installed() { listing leader-latch | diff "packaging/testdata/$kind.files" - || fail "other files than in packaging/testdata/$kind.files"; }
mode() { test "$(within stat -c '%a %U:%G' "$1")" = "$2" || fail "$1 is $(within stat -c '%a %U:%G' "$1"), not $2"; }
account() {
  test "$(within getent passwd riak | cut -d: -f5-)" = "Riak user:/var/lib/riak:/bin/bash" || fail "user riak: $(within getent passwd riak)"
  test "$(within id -ng riak)" = riak
  test "$(within id -u riak)" -lt 1000
}

# The service, as user riak and with no systemd, as INSTALLING.md says, and one client on
# descriptor 5.
as_written=$(sed -n 's/^  `\(setpriv .* leader-latch serve\)`;$/\1/p' packaging/INSTALLING.md)
test -n "$as_written"
serve() {
  # shellcheck disable=SC2086 # words
  chroot "$root" $as_written >"$tmp/serve" 2>&1 &
  service=$!
  within leader-latch wait --timeout 60s || { cat "$tmp/serve"; fail "does not serve"; }
}
join() { # NAME LEADER
  exec 5<>/dev/tcp/127.0.0.1/5323
  echo "JOIN test_group $1" >&5
  read -r -t 30 answer <&5
  test "$answer" = "LEADER $2" || fail "JOIN was answered $answer"
}
# still checks that the client's connection is there and its membership the same.
still() { # NAME
  echo "JOIN again again" >&5
  read -r -t 30 answer <&5
  test "$answer" = "ALREADY_JOINED test_group $1" || fail "the member got $answer"
}
hung_up() {
  local code=0
  read -r -t 30 answer <&5 || code=$?
  test $code = 1 || fail "the member got ${answer:-nothing}"
  exec 5>&-
}
stop() {
  kill -TERM $service
  wait $service || fail "the service ended with $?"
}
listener_on() { within sed -i 's/^## \(listener.leader_latch.internal\)/\1/' /etc/riak/riak.conf; }
unchanged() { find "$root/etc/riak" -exec stat -c '%a %U:%G %s %Y %n' {} + -type f -exec sha256sum {} +; }

# Stand-ins, made as the packages are: one that owns riak.conf as Riak does, and
# for rpm one that is the system.
for name in riak base; do
  nfpm=(go tool -modfile=packaging/tools.mod nfpm package --config "packaging/testdata/$name.yaml" --packager "$kind" --target "$tmp/")
  if [ "$name" = riak ] || [ "$kind" = rpm ]; then "${nfpm[@]}" >/dev/null; fi
done

echo "-- fresh, serving, upgrade while it serves, remove, purge"
new_root
put "$previous"
said "/etc/riak/riak.conf is new"
installed
account
for dir in /etc/riak /var/lib/riak /var/log/riak; do mode $dir "755 riak:riak"; done
mode /etc/riak/riak.conf "644 riak:riak"
cmp "$root/etc/riak/riak.conf" packaging/riak.conf
within leader-latch chkconfig >"$tmp/out" 2>&1
listener_on
before=$(unchanged)
serve
join 1 1
mode /var/lib/riak/leader_latch "750 riak:riak"
mode /var/lib/riak/leader_latch/node.json "600 riak:riak"
mode /var/lib/riak/leader_latch/admin.sock "660 riak:riak"
mode /var/log/riak/console.log "640 riak:riak"
upgrade "$current"
said "goes on with the version before"
still 1
installed
upgrade "$current" # again, as after a failure
still 1
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
stop
hung_up
serve # the new version, on the old one's data
join 1 1
remove leader-latch
hung_up # the last script of the old version has stopped it
wait $service || fail "the service ended with $?"
test ! -e "$root/usr/sbin/leader-latch"
test ! -e "$root/usr/share/leader-latch"
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
account
test -e "$root/var/lib/riak/leader_latch/node.json"
test -e "$root/var/log/riak/console.log"
put "$current"
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
purge leader-latch
if [ "$kind" = deb ]; then
  said "removed the state folder /var/lib/riak/leader_latch;"
  test ! -e "$root/var/lib/riak/leader_latch"
  test ! -e "$root/etc/default/leader-latch"
else
  test -e "$root/var/lib/riak/leader_latch/node.json" # rpm has no purge
fi
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
mode /var/lib/riak "755 riak:riak"
test -e "$root/var/log/riak/console.log"
account

echo "-- over the configuration and the data of a Riak that was here, in folders of the operator's own"
new_root
within groupadd --system riak
within useradd --system --gid riak --home-dir /var/lib/riak --no-create-home --shell /bin/bash --comment "Riak user" riak
within install -d -m 0755 -o riak -g riak /etc/riak /var/lib/riak /var/log/riak
within install -d -m 0700 -o riak -g riak /data/riak /data/riak/ring
{
  sed 's|^platform_data_dir = .*|platform_data_dir = /data/riak|; s|^strong_consistency = .*|strong_consistency = on|' testdata/riakconf/real/kv211-generated-deb.conf
  echo "strong_consistency = on"
  echo "platform_data_dir = /data/riak  # ours"
  echo "listener.leader_latch.internal = 127.0.0.1:5323"
} >"$root/etc/riak/riak.conf"
within chown riak:riak /etc/riak/riak.conf
within chmod 0640 /etc/riak/riak.conf
before=$(unchanged)
get "$current" # by apt or dnf, as an operator does
installed
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
serve
join 1 1
mode /data/riak/leader_latch "750 riak:riak"
mode /data/riak "700 riak:riak"
stop
hung_up
echo "-- downgrade from data of a newer format"
sed -i 's/"format": [0-9]*/"format": 3/' "$root/data/riak/leader_latch/node.json"
if downgrade "$previous"; then fail "a version that cannot read the data was installed"; fi
said "has data format 3, and this version reads up to 2"
installed
sed -i 's/"format": 3/"format": 2/' "$root/data/riak/leader_latch/node.json"
downgrade "$previous"
upgrade "$current"
purge leader-latch
if [ "$kind" = deb ]; then
  said "removed the state folder /data/riak/leader_latch;"
  test ! -e "$root/data/riak/leader_latch"
fi
test -d "$root/data/riak/ring"
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"

echo "-- beside a package riak that owns riak.conf; then without it"
new_root
put "$tmp"/riak[-_]*."$kind"
before=$(unchanged)
put "$current"
installed
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
if put "$names"; then fail "riak and leader-latch-riak-admin are both installed"; fi
if [ "$kind" = deb ]; then purge leader-latch-riak-admin; fi # dpkg keeps it half installed
purge riak # as Riak's own does, with its user and /etc/riak
test ! -e "$root/etc/riak/riak.conf"
upgrade "$current" # makes what is missing now
account
cmp "$root/etc/riak/riak.conf" packaging/riak.conf
put "$names"
listing leader-latch-riak-admin | diff "packaging/testdata/$kind-riak-admin.files" -
listener_on
within riak start >"$tmp/out" 2>&1
test "$(within riak ping)" = pong
join 1 1
within riak-admin test >"$tmp/out" 2>&1
within riak-admin member-status | grep -q "^valid     100.0%      --      'riak@127.0.0.1'$"
test "$(within stat -c %U "/proc/$(within riak getpid)")" = riak
test "$(within riak stop)" = ok
hung_up
remove leader-latch-riak-admin
test ! -e "$root/usr/sbin/riak"
purge leader-latch

echo "-- where systemd runs, it is told"
new_root
mkdir -p "$root/run/systemd/system"
printf '#!/bin/sh\necho "$*" >>/systemctl.log\n' >"$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
put "$previous"
upgrade "$current"
remove leader-latch
diff - "$root/systemctl.log" <<END || fail "systemctl was called otherwise"
daemon-reload
try-restart leader-latch.service
daemon-reload
try-restart leader-latch.service
--no-reload disable --now leader-latch.service
daemon-reload
END
