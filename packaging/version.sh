#!/bin/sh
# Prints the version in packaging/VERSION with what git knows of it (RELEASING.md).
#
#   version.sh commit    the commit, 7 digits, with -dirty where files differ from it; nothing without git
#   version.sh package   the version of the packages
set -eu
cd "$(dirname "$0")/.."

fail() { echo "version.sh: $*" >&2; exit 1; }

# commit prints nothing where the folder is not a repository of git's, or one that git
# does not read, as another user's.
commit() {
  test -e .git || return 0
  git describe --always --exclude='*' --abbrev=7 --dirty 2>/dev/null || true
}

# package prints 0.9.0 at the commit that has the tag v0.9.0, and at any commit before it a
# version that is lower and rises with the time of the commit.
package() {
  version=$(cat packaging/VERSION)
  if ! test -e .git; then # a tree of files that somebody has unpacked
    if released; then echo "$version"; else echo "$version~0"; fi
    return
  fi
  commit=$(commit)
  test -n "$commit" || fail "git does not read the repository here: $(git rev-parse HEAD 2>&1 | head -n 1)"
  tag=$(git rev-parse --quiet --verify "refs/tags/v$version^{commit}") || tag=
  if test -z "$tag"; then
    echo "$version~$(TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y%m%d.%H%M%S).g$(echo "$commit" | tr - .)"
  elif test "$tag" != "$(git rev-parse HEAD)"; then
    fail "$version is released, as another commit has the tag v$version; write the next version to packaging/VERSION"
  elif ! released; then
    fail "this commit has the tag v$version, and packaging/CHANGELOG.md has no date for that version"
  else
    case $commit in
      *-dirty) echo "$version+dirty" ;;
      *) echo "$version" ;;
    esac
  fi
}

# released succeeds where the changelog says when the version was released.
released() { grep -q "^## $version ([0-9]" packaging/CHANGELOG.md; }

case ${1-} in
  commit) commit ;;
  package) package ;;
  *) echo "usage: version.sh commit|package" >&2; exit 2 ;;
esac
