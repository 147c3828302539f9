package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
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
