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
	for _, pkg := range list(t, "-f", `{{$pkg := .ImportPath}}{{range .Imports}}{{if eq . "github.com/hashicorp/raft"}}{{$pkg}}{{end}}{{end}}`, "leaderlatch/...") {
		if !slices.Contains([]string{here, here + "/clusterport", here + "/logstore"}, pkg) {
			t.Errorf("%s imports Raft", pkg)
		}
	}
}

// ofReplica are the files of the replica. They alone know Raft. What the replica does is told to an observer: its files know no Node.
var ofReplica = []string{
	"forward.go", "fsm.go", "hint.go", "logsize.go", "logsize_faults.go", "raftlog.go", "raftstore.go",
	"replica.go", "servers.go", "silence.go", "snapshots.go", "transport.go", "refound.go", "inside.go",
}

func TestTheReplicaAloneKnowsRaft(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_bench.go") {
			continue
		}
		replica := slices.Contains(ofReplica, name)
		if !replica && slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return strings.HasPrefix(i.Path.Value, `"github.com/hashicorp/`) }) {
			t.Errorf("%s imports Raft", name)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StarExpr:
				if is, ok := n.X.(*ast.Ident); ok && replica && (is.Name == "Node" || is.Name == "cluster") {
					t.Errorf("%s, of the replica, knows %s", name, is.Name)
				}
			case *ast.SelectorExpr:
				if n.Sel.Name == "raft" && !replica {
					t.Errorf("%s reaches for the replica's Raft", name)
				}
			}
			return true
		})
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
