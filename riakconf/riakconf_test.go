package riakconf

import (
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestImports keeps the package plain: the standard library and the holder of
// the settings.
func TestImports(t *testing.T) {
	const holder = "github.com/magiconair/properties"
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			first, _, _ := strings.Cut(path, "/")
			if path != holder && (strings.Contains(first, ".") || first == "leaderlatch") {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

// write makes files in a new folder laid out as Riak's (etc/riak.conf), and
// returns the path of riak.conf. The arguments are pairs of a name relative
// to etc and a text.
func write(t testing.TB, files ...string) string {
	t.Helper()
	etc := filepath.Join(t.TempDir(), "etc")
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(etc, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(etc, "riak.conf")
}

// messages are the lines of problems, with file names relative to the folder
// of riak.conf.
func messages(path string, problems []Problem) []string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, strings.ReplaceAll(p.Error(), filepath.Dir(path)+string(filepath.Separator), ""))
	}
	return lines
}

// readProblems reads a configuration that has problems.
func readProblems(t *testing.T, path string) []string {
	t.Helper()
	s, err := Read(path)
	var problems Problems
	if !errors.As(err, &problems) || s != nil {
		t.Fatalf("settings %v, error %v, want Problems alone", s, err)
	}
	return messages(path, problems)
}

// pairs reads a configuration without problems, as KEY=VALUE.
func pairs(t *testing.T, path string) []string {
	t.Helper()
	s, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for key, value := range s.All() {
		list = append(list, key+"="+value)
	}
	return list
}

// wantLines compares lines, each of which needs only begin as wanted, unless
// that ends in $.
func wantLines(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.HasPrefix(got[i]+"$", want[i])
	}
	if !ok {
		t.Errorf("%s:\n\t%s\nwant:\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
