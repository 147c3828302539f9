#!/bin/bash
# Tests the packages: checks them by the tools of Debian and of rpm, and installs,
# upgrades and removes them in roots of their own, never on this machine. Needs
# root on a Debian; installs the tools by apt-get. What it makes is in dist/ and in
# a temporary folder that goes at the end.
#
#   DEBIAN_MIRROR  where debootstrap takes packages from, if not from where apt does
set -Eeuo pipefail
cd "$(dirname "$0")/.."

none() { if "$@"; then return 1; fi; } # "!" alone does not end the script
fail() { echo "test.sh: $*" >&2; return 1; }
step() { printf '== %s (%ss)\n' "$*" "$SECONDS"; }

step tools
packages=
while read -r tool package; do
  command -v "$tool" >/dev/null || packages="$packages $package"
done <<END
lintian lintian
rpm rpm
rpmlint rpmlint
dnf dnf
debootstrap debootstrap
systemd-analyze systemd
ip iproute2
unshare util-linux
zsh zsh
fish fish
qemu-aarch64-static qemu-user-static
podman podman
runc runc
catatonit catatonit
END
if [ -n "$packages" ]; then
  apt-get update -qq
  # shellcheck disable=SC2086 # one word for each package
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $packages >/dev/null
fi

tmp=$(mktemp -d)
debootstrap=
trap 'test -z "$debootstrap" || wait $debootstrap; rm -rf --one-file-system "$tmp"' EXIT
arch=$(dpkg --print-architecture)

step "a root of Debian, meanwhile"
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror() {
  apt-get indextargets --format '$(LABEL) $(CODENAME) $(REPO_URI)' |
    awk -v codename="$codename" '$1 == "Debian" && $2 == codename {print $3; exit}'
}
mirror=${DEBIAN_MIRROR:-$(mirror)}
if [ -z "$mirror" ]; then # apt knows it when it has been there
  apt-get update -qq
  mirror=$(mirror)
fi
debootstrap --variant=minbase --include=systemd,rpm,iproute2 "$codename" "$tmp/root" "$mirror" >"$tmp/debootstrap.log" 2>&1 &
debootstrap=$!

step "packages of the version before"
PACKAGE_VERSION=0.9.0~0 ARCHS=$arch packaging/build.sh >/dev/null
rm -rf dist/previous
mkdir dist/previous
mv dist/*.deb dist/*.rpm dist/previous/

step packages
packaging/build.sh

step "the same commit gives the same bytes, in another, untidy folder without git under another umask"
mkdir "$tmp/copy"
tar -c --exclude=./dist --exclude=./bin --exclude=./run --exclude=./.git . | (umask 077 && tar -x --no-same-permissions -C "$tmp/copy")
(
  PACKAGE_VERSION=$(packaging/version.sh package) COMMIT=$(packaging/version.sh commit) SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export PACKAGE_VERSION COMMIT SOURCE_DATE_EPOCH
  umask 077 && touch "$tmp/copy/leader-latch" && "$tmp/copy/packaging/build.sh" >/dev/null
)
for file in dist/*.deb dist/*.rpm; do cmp "$file" "$tmp/copy/$file"; done
rm -rf "$tmp/copy"

step "versions: program, packages, man pages and changelog"
version=$(cat packaging/VERSION)
said=$(dist/stage/"$arch"/leader-latch version)
test "$said" = "$version ($(packaging/version.sh commit))" || fail "the program says $said"
for file in dist/*.deb dist/*.rpm; do
  case $file in
    *.deb) found=$(dpkg-deb -f "$file" Version) ;;
    *.rpm) found=$(rpm -qp --qf '%{VERSION}-%{RELEASE}' "$file" 2>/dev/null) ;;
  esac
  test "$found" = "$(packaging/version.sh package)-1" || fail "$file has version $found"
done
zcat dist/stage/doc/man8/leader-latch.8.gz | grep -q "^\.TH LEADER.*\"leader\\\\-latch ${version//./\\.}\"\$" || fail "leader-latch(8) has another version"
dpkg-deb --fsys-tarfile dist/leader-latch_*_"$arch".deb | tar -xO ./usr/share/doc/leader-latch/changelog.Debian.gz | zcat >"$tmp/changelog"
grep -qxF "leader-latch ($(packaging/version.sh package)-1) unstable; urgency=medium" <(head -n 1 "$tmp/changelog") || fail "the changelog begins with $(head -n 1 "$tmp/changelog")"
dpkg-parsechangelog --all -l "$tmp/changelog" >/dev/null
mkdir "$tmp/release"
packaging/test-version.sh "$tmp/release"

step "links between the documents, which lie in one folder"
grep -o ']([^)#]*' dist/stage/doc/text/*.md | sed 's/.*](//' | sort -u | while read -r link; do
  case $link in
    '' | *://*) ;;
    *) test -e "dist/stage/doc/text/$link" || fail "a document links to $link" ;;
  esac
done

step "the program for arm64, by an emulator"
none cmp -s dist/stage/amd64/leader-latch dist/stage/arm64/leader-latch
qemu-aarch64-static dist/stage/arm64/leader-latch version
qemu-aarch64-static dist/stage/arm64/leader-latch chkconfig --config packaging/riak.conf 2>/dev/null

step "licences of all that is linked"
# By what the programs themselves say, each with a text of its own.
for program in dist/stage/*/leader-latch; do
  modules=$(go version -m "$program" | awk '$1 == "dep" {print $2, $3}')
  grep -q '^github.com/hashicorp/raft v' <<<"$modules"
  while read -r module; do
    awk -v module="$module" '
      $0 == module {here = 1; next}
      here && /^-+$/ && ++rules == 2 {exit}
      here && rules == 1 && /[Cc]opyright|^Mozilla Public License/ {found = 1; exit}
      END {exit !found}' dist/stage/doc/third-party-notices || fail "no licence of $module"
  done <<<"$modules"
  echo "$(wc -l <<<"$modules") modules in $program"
