package e2e

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"leaderlatch/cmd/leader-latch/internal/riakcases"
	"leaderlatch/ensemble"
)

const riakCases = repository + "/testdata/riak-admin"

// operator gives riak-admin's commands on the nodes of a cluster, which are named
// as in Riak's cases: names holds who is who there.
type operator struct {
	t     *testing.T
	names []string // pairs: in the case, here
	cases []string // that were compared
}

// on runs a command on a node and gives what it printed, and its exit code.
func (o *operator) on(m *member, args ...string) (out string, code int) {
	o.t.Helper()
	cmd := m.program(args...)
	cmd.Args[0] = "riak-admin"
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		o.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// sharesAndSpace are what differs by nature: the shares of a ring that there is
// not, and what the length of a name moves.
var sharesAndSpace = regexp.MustCompile(`[ -]*\|[ -]*| *\d+\.\d%? *|[ -]{2,}`)

// like expects from a node what Riak prints in a case, but for names and shares.
func (o *operator) like(m *member, name string, args ...string) {
	o.t.Helper()
	c := riakcases.Read(o.t, filepath.Join(riakCases, name+".json"))
	o.cases = append(o.cases, name)
	if len(args) == 0 {
		args = c.Command[1:]
		for i := range args {
			args[i] = strings.NewReplacer(o.names...).Replace(args[i])
		}
	}
	want := strings.NewReplacer(o.names...).Replace(c.Ours() + c.Stderr)
	if strings.HasPrefix(name, "admin-cluster-status") { // where names are no atoms
		want = regexp.MustCompile(`'(riak@[^']*)'`).ReplaceAllString(want, "$1")
	}
	got, code := o.on(m, args...)
	if code != c.ExitCode || sharesAndSpace.ReplaceAllString(got, " ~ ") != sharesAndSpace.ReplaceAllString(want, " ~ ") {
		o.t.Fatalf("%s: riak-admin %s on %s: exit code %d, want %d\n%swant\n%s", name, strings.Join(args, " "), m.name, code, c.ExitCode, got, want)
	}
}

// As with Riak, changes are staged on whatever nodes, and shown and committed on
// any: what one node of a real cluster prints is what Riak prints there.
func TestRiakAdminChangesAClusterAsRiakDoes(t *testing.T) {
	t.Parallel()
	all := []*member{newMember(t), newMember(t), newMember(t)}
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(b.name, a.name) }) // as Riak's names are
	first, second, dev3 := all[0], all[1], all[2]
	for _, m := range all {
		m.run()
	}
	nobody := newMember(t)
	o := &operator{t: t, names: []string{
		"'" + riakcases.N1 + "'", "'" + first.name + "'", riakcases.N1, first.name, "'" + riakcases.N2 + "'", "'" + second.name + "'", riakcases.N2, second.name,
		riakcases.N3, "'" + dev3.name + "'", "down@10.0.0.1", nobody.name, "'ok@10.0.0.1'", "'" + first.name + "'", "ok@10.0.0.1", first.name,
	}}
	whole := func(n int, all ...*member) {
		t.Helper()
		for _, m := range all {
			m.until("all vote", func() bool { return whole(m.cluster(), n) })
		}
	}
	single := func(m *member) {
		t.Helper()
		m.until("it has a cluster of its own", func() bool { c := m.cluster(); return len(c.Members) == 1 && c.Majority && c.Members[0].Session })
	}

	// plan waits until the nodes agree on who is there, and expects this in the plan.
	plan := func(m *member, wants ...string) {
		t.Helper()
		var out string
		m.until("the cluster has converged", func() bool {
			out, _ = o.on(m, "cluster", "plan")
			return !strings.HasPrefix(out, "Cannot plan")
		})
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Fatalf("the plan on %s is\n%swant %q", m.name, out, want)
			}
		}
	}

	single(first)
	o.like(first, "admin-member-status-one")
	o.like(first, "admin-cluster-status-one")
	o.like(first, "admin-ring-status-ok")
	o.like(first, "admin-cluster-leave-only-member")
	o.like(first, "admin-cluster-plan-nothing")

	// Each new node asks for itself. The plan is the same wherever it is shown.
	o.like(second, "admin-cluster-join-self", "cluster", "join", second.name)
	o.like(second, "admin-cluster-join-down")
	joins := func(m *member, to string) {
		t.Helper()
		if out, code := o.on(m, "cluster", "join", to); code != exitOK || out != "Success: staged join request for '"+m.name+"' to '"+to+"'\n" {
			t.Fatalf("%d %s", code, out)
		}
	}
	joins(second, first.name)
	o.like(first, "admin-cluster-commit-nothing-planned")
	o.like(second, "admin-cluster-plan-join-one")
	o.like(first, "admin-cluster-plan-join-one")
	joins(dev3, first.name)
	o.like(first, "admin-cluster-commit-plan-changed")
	o.like(first, "admin-cluster-plan-join-two")
	o.like(dev3, "admin-cluster-plan-join-two")
	for _, m := range all {
		if len(m.cluster().Members) != 1 {
			t.Fatal("a node joined before that was committed")
		}
	}
	o.like(first, "admin-cluster-commit-ok")
	whole(3, all...)
	o.like(dev3, "admin-member-status-three")
	leader, _ := raftLeader(t, all)
	if leader == first { // the claimant of the cases
		o.like(second, "admin-cluster-status-three")
		o.like(dev3, "admin-ring-status-ok")
	}
	o.like(second, "admin-cluster-join-member", "cluster", "join", first.name)

	// What one has staged another one clears.
	o.like(dev3, "admin-cluster-leave-node-ok")
	o.like(first, "admin-cluster-force-remove-ok")
	o.like(second, "admin-cluster-clear")
	o.like(dev3, "admin-cluster-plan-nothing")

	// A node leaves, which another one commits; then it comes back, and commits that
	// itself.
	o.like(second, "admin-cluster-leave-node-ok", "cluster", "leave")
	plan(dev3, "leave          '"+second.name+"'\n", "\nValid:2 / ")
	o.like(dev3, "admin-cluster-commit-ok")
	whole(2, first, dev3)
	if out, code := o.on(first, "cluster", "leave", second.name); code != exitFailed || out != "Failed: '"+second.name+"' is not a member of the cluster.\n" {
		t.Fatalf("%d %s", code, out)
	}
	single(second)
	joins(second, dev3.name)
	plan(second, "join           '"+second.name+"'\n", "\nValid:3 / ")
	o.like(second, "admin-cluster-commit-ok")
	whole(3, all...)

	// The raft leader leaves, by its own commit.
	leader, rest := raftLeader(t, all)
	if out, code := o.on(leader, "cluster", "leave"); code != exitOK {
		t.Fatal(out)
	}
	plan(leader, "leave          '"+leader.name+"'\n")
	o.like(leader, "admin-cluster-commit-ok")
	whole(2, rest...)
	single(leader)
	joins(leader, rest[0].name)
	plan(rest[1], "join           '"+leader.name+"'\n")
	o.like(rest[1], "admin-cluster-commit-ok")
	whole(3, all...)

	// A node that died cannot leave; what was not done stays staged. It is removed.
	_, rest = raftLeader(t, all)
	dead, alive := rest[0], slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == rest[0] })
	dead.kill()
	alive[0].until("it is seen to be down", func() bool {
		return slices.ContainsFunc(alive[0].cluster().Members, func(m ensemble.ClusterMember) bool { return m.Name == dead.name && !m.Up })
	})
	printed := func(m *member, command, want string) {
		t.Helper()
		if out, _ := o.on(m, strings.Fields(command)...); !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s on %s:\n%swant %s", command, m.name, out, want)
		}
	}
	isDown := regexp.QuoteMeta(dead.name) + ` +\|valid \| down! \|`
	isUnreachable := `The following nodes are unreachable: \['` + regexp.QuoteMeta(dead.name) + `'\]\n`
	for _, m := range alive { // with the claimant up, that is all that shows
		printed(m, "cluster status", `Ring ready: true\n(.*\n)*.*`+isDown)
		printed(m, "cluster status", `\(C\) `)
		printed(m, "ring-status", `Status:     up\nRing Ready: true\n(.*\n)*`+isUnreachable)
	}
	o.on(alive[0], "cluster", "leave", dead.name)
	plan(alive[0], "leave          '"+dead.name+"'\n")
	out, code := o.on(alive[1], "cluster", "commit")
	if c := riakcases.Read(t, filepath.Join(riakCases, "admin-cluster-commit-failed.json")); code != exitOK || !strings.Contains(out, c.Stdout) || !strings.Contains(out, "if it is dead: cluster force-remove "+dead.name) {
		t.Errorf("%d %s", code, out)
	}
	plan(alive[0], "leave          '"+dead.name+"'\n")
	o.on(alive[0], "cluster", "force-remove", dead.name)
	plan(alive[1], "force-remove   '"+dead.name+"'\n")
	o.like(alive[0], "admin-cluster-commit-ok")
	whole(2, alive...)
	dead.run().wantExit(exitPermanent)

	// Without a majority nothing can be planned.
	alive[1].kill()
	c := riakcases.Read(t, filepath.Join(riakCases, "admin-cluster-plan-ring-not-ready.json"))
	alive[0].until("the raft leader is gone, or has noticed", func() bool {
		out, code := o.on(alive[0], "cluster", "plan")
		return code == exitOK && strings.HasPrefix(out, c.Stdout) && strings.Contains(out, "there is no raft leader")
	})
	printed(alive[0], "cluster status", `Ring ready: undefined\n(.*\n)*.*`+regexp.QuoteMeta(alive[1].name)+` +\|valid \| down! \|`)
	printed(alive[0], "ring-status", `Claimant:  undefined\nStatus:     down\nRing Ready: unknown\n`)

	slices.Sort(o.cases)
	t.Logf("%d of Riak's cases printed by a real cluster: %s", len(slices.Compact(o.cases)), strings.Join(slices.Compact(o.cases), " "))
}

// A node that was restarted after its join was staged has forgotten it, and is not
// made to join.
func TestAJoinThatIsStagedNoMoreIsNotCommitted(t *testing.T) {
	t.Parallel()
	a, b := newMember(t).run(), newMember(t).run()
	o := &operator{t: t}
	if out, code := o.on(b, "cluster", "join", a.name); code != exitOK {
		t.Fatal(out)
	}
	b.kill()
	b.run()
	o.on(a, "cluster", "plan")
	out, code := o.on(a, "cluster", "commit")
	if code != exitOK || !strings.HasPrefix(out, "Unable to commit cluster changes.") || !strings.Contains(out, "no join is staged on "+b.name+" any more") {
		t.Errorf("%d %s", code, out)
	}
	if out, _ := o.on(b, "cluster", "plan"); out != "There are no staged changes\n" {
		t.Error(out)
	}
}
