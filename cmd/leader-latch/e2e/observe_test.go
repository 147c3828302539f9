package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// The observers of latch/CLIENTS.md, word for word, print each change, and end with their
// connection: that of a node which is stopped, and of one which is killed.
func TestTheDocumentsObservers(t *testing.T) {
	t.Parallel()
	realClient(t, "socat")
	blocks := regexp.MustCompile("(?ms)^```(.+?)\n(.*?)^```$").FindAllStringSubmatch(doctest.Section(t, clientsDocument, "Who leads, in ten lines"), -1)
	interpreters := map[string]string{"sh": "sh", "python": "python3", "erlang": "escript"}
	says := map[string][3]string{ // nobody, a, b
		"sh":     {"%s: nobody leads, token \\d+", "%s: a leads, token \\d+", "%s: b leads, token \\d+"},
		"python": {"%s: NO_LEADER \\d+", "%s: LEADER a \\d+", "%s: LEADER b \\d+"},
		"erlang": {"%s: NO_LEADER \\d+", "%s: LEADER a \\d+", "%s: LEADER b \\d+"},
	}
	if len(blocks) != len(interpreters) {
		t.Fatalf("%s has %d observers, want %d", clientsDocument, len(blocks), len(interpreters))
	}
	all := cluster(t, 3, withKeys)
	for _, b := range blocks {
		language, text := b[1], b[2]
		if lines := strings.Count(strings.TrimPrefix(text, "#!"), "\n"); lines > 12 {
			t.Errorf("the observer in %s has %d lines", language, lines)
		}
		t.Run(language, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "observer")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			group := unique("observed")
			lines, ended := observer(t, realClient(t, interpreters[language]), file, all[0].ip, "5323", group)
			want := func(i int) {
				t.Helper()
				pattern := "^" + fmt.Sprintf(says[language][i], regexp.QuoteMeta(group)) + "$"
				select {
				case line := <-lines:
					if !regexp.MustCompile(pattern).MatchString(line) {
						t.Fatalf("it has printed %q, want %s", line, pattern)
					}
				case <-time.After(patience):
					t.Fatalf("it has not printed %s", pattern)
				}
			}
			want(0)
			a, b := all[1].dial(), all[1].dial()
			a.send("JOIN %s a\n", group)
			want(1)
			b.send("JOIN %s b\n", group)
			if line := b.line(); !strings.HasPrefix(line, "LEADER a ") {
				t.Fatalf("b was told %q", line)
			}
			a.Close()
			want(2)
			b.Close()
			want(0)
			all[0].end(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(patience):
				t.Error("its connection has ended, and it goes on")
			}
			all[0].run().ready()
		})
	}
}

// observer runs an observer of the documents. It gives the lines that it prints, and is closed
// when it has ended.
func observer(t *testing.T, interpreter string, args ...string) (lines chan string, ended chan struct{}) {
	t.Helper()
	cmd := exec.Command(interpreter, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, ended = make(chan string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	return lines, ended
}

// leader-latch observe goes on at another node when its own is stopped or killed, and prints each
// change once.
func TestObserveGoesOnWhenNodesEnd(t *testing.T) {
	t.Parallel()
	all := cluster(t, 3, withKeys)
	var servers []string
	for _, m := range all {
		servers = append(servers, net.JoinHostPort(m.ip, "5323"))
	}
	group := unique("observed")
	lines, _ := observer(t, leaderLatch(), "observe", "--server", strings.Join(servers, ","), group)
	want := func(pattern string) {
		t.Helper()
		select {
		case line := <-lines:
			if !regexp.MustCompile("^" + regexp.QuoteMeta(group) + " " + pattern + "$").MatchString(line) {
				t.Fatalf("it has printed %q, want %s", line, pattern)
			}
		case <-time.After(patience):
			t.Fatalf("it has not printed %s", pattern)
		}
	}
	want(`NO_LEADER \d+`)
	c := all[2].dial()
	c.send("JOIN %s a\n", group)
	want(`LEADER a \d+`)
	for i, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		all[i].end(how)
		name := fmt.Sprint("b", i)
		next := all[2].dial()
		next.send("JOIN %s %s\n", group, name)
		if line := next.line(); !strings.HasPrefix(line, "LEADER ") {
			t.Fatalf("%s was told %q", name, line)
		}
		c.Close()
		want(`LEADER ` + name + ` \d+`)
		c = next
		all[i].run().ready()
	}
	c.Close()
	want(`NO_LEADER \d+`)
}

// A node that is cut off from the majority, or is paused itself, shows nobody an old leader for long: it
// ends the connections of observers, or its dead-man's switch does.
func TestNobodyIsShownAnOldLeaderForLong(t *testing.T) {
	t.Parallel()
	for what, paused := range map[string][]int{"the others are paused": {1, 2}, "it is paused": {0}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			all := cluster(t, 3, withKeys)
			group := unique("shown")
			lead := all[1].dial()
			lead.send("JOIN %s a\n", group)
			lead.line()
			o := all[0].dial()
			o.send("OBSERVE %s\n", group)
			for line := ""; !strings.HasPrefix(line, "LEADER a "); line = o.line() {
				if line != "" && !strings.HasPrefix(line, "NO_LEADER ") {
					t.Fatalf("the observer was told %q", line)
				}
			}
			for _, i := range paused {
				all[i].pause()
			}
			began := time.Now()
			if line := o.line(); strings.Contains(line, "LEADER") {
				t.Errorf("the observer was told %q", line)
			}
			bound := clusterTiming.Lease + clusterTiming.Close
			took := time.Since(began)
			if took > bound+slack(took) {
				t.Errorf("its connection has ended after %v; bound %v", took, bound)
			}
			t.Logf("ended after %v; bound %v", took, bound)
		})
	}
}
