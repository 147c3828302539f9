package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"leaderlatch/riakconf"
)

var update = flag.Bool("update", false, "write the tables that tests make into README.md")

const readme = "../../README.md"

func readREADME(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tableOfREADME gives the table between README.md's marks of this name, with what is
// before and after it.
func tableOfREADME(t *testing.T, name string) (before, table, after string) {
	t.Helper()
	marks := regexp.MustCompile(`(?s)<!-- ` + name + `: [^\n]* -->\n(.*)<!-- end of ` + name + ` -->`)
	text := readREADME(t)
	at := marks.FindStringSubmatchIndex(text)
	if at == nil {
		t.Fatalf("README.md has lost the marks around the table of %s", name)
	}
	return text[:at[2]], text[at[2]:at[3]], text[at[3]:]
}

// wantTable expects that README.md has this table, or has it written there.
func wantTable(t *testing.T, name, want string) {
	t.Helper()
	before, table, after := tableOfREADME(t, name)
	switch {
	case *update:
		if err := os.WriteFile(readme, []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case table != want:
		t.Errorf("the table of %s in README.md is not what it should be; run the command above it. It should be\n%s", name, want)
	}
}

// The README's table of settings is the schema's.
func TestREADMEHasTheSettings(t *testing.T) {
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
	wantTable(t, "keys", table.String())
}
