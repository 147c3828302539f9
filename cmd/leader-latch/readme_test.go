package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
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

	"leaderlatch/riakconf"
)

var update = flag.Bool("update", false, "write the tables that tests make into the documents")

// Documents that tests read.
const (
	repository        = "../.."
	readme            = repository + "/README.md"
	clientsDocument   = repository + "/latch/CLIENTS.md"
	settingsDocument  = repository + "/riakconf/SETTINGS.md"
	operatingDocument = repository + "/packaging/OPERATING.md"
)

func readDocument(t *testing.T, document string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sectionOf gives the text of a document's section below its heading.
func sectionOf(t *testing.T, document, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut(readDocument(t, document), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", document, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// blocksOf gives the indented blocks of code in a section.
func blocksOf(section string) (blocks []string) {
	for _, b := range regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(section, -1) {
		blocks = append(blocks, regexp.MustCompile(`(?m)^    `).ReplaceAllString(b, ""))
	}
	return blocks
}

// documentTable gives the table between a document's marks of this name, with what is
// before and after it.
func documentTable(t *testing.T, document, name string) (before, table, after string) {
	t.Helper()
	marks := regexp.MustCompile(`(?s)<!-- ` + name + `: [^\n]* -->\n(.*)<!-- end of ` + name + ` -->`)
	text := readDocument(t, document)
	at := marks.FindStringSubmatchIndex(text)
	if at == nil {
		t.Fatalf("%s has lost the marks around the table of %s", document, name)
	}
	return text[:at[2]], text[at[2]:at[3]], text[at[3]:]
}

// wantTable expects that the document has this table, or has it written there.
func wantTable(t *testing.T, document, name, want string) {
	t.Helper()
	before, table, after := documentTable(t, document, name)
	switch {
	case *update:
		if err := os.WriteFile(document, []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case table != want:
		t.Errorf("the table of %s in %s is not what it should be; run the command above it. It should be\n%s", name, document, want)
	}
}

// The document's table of settings is the schema's.
func TestDocumentHasTheSettings(t *testing.T) {
	var table strings.Builder
	table.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, k := range riakconf.Keys() {
		if k.Foreign {
			continue
		}
		def := k.Note
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", k.Name, k.Type, def, k.Help)
	}
	wantTable(t, settingsDocument, "keys", table.String())
}

// README.md is for who has ten minutes.
func TestREADMEIsShort(t *testing.T) {
	const most = 200
	if lines := strings.Count(readDocument(t, readme), "\n"); lines > most {
		t.Errorf("README.md has %d lines, more than %d: put what is new in place of something, or in a document beside the code", lines, most)
	}
}

// allDocuments are the paths of the documents, from the repository on.
func allDocuments(t *testing.T) (all []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(repository), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "run", "testdata"}, d.Name()):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// anchorsOf are the fragments by which links name a document's headings.
func anchorsOf(text string) (anchors []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors = append(anchors, strings.ReplaceAll(name, " ", "-"))
	}
	return anchors
}

// Where a document links to a file or a heading of the repository, there is one; and
// README.md leads to every document.
func TestDocumentsLinkToWhatThereIs(t *testing.T) {
	all := allDocuments(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fromREADME := []string{"README.md"}
	for _, document := range all {
		text := readDocument(t, filepath.Join(repository, document))
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, fragment, _ := strings.Cut(m[1], "#")
			to := document
			if file != "" {
				to = filepath.Join(filepath.Dir(document), file)
			}
			b, err := os.ReadFile(filepath.Join(repository, to))
			if err != nil {
				t.Errorf("%s links to %s: %v", document, m[1], err)
				continue
			}
			if fragment != "" && !slices.Contains(anchorsOf(string(b)), fragment) {
				t.Errorf("%s links to %s, and there is no such heading", document, m[1])
			}
			if document == "README.md" {
				fromREADME = append(fromREADME, to)
			}
		}
	}
	for _, document := range all {
		if !slices.Contains(fromREADME, document) {
			t.Errorf("README.md does not link to %s", document)
		}
	}
}

// Comments, scripts and messages name documents that there are, and sections that those
// have: "SPEED.md, Figures".
func TestCodeNamesDocumentsThatThereAre(t *testing.T) {
	headings := map[string][]string{} // by the name of the document
	for _, document := range allDocuments(t) {
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readDocument(t, filepath.Join(repository, document)), -1) {
			headings[filepath.Base(document)] = append(headings[filepath.Base(document)], m[1])
		}
	}
	named := regexp.MustCompile(`\b([A-Z]+\.md)(?:, ((?:[A-Z][a-z]+)(?: [a-z]+)*))?`)
	lineEnd := regexp.MustCompile(`\n[\t #]*(?://)? ?`) // a comment as it reads
	references := 0
	for _, under := range []string{"cmd", "ensemble", "latch", "riakconf", "packaging", "findings", ".ci", "Makefile"} {
		filepath.WalkDir(filepath.Join(repository, under), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) == ".md" {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range named.FindAllStringSubmatch(lineEnd.ReplaceAllString(string(text), " "), -1) {
				references++
				known, ok := headings[m[1]]
				begins := func(h string) bool { return h != "" && strings.HasPrefix(m[2], h) }
				if !ok {
					t.Errorf("%s names %s, which does not exist", path, m[1])
				} else if m[2] != "" && m[2] != "Heading" && !slices.ContainsFunc(known, begins) {
					t.Errorf("%s names %s, %s, which does not exist", path, m[1], m[2])
				}
			}
			return err
		})
	}
	if references < 50 {
		t.Errorf("found %d references; the test looks for the wrong thing", references)
	}
}

