package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Ring is the membership of the cluster as one node sees it. Riak prints it
// for member-status, ring-status and cluster status; the word is Riak's. There
// are no partitions here, so a member's share of the ring is its share of the
// votes, and no partition ever waits for a hand-over.
type Ring struct {
	// Claimant is the name of the node that makes changes of the membership:
	// the raft leader. Empty: none is known.
	Claimant string `json:"claimant"`
	// Ready is whether all members agree on who they are; nil if one that
	// does not answer has to be asked.
	Ready   *bool    `json:"ready"`
	Members []Member `json:"members"` // in any order
}

// A Member is one node of the cluster.
type Member struct {
	Name   string `json:"name"`
	Status string `json:"status"` // joining, valid, leaving, exiting, or down if an operator said so
	Up     bool   `json:"up"`     // the node answers
	Share  int    `json:"share"`  // in tenths of a percent
	// Pending is the share that the member will have when the changes under
	// way are done; nil while there are none.
	Pending *int `json:"pending"`
}

// Member gives the member of that name, or nil.
func (r *Ring) Member(name string) *Member {
	for i := range r.Members {
		if r.Members[i].Name == name {
			return &r.Members[i]
		}
	}
	return nil
}

// ordered gives the members as Riak lists them, by status and name.
func (r *Ring) ordered() []Member {
	return slices.SortedFunc(slices.Values(r.Members), func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Status, b.Status), strings.Compare(a.Name, b.Name))
	})
}

// MemberStatus prints what Riak prints for "riak-admin member-status". The
// error is w's, as with the others.
func (r *Ring) MemberStatus(w io.Writer) error {
	var b strings.Builder
	b.WriteString(title("Membership"))
	b.WriteString("Status     Ring    Pending    Node\n" + rule())
	count := map[string]int{}
	for _, m := range r.ordered() {
		count[m.Status]++
		pending := "  --  "
		if m.Pending != nil {
			pending = percent(*m.Pending) + "%"
		}
		fmt.Fprintf(&b, "%-8s  %s%%    %s    %s\n", m.Status, percent(m.Share), pending, Atom(m.Name))
	}
	fmt.Fprintf(&b, "%sValid:%d / Leaving:%d / Exiting:%d / Joining:%d / Down:%d\n", rule(),
		count["valid"], count["leaving"], count["exiting"], count["joining"], count["down"])
	_, err := io.WriteString(w, b.String())
	return err
}

// RingStatus prints what Riak prints for "riak-admin ring-status".
func (r *Ring) RingStatus(w io.Writer) error {
	state := "down"
	if m := r.Member(r.Claimant); m != nil && m.Up {
		state = "up"
	}
	claimant := "undefined"
	if r.Claimant != "" {
		claimant = Atom(r.Claimant)
	}
	var b strings.Builder
	b.WriteString(title("Claimant"))
	fmt.Fprintf(&b, "Claimant:  %s\nStatus:     %s\nRing Ready: %s\n\n", claimant, state, r.ready("unknown"))
	b.WriteString(title("Ownership Handoff"))
	b.WriteString("No pending changes.\n\n")
	b.WriteString(title("Unreachable Nodes"))
	var down []string
	for _, m := range r.ordered() {
		if m.unexpectedlyDown() {
			down = append(down, Atom(m.Name))
		}
	}
	if down == nil {
		b.WriteString("All nodes are up and reachable\n\n")
	} else {
		fmt.Fprintf(&b, `The following nodes are unreachable: [%s]

WARNING: The cluster state will not converge until all nodes
are up. Once the above nodes come back online, convergence
will continue. If the outages are long-term or permanent, you
can either mark the nodes as down (riak-admin down NODE) or
forcibly remove the nodes from the cluster (riak-admin
force-remove NODE) to allow the remaining nodes to settle.
`, strings.Join(down, ","))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ClusterStatus prints what Riak prints for "riak-admin cluster status".
func (r *Ring) ClusterStatus(w io.Writer) error {
	members := r.ordered()
	labels := make([]string, len(members))
	node, state := len("node"), len("status")
	for i, m := range members {
		labels[i] = "    " + m.Name
		if m.Name == r.Claimant {
			labels[i] = "(C) " + m.Name
		}
		node, state = max(node, len(labels[i])), max(state, len(m.Status))
	}
	line := fmt.Sprintf("+%s+%s+-------+-----+-------+\n", strings.Repeat("-", node+2), strings.Repeat("-", state))
	var b strings.Builder
	fmt.Fprintf(&b, "---- Cluster Status ----\nRing ready: %s\n\n%s", r.ready("undefined"), line)
	fmt.Fprintf(&b, "| %s |%s| avail |ring |pending|\n%s", cell("node", node), cell("status", state), line)
	for i, m := range members {
		avail, pending := "up", "--"
		switch {
		case m.unexpectedlyDown():
			avail = "down!"
		case !m.Up:
			avail = "down"
		}
		if m.Pending != nil {
			pending = percent(*m.Pending)
		}
		fmt.Fprintf(&b, "| %s |%s|%s|%s|%s|\n", cell(labels[i], node), cell(m.Status, state), cell(avail, 7), percent(m.Share), cell(pending, 7))
	}
	b.WriteString(line + "\nKey: (C) = Claimant; availability marked with '!' is unexpected\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (m Member) unexpectedlyDown() bool { return !m.Up && m.Status != "down" }

func (r *Ring) ready(unknown string) string {
	if r.Ready == nil {
		return unknown
	}
	return fmt.Sprint(*r.Ready)
}

// percent is tenths of a percent in five columns.
func percent(tenths int) string { return fmt.Sprintf("%5.1f", float64(tenths)/10) }

// Atom is a node's name as Riak prints it in many places, an Erlang atom: in
// single quotes, unless it is made of letters, digits, _ and @ alone and begins
// with a small letter.
func Atom(name string) string {
	plain := name != "" && name[0] >= 'a' && name[0] <= 'z'
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '@') {
			plain = false
		}
	}
	if plain {
		return name
	}
	return "'" + name + "'"
}
