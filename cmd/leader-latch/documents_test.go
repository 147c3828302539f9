package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"leaderlatch/riakconf"
)

// documents gives the documents by their names.
func documents(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := writeDocuments(dir, "1700000000"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(b)
	}
	return all
}

func TestDocumentsKnowEveryCommandAndFlag(t *testing.T) {
	docs := documents(t)
	for _, name := range []string{"leader-latch.8", "leader-latch.bash", "leader-latch.zsh", "leader-latch.fish"} {
		text := strings.ReplaceAll(docs[name], `\-`, "-")
		dashes := "--"
		if name == "leader-latch.fish" {
			dashes = "-l "
		}
		for _, c := range commands() {
			if !strings.Contains(text, c.name) {
				t.Errorf("%s does not have the command %s", name, c.name)
			}
			for _, f := range c.flags() {
				if !strings.Contains(text, dashes+f.Name) {
					t.Errorf("%s does not have the flag --%s of %s", name, f.Name, c.name)
				}
			}
		}
	}
	for _, p := range riakPrograms() {
		for _, c := range p.commands {
			if !strings.Contains(strings.ReplaceAll(docs[p.name+".8"], `\-`, "-"), ".B "+c.name) {
				t.Errorf("%s.8 does not have the command %s", p.name, c.name)
			}
		}
	}
	for _, k := range riakconf.Keys() {
		if !k.Foreign && !strings.Contains(docs["leader-latch.conf.5"], ".B "+k.Name+"\n") {
			t.Errorf("leader-latch.conf.5 does not have the setting %s", k.Name)
		}
	}
	if !strings.Contains(docs["leader-latch.8"], "2023-11-14") {
		t.Error("leader-latch.8 does not have the date of SOURCE_DATE_EPOCH")
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"a-b\\c":              `a\-b\ec`,
		"one\n\ntwo":          "one\n.PP\ntwo",
		".so /etc/passwd":     `\&.so /etc/passwd`,
		"'quoted' first":      `\&'quoted' first`,
		"see\n\n  a = b\n\nx": "see\n.PP\n.nf\n  a = b\n.fi\n.PP\nx",
		"see\n  a = b":        "see\n.nf\n  a = b\n.fi",
	} {
		if got := roff(in); got != want {
			t.Errorf("roff(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	name := filepath.Join(t.TempDir(), "completion")
	if err := os.WriteFile(name, []byte(documents(t)["leader-latch.bash"]), 0o644); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"ensem":             "ensemble-status",
		"config eff":        "effective",
		"groups --j":        "--json",
		"serve --minimum-n": "--minimum-nodes",
	} {
		words := append([]string{"leader-latch"}, strings.Fields(typed)...)
		script := `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _leader_latch; echo "${COMPREPLY[*]}"`
		out, err := exec.Command(bash, append([]string{"-c", script, "bash", name}, words...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q completes to %q, %v; want %q", typed, got, err, want)
		}
	}
}
