package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// Cookies of the test below. The first is what all nodes of tests have.
const oldCookie, newCookie = "only-for-this-test", "new+cookie/for-the-same=="

// cookieSteps gives the commands by which OPERATING.md has a cookie changed, step by step.
// The line that an editor is to add comes by one more command.
func cookieSteps(t *testing.T) (steps []string) {
	t.Helper()
	section := doctest.Section(t, repository+"/packaging/OPERATING.md", "Changing a cluster")
	_, section, _ = strings.Cut(section, "**To change the cookie**")
	section, _, _ = strings.Cut(section, "\n**")
	steps = blocksOf(section)
	added := regexp.MustCompile("Add the line `(.*)` with an editor").FindStringSubmatch(section)
	if len(steps) != 3 || added == nil {
		t.Fatalf("OPERATING.md changes the cookie in %d steps, not in 3, or names no line to add (%q)", len(steps), added)
	}
	steps[0] = fmt.Sprintf("echo '%s' >> /etc/riak/riak.conf\n", added[1]) + steps[0]
	return steps
}

// shell runs commands of a document on the node's machine, expects the exit code of the last
// one, and gives all that they printed.
func (m *member) shell(code int, commands string) string {
	m.t.Helper()
	program := m.program()
	sh := exec.Command("sh", "-c", strings.NewReplacer(
		"/etc/riak/riak.conf", m.conf, "leader-latch ", program.Path+" ",
		"NEW", newCookie,
	).Replace(commands))
	sh.Env = program.Env
	out, err := sh.CombinedOutput()
	if got := sh.ProcessState.ExitCode(); got != code {
		m.t.Fatalf("on %s: exit code %d (%v), want %d\n%s\n%s", m.name, got, err, code, commands, out)
	}
	return string(out)
}

// resume starts the node's process again with the riak.conf that is there.
func (m *member) resume() {
	m.t.Helper()
	log := filepath.Join(m.t.TempDir(), "log")
	out, err := os.Create(log)
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close()
	m.proc = serveFile(m.t, m.conf, log, out)
}

// The cookie is changed as OPERATING.md tells, node by node, under clients: nobody's leader
// changes, and no connection ends. A step that comes too early changes nothing. A node that
// dies in the middle comes back.
func TestTheCookieIsChangedUnderClients(t *testing.T) {
	t.Parallel()
	steps := cookieSteps(t)
	all := cluster(t, 3)
	third := all[2]
	var clients, ofThird []*conn
	groups := make(map[string]uint64) // the token of its leader
	for i, leads := range all[:2] {
		group := fmt.Sprint("g", i)
		clients = append(clients, leads.join(group, leads.name, leads.name), all[1-i].join(group, "next", leads.name))
		ofThird = append(ofThird, third.join(group, "last", leads.name))
		groups[group] = leads.group(group).Token
	}
	nobodyNotices := func(when string) {
		t.Helper()
		for _, m := range all {
			m.until(when+": all are up", func() bool { return whole(m.cluster(), 3) })
			for group, token := range groups {
				m.until(when+": "+m.name+" knows all members", func() bool {
					g := m.group(group)
					if g.Token != token {
						t.Fatalf("%s: %s has another leader than before: %+v", when, m.name, g)
					}
					return len(g.Members) == 3
				})
			}
		}
		for _, c := range append(clients, ofThird...) {
			c.wantSilence()
		}
	}
	// tooEarly does a step, which must change nothing, and puts the file back.
	tooEarly := func(m *member, step int) {
		t.Helper()
		was, err := os.ReadFile(m.conf)
		if err != nil {
			t.Fatal(err)
		}
		said := m.shell(exitFailed, steps[step])
		wantContains(t, said, "leader-latch: nothing was done; put riak.conf back until this is mended, as a start goes by it:\n")
		for _, behind := range all {
			if behind != m {
				wantContains(t, said, "\n"+behind.name+" and this node would not let each other in: do the step before on that one first\n")
			}
		}
		if err := os.WriteFile(m.conf, was, 0o644); err != nil {
			t.Fatal(err)
		}
		nobodyNotices("after a step that came too early")
	}

	nobodyNotices("at first")
	tooEarly(all[0], 1)
	for i, step := range steps {
		for j, m := range all {
			wantContains(t, m.shell(exitOK, step), "Success: "+m.name+" has the cookie of "+m.conf+"\n")
			m.logs(fmt.Sprintf("took the cookies of riak.conf step=\"%d: ", i+1))
			nobodyNotices(fmt.Sprintf("after step %d on node %d", i+1, j+1))
			if i == 1 && j == 0 {
				tooEarly(m, 2)
				third.kill()
				third.resume()
				third.ready()
				for k, leads := range all[:2] {
					ofThird[k].wantGone()
					ofThird[k] = third.join(fmt.Sprint("g", k), "last", leads.name)
				}
				nobodyNotices("after a node died in the middle")
			}
		}
	}

	// From now on the old one opens nothing.
	stranger := newMember(t, "leader_latch.join = "+all[0].name).run()
	stranger.logs("a node has another cookie remote=" + all[0].ip + ":5324 reason=")
	stranger.logs("another distributed_cookie; set the same one on all nodes")
	stranger.kill()
	third.kill()
	third.resume()
	third.ready()
	third.until("all are up", func() bool { return whole(third.cluster(), 3) })
}

// A member whose cookie is another one says so itself: its log is what its operator reads.
func TestAMemberLogsThatItsCookieIsAnother(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3)
	odd := all[0]
	odd.kill()
	odd.lines = append(odd.lines, "distributed_cookie = another")
	odd.run()
	odd.logs("[warning] a node has another cookie remote=")
	if out, err := odd.command("cluster", "cookie"); err == nil || !strings.Contains(out, "nothing was done; ") {
		t.Errorf("cluster cookie: %v, %s", err, out)
	}
}

// A node that is alone cuts nobody off.
func TestClusterCookieAlone(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	if out, err := p.command("cluster", "cookie"); err != nil || !strings.HasPrefix(out, "Success: riak@127.0.0.1 has the cookie of ") {
		t.Errorf("a node that is alone: %v, %s", err, out)
	}
	f, err := os.OpenFile(p.conf, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "leader_latch.second_cookie = %s\n", oldCookie)
	f.Close()
	if out, err := p.command("cluster", "cookie"); err != nil || !strings.Contains(out, "leader_latch.second_cookie: it is the same as distributed_cookie, and does nothing") {
		t.Errorf("with one cookie twice: %v, %s", err, out)
	}
	if out, err := p.command("cluster", "cookie", "now"); err == nil || !strings.Contains(out, `unknown argument "now"`) {
		t.Errorf("with an argument: %v, %s", err, out)
	}
}
