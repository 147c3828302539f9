package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A recovery that died before its last step is named by serve, and finished by recover,
// though the node is the only member by then.
func TestAnInterruptedRecoveryIsRunAgain(t *testing.T) {
	t.Parallel()
	m := newMember(t, "leader_latch.minimum_nodes = 1").run()
	m.ready()
	m.signal(syscall.SIGTERM)
	m.wantExit(exitOK)
	if out := m.order(exitPermanent, "recover", "--yes"); !strings.Contains(out, "nothing to recover") {
		t.Errorf("recover, of a whole node, said\n%s", out)
	}
	name := filepath.Join(m.dir, "data", "leader_latch", "node.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begun := sumInFile.ReplaceAllString(strings.Replace(string(b), "\n}", ",\n  \"recovery\": \"begun\"\n}", 1), "")
	if err := os.WriteFile(name, []byte(begun), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := m.order(exitPermanent, "serve"); !strings.Contains(out, "run leader-latch recover again") {
		t.Errorf("serve said\n%s", out)
	}
	if out := m.order(exitOK, "recover", "--yes"); !strings.Contains(out, "A recovery was interrupted") || strings.Contains(out, "given up: ") {
		t.Errorf("recover said\n%s", out)
	}
	m.run().ready()
	m.join("g", "a", "a")
}
