package riakconf

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// largeFile is a riak.conf of 200,000 settings and about 10 MB.
func largeFile(b *testing.B) string {
	var text strings.Builder
	text.WriteString(quiet)
	for i := range 200_000 {
		fmt.Fprintf(&text, "some.group_%d.key_%06d = value %d of a file\n", i%100, i, i)
	}
	return write(b, "riak.conf", text.String())
}

// BenchmarkLoad is to cost less than ten times BenchmarkLines, in time and in memory.
func BenchmarkLoad(b *testing.B) {
	path := largeFile(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Load(path); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLines reads the same file line by line and keeps the lines.
func BenchmarkLines(b *testing.B) {
	path := largeFile(b)
	b.ReportAllocs()
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		var lines []string
		for s := bufio.NewScanner(f); s.Scan(); {
			lines = append(lines, s.Text())
		}
		f.Close()
		if len(lines) < 200_000 {
			b.Fatal(len(lines))
		}
	}
}
