// Package doctest helps tests that read the documents of the repository: they play what a
// document says, or hold a table in it against what it should be.
package doctest

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables that tests make into the documents")

// Updating reports whether tables are to be written, and not compared.
func Updating() bool { return *update }

// Read gives the text of a document.
func Read(t testing.TB, document string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Section gives the text of a document's section below its heading.
func Section(t testing.TB, document, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut(Read(t, document), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", document, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// Table gives the table between a document's marks of this name.
func Table(t testing.TB, document, name string) string {
	t.Helper()
	_, table, _ := around(t, document, name)
	return table
}

// around gives that table, with what is before and after it.
func around(t testing.TB, document, name string) (before, table, after string) {
	t.Helper()
	marks := regexp.MustCompile(`(?s)<!-- ` + name + `: [^\n]* -->\n(.*)<!-- end of ` + name + ` -->`)
	text := Read(t, document)
	at := marks.FindStringSubmatchIndex(text)
	if at == nil {
		t.Fatalf("%s has lost the marks around the table of %s", document, name)
	}
	return text[:at[2]], text[at[2]:at[3]], text[at[3]:]
}

// WantTable expects that the document has this table, or has it written there.
func WantTable(t testing.TB, document, name, want string) {
	t.Helper()
	before, table, after := around(t, document, name)
	switch {
	case Updating():
		if err := os.WriteFile(document, []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case table != want:
		t.Errorf("the table of %s in %s is not what it should be; run the command above it. It should be\n%s", name, document, want)
	}
}
