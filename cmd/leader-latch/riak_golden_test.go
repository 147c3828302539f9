package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/riakcases"
	"leaderlatch/cmd/leader-latch/status"
	"leaderlatch/ensemble"
	"leaderlatch/packaging"
	"leaderlatch/riakconf"
)

const riakCases = "../../testdata/riak-admin"

// node is the stand-in for a node that a case runs against.
type stubNode struct {
	down    bool
	ring    status.Ring
	report  status.Report
	failure error // of ensemble-status
	staging *staging
	before  []string // staging commands that were given before

	limit    int
	startErr error
}

func (n *stubNode) get(_ context.Context, path string, _ url.Values, v any) error {
	if n.down {
		return errNodeDown
	}
	var answer any
	switch path {
	case "/ring":
		answer = n.ring
	case "/ensemble-status":
		if n.failure != nil {
			return n.failure
		}
		answer = ensembleStatus{Report: &n.report}
	}
	return copyJSON(answer, v)
}

func (n *stubNode) post(ctx context.Context, path string, query url.Values, v any) error {
	if n.down {
		return errNodeDown
	}
	mux := http.NewServeMux()
	mux.Handle("POST /staging/{what}", n.staging)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path+"?"+query.Encode(), nil))
	return json.Unmarshal(w.Body.Bytes(), v)
}

