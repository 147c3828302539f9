//go:build faults

package session

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
			omitted.Leave = true
		case "end":
			omitted.End = true
		case "open":
			omitted.Open = true
		case "start":
			omitted.Start = true
		case "note":
			omitted.Note = true
		case "hold":
			omitted.Hold = true
		default:
			panic("LEADER_LATCH_WITHOUT: there is no wait " + name)
		}
	}
}
