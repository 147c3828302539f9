//go:build faults

package ensemble

import (
	"os"
	"strings"
)

// Nodes of the tests of faults leave out the waits that LEADER_LATCH_WITHOUT names, with
// commas between.
func init() {
	for _, name := range strings.Split(os.Getenv("LEADER_LATCH_WITHOUT"), ",") {
		switch name {
		case "":
		case "leave":
			omitted.leave = true
		case "end":
			omitted.end = true
		case "open":
			omitted.open = true
		case "start":
			omitted.start = true
		case "note":
			omitted.note = true
		default:
			panic("LEADER_LATCH_WITHOUT: there is no wait " + name)
		}
	}
}
