package status

import (
	"fmt"
	"io"
	"strings"
)

// Summary prints what Riak prints for "riak-admin ensemble-status": the state
// of the system, then a line for each view of each ensemble. The error is w's.
func (r *Report) Summary(w io.Writer) error {
	var b strings.Builder
	r.overview(&b)
	b.WriteString(title("Ensembles"))
	all := r.ordered()
	if len(all) == 0 {
		b.WriteString("There are no active ensembles.\n")
	} else {
		b.WriteString(" Ensemble     Quorum        Nodes      Leader\n")
		b.WriteString(rule())
	}
	for i := range all {
		r.ensemble(&b, &all[i], i+1)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) overview(b *strings.Builder) {
	validation := "weak (simple majority required)"
	if r.TreeValidation {
		validation = "strong (trusted majority required)"
	}
	metadata := "best-effort replication (asynchronous)"
	if r.SynchronousTreeUpdates {
		metadata = "guaranteed replication (synchronous)"
	}
	b.WriteString(title("Consensus System"))
	fmt.Fprintf(b, "Enabled:     %t\n", r.Enabled)
	fmt.Fprintf(b, "Active:      %t\n", r.Active)
	fmt.Fprintf(b, "Ring Ready:  %t\n", r.RingReady)
	fmt.Fprintf(b, "Validation:  %s\n", validation)
	fmt.Fprintf(b, "Metadata:    %s\n\n", metadata)
	switch {
	case !r.Enabled:
		b.WriteString("Note: The consensus subsystem is not enabled.\n\n")
	case !r.Active && len(r.ReadyMembers) < 3:
		// Riak's words; three are enough.
		b.WriteString("Note: The consensus subsystem will not be activated until there are more\n" +
			"      than three nodes in this cluster.\n\n")
	}
}

// ensemble prints the line of each view. Only the first one names the ensemble
// and the leader.
func (r *Report) ensemble(b *strings.Builder, e *Ensemble, number int) {
	label, leader := fmt.Sprint(number), "    "+e.leader()
	if e.ID == rootID {
		label = rootID
	}
	online, replied := set(r.OnlineNodes), set(e.Ping.Replied)
	for _, view := range e.views() {
		nodes := make(map[string]bool)
		peersUp, nodesUp := 0, 0
		for p := range set(view) {
			nodes[p.Node] = true
			if replied[p] {
				peersUp++
			}
		}
		for n := range nodes {
			if online[n] {
				nodesUp++
			}
		}
		// Riak's cell is too narrow for its star: it never shows.
		quorum := cell(ratio(peersUp, len(view))+" *", 9)
		fmt.Fprintf(b, " %s    %s    %s%s\n", cell(label, 8), quorum, cell(ratio(nodesUp, len(nodes)), 9), leader)
		label, leader = "", ""
	}
}

func set[T comparable](l []T) map[T]bool {
	m := make(map[T]bool, len(l))
	for _, v := range l {
		m[v] = true
	}
	return m
}