// Tests that documents name exist: a row that says what holds it has to be true.
func TestDocumentsNameTestsThatThereAre(t *testing.T) {
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := fs.WalkDir(os.DirFS(repository), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(readDocument(t, filepath.Join(repository, path)), -1) {
			exists[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, document := range allDocuments(t) {
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(readDocument(t, filepath.Join(repository, document)), -1) {
			if named++; !exists[name] {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
	}
	if named == 0 {
		t.Error("no document names a test; this one looks for the wrong thing")
	}
}

// Where a document says in which file beside it something stands, "raft.go, `startRaft`", it
// stands there.
func TestDocumentsNameWhatFilesHave(t *testing.T) {
	place := regexp.MustCompile("([a-z_/]+\\.go), `([A-Za-z]+)`")
	named := 0
	for _, document := range allDocuments(t) {
		for _, m := range place.FindAllStringSubmatch(readDocument(t, filepath.Join(repository, document)), -1) {
			named++
			if file := filepath.Join(repository, filepath.Dir(document), m[1]); !strings.Contains(readDocument(t, file), m[2]) {
				t.Errorf("%s says that %s has %s, and it has not", document, m[1], m[2])
			}
		}
	}
	if named == 0 {
		t.Error("no document says what a file has; this test looks for the wrong thing")
	}
}

// The commands of README.md's cluster of three, as they are, but for folder, network and
// timing. When a node is killed a client of another one leads; an interrupt ends the
// others in order.
func TestREADMEsClusterOfThree(t *testing.T) {
	realClient(t, "make")
	realClient(t, "setsid")
	t.Parallel()
	blocks := blocksOf(sectionOf(t, readme, "A cluster of three"))
	if len(blocks) < 3 || !strings.HasPrefix(blocks[0], "make cluster ") || !strings.Contains(blocks[1], "cluster status") || !strings.HasPrefix(blocks[2], "kill ") {
		t.Fatalf("README.md does not have the commands: %q", blocks)
	}
	dir := t.TempDir()
	network := loopbackNetwork()
	shell := func(block string) *exec.Cmd {
		settings := fmt.Sprintf("make cluster NETWORK=%s RUN=%s BIN=%[2]s/leader-latch TIMING=calm", network, dir)
		block = strings.NewReplacer("make cluster", settings, "run/", dir+"/", "bin/leader-latch", dir+"/leader-latch").Replace(block)
		cmd := exec.Command("sh", "-ec", block)
		cmd.Dir = repository
		return cmd
	}
	pid := func(n int) int { // 0: the node does not run
		b, _ := os.ReadFile(fmt.Sprintf("%s/node%d/data/leader_latch/lock", dir, n))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if pid == 0 || !bytes.Contains(cmdline, []byte(dir)) {
			return 0
		}
		return pid
	}
	logOf := func(n int) string {
		b, _ := os.ReadFile(fmt.Sprintf("%s/node%d/log/console.log", dir, n))
		return string(b)
	}

	made := shell(blocks[0])
	var said bytes.Buffer
	made.Stdout, made.Stderr = &said, &said
	made.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := made.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- made.Wait() }()
	t.Cleanup(func() {
		syscall.Kill(-made.Process.Pid, syscall.SIGKILL)
		for n := 1; n <= 3; n++ {
			if pid := pid(n); pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})

	node := func(n int) *proc { return &proc{t: t, addr: fmt.Sprintf("%s.%d:5323", network, n)} }
	node(1).until("the first node runs", func() bool { return pid(1) != 0 && strings.Contains(logOf(1), "[info] started ") })
	if out, err := shell(blocks[1]).CombinedOutput(); err != nil || strings.Count(string(out), "riak@"+network) < 3 {
		t.Fatalf("%v: %s\n%s", err, out, said.String())
	}
	first := node(1).join("test_group", "1", "1")
	second := node(2).join("test_group", "2", "1")
	if out, err := shell(blocks[2]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first.wantGone()
	second.want("LEADER 2")

	syscall.Kill(-made.Process.Pid, syscall.SIGINT) // as a terminal does it
	second.wantGone()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("make does not end")
	}
	for n := 2; n <= 3; n++ {
		if pid := pid(n); pid != 0 || !strings.HasSuffix(strings.TrimSpace(logOf(n)), "[info] stopped") {
			t.Errorf("node %d has not ended in order; process %d\n%s", n, pid, logOf(n))
		}
	}
}

// loopbackNetwork gives the first three bytes of addresses that [loopback] does not give.
func loopbackNetwork() string { return fmt.Sprintf("127.%d.200", 1+os.Getpid()%120) }
