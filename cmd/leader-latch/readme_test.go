package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"leaderlatch/riakconf"
)

var update = flag.Bool("update", false, "write the tables that are made from the code into README.md")

// The README's table of settings is the schema's.
func TestREADMEHasTheSettings(t *testing.T) {
	const name = "../../README.md"
	readme, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "-update -->\n", "<!-- end of keys -->"
	before, rest, ok1 := strings.Cut(string(readme), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("README.md has lost the marks around the table")
	}
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
	want := []byte(before + begin + table.String() + end + after)
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(readme, want) {
		t.Error("the table of settings is not the schema's; run go test ./cmd/leader-latch -run README -update")
	}
}
