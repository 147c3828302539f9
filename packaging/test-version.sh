#!/bin/bash
# Plays the release of RELEASING.md in a repository of its own, and checks what versions the
# packages have before, at and after it. test.sh calls it.
#
#   test-version.sh FOLDER   an empty folder for the repository
set -Eeuo pipefail
document=$PWD/packaging/RELEASING.md
. packaging/testdata/blocks.sh
fail() { echo "test-version.sh: line ${BASH_LINENO[0]}: $*" >&2; exit 1; }
trap 'echo "test-version.sh: line $LINENO failed" >&2' ERR

repository=$1
mkdir "$repository/packaging"
cp packaging/version.sh packaging/RELEASING.md "$repository/packaging"
cd "$repository"
echo 0.9.0 >packaging/VERSION
printf '# Changes\n\n## 0.9.0 (unreleased)\n\n- First version.\n' >packaging/CHANGELOG.md
export GIT_AUTHOR_NAME=Nobody GIT_AUTHOR_EMAIL=nobody@example.org GIT_COMMITTER_NAME=Nobody GIT_COMMITTER_EMAIL=nobody@example.org
at=1700000000
later() { at=$((at + $1)); export GIT_AUTHOR_DATE="$at +0530" GIT_COMMITTER_DATE="$at +0530"; }
change() { echo "$1" >>something && git add . && git commit -qm "$1"; }
git init -q

# is expects the version of the packages, as a pattern, and that it is higher than the one before.
before=0.0.0+284.g67516f8ff55b
is() {
  local version
  version=$(packaging/version.sh package)
  # shellcheck disable=SC2254 # a pattern
  case $version in $1) ;; *) fail "the version is $version, not $1" ;; esac
  dpkg --compare-versions "$before-1" lt "$version-1" || fail "dpkg takes $version for no higher than $before"
  test "$(rpm --eval "%{lua: print(rpm.vercmp('$before', '$version'))}")" = -1 || fail "rpm takes $version for no higher than $before"
  echo "$before < $version"
  before=$version
}
refused() { # WORDS
  local said
  if said=$(packaging/version.sh package 2>&1); then fail "the version is $said"; fi
  grep -qF -- "$1" <<<"$said" || fail "it said $said"
}
without_git() { mv .git .away && "$@" && mv .away .git; }

later 0
change one
without_git is 0.9.0~0
is "0.9.0~20231114.221320.g$(git rev-parse --short=7 HEAD)"
later 1
change two
is "0.9.0~20231114.221321.g$(git rev-parse --short=7 HEAD)"
echo changed >something
test "$(packaging/version.sh commit)" = "$(git rev-parse --short=7 HEAD)-dirty"
is "0.9.0~20231114.221321.g$(git rev-parse --short=7 HEAD).dirty"
git checkout -q something
later 36000
change three
is "0.9.0~20231115.081321.g*"

git tag v0.9.0 # too early
refused "has no date for that version"
git tag -d v0.9.0 >/dev/null
block "A release" >commands
. ./commands >/dev/null
rm commands
test "$(git log -1 --format=%s)" = "packaging: release 0.9.0"
is 0.9.0
test "$(packaging/version.sh commit)" = "$(git rev-parse --short=7 HEAD)"
before=0.9.0~1 without_git is 0.9.0
echo changed >something
is 0.9.0+dirty
git checkout -q something
later 1
change four
refused "write the next version to packaging/VERSION"
block "The next version" >commands
. ./commands >/dev/null
rm commands
test "$(sed -n 's/^## //p' packaging/CHANGELOG.md)" = "0.10.0 (unreleased)
0.9.0 ($(date -u +%F))"
without_git is 0.10.0~0
is "0.10.0~20231115.081322.g*"
