package logstore

import (
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
		g, _, err := openSegment(dir, 5)
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
