#!/bin/sh
# Prints what git knows of the version in packaging/VERSION.
#
#   version.sh commit    the commit, 7 digits, with -dirty where files differ from it; nothing without git
set -eu
cd "$(dirname "$0")/.."

# commit prints nothing where the folder is not a repository of git's, or one that git
# does not read, as another user's.
commit() {
  test -e .git || return 0
  git describe --always --exclude='*' --abbrev=7 --dirty 2>/dev/null || true
}

case ${1-} in
  commit) commit ;;
  *) echo "usage: version.sh commit" >&2; exit 2 ;;
esac
