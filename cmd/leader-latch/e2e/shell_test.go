package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// The clients in shell of README.md and latch/CLIENTS.md, word for word, against real nodes. How they do
// when a host vanishes is among the tests of faults.

// shellForm is one of the scripts.
type shellForm struct {
	name      string
	shell     string
	sh        string // the program that sh is; empty: the machine's own
	text      string
	processes int           // that it consists of while it is a member
	silence   time.Duration // how long it may believe in a node whose host has vanished, as CLIENTS.md says
	exitStays bool          // `exit` in the loop does not end the script
}

// shellForms reads the scripts from the documents.
func shellForms(t *testing.T) (forms []shellForm) {
	t.Helper()
	for _, program := range []string{"bash", "busybox", "socat", "setpriv"} {
		realClient(t, program)
	}
	bash := shellForm{name: "bash", shell: "bash", processes: 1}
	sh := shellForm{name: "sh", shell: "sh", processes: 3, exitStays: true}
	bash.text = shellClient(t, readme, bash.shell)
	sh.text = shellClient(t, clientsDocument, sh.shell)
	bounds := regexp.MustCompile(`at most ([0-9.]+) s in bash and ([0-9.]+) s with socat`).FindStringSubmatch(doctest.Section(t, clientsDocument, "A client in shell"))
	if bounds == nil {
		t.Fatalf("%s does not say how long the clients in shell believe in a host that has vanished", clientsDocument)
	}
	bash.silence, _ = time.ParseDuration(bounds[1] + "s")
	sh.silence, _ = time.ParseDuration(bounds[2] + "s")
	forms = []shellForm{bash, sh}
	for _, program := range []string{"bash", "busybox"} {
		sh.name, sh.sh = "sh of "+program, realClient(t, program)
		forms = append(forms, sh)
	}
	return forms
}

