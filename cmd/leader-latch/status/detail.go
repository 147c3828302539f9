package status

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Detail prints what Riak prints for "riak-admin ensemble-status ARGUMENT": one
// ensemble with its peers. The argument is taken as the operator typed it: root,
// or the number that Summary shows (root's is 1). If it means no ensemble, the
// text says so; that is not an error. The error is w's.
func (r *Report) Detail(w io.Writer, ensemble string) error {
	e, number, name := r.find(ensemble)
	if e == nil {
		_, err := fmt.Fprintf(w, "No such ensemble: %s\n", name)
		return err
	}
	var b strings.Builder
	b.WriteString(title(fmt.Sprintf("Ensemble #%d", number)))
	fmt.Fprintf(&b, "Id:           %s\n", e.ID)
	fmt.Fprintf(&b, "Leader:       %s\n", e.leader())
	fmt.Fprintf(&b, "Leader ready: %t\n\n", e.Ping.Ready)
	b.WriteString(title("Peers"))
	b.WriteString(" Peer  Status     Trusted          Epoch         Node\n")
	numbered := e.numbered()
	for _, view := range e.views() {
		b.WriteString(rule())
		for i, p := range numbered {
			if slices.Contains(view, p) {
				state, trusted, epoch := e.info(p).cells()
				fmt.Fprintf(&b, " %s  %s  %s  %s  %s\n",
					cell(fmt.Sprint(i+1), 4), cell(state, 9), cell(trusted, 7), cell(epoch, 20), p.Node)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (i Info) cells() (state, trusted, epoch string) {
	switch {
	case i.Down:
		return "(offline)", "--", "--"
	case i.State == "":
		return "--", "--", "--"
	case i.Trusted:
		return i.State, "yes", i.Epoch
	}
	return i.State, "no", i.Epoch
}
