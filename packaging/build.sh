#!/bin/sh
# Makes the packages in dist/: leader-latch for amd64 and arm64 and
# leader-latch-riak-admin for all, as deb and as rpm. The same commit gives the
# same bytes, with the same Go.
#
#   ARCHS               amd64 and arm64, or one of them
#   PACKAGE_VERSION     the version, if not that of version.sh (RELEASING.md)
#   PACKAGE_MAINTAINER  name and address of who makes the packages
#   SOURCE_DATE_EPOCH   the time on all files, if not the commit's; without git that of packaging/VERSION
#   COMMIT              the commit that the program says, if not git's
set -eu
umask 022
cd "$(dirname "$0")/.."

PACKAGE_VERSION=${PACKAGE_VERSION:-$(packaging/version.sh package)}
PACKAGE_MAINTAINER=${PACKAGE_MAINTAINER:-The leader-latch authors <maintainers@leader-latch.invalid>}
test -e .git || SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat -c %Y packaging/VERSION)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export PACKAGE_VERSION PACKAGE_MAINTAINER SOURCE_DATE_EPOCH

# changelog gives CHANGELOG.md in the form that nfpm reads. The first entry has the
# version and the date of the package. The first line of a note is its point.
changelog() {
  awk -v version="$PACKAGE_VERSION" -v date="$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" -v by="$PACKAGE_MAINTAINER" '
    /^## / {
      if (entries++) { version = $2; date = substr($3, 2, 10) "T00:00:00Z" }
      print "- semver: " version "-1"
      print "  date: " date
      print "  packager: " by
      print "  deb: {urgency: medium, distributions: [unstable]}"
      print "  changes:"
    }
    entries && /^- / { print "    - note: |-"; print "        " substr($0, 3) }
    entries && /^  / { print "      " $0 }
  ' packaging/CHANGELOG.md
}

stage=dist/stage
rm -rf "$stage" dist/*.deb dist/*.rpm
mkdir -p "$stage/doc"

for kind in deb rpm; do
  mkdir -p "$stage/scripts/$kind"
  for script in preinst postinst prerm postrm; do
    { printf '#!/bin/sh\nset -e\n'; (cd packaging/scripts && cat lib.sh service-$kind.sh $script); } >"$stage/scripts/$kind/$script"
  done
done
changelog >"$stage/changelog.yaml"

go run ./cmd/leader-latch documents "$stage/doc"
packaging/notices.sh >"$stage/doc/third-party-notices"
gzip -9nk "$stage"/doc/*.[1-9] "$stage/doc/third-party-notices"
for section in 5 8; do
  mkdir "$stage/doc/man$section"
  mv "$stage"/doc/*."$section".gz "$stage/doc/man$section"
done
mkdir "$stage/doc/text" "$stage/doc/examples"
# All documents in one folder, so that links between them lead there too. Two are left out:
# the changelog has a form and place of its own, and nobody makes a release of a package.
for document in README.md cmd/leader-latch/e2e/*.md ensemble/*.md ensemble/holdmodel/*.md latch/*.md packaging/*.md riakconf/*.md; do
  case $document in */CHANGELOG.md | */RELEASING.md) continue ;; esac
  sed 's@\[\([^]]*\)\]([a-z0-9/]*\(CHANGELOG\|RELEASING\)\.md)@\1@g; s|](\([a-z0-9./-]*/\)\([A-Z]*\.md\)|](\2|g; s|\[\([A-Z]*\)\](\1)|\1|g' "$document" >"$stage/doc/text/${document##*/}"
done
cp packaging/sysctl.conf "$stage/doc/examples/60-leader-latch.sysctl.conf"
cp packaging/limits.conf "$stage/doc/examples/leader-latch.limits.conf"

cp packaging/nfpm.yaml packaging/nfpm-riak-admin.yaml "$stage"
for document in "$stage"/doc/text/*; do
  printf '  - {src: %s, dst: %s, type: doc, packager: rpm, file_info: *plain}\n' "$document" "/usr/share/doc/leader-latch/${document##*/}"
done >>"$stage/nfpm.yaml"

package() { # CONFIG FORMAT
  case $2 in deb) sed -i.rpm '/^license:/d' "$stage/$1" ;; rpm) mv "$stage/$1.rpm" "$stage/$1" ;; esac # no field of Debian's
  go tool -modfile=packaging/tools.mod nfpm package --config "$stage/$1" --packager "$2" --target dist/
}
for ARCH in ${ARCHS:-amd64 arm64}; do
  export ARCH
  GOARCH=$ARCH make --no-print-directory build BIN="$stage/$ARCH/leader-latch"
  package nfpm.yaml deb
  package nfpm.yaml rpm
done
package nfpm-riak-admin.yaml deb
package nfpm-riak-admin.yaml rpm