// shellClient is the one script in a document's section on clients in shell.
func shellClient(t *testing.T, document, shell string) string {
	t.Helper()
	blocks := regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```$").FindAllStringSubmatch(doctest.Section(t, document, "A client in shell"), -1)
	if len(blocks) != 1 || blocks[0][1] != shell {
		t.Fatalf("%s has not one client in shell, for %s: %q", document, shell, blocks)
	}
	return blocks[0][2]
}

// script prepares this client, with changes to its text: each old and new.
func (f shellForm) script(t *testing.T, addr, group, name string, changes ...string) *script {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	settings := regexp.MustCompile(`(?m)^host=127\.0\.0\.1 port=5323 group=backup me=.*$`)
	changes = append(changes, settings.FindString(f.text), fmt.Sprintf("host=%s port=%s group=%s me=%s", host, port, group, name))
	text := f.text
	for c := range slices.Chunk(changes, 2) {
		if strings.Count(text, c[0]) != 1 {
			t.Fatalf("the documents' client for %s has no single %q", f.shell, c[0])
		}
		text = strings.Replace(text, c[0], c[1], 1)
	}
	s := newScript(t, f.shell, text)
	if f.sh != "" {
		if err := os.Symlink(f.sh, filepath.Join(s.dir, "sh")); err != nil {
			t.Fatal(err)
		}
		s.cmd.Path = filepath.Join(s.dir, "sh")
		s.cmd.Env = append(os.Environ(), "PATH="+s.dir+":"+os.Getenv("PATH"))
	}
	return s
}

// atLeadership changes what a client does when it leads.
func atLeadership(what string) (before, after string) {
	return `"LEADER $me") echo "I lead"`, `"LEADER $me") echo "I lead"; ` + what
}

// script is a shell script in a process group of its own.
type script struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	said chan saying
}

type saying struct {
	line string
	at   time.Time
}

func newScript(t *testing.T, shell, text string) *script {
	t.Helper()
	dir, err := os.MkdirTemp("", "leader-latch-script") // the name of a test may have commas
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "client.sh")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, dir: dir, cmd: exec.Command(shell, file), said: make(chan saying, 1000)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // it would try to join for ever
	return s
}

// start runs it. It ends with the test at the latest, and whatever it has started.
func (s *script) start() *script {
	s.t.Helper()
	stderr, err := os.Create(filepath.Join(s.dir, "stderr"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer stderr.Close()
	out, in, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	s.cmd.Stdout, s.cmd.Stderr = in, stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go s.cmd.Wait()
	go func() {
		defer close(s.said)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			s.said <- saying{strings.TrimRight(line, "\r\n"), time.Now()}
		}
	}()
	s.t.Cleanup(func() {
		s.until("all its processes have been killed", func() bool {
			left := s.processes()
			for _, pid := range left {
				s.signal(pid, syscall.SIGKILL)
			}
			return len(left) == 0
		})
		out.Close()
	})
	return s
}

func (s *script) pid() int { return s.cmd.Process.Pid }

func (s *script) signal(pid int, sig syscall.Signal) { syscall.Kill(pid, sig) }

// next gives what it says next, or what it has said unless it was asked for.
func (s *script) next() saying {
	s.t.Helper()
	select {
	case said, ok := <-s.said:
		if ok {
			return said
		}
		said.line = "nothing any more"
		return said
	case <-time.After(patience):
		s.t.Fatalf("it says nothing; stderr:\n%s", s.stderr())
		panic("unreachable")
	}
}

// want expects this line as the next one, and gives the time at which it came.
func (s *script) want(line string) time.Time {
	s.t.Helper()
	said := s.next()
	if said.line != line {
		s.t.Fatalf("it says %q, want %q; stderr:\n%s", said.line, line, s.stderr())
	}
	return said.at
}

func (s *script) stderr() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "stderr"))
	return string(text)
}

// wantEnd expects that it says nothing more, and that nothing of it is left.
func (s *script) wantEnd() {
	s.t.Helper()
	s.until("all its processes have ended", func() bool { return len(s.processes()) == 0 })
	for said := range s.said {
		s.t.Errorf("it ends with %q", said.line)
	}
}

func (s *script) until(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

// processes gives the living processes of its group, the oldest first.
func (s *script) processes() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // ended just now
		}
		pid, rest, _ := strings.Cut(string(b), " ")
		f := strings.Fields(rest[strings.LastIndex(rest, ")")+1:]) // state, parent, group
		if n, _ := strconv.Atoi(pid); f[0] != "Z" && f[2] == fmt.Sprint(s.pid()) {
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return pids
}

// When its node is killed or stopped, a client knows before or as soon as the next one
// leads; and when the node is back it joins again.
func TestShellClientsKnowThatTheirNodeHasEnded(t *testing.T) {
	forms := shellForms(t)
	t.Parallel()
	all := cluster(t, 3)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		var ones, twos []*script
		for i, f := range forms {
			group := unique("shell")
			ones = append(ones, f.script(t, all[0].addr, group, "one").start())
			ones[i].want("I lead")
			twos = append(twos, f.script(t, all[1].addr, group, "two").start())
			twos[i].want("one leads")
		}
		ended := time.Now()
		all[0].signal(sig)
		for i, f := range forms {
			what := fmt.Sprintf("%s, node ended by %v", f.name, sig)
			knows, next := ones[i].want("I do not lead"), twos[i].want("I lead")
			took(t, what+": its client in shell knew", knows.Sub(ended), 0)
			took(t, what+": the next client in shell led", next.Sub(ended), replacedAfterElection(clusterTiming))
			if sig == syscall.SIGKILL && knows.After(next) {
				t.Errorf("%s: the client knew only %v after the next one led", what, knows.Sub(next))
			}
		}
		<-all[0].gone
		all[0].run()
		for _, one := range ones {
			one.want("two leads")
		}
		wantWhole(all)
	}
}

// forTest gives the node as a test has it that is part of another one.
func (p *proc) forTest(t *testing.T) *proc {
	q := *p
	q.t = t
	return &q
}

// Whichever process of a client is killed, its membership ends. Where that is not the
// first one, the client joins again; else nothing of it is left.
func TestShellClientsLeaveWhenTheyAreKilled(t *testing.T) {
	forms := shellForms(t)
	t.Parallel()
	p := start(t, t.TempDir())
	for _, f := range forms {
		for victim := range f.processes {
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				t.Run(fmt.Sprintf("%s, process %d, %v", f.name, victim, sig), func(t *testing.T) {
					t.Parallel()
					p := p.forTest(t)
					group := unique("killed")
					s := f.script(t, p.addr, group, "script").start()
					s.want("I lead")
					second := p.join(group, "second", "script")
					all := s.processes()
					if len(all) != f.processes {
						t.Fatalf("it has the processes %v, want %d", all, f.processes)
					}
					s.signal(all[victim], sig)
					second.want("LEADER second")
					if says := f.processes - 1; victim != says || sig == syscall.SIGTERM && says > 0 {
						s.want("I do not lead")
					}
					if victim == 0 {
						s.wantEnd()
					} else {
						s.want("second leads")
					}
				})
			}
		}
	}
}

// A client that leaves its loop has left the group.
func TestShellClientsLeaveWithTheirLoop(t *testing.T) {
	forms := shellForms(t)
	t.Parallel()
	p := start(t, t.TempDir())
	for _, f := range forms {
		again := map[string]bool{"break": true, "exit": f.exitStays}
		if f.exitStays {
			again[`kill "$1"`] = false
		}
		for by, again := range again {
			t.Run(f.name+", "+by, func(t *testing.T) {
				t.Parallel()
				p := p.forTest(t)
				group := unique("left")
				first := p.join(group, "first", "first")
				before, after := atLeadership(by)
				s := f.script(t, p.addr, group, "script", before, after).start()
				s.want("first leads")
				second := p.join(group, "second", "first")
				first.Close()
				second.want("LEADER script")
				second.want("LEADER second")
				s.want("I lead")
				if f.shell != "bash" || by != "exit" {
					s.want("I do not lead")
				}
				if again {
					s.want("second leads")
				} else {
					s.wantEnd()
				}
			})
		}
	}
}

// A program that is started with --pdeathsig ends with the client.
func TestProgramsOfShellClientsEndWithThem(t *testing.T) {
	forms := shellForms(t)
	t.Parallel()
	p := start(t, t.TempDir())
	for _, f := range forms {
		group := unique("program")
		before, after := atLeadership("setpriv --pdeathsig KILL sleep 600 & echo started")
		s := f.script(t, p.addr, group, "script", before, after).start()
		s.want("I lead")
		s.want("started")
		second := p.join(group, "second", "script")
		s.until("it has a program too", func() bool {
			all := s.processes()
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", all[len(all)-1]))
			return string(name) == "sleep\n"
		})
		s.signal(s.pid(), syscall.SIGKILL)
		second.want("LEADER second")
		if f.processes > 1 {
			s.want("I do not lead")
		}
		s.wantEnd()
	}
}

// In bash a program that was started from the loop holds the membership until it ends,
// unless it was started with 3>&-.
func TestProgramsOfTheBashClientHoldItsMembership(t *testing.T) {
	bash := shellForms(t)[0]
	t.Parallel()
	p := start(t, t.TempDir())
	run := func(program string) (*script, *conn) {
		group := unique("holds")
		before, after := atLeadership(program + " & echo started")
		s := bash.script(t, p.addr, group, "script", before, after).start()
		s.want("I lead")
		s.want("started")
		return s, p.join(group, "second", "script")
	}
	holds, told := run("sleep 600")
	lets, toldAtOnce := run("sleep 600 3>&-")
	for _, s := range []*script{holds, lets} {
		s.signal(s.pid(), syscall.SIGKILL)
		s.until("only its program lives", func() bool { return len(s.processes()) == 1 && s.processes()[0] != s.pid() })
	}
	toldAtOnce.want("LEADER second")
	told.wantSilence()
	holds.signal(holds.processes()[0], syscall.SIGKILL)
	told.want("LEADER second")
}

// A JOIN that waits, as its name is in use, is not given up.
func TestTheBashClientWaitsForItsName(t *testing.T) {
	bash := shellForms(t)[0]
	t.Parallel()
	p := start(t, t.TempDir(), "leader_latch.join_timeout = 30s")
	old := p.join("g", "script", "script")
	s := bash.script(t, p.addr, "g", "script").start()
	p.until("its JOIN waits", func() bool { return strings.Contains(p.logText(), "JOIN waits") })
	time.Sleep(bash.silence + time.Second) // longer than it waits for any other answer
	old.Close()
	s.want("I lead")
}

// What bash has read of a line when it asks is not lost, and half a line counts for nothing.
func TestShellClientsReadWholeLines(t *testing.T) {
	for _, f := range shellForms(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s := f.script(t, l.Addr().String(), "g", "script").start()
			nc, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			server := &conn{t, nc, bufio.NewReader(nc)}
			server.want("JOIN g script")
			if f.shell == "bash" {
				server.send("LEADER other\nLEA")
				s.want("other leads")
				server.want("JOIN g script")
				server.send("DER a name\nALREADY_JOINED g script\n")
				s.want("a name leads")
				server.want("JOIN g script")
			}
			server.send("LEADER script")
			server.Close()
			s.want("I do not lead")
		})
	}
}
