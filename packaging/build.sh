#!/bin/sh
# Makes the packages in dist/: leader-latch for amd64 and arm64 and
# leader-latch-riak-admin for all, as deb and as rpm. The same commit gives the
# same bytes, with the same Go.
#
#   ARCHS               amd64 and arm64, or one of them
#   PACKAGE_VERSION     the version, if not git's
#   PACKAGE_MAINTAINER  name and address of who makes the packages
#   SOURCE_DATE_EPOCH   the time on all files, if not the commit's
set -eu
umask 022
cd "$(dirname "$0")/.."

# package_version is git's description as a version that sorts: v1.2.3 is 1.2.3,
# 4 commits later 1.2.3+4.gHASH, v1.2.3-rc1 is 1.2.3~rc1. Before the first tag it
# counts from 0.0.0.
package_version() {
  described=$(git describe --tags --abbrev=12 --dirty=.dirty 2>/dev/null) ||
    described=v0.0.0-$(git rev-list --count HEAD)-g$(git describe --always --abbrev=12 --dirty=.dirty)
  echo "$described" | sed 's/^v//; s/-\([0-9]*\)-g\([0-9a-f]*\)/+\1.g\2/; s/-/~/g'
}

PACKAGE_VERSION=${PACKAGE_VERSION:-$(package_version)}
PACKAGE_MAINTAINER=${PACKAGE_MAINTAINER:-The leader-latch authors <maintainers@leader-latch.invalid>}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export PACKAGE_VERSION PACKAGE_MAINTAINER SOURCE_DATE_EPOCH

stage=dist/stage
rm -rf "$stage" dist/*.deb dist/*.rpm
mkdir -p "$stage/doc" "$stage/scripts"

for script in preinst postinst prerm postrm; do
  { printf '#!/bin/sh\nset -e\n'; cat packaging/scripts/lib.sh "packaging/scripts/$script"; } >"$stage/scripts/$script"
done
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
sed "s/semver: UNRELEASED/semver: $PACKAGE_VERSION-1/; s/date: UNRELEASED/date: $date/; s/packager: .*/packager: $PACKAGE_MAINTAINER/" \
  packaging/changelog.yaml >"$stage/changelog.yaml"

go run ./cmd/leader-latch documents "$stage/doc"
packaging/notices.sh >"$stage/doc/third-party-notices"
gzip -9nk "$stage"/doc/*.[1-9] "$stage/doc/third-party-notices"
for section in 5 8; do
  mkdir "$stage/doc/man$section"
  mv "$stage"/doc/*."$section".gz "$stage/doc/man$section"
done
mkdir "$stage/doc/text" "$stage/doc/examples"
# All documents in one folder, so that links between them lead there too.
for document in README.md cmd/leader-latch/*.md ensemble/*.md latch/*.md packaging/*.md riakconf/*.md; do
  sed 's|](\([a-z./-]*/\)\([A-Z]*\.md\)|](\2|g; s|\[\([A-Z]*\)\](\1)|\1|g' "$document" >"$stage/doc/text/${document##*/}"
done
cp packaging/sysctl.conf "$stage/doc/examples/60-leader-latch.sysctl.conf"
cp packaging/limits.conf "$stage/doc/examples/leader-latch.limits.conf"

package() { # CONFIG FORMAT
  go tool -modfile=packaging/tools.mod nfpm package --config "packaging/$1" --packager "$2" --target dist/
}
for ARCH in ${ARCHS:-amd64 arm64}; do
  export ARCH
  GOARCH=$ARCH make --no-print-directory build BIN="$stage/$ARCH/leader-latch"
  package nfpm.yaml deb
  package nfpm.yaml rpm
done
package nfpm-riak-admin.yaml deb
package nfpm-riak-admin.yaml rpm
