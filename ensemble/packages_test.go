package ensemble

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"leaderlatch/ensemble/state"
)

// The packages refuse to be installed on data that this program cannot read.
// Their script has the number written down, as it runs before there is a
// program to ask.
func TestThePackagesKnowTheFormatOfTheData(t *testing.T) {
	script, err := os.ReadFile("../packaging/scripts/preinst")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nformat=%d ", state.NewestLevel); !strings.Contains(string(script), want) {
		t.Errorf("packaging/scripts/preinst has no line %q", strings.TrimSpace(want))
	}
}
