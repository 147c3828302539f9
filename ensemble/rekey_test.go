package ensemble

import (
	"strings"
	"testing"

	"leaderlatch/ensemble/clusterport"
)

// A node takes no key by which it and another member would not let each other in, or by which
// that cannot be told.
func TestAKeyThatWouldCutANodeOff(t *testing.T) {
	all := founders(t, 3)
	is, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	comes, err := clusterport.KeyFromSeed([32]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	rekey := func(m *machine, key *clusterport.Key, want string) {
		t.Helper()
		err := m.Rekey(t.Context(), key)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), "nothing was done: ") || !strings.Contains(err.Error(), want)) {
			t.Fatalf("%s: error %v, want %q", m.name, err, want)
		}
	}
	const apart = " and this node would not let each other in; do the step before on that one first"
	rekey(all[0], comes, apart)
	rekey(all[0], comes.Accepting(is), apart)
	for _, m := range all {
		rekey(m, is.Accepting(comes), "")
	}
	rekey(all[0], comes, apart)
	rekey(all[0], comes.Accepting(is), "")
	rekey(all[1], is, all[0].name+apart)
	kill(all[2].Node)
	rekey(all[1], comes.Accepting(is), all[2].name+" cannot be asked whether it knows this cookie (")
	join(t, all[0].Node, "g", "a").wantTold("a")
	join(t, all[1].Node, "g", "b").wantTold("a")
}