done

step lintian
lintian --allow-root --fail-on error,warning dist/*.deb >"$tmp/lintian" 2>&1 || { cat "$tmp/lintian"; exit 1; }
none grep . "$tmp/lintian" # nor what is no warning

step rpmlint
# It ends with an error where it has filtered one.
rpmlint -c packaging/rpmlint.toml dist/*.rpm >"$tmp/rpmlint" 2>&1 || true
none grep -E ': [EW]: ' "$tmp/rpmlint"
grep -q ' 3 packages and 0 specfiles checked; ' "$tmp/rpmlint"

step "conflicts with Riak"
test "$(dpkg-deb -f dist/leader-latch-riak-admin_*.deb Conflicts)" = "riak, riak-ee, riak-ts"
test "$(rpm -qp --conflicts dist/leader-latch-riak-admin-*.rpm 2>/dev/null | sort | xargs)" = "riak riak-ee riak-ts"
for file in dist/leader-latch_*.deb; do test -z "$(dpkg-deb -f "$file" Conflicts)"; done

step "rpm -qp"
for file in dist/*.rpm; do
  case $file in
    *noarch.rpm) needs="leader-latch >= $(packaging/version.sh package)-1" scripts=0 ;;
    *) needs="/bin/sh /usr/bin/cmp /usr/bin/find /usr/sbin/groupadd /usr/sbin/useradd" scripts=4 ;;
  esac
  diff <(echo "$needs") <(rpm -qp --requires "$file" 2>/dev/null | grep -v '^rpmlib' | sort | xargs)
  test "$(rpm -qp --scripts "$file" 2>/dev/null | grep -c 'scriptlet (using /bin/sh)')" = "$scripts"
  rpm -qp --filecaps "$file" | none grep -v '	$' # a name, a tab, and no capability
  rpm -qp --changelog "$file" | grep -q '^- First version'
done
for script in dist/stage/scripts/*/*; do sh -n "$script"; done

step "the unit"
wait $debootstrap || { debootstrap=; cat "$tmp/debootstrap.log"; exit 1; }
debootstrap=
cp -a "$tmp/root" "$tmp/unit"
dpkg-deb -x dist/leader-latch_*_"$arch".deb "$tmp/unit"
systemd-sysusers --root="$tmp/unit" 2>/dev/null
grep -q '^riak:x:[0-9]*:[0-9]*:Riak user:/var/lib/riak:/bin/bash$' "$tmp/unit/etc/passwd"
grep -q '^riak:x:[0-9]*:$' "$tmp/unit/etc/group"
systemd-analyze verify --root="$tmp/unit" --man=no leader-latch.service 2>&1 | none grep . # it succeeds with warnings
systemd-analyze security --offline=true --threshold=20 packaging/leader-latch.service | tail -n 1
rm -rf "$tmp/unit"
grep -o '^[^#= ]*' packaging/sysctl.conf | while read -r key; do test -e "/proc/sys/${key//./\/}"; done

step "the names and texts of Riak; completion in the shells themselves"
LEADER_LATCH_TEST_SHELLS=required go test -count=1 -run '^(TestRiakCases|TestShellsComplete)$' -v ./cmd/leader-latch >"$tmp/out" || { cat "$tmp/out"; exit 1; }
grep ' cases print ' "$tmp/out"

# Processes, mounts and the network, with loopback alone, end with the shell.
for kind in deb rpm; do
  step "installed: $kind"
  unshare --mount --net --pid --fork --kill-child packaging/test-install.sh "$kind" "$tmp"
done
for kind in deb rpm; do
  step "booted: systemd starts it, watches it and stops it: $kind"
  packaging/test-systemd.sh "$kind" "$tmp"
done
step "in a container"
unshare --mount packaging/test-container.sh "$tmp"
step "all passed"
