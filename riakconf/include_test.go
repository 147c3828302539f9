package riakconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestReadErrorsNameTheCure(t *testing.T) {
	missing := write(t)
	wantLines(t, "missing file", readProblems(t, missing), "riak.conf: there is no such file; name the right one by --config or LEADER_LATCH_CONFIG, or create it$")

	folder := write(t, "riak.conf/x", "")
	wantLines(t, "folder", readProblems(t, folder), "riak.conf: this is a folder; name the file in it")

	src := &source{path: "riak.conf", name: "riak.conf"} // root may read everything, so this one is made up
	denied := openProblem(src, nil, &fs.PathError{Op: "open", Path: "riak.conf", Err: syscall.EACCES})
	wantLines(t, "no permission", []string{denied.Error()}, "riak.conf: permission denied for user id ")
	broken := openProblem(src, nil, &fs.PathError{Op: "read", Path: "riak.conf", Err: syscall.EIO})
	wantLines(t, "bad disk", []string{broken.Error()}, "riak.conf: the file cannot be read: input/output error")
}

func TestPositionsAreAsTheOperatorGaveThem(t *testing.T) {
	path := write(t, "riak.conf", "include conf.d/*.conf\n", "conf.d/a.conf", "a = 1\nb\n")
	t.Chdir(filepath.Dir(filepath.Dir(path)))
	for given, want := range map[string]string{
		"etc/riak.conf":   "etc/conf.d/a.conf:2",
		"./etc/riak.conf": "etc/conf.d/a.conf:2",
		path:              filepath.Dir(path) + "/conf.d/a.conf:2",
		"etc/nonesuch":    "etc/nonesuch",
	} {
		_, err := Read(given)
		var problems Problems
		if !errors.As(err, &problems) || len(problems) != 1 || problems[0].Position.String() != want {
			t.Errorf("%s: %v, want it at %s", given, err, want)
		}
	}
}

func TestOverlayIsReadLastAndWins(t *testing.T) {
	path := write(t,
		"riak.conf", "a = 1\nb = $(a)\n",
		"leader-latch.conf", "a = 2\ninclude more.conf\n",
		"more.conf", "c = $(<c)\n",
		"c", "3")
	if got, want := pairs(t, path), []string{"a=2", "b=2", "c=3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestMisnamedOverlayIsAWarning(t *testing.T) {
	for added, want := range map[string][]string{
		"":                            {"leader_latch.conf: this file is not read; rename it to leader-latch.conf$"},
		"include leader_latch.conf\n": nil,
	} {
		path := write(t, "riak.conf", quiet+added, "leader_latch.conf", "a = 1\n")
		_, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, added, messages(path, warnings), want...)
	}
}

func TestOverlayAsTheMainFileIsReadOnce(t *testing.T) {
	path := write(t, "leader-latch.conf", "a\n")
	path = filepath.Join(filepath.Dir(path), "leader-latch.conf")
	wantLines(t, "problems", readProblems(t, path), "leader-latch.conf:1: no =")
}

func TestEachFileReportsItsFirstError(t *testing.T) {
	path := write(t,
		"riak.conf", "include a.conf\ninclude b.conf\n",
		"a.conf", "ok = 1\nx\ny\n",
		"b.conf", "z\n",
		"leader-latch.conf", "x = €\ny = €\n")
	wantLines(t, "problems", readProblems(t, path),
		"a.conf:2: no =",
		"b.conf:1: no =",
		"leader-latch.conf:1: x: the value has a character above U+00FF",
		"leader-latch.conf:2: y: the value has a character above U+00FF")
}

