package ensemble

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The packages have walls: what each of them imports, from this module and from others,
// directly or not. The standard library is open to all.
func TestImports(t *testing.T) {
	const here = "leaderlatch/ensemble"
	for pkg, may := range map[string][]string{
		here + "/state":   {},
		here + "/session": {here + "/state", "golang.org/x/sys/unix"},
	} {
		for _, dep := range list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg) {
			if dep != pkg && !slices.Contains(may, dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
	for _, dep := range list(t, "-deps", here+"/...") {
		if dep == "leaderlatch/latch" || dep == "leaderlatch/riakconf" { // the wire and the file
			t.Errorf("the ensemble imports %s", dep)
		}
	}
}

// list gives the lines that go list writes.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
