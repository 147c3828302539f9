package logstore

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/hashicorp/raft"
)

// Whatever is in a file of the log: it is refused, or what it is said to hold can be
// read.
func FuzzSegment(f *testing.F) {
	g := newSegment("", 5)
	b := g.header()
	for i := uint64(5); i < 8; i++ {
		var err error
		if b, err = appendRecord(b, g.salt, 5, entry(i)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b)
	f.Add(append(b, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(b, b[segmentHeader:]...))
	f.Add(b[:len(b)-9])
	f.Add(g.header())
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		check(t, os.WriteFile(segmentPath(dir, 5), b, 0o600))
		g, _, err := openSegment(dir, 5, new(bytes.Buffer))
		if err != nil {
			return
		}
		defer g.close()
		for i := g.base; i < g.next(); i++ {
			b, err := g.read(g.place(i))
			if err == nil {
				err = g.parse(b, i, new(raft.Log))
			}
			if err != nil {
				t.Errorf("entry %d: %v", i, err)
			}
		}
	})
}

// Whatever the notes are: they are refused, or what was read would be written in the same
// bytes.
func FuzzNotes(f *testing.F) {
	n := notes{5, extent{41, 44, 8 << 20}, map[string][]byte{"CurrentTerm": number(7), "LastVoteCand": []byte("node-7"), "": nil}}
	f.Add(n.encode()[8:])
	f.Add((&notes{}).encode()[8:])
	f.Add(n.encode()[8:58])
	f.Fuzz(func(t *testing.T, rest []byte) {
		b := append([]byte{0, 0, 0, 2, 0, 0, 0, 0}, rest...)
		binary.BigEndian.PutUint32(b[4:], notesSum(b)) // or nothing gets past the checksum
		n, err := parseNotes(b)
		if err != nil {
			return
		}
		if again := n.encode(); !bytes.Equal(b, again) {
			t.Errorf("%x\nis written as\n%x", b, again)
		}
	})
}
