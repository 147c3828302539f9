package ensemble

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The packages have walls: what each of them imports from this module, and the first two from
// others, directly or not. So none of them knows the node that it is part of. The standard
// library is open to all.
func TestImports(t *testing.T) {
	const module, here = "leaderlatch/", "leaderlatch/ensemble"
	for pkg, may := range map[string][]string{
		here + "/state":   {},
		here + "/session": {here + "/state", "golang.org/x/sys/unix"},
		here + "/replica": {here + "/state", here + "/clusterport", here + "/logstore", here + "/diskthread", here + "/durable", here + "/permanent"},
	} {
		for _, dep := range list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg) {
			library := pkg == here+"/replica" && !strings.HasPrefix(dep, module) // Raft and what that needs
			if dep != pkg && !library && !slices.Contains(may, dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
	for _, dep := range list(t, "-deps", here+"/...") {
		if dep == "leaderlatch/latch" || dep == "leaderlatch/riakconf" { // the wire and the file
			t.Errorf("the ensemble imports %s", dep)
		}
	}
	for _, pkg := range list(t, "-f", `{{$pkg := .ImportPath}}{{range .Imports}}{{if eq . "github.com/hashicorp/raft"}}{{$pkg}}{{end}}{{end}}`, module+"...") {
		if !slices.Contains([]string{here + "/replica", here + "/clusterport", here + "/logstore"}, pkg) {
			t.Errorf("%s imports Raft", pkg)
		}
	}
}

// What a replica is inside is for tests.
func TestOnlyTestsLookInsideTheReplica(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	inTests := 0
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			switch {
			case !ok || s.Sel.Name != "Inside":
			case strings.HasSuffix(name, "_test.go"):
				inTests++
			default:
				t.Errorf("%s looks inside the replica", name)
			}
			return true
		})
	}
	if inTests == 0 {
		t.Error("no test looks inside; this one looks for the wrong thing")
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
