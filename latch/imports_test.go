package latch_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: what serves clients knows nothing of consensus and of disks.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, unwanted := range []string{"hashicorp/raft", "bbolt", "leaderlatch/ensemble", "leaderlatch/riakconf"} {
			if strings.Contains(dep, unwanted) {
				t.Errorf("latch depends on %s", dep)
			}
		}
		if strings.Contains(dep, ".") && !strings.HasPrefix(dep, "golang.org/x/sys/") && !strings.HasPrefix(dep, "vendor/") {
			t.Errorf("latch depends on %s; only the standard library and golang.org/x/sys are wanted", dep)
		}
	}
}
