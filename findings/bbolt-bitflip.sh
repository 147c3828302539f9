#!/usr/bin/env bash
# go.etcd.io/bbolt v1.5.0: a bit that was flipped in a value.
#
# Seen: the value is returned with the flipped bit. Open, Tx.Check and `bbolt check` find
# nothing: only the two pages at the front of the file have a checksum. With the bit
# in a key instead, the key is gone under its name and there under another one, and
# `bbolt check` says OK as long as the order of the keys on the page is right.
#
# Expected: a file whose pages are written whole, and for which there is a command
# named check, notices when a page is not what was written.
#
# For a user of leader election: hashicorp/raft-boltdb keeps Raft's log, term and vote in
# it. A disk that returns a wrong bit makes a node forget its vote, or take it for
# another's, without a word; what has to be right needs a checksum within the value,
# over key and value.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
cat >main.go <<'EOF'
package main

import (
	"bytes"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

var changed bool

func want(what, got, before string) {
	fmt.Printf("%s: %s\n", what, got)
	if got != before {
		fmt.Printf("  changed: it was %s\n", before)
		changed = true
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// flip changes one bit of a byte behind the only place in the file that has this text.
func flip(file, text string, at int) {
	data := must(os.ReadFile(file))
	if n := bytes.Count(data, []byte(text)); n != 1 {
		panic(fmt.Sprintf("%q is in the file %d times", text, n))
	}
	data[bytes.Index(data, []byte(text))+at] ^= 2
	if err := os.WriteFile(file, data, 0o600); err != nil {
		panic(err)
	}
}

// read says what is in the file, and what Check finds.
func read(file string) (said string) {
	db := must(bolt.Open(file, 0o600, nil))
	defer db.Close()
	db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket([]byte("stable"))
		said = fmt.Sprintf("LastVoteCand %q", bucket.Get([]byte("LastVoteCand")))
		bucket.ForEach(func(k, v []byte) error { said += fmt.Sprintf(", in it %s=%s", k, v); return nil })
		problems := 0
		for range tx.Check() {
			problems++
		}
		said += fmt.Sprintf(", Check finds %d", problems)
		return nil
	})
	return said
}

func main() {
	for _, file := range []string{"value.db", "key.db"} {
		db := must(bolt.Open(file, 0o600, nil))
		err := db.Update(func(tx *bolt.Tx) error {
			return must(tx.CreateBucket([]byte("stable"))).Put([]byte("LastVoteCand"), []byte("node-1"))
		})
		if err != nil {
			panic(err)
		}
		db.Close()
	}
	want("as written       ", read("value.db"), `LastVoteCand "node-1", in it LastVoteCand=node-1, Check finds 0`)
	flip("value.db", "node-1", 5)
	want("a bit in a value ", read("value.db"), `LastVoteCand "node-3", in it LastVoteCand=node-3, Check finds 0`)
	flip("key.db", "LastVoteCand", 0)
	want("a bit in a key   ", read("key.db"), `LastVoteCand "", in it NastVoteCand=node-1, Check finds 0`)
	if changed {
		os.Exit(1)
	}
}
EOF
export GOFLAGS=-mod=mod GOWORK=off
{
  go mod init bitflip
  go get go.etcd.io/bbolt@v1.5.0 go.etcd.io/bbolt/cmd/bbolt@v1.5.0
  go build -o bitflip .
  go build -o bbolt go.etcd.io/bbolt/cmd/bbolt
} >log 2>&1 || { cat log >&2; exit 1; }
code=0
timeout 60 ./bitflip || code=$?
for file in value.db key.db; do
  said=$(timeout 60 ./bbolt check "$file") || code=$?
  echo "bbolt check of $file: $said"
  [ "$said" = OK ] || code=1
done
exit $code
