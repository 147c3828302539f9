package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"leaderlatch/cmd/leader-latch/internal/doctest"
	"leaderlatch/riakconf"
)

// Documents that tests read.
const (
	repository        = "../.."
	readme            = repository + "/README.md"
	settingsDocument  = repository + "/riakconf/SETTINGS.md"
	operatingDocument = repository + "/packaging/OPERATING.md"
)

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
	doctest.WantTable(t, settingsDocument, "keys", table.String())
}

// README.md is for who has ten minutes.
func TestREADMEIsShort(t *testing.T) {
	const most = 200
	if lines := strings.Count(doctest.Read(t, readme), "\n"); lines > most {
		t.Errorf("README.md has %d lines, more than %d: put what is new in place of something, or in a document beside the code", lines, most)
	}
}

// Its layout says what each package is, but for those that only help tests.
func TestREADMENamesEveryPackage(t *testing.T) {
	layout := doctest.Section(t, readme, "Layout")
	all, err := exec.Command("go", "list", "leaderlatch/cmd/...", "leaderlatch/riakconf/...", "leaderlatch/latch/...", "leaderlatch/ensemble/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(all)) {
		folder := strings.TrimPrefix(pkg, "leaderlatch/")
		if strings.Contains(folder, "/internal/") || strings.HasSuffix(folder, "test") {
			continue
		}
		if line := "(?m)^ +(" + folder + "|" + filepath.Base(folder) + ") "; !regexp.MustCompile(line).MatchString(layout) {
			t.Errorf("README.md does not say what %s is", folder)
		}
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
		text := doctest.Read(t, filepath.Join(repository, document))
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
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(doctest.Read(t, filepath.Join(repository, document)), -1) {
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
		for _, m := range declared.FindAllStringSubmatch(doctest.Read(t, filepath.Join(repository, path)), -1) {
			exists[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, document := range allDocuments(t) {
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(doctest.Read(t, filepath.Join(repository, document)), -1) {
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
		for _, m := range place.FindAllStringSubmatch(doctest.Read(t, filepath.Join(repository, document)), -1) {
			named++
			if file := filepath.Join(repository, filepath.Dir(document), m[1]); !strings.Contains(doctest.Read(t, file), m[2]) {
				t.Errorf("%s says that %s has %s, and it has not", document, m[1], m[2])
			}
		}
	}
	if named == 0 {
		t.Error("no document says what a file has; this test looks for the wrong thing")
	}
}
