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
mode /etc/riak "755 root:root"
for dir in /var/lib/riak /var/log/riak; do mode $dir "755 riak:riak"; done
mode /etc/riak/riak.conf "640 root:riak"
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
  said "removed the state folder /var/lib/riak/leader_latch"
  said "left /etc/riak/riak.conf"
  for gone in /var/lib/riak /var/log/riak /var/lib/leader-latch /etc/default/leader-latch; do test ! -e "$root$gone"; done
else
  test -e "$root/var/lib/riak/leader_latch/node.json" # rpm has no purge
  test -e "$root/var/log/riak/console.log"
fi
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
account

echo "-- over the configuration and the data of a Riak that was here, in folders of the operator's own"
new_root
within groupadd --system riak
within useradd --system --gid riak --home-dir /var/lib/riak --no-create-home --shell /bin/bash --comment "Riak user" riak
within install -d -m 0755 -o riak -g riak /etc/riak /var/lib/riak /var/log/riak
within install -d -m 0700 -o riak -g riak /data/riak /data/riak/ring
{
  cat testdata/riakconf/real/kv211-generated-deb.conf
  echo "our.folder = /data"
  printf 'platform_data_dir = $(our.folder)/riak' # and no line end
} >"$root/etc/riak/riak.conf"
{
  echo "strong_consistency = on"
  printf 'listener.leader_latch.internal = 127.0.0.1:5323'
} >"$root/etc/riak/leader-latch.conf"
within chown riak:riak /etc/riak/riak.conf /etc/riak/leader-latch.conf
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
sed -i 's/"format": [0-9]*/"format": 4/' "$root/data/riak/leader_latch/node.json"
if downgrade "$previous"; then fail "a version that cannot read the data was installed"; fi
said "has data format 4, and this version reads up to 3"
installed
sed -i 's/"format": 4/"format": 3/' "$root/data/riak/leader_latch/node.json"
downgrade "$previous"
upgrade "$current"
echo "-- removed, and such data come; an older version is refused without a program to ask"
remove leader-latch
sed -i 's/"format": [0-9]*/"format": 4/' "$root/data/riak/leader_latch/node.json"
if put "$previous"; then fail "a version that cannot read the data was installed"; fi
said "/data/riak/leader_latch/node.json has data format 4"
test ! -e "$root/usr/sbin/leader-latch"
sed -i 's/"format": 4/"format": 3/' "$root/data/riak/leader_latch/node.json"
put "$current"
purge leader-latch
if [ "$kind" = deb ]; then
  said "removed the state folder /data/riak/leader_latch"
  said "left /var/log/riak"
  test ! -e "$root/data/riak/leader_latch"
fi
test -e "$root/var/log/riak/console.log"
test -d "$root/data/riak/ring"
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"

echo "-- riak.conf as versions before 0.9.0 have put it, unchanged and changed"
new_root
put "$previous"
before_notes() {
  rm -r "$root/var/lib/leader-latch"
  within chown riak:riak /etc/riak /etc/riak/riak.conf
  within chmod 0644 /etc/riak/riak.conf
}
before_notes
upgrade "$current"
mode /etc/riak/riak.conf "640 root:riak"
cmp "$root/etc/riak/riak.conf" packaging/riak.conf
before_notes
sed -i 's/^distributed_cookie = .*/distributed_cookie = 0123456789abcdef/' "$root/etc/riak/riak.conf"
before=$(unchanged)
upgrade "$current"
said "everybody on this machine can read the cookie in /etc/riak/riak.conf; better: chown root:riak /etc/riak/riak.conf && chmod 0640 /etc/riak/riak.conf"
test "$before" = "$(unchanged)" || fail "/etc/riak is not what it was"
sed -n 's/.*; better: //p' "$tmp/out" >"$root/cure"
within sh -e /cure
mode /etc/riak/riak.conf "640 root:riak"
upgrade "$current"
if grep -q cookie "$tmp/out"; then fail "it is said again"; fi

echo "-- the unit reads another file"
mkdir -p "$root/srv/etc"
echo "platform_data_dir = ./data" >"$root/srv/etc/riak.conf"
environment=$(echo "$root"/etc/default/leader-latch "$root"/etc/sysconfig/leader-latch | xargs -n 1 ls 2>/dev/null || true)
echo 'LEADER_LATCH_OPTIONS="--timing=calm --config=/srv/etc/riak.conf"' >>"$environment"
test "$(within leader-latch installed state-folder)" = /srv/data/leader_latch

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

if [ "$kind" = deb ]; then
  echo "-- a purge leaves nothing of it where nobody has changed anything"
  new_root
  all_files() { (cd "$root" && find etc usr var ! -path 'etc/*-' ! -path 'var/lib/dpkg/*' ! -path 'var/cache/*' | sort); }
  before=$(all_files)
  put "$current"
  listener_on
  serve
  join 1 1
  stop
  hung_up
  cp "$root/usr/sbin/leader-latch" "$root/tmp/"
  remove leader-latch
  mv "$root/tmp/leader-latch" "$root/usr/sbin/"
  serve
  if purge leader-latch; then fail "the state of a process that serves is removed"; fi
  said "process $(cat "$root/var/lib/riak/leader_latch/lock") still serves on /var/lib/riak/leader_latch"
  stop
  rm "$root/usr/sbin/leader-latch"
  cp packaging/riak.conf "$root/etc/riak/riak.conf"
  purge leader-latch
  diff <(echo "$before") <(all_files) || fail "the purge has left something"
  account

  echo "-- the package with Riak's names takes no older program"
  new_root
  put "$previous" "${previous/leader-latch_*/$(cd dist/previous && echo leader-latch-riak-admin_*.deb)}"
  if put "$names"; then fail "leader-latch-riak-admin is newer than leader-latch"; fi
  said "leader-latch-riak-admin depends on leader-latch (>= $(dpkg-deb -f "$names" Version))"
  put "$current" "$names"
  put "$previous" "${previous/leader-latch_*/$(cd dist/previous && echo leader-latch-riak-admin_*.deb)}"
fi

echo "-- where systemd runs, it is told"
new_root
mkdir -p "$root/run/systemd/system"
# It keeps the calls that change something. systemd is asked for more by Debian's tools.
printf '#!/bin/sh\ncase $* in *is-*) exit 3 ;; esac\necho "$*" >>/systemctl.log\n' >"$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
put "$previous"
upgrade "$current"
remove leader-latch
if [ "$kind" = deb ]; then
  told="--system daemon-reload
try-restart leader-latch.service
--system daemon-reload
try-restart leader-latch.service
stop leader-latch.service
--system daemon-reload"
else
  told="daemon-reload
try-restart leader-latch.service
daemon-reload
try-restart leader-latch.service
--no-reload disable --now leader-latch.service
daemon-reload"
fi
diff <(echo "$told") "$root/systemctl.log" || fail "systemctl was called otherwise"

if [ "$kind" = deb ]; then
  echo "-- an image builder's policy-rc.d is obeyed"
  rm "$root/systemctl.log"
  printf '#!/bin/sh\necho "$*" >>/policy.log\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  put "$current"
  upgrade "$current"
  purge leader-latch
  diff <(printf 'leader-latch.service %s\n' try-restart try-restart stop) "$root/policy.log" || fail "policy-rc.d was asked otherwise"
  if grep -v '^--system daemon-reload$' "$root/systemctl.log"; then fail "systemctl was called in spite of policy-rc.d"; fi
fi
