package status

import (
	"fmt"
	"io"
	"strings"
)

// A Change is a change of the membership that has been staged and not
// committed.
type Change struct {
	Action  string `json:"action"`            // join, leave or force-remove
	Node    string `json:"node"`              // the node that joins, leaves or is removed
	Address string `json:"address,omitempty"` // join: where other nodes reach its cluster port
}

// A Plan is what staged changes will do.
type Plan struct {
	Changes []Change
	After   []Ring // the cluster after each step, in order
}

// Print prints what Riak prints for "riak-admin cluster plan", without its
// lists of partitions: there are none here.
func (p *Plan) Print(w io.Writer) error {
	var b strings.Builder
	b.WriteString(title("Staged Changes"))
	b.WriteString("Action         Details(s)\n" + rule())
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "%-15s%s\n", c.Action, Atom(c.Node))
	}
	plural := "s"
	if len(p.After) == 1 {
		plural = ""
	}
	fmt.Fprintf(&b, "%s\n\nNOTE: Applying these changes will result in %d cluster transition%s\n\n", rule(), len(p.After), plural)
	for i, r := range p.After {
		bar := strings.Repeat("#", width) + "\n"
		heading := fmt.Sprintf("After cluster transition %d/%d", i+1, len(p.After))
		fmt.Fprintf(&b, "%s%s\n%s\n", bar, strings.TrimRight(cell(heading, width), " "), bar)
		r.MemberStatus(&b) // a Builder does not fail
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
