package servicelog

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: the log knows riak.conf's settings and threads for disks, and nothing of
// elections.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "leaderlatch/cmd/leader-latch/servicelog", "leaderlatch/riakconf", "leaderlatch/ensemble/diskthread":
			continue
		}
		if strings.HasPrefix(dep, "leaderlatch/") || strings.Contains(dep, "hashicorp/") {
			t.Errorf("servicelog depends on %s", dep)
		}
	}
}