func TestIncludeLimits(t *testing.T) {
	itself := write(t, "riak.conf", "a = 1\ninclude x.conf\n", "x.conf", "include riak.conf\ninclude x.conf\n")
	wantLines(t, "a file that includes itself", readProblems(t, itself), "x.conf:1: with this line ")

	star := write(t, "riak.conf", "include d/*\n", "d/a", "include *\n", "d/b", "include *\n")
	wantLines(t, "a folder that includes itself", readProblems(t, star), "d/a:1: with this line ")

	var deep []string
	for i := range maxIncludeDepth + 3 {
		deep = append(deep, fmt.Sprintf("%d", i), fmt.Sprintf("include %d\n", i+1))
	}
	deep = append(deep, "riak.conf", "include 0")
	wantLines(t, "too deep", readProblems(t, write(t, deep...)),
		fmt.Sprintf("%d:1: included files go more than %d levels deep", maxIncludeDepth-1, maxIncludeDepth))

	many := write(t, "riak.conf", strings.Repeat("include x\n", maxFiles+1), "x", "")
	wantLines(t, "too many", readProblems(t, many),
		fmt.Sprintf("riak.conf:%d: more than %d files are included", maxFiles, maxFiles))

	endless := write(t, "riak.conf", "include /dev/zero\na = $(</dev/zero)\n")
	wantLines(t, "a device", readProblems(t, endless),
		`riak.conf:1: "/dev/zero": the configuration is larger than 64 MiB`)

	endless = write(t, "riak.conf", "a = $(</dev/zero)\nb = 1\nc = $(<riak.conf)")
	wantLines(t, "a device as value", readProblems(t, endless),
		`riak.conf:1: a: "/dev/zero": the configuration is larger than 64 MiB`,
		`riak.conf:3: c: "riak.conf": the configuration is larger`)
}

func TestIncludeOfWhatCannotBeRead(t *testing.T) {
	path := write(t, "riak.conf", "include d/*\ninclude d/sub\n", "d/a", "a = 1\n", "d/sub/x", "")
	wantLines(t, "folders", readProblems(t, path),
		`riak.conf:1: "d/sub": this is a folder`,
		`riak.conf:2: "d/sub": this is a folder`)
}

func TestMissingIncludeIsAWarning(t *testing.T) {
	path := write(t, "riak.conf", "distributed_cookie = 0123456789abcdef\nstrong_consistency = on\n"+
		"listener.leader_latch.a = 127.0.0.1:1\ninclude nonesuch.conf\ninclude nonesuch.d/*.conf\ninclude conf.d/\n")
	_, warnings, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "warnings", messages(path, warnings),
		"riak.conf:4: there is no file nonesuch.conf to include",
		"riak.conf:6: there is no file conf.d/ to include")
}

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a", true},
		{"*", ".a", true},
		{"*.conf", "a.conf", true},
		{"*.conf", ".conf", true},
		{"*.conf", "a.conf~", false},
		{"a*", "a", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "axbxc", true},
		{"a*b*c", "acb", false},
		{"**", "a", true},
		{"*ab*ab*", "aab", false},
		{"*ab*ab*", "abab", true},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestValuesFromFiles(t *testing.T) {
	path := write(t,
		"riak.conf", `
a = $(<missing)
a = $(<one)
b = $(<missing)
include d/x.conf
c = $(<d/ref)
d = $(<empty)
e = $(<bytes)
f = $(<)f
f = 1
g = [$(e)]
`,
		"one", "1\r\n\n",
		"d/x.conf", "b = $(<ref)\nh = $(<one)\n",
		"d/ref", "$(f)$(c2)\n", "d/one", "from-d",
		"empty", "\n",
		"bytes", "caf\xc3\xa9\xff",
		"leader-latch.conf", "c2 = $(f)$(f)\n")
	got := pairs(t, path)
	want := []string{
		"a=1\r\n",  // of the last duplicate alone; one line feed is removed
		"b=111",    // likewise, and its content has references
		"h=from-d", // relative to the file that has the line
		"c=111",
		"d=",
		"e=cafÃ©ÿ", // each byte a character
		"f=1",
		"g=[cafÃ©ÿ]",
		"c2=11",
	}
	if !slices.Equal(got, want) {
		t.Errorf("\n%q\nwant\n%q", got, want)
	}
}

func TestMissingValueFile(t *testing.T) {
	path := write(t, "riak.conf", "a = 1\nb = $(<secrets/b)\nc = $(nope)\n")
	wantLines(t, "problems", readProblems(t, path),
		`riak.conf:2: b: "secrets/b": there is no such file`,
		`riak.conf:3: c: nothing sets "nope"`)
}

func TestUnreadableOverlayIsAProblem(t *testing.T) {
	path := write(t, "riak.conf", "a = 1\n")
	if err := os.Symlink("leader-latch.conf", filepath.Join(filepath.Dir(path), "leader-latch.conf")); err != nil {
		t.Fatal(err)
	}
	_, err := Read(path)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 1 || filepath.Base(problems[0].File) != "leader-latch.conf" {
		t.Errorf("a link to itself: %v", err)
	}
}
