package riakconf

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

const largeSettings = 200_000

// largeFile is a riak.conf of 200,000 settings and about 10 MB.
func largeFile(tb testing.TB) string {
	var text strings.Builder
	text.WriteString(quiet)
	for i := range largeSettings {
		fmt.Fprintf(&text, "some.group_%d.key_%06d = value %d of a file\n", i%100, i, i)
	}
	return write(tb, "riak.conf", text.String())
}

func loadFile(tb testing.TB, path string) {
	if _, _, err := Load(path); err != nil {
		tb.Fatal(err)
	}
}

// readLines reads a file line by line and keeps the lines.
func readLines(tb testing.TB, path string) {
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) < largeSettings {
		tb.Fatal(len(lines))
	}
}

// BenchmarkLoad is to cost less than ten times BenchmarkLines, in time and in memory.
func BenchmarkLoad(b *testing.B) { benchmark(b, loadFile) }

func BenchmarkLines(b *testing.B) { benchmark(b, readLines) }

func benchmark(b *testing.B, read func(testing.TB, string)) {
	path := largeFile(b)
	b.ReportAllocs()
	for b.Loop() {
		read(b, path)
	}
}

// TestLargeFileTakesLittleMemory holds what BenchmarkLoad shows, as far as it
// does not depend on what else the machine does.
func TestLargeFileTakesLittleMemory(t *testing.T) {
	path := largeFile(t)
	allocated := func(read func(testing.TB, string)) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read(t, path)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if load, lines := allocated(loadFile), allocated(readLines); load >= 10*lines {
		t.Errorf("%d bytes, and %d when it is read line by line", load, lines)
	}
}
