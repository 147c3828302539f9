package main

import (
	"fmt"
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
		if want := fmt.Sprintf(".B %s\n%s", k.Name, roff(fmt.Sprintf("%s (%v; default: ", k.Help, k.Type))); !k.Foreign && !strings.Contains(docs["leader-latch.conf.5"], want) {
			t.Errorf("leader-latch.conf.5 does not have %q", want)
		}
	}
	for _, document := range []string{"OPERATING.md", "INSTALLING.md", "PROTOCOL.md"} {
		if !strings.Contains(docs["leader-latch.8"], document) {
			t.Errorf("leader-latch.8 does not say where %s is", document)
		}
	}
	for _, section := range []string{"SIGNALS", "ENVIRONMENT", "FILES", "REASONS", "LOG LINES"} {
		if !strings.Contains(docs["leader-latch.8"], "\n.SH "+section+"\n") {
			t.Errorf("leader-latch.8 has no section %s", section)
		}
	}
	for _, l := range logLines {
		if want := ".B " + roff(strings.ReplaceAll(l.lines, "`", "")) + "\n"; strings.Contains(docs["leader-latch.8"], want) != (l.do != "") {
			t.Errorf("leader-latch.8: %q asks for an action: %v; it is there or not otherwise", want, l.do != "")
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

// A shell's way to answer how a line, typed up to here, goes on. completion is the
// file that the package installs for the shell.
var shells = []struct {
	name, completion string
	complete         func(shell, file string, words []string) (string, error)
}{
	{"bash", "leader-latch.bash", func(shell, file string, words []string) (string, error) {
		script := `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _leader_latch; echo "${COMPREPLY[*]}"`
		return output(exec.Command(shell, append([]string{"-c", script, "bash", file}, words...)...))
	}},
	{"fish", "leader-latch.fish", func(shell, file string, words []string) (string, error) {
		cmd := exec.Command(shell, "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, file, strings.Join(words, " "))
		cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(file))
		out, err := output(cmd)
		word, _, _ := strings.Cut(out, "\t") // and the description
		return word, err
	}},
	// zsh completes for who types only, here at a terminal of its own: the first
	// key completes, the second one shows the line as it is then.
	{"zsh", "_leader-latch", func(shell, file string, words []string) (string, error) {
		const script = `zmodload zsh/zpty; zpty z $ZSH_NAME -f -i
zpty -w z "PS1=; fpath=(${(q)1} \$fpath); autoload -U compinit; compinit -u -D; bindkey '^I' complete-word"
zpty -w z "show() { print -r -- \"<<\$BUFFER>>\"; BUFFER=; zle accept-line }; zle -N show; bindkey '^X' show; print rea''dy"
zpty -r -m z line '*ready*' && zpty -w -n z "$2"$'\t\x18' && zpty -r -m z line '*>>*' && print -r -- ${${line##*<<}%%>>*}`
		line, err := output(exec.Command(shell, "-f", "-c", script, "zsh", filepath.Dir(file), strings.Join(words, " ")))
		return line[strings.LastIndex(line, " ")+1:], err
	}},
}

func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// The real shells complete commands, their words and their flags. With
// LEADER_LATCH_TEST_SHELLS=required all shells have to be there.
func TestShellsComplete(t *testing.T) {
	docs := documents(t)
	docs["_leader-latch"] = docs["leader-latch.zsh"] // as it is installed
	for _, s := range shells {
		t.Run(s.name, func(t *testing.T) {
			shell, err := exec.LookPath(s.name)
			if err != nil {
				if os.Getenv("LEADER_LATCH_TEST_SHELLS") == "required" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			file := filepath.Join(t.TempDir(), s.completion)
			if err := os.WriteFile(file, []byte(docs[s.completion]), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s -n: %v\n%s", s.name, err, out)
			}
			for typed, want := range map[string]string{
				"ensem":             "ensemble-status",
				"config eff":        "effective",
				"cluster forc":      "force-remove",
				"groups --j":        "--json",
				"serve --minimum-n": "--minimum-nodes",
			} {
				got, err := s.complete(shell, file, append([]string{"leader-latch"}, strings.Fields(typed)...))
				if err != nil || got != want {
					t.Errorf("%q completes to %q, %v; want %q", typed, got, err, want)
				}
			}
		})
	}
}
