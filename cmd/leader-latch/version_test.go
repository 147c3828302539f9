package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"leaderlatch/packaging"
)

// The Makefile's build says its version and the commit that it is given or that git
// knows; without both it says the version alone, and riak version always does.
func TestTheBuildSaysItsVersionAndCommit(t *testing.T) {
	for name, c := range map[string]struct {
		make []string
		want string
	}{
		"a commit":  {[]string{"COMMIT=67516f8"}, `^` + regexp.QuoteMeta(packaging.Version()) + ` \(67516f8\)\n$`},
		"git's":     {nil, `^` + regexp.QuoteMeta(packaging.Version()) + `( \([0-9a-f]{7,}(-dirty)?\))?\n$`},
		"no commit": {[]string{"COMMIT="}, `^` + regexp.QuoteMeta(packaging.Version()) + `\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			exe := filepath.Join(t.TempDir(), "leader-latch")
			if _, err := outputOf(repository, "make", append(c.make, "build", "BIN="+exe)...); err != nil {
				t.Fatal(err)
			}
			if got, err := outputOf("", exe, "version"); err != nil || !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("version prints %q, %v; want %s", got, err, c.want)
			}
			cmd := exec.Command(exe, "version")
			cmd.Args[0] = "riak"
			if got, err := cmd.Output(); err != nil || strings.TrimSpace(string(got)) != packaging.Version() {
				t.Errorf("riak version prints %q, %v; want %s", got, err, packaging.Version())
			}
		})
	}
}

// A binary that was built by go build alone goes by what Go has noted in it.
func TestCommitOf(t *testing.T) {
	set := func(pairs ...string) (all []debug.BuildSetting) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return all
	}
	const revision = "67516f8ff55b0123456789abcdef0123456789ab"
	for _, c := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{set("vcs.revision", revision, "vcs.modified", "false"), "67516f8"},
		{set("vcs.modified", "true", "vcs.revision", revision), "67516f8-dirty"},
		{set("vcs.modified", "true"), ""},
		{set("GOOS", "linux"), ""},
		{nil, ""},
	} {
		if got := commitOf(c.settings); got != c.want {
			t.Errorf("%v: %q, want %q", c.settings, got, c.want)
		}
	}
}