func copyJSON(from, to any) error {
	if to == nil {
		return nil
	}
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// The service of the stub runs as long as the node does.
func (n *stubNode) files() int        { return max(n.limit, 1) }
func (n *stubNode) pid() (int, error) { return 4711, nil }
func (n *stubNode) start(context.Context, time.Duration, func(context.Context) bool) error {
	return n.startErr
}
func (n *stubNode) stop(context.Context) error { return nil }

// stubCluster is the cluster that staged changes are made to, with its claimant.
type stubCluster struct {
	ring     status.Ring
	claimant *staging
	others   map[string]*stubCluster
	applyErr error
	applied  []status.Change
}

func (c *stubCluster) Here() ensemble.Place { return ensemble.Place{} }

func (c *stubCluster) Ring() status.Ring { return c.ring }

func (c *stubCluster) Joinable(_ context.Context, other string) error {
	if c.others[other] == nil {
		return ensemble.ErrUnreachable
	}
	return nil
}

func (c *stubCluster) Pass(ctx context.Context, via string, o order) (stagingAnswer, error) {
	if via != "" {
		c = c.others[via]
	}
	return c.claimant.answer(ctx, 1, o)
}

func (c *stubCluster) Enter(context.Context, ensemble.Place) error { return nil }

func (c *stubCluster) Apply(_ context.Context, ch status.Change, _ string) error {
	if c.applyErr == nil {
		c.applied = append(c.applied, ch)
	}
	return c.applyErr
}

func ptr[T any](v T) *T { return &v }

// The rings of Riak's cases.
const n1, n2, n3 = riakcases.N1, riakcases.N2, riakcases.N3

func valid(name string, share int) status.Member {
	return status.Member{Name: name, Status: "valid", Up: true, Share: share}
}

func ring(members ...status.Member) status.Ring {
	return status.Ring{Claimant: n1, Ready: ptr(true), Members: members}
}

func with(r status.Ring, change func(r *status.Ring)) status.Ring {
	r.Members = slices.Clone(r.Members)
	change(&r)
	return r
}

var (
	one     = ring(valid(n1, 1000))
	two     = ring(valid(n1, 500), valid(n2, 500))
	three   = ring(valid(n1, 344), valid(n2, 328), valid(n3, 328))
	pending = ring(
		status.Member{Name: n1, Status: "valid", Up: true, Share: 1000, Pending: ptr(344)},
		status.Member{Name: n2, Status: "valid", Up: true, Pending: ptr(328)},
		status.Member{Name: n3, Status: "joining", Up: true, Pending: ptr(328)},
	)
	mixed = ring(
		valid(n1, 313),
		status.Member{Name: n2, Status: "down", Share: 313},
		status.Member{Name: n3, Status: "leaving", Up: true, Share: 313},
		status.Member{Name: "dev4@host.example.com", Status: "exiting", Up: true, Share: 63},
	)
	oneDown      = with(two, func(r *status.Ring) { r.Member(n2).Up = false })
	claimantDown = with(oneDown, func(r *status.Ring) { r.Claimant, r.Ready = n2, nil })
	markedDown   = with(oneDown, func(r *status.Ring) { r.Member(n2).Status = "down" })
	notReady     = with(two, func(r *status.Ring) { r.Ready = ptr(false) })
	threeDown    = with(three, func(r *status.Ring) { r.Claimant, r.Ready, r.Member(n3).Up = n2, nil, false })
	leaving      = with(two, func(r *status.Ring) { r.Member(n1).Status = "leaving" })
)

// at gives a node in this cluster.
func at(r status.Ring) *stubNode {
	return staged(n1, &stubCluster{ring: r, others: others("ok@10.0.0.1", ring(valid("ok@10.0.0.1", 1000)))})
}

// others is another cluster, of this node.
func others(node string, r status.Ring) map[string]*stubCluster {
	c := &stubCluster{ring: r}
	c.claimant = &staging{node: node, cluster: c}
	return map[string]*stubCluster{node: c}
}

// staged gives a node where these commands of riak-admin cluster were given.
func staged(node string, c *stubCluster, before ...string) *stubNode {
	c.claimant = &staging{node: node, cluster: c}
	return &stubNode{ring: c.ring, staging: c.claimant, before: before, limit: enoughFiles}
}

var down = &stubNode{down: true, limit: enoughFiles}

// sameText are the cases in which this program prints what Riak does, with the
// node that they are about. A case without one needs no node.
var sameText = map[string]*stubNode{
	"admin-cluster-clear":                  staged(n1, &stubCluster{ring: two}, "leave"),
	"admin-cluster-commit-failed":          staged(n1, &stubCluster{ring: two, applyErr: errors.New("no majority")}, "leave", "plan"),
	"admin-cluster-commit-nothing-planned": staged(n1, &stubCluster{ring: two}, "leave"),
	"admin-cluster-commit-ok":              staged(n1, &stubCluster{ring: two}, "leave", "plan"),
	"admin-cluster-commit-plan-changed":    staged(n1, &stubCluster{ring: three}, "leave", "plan", "force-remove?node="+n3),
	"admin-cluster-commit-ring-not-ready":  staged(n1, &stubCluster{ring: two}, "leave", "plan", "!not ready"),
	"admin-cluster-force-remove-ok":        at(two),
	"admin-cluster-force-remove-usage":     nil,
	"admin-cluster-join-down":              at(one),
	"admin-cluster-join-member":            at(two),
	"admin-cluster-join-ok":                at(one),
	"admin-cluster-join-self":              staged("self@10.0.0.1", &stubCluster{ring: one}),
	"admin-cluster-join-two-args":          nil,
	"admin-cluster-join-usage":             nil,
	"admin-cluster-leave-already":          at(leaving),
	"admin-cluster-leave-node-ok":          at(two),
	"admin-cluster-leave-not-member":       at(ring(valid(n2, 1000))),
	"admin-cluster-leave-ok":               at(two),
	"admin-cluster-leave-only-member":      at(one),
	"admin-cluster-leave-usage":            nil,
	"admin-cluster-plan-down":              down,
	"admin-cluster-plan-join-one":          staged(n2, &stubCluster{ring: ring(valid(n2, 1000)), others: others(n1, one)}, "join?node="+n1),
	"admin-cluster-plan-nothing":           at(two),
	"admin-cluster-plan-ring-not-ready":    staged(n1, &stubCluster{ring: notReady}, "leave"),
	"admin-cluster-status-down":            down,
	"admin-cluster-status-down-node":       at(threeDown),
	"admin-cluster-status-mixed":           at(mixed),
	"admin-cluster-status-one":             at(one),
	"admin-cluster-status-pending":         at(pending),
	"admin-cluster-status-three":           at(three),
	"admin-cluster-status-two":             at(two),
	"admin-ensemble-status-crash":          {failure: &adminError{http.StatusInternalServerError, "{'EXIT', ...term cut here...}"}},
	"admin-ensemble-status-down":           down,
	"admin-ensemble-status-no-such":        at(two),
	"admin-ensemble-status-not-enabled":    {report: status.Report{RingReady: true, TreeValidation: true}},
	"admin-ensemble-status-root-down":      down,
	"admin-ensemble-status-usage":          nil,
	"admin-ensemble_status-underscore":     {report: status.Report{RingReady: true, TreeValidation: true}},
	"admin-ensemble_status-usage":          nil,
	"admin-member-status-down":             down,
	"admin-member-status-mixed":            at(mixed),
	"admin-member-status-one":              at(one),
	"admin-member-status-pending":          at(pending),
	"admin-member-status-three":            at(three),
	"admin-member-status-two":              at(two),
	"admin-member-status-usage":            nil,
	"admin-member_status-underscore":       at(two),
	"admin-ring-status-claimant-down":      at(claimantDown),
	"admin-ring-status-down":               down,
	"admin-ring-status-marked-down":        at(markedDown),
	"admin-ring-status-not-ready":          at(notReady),
	"admin-ring-status-ok":                 at(two),
	"admin-ring-status-usage":              nil,
	"admin-services-down":                  down,
	"riak-chkconfig-ok":                    nil,
	"riak-config-describe-none":            nil,
	"riak-config-no-subcommand":            nil,
	"riak-console-already":                 at(one),
	"riak-getpid-down":                     down,
	"riak-getpid-up":                       at(one),
	"riak-other-nodename":                  down,
	"riak-ping-down":                       down,
	"riak-ping-up":                         at(one),
	"riak-restart-down":                    down,
	"riak-start-already":                   at(one),
	"riak-start-fails":                     {down: true, limit: enoughFiles, startErr: errNodeDown},
	"riak-stop-down":                       down,
	"riak-stop-up":                         at(one),
	"riak-ulimit-warning":                  {down: true, limit: 1024},
	"riak-version":                         nil,
}

// elsewhereTested are printed as Riak does, and compared in another test.
var elsewhereTested = map[string]string{
	"admin-cluster-plan-join-two": "TestPlansOfSeveralNodes",
	"admin-cluster-plan-leave":    "TestPlansOfSeveralNodes",
	"admin-not-root":              "testdata/cli/riak.txtar",
	"riak-start-not-root":         "testdata/cli/riak.txtar",
}

// sameCode are those where only the exit code is the same, with the reason.
var sameCode = map[string]string{
	"admin-cluster-unknown":   "the usage lists the commands that are here",
	"admin-cluster-usage":     "the usage lists the commands that are here",
	"admin-join-deprecated":   "a text of ours: there is no join -f",
	"admin-leave-deprecated":  "a text of ours: there is no leave -f",
	"admin-remove-gone":       "a text of ours: there is no read-repair",
	"admin-unknown-command":   "the usage lists the commands that are here",
	"admin-usage":             "the usage lists the commands that are here",
	"admin-down-usage":        "there is no marking as down",
	"riak-attach-direct-down": "there is no console to attach to, node or not",
	"riak-attach-down":        "there is no console to attach to, node or not",
	"riak-top-down":           "there is no Erlang virtual machine to look into",
	"riak-unknown-command":    "the usage lists the commands that are here",
	"riak-usage":              "the usage lists the commands that are here",
	"admin-down-is-up":        "there is no marking as down",
	"admin-down-not-member":   "there is no marking as down",
}

// notHere are Riak's alone, with the reason.
var notHere = map[string]string{
	"admin-cluster-commit-legacy":             "there is no legacy mode",
	"admin-cluster-force-remove-claimant":     "the raft leader can be removed: another one follows",
	"admin-cluster-join-crash":                "no error is hidden in the log",
	"admin-cluster-join-noring":               "there is no ring to get: a node that answers says whether it can be joined",
	"admin-cluster-join-other":                "the reason is always told",
	"admin-cluster-join-size":                 "there is no ring_creation_size",
	"admin-cluster-plan-force-remove":         "there is no force-replace, and no replica is lost",
	"admin-cluster-plan-replace":              "there are no data to move from one node to another",
	"admin-cluster-replace-ok":                "there are no data to move from one node to another",
	"admin-cluster-replace-usage":             "there are no data to move from one node to another",
	"admin-down-ok":                           "there is no marking as down",
	"admin-ring-status-handoff":               "no partition changes its owner here",
	"admin-ring-status-handoff-down":          "no partition changes its owner here",
	"riak-chkconfig-bad-flag":                 "problems are told with file, line and cure",
	"riak-chkconfig-bad-handoff-ip":           "problems are told with file, line and cure",
	"riak-chkconfig-bad-listener":             "problems are told with file, line and cure",
	"riak-chkconfig-bad-validator":            "problems are told with file, line and cure",
	"riak-chkconfig-circular-substitution":    "problems are told with file, line and cure",
	"riak-chkconfig-empty-value":              "problems are told with file, line and cure",
	"riak-chkconfig-missing-substitution":     "problems are told with file, line and cure",
	"riak-chkconfig-not-latin1":               "problems are told with file, line and cure",
	"riak-chkconfig-syntax":                   "problems are told with file, line and cure",
	"riak-chkconfig-two-unknown-keys":         "keys of others are left alone",
	"riak-chkconfig-unknown-key":              "keys of others are left alone",
	"riak-config-describe-nodename":           "settings are described in leader-latch.conf(5)",
	"riak-config-describe-strong-consistency": "settings are described in leader-latch.conf(5)",
	"riak-config-describe-unknown":            "settings are described in leader-latch.conf(5)",
	"riak-config-generate":                    "nothing is generated from riak.conf",
	"riak-no-cookie":                          "a file without the line means Riak's default",
	"riak-no-nodename":                        "a file without the line means Riak's default",
}

func TestRiakCases(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(riakCases, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, file := range files {
		c := riakcases.Read(t, file)
		node, same := sameText[c.Name]
		_, code := sameCode[c.Name]
		_, gone := notHere[c.Name]
		_, other := elsewhereTested[c.Name]
		if n := len(slices.DeleteFunc([]bool{same, code, gone, other}, func(b bool) bool { return !b })); n != 1 {
			t.Errorf("%s is in %d of the tables, want one", c.Name, n)
			continue
		}
		switch {
		case same:
			if t.Run(c.Name, func(t *testing.T) { compareCase(t, c, node) }) {
				compared++
			}
		case code:
			t.Run(c.Name, func(t *testing.T) {
				if got, out, errs := runCase(t, c, down); got != c.ExitCode {
					t.Errorf("exit code %d, want %d\n%s%s", got, c.ExitCode, out, errs)
				}
			})
		}
	}
	t.Logf("%d of %d cases print what Riak prints, %d more in other tests; %d only exit as Riak does, %d are not here",
		compared, len(sameText), len(elsewhereTested), len(sameCode), len(notHere))
	if n := len(sameText) + len(elsewhereTested) + len(sameCode) + len(notHere); n != len(files) {
		t.Errorf("%d cases in the tables, %d in %s", n, len(files), riakCases)
	}
}

func compareCase(t *testing.T, c *riakcases.Case, node *stubNode) {
	code, stdout, stderr := runCase(t, c, node)
	if want := c.Ours(); stdout != want {
		t.Errorf("prints\n%swant\n%s", stdout, want)
	}
	if stderr != c.Stderr && c.Name != "admin-cluster-commit-failed" { // which says why as well
		t.Errorf("stderr\n%swant\n%s", stderr, c.Stderr)
	}
	if code != c.ExitCode {
		t.Errorf("exit code %d, want %d", code, c.ExitCode)
	}
}

func runCase(t *testing.T, c *riakcases.Case, node *stubNode) (code int, stdout, stderr string) {
	name := n1
	if c.Name == "riak-other-nodename" {
		name = "two@127.0.0.1"
	}
	return runRiak(t, c.Command, name, node)
}

func runRiak(t *testing.T, command []string, nodename string, node *stubNode) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "etc", "riak.conf")
	text := "nodename = " + nodename + "\ndistributed_cookie = long-enough-for-no-warning\nplatform_data_dir = " + dir +
		"\nstrong_consistency = on\nlistener.leader_latch.internal = 127.0.0.1:5323\n"
	if err := errors.Join(os.Mkdir(filepath.Dir(conf), 0o755), os.WriteFile(conf, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	if node == nil {
		node = down
	}
	for _, given := range node.before {
		if given == "!not ready" {
			node.staging.cluster.(*stubCluster).ring.Ready = ptr(false)
			continue
		}
		path, query, _ := strings.Cut(given, "?")
		q, _ := url.ParseQuery(query)
		var a stagingAnswer
		if err := node.post(t.Context(), "/staging/"+path, q, &a); err != nil || a.Code != exitOK {
			t.Fatalf("%s: %+v, %v", given, a, err)
		}
	}
	var out, errs bytes.Buffer
	e := &env{stdout: &out, stderr: &errs, getenv: func(key string) string {
		return map[string]string{"LEADER_LATCH_CONFIG": conf, "WAIT_FOR_ERLANG": "3"}[key]
	}}
	for _, p := range riakPrograms() {
		if p.name == command[0] {
			code = p.runOn(t.Context(), e, command[1:], func(*riakconf.Config) (riakNode, riakService) { return node, node })
		}
	}
	// The version of this program stands where Riak has printed its own.
	return code, strings.NewReplacer("4711", "PID", packaging.Version(), "2.1.1").Replace(out.String()), errs.String()
}

// Plans that take more than one node to stage, or more than one step.
func TestPlansOfSeveralNodes(t *testing.T) {
	joins := func(m status.Member, now, then int) status.Member {
		m.Share, m.Pending = now, ptr(then)
		return m
	}
	leaves := joins(valid(n3, 0), 328, 0)
	leaves.Status = "leaving"
	for name, plan := range map[string]status.Plan{
		"admin-cluster-plan-join-two": {
			Changes: []status.Change{{Action: "join", Node: n2}, {Action: "join", Node: n3}},
			After:   []status.Ring{ring(joins(valid(n1, 0), 1000, 344), joins(valid(n2, 0), 0, 328), joins(valid(n3, 0), 0, 328))},
		},
		"admin-cluster-plan-leave": {
			Changes: []status.Change{{Action: "leave", Node: n3}},
			After:   []status.Ring{ring(joins(valid(n1, 0), 344, 500), joins(valid(n2, 0), 328, 500), leaves), two},
		},
	} {
		c := riakcases.Read(t, filepath.Join(riakCases, name+".json"))
		var b strings.Builder
		if err := plan.Print(&b); err != nil {
			t.Fatal(err)
		}
		if want := c.Ours(); b.String() != want {
			t.Errorf("%s prints\n%swant\n%s", name, b.String(), want)
		}
	}
}

// A commit makes the staged changes, in their order, once.
func TestCommitMakesTheChanges(t *testing.T) {
	c := &stubCluster{ring: three}
	node := staged(n1, c, "leave?node="+n2, "force-remove?node="+n3, "plan")
	if _, out, _ := runRiak(t, []string{"riak-admin", "cluster", "commit"}, n1, node); out != "Cluster changes committed\n" {
		t.Fatal(out)
	}
	want := []status.Change{{Action: "leave", Node: n2}, {Action: "force-remove", Node: n3}}
	if !slices.Equal(c.applied, want) {
		t.Errorf("made %v, want %v", c.applied, want)
	}
	node.before = nil
	if _, out, _ := runRiak(t, []string{"riak-admin", "cluster", "plan"}, n1, node); out != "There are no staged changes\n" {
		t.Error(out)
	}
}

// A claimant that was none for a while does not know what was committed meanwhile.
func TestAnotherTermDropsWhatIsStaged(t *testing.T) {
	c := &stubCluster{ring: three}
	staged(n1, c)
	leave := order{What: "stage", Change: status.Change{Action: "leave", Node: n2}}
	for _, step := range []struct {
		term uint64
		o    order
		want string
	}{
		{1, leave, "Success: staged leave request for 'riak@10.0.0.2'\n"},
		{1, order{What: "plan"}, "=============================== Staged Changes"},
		{3, order{What: "commit"}, "You must verify the plan"},
		{3, order{What: "plan"}, "There are no staged changes\n"},
	} {
		a, err := c.claimant.answer(t.Context(), step.term, step.o)
		if err != nil || !strings.HasPrefix(a.Text, step.want) {
			t.Errorf("%s in term %d: %q, %v; want %q", step.o.What, step.term, a.Text, err, step.want)
		}
	}
}

func TestCommandsOfRiakAlone(t *testing.T) {
	for _, p := range riakPrograms() {
		for name := range p.elsewhere {
			code, out, _ := runRiak(t, append([]string{p.name}, strings.Fields(name)...), n1, down)
			if code != exitFailed || !strings.HasPrefix(out, p.name+" "+name+" is a command of Riak alone: ") {
				t.Errorf("%s %s: %d, %q", p.name, name, code, out)
			}
		}
	}
}
