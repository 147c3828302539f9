// Package riakcases reads what Riak's own commands print, in testdata/riak-admin.
package riakcases

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The nodes of the cases.
const N1, N2, N3 = "riak@127.0.0.1", "riak@10.0.0.2", "dev3@host"

// Case is what Riak prints, and how it ends, when it is given a command.
type Case struct {
	Name     string   `json:"-"`
	Command  []string `json:"command"`
	ExitCode int      `json:"exit_code"`
	Stdout   string   `json:"-"`
	Stderr   string   `json:"stderr"`
}

// Read reads the case of a file that ends in .json, and of the one beside it that has its
// stdout.
func Read(t testing.TB, file string) *Case {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(file, ".json")
	c := &Case{Name: filepath.Base(base)}
	if err := json.Unmarshal(b, c); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(base + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = string(text)
	return c
}

// notOurs are the lines on what is not here: partitions, their replicas, and
// generated files.
var notOurs = regexp.MustCompile(`(?m)^(Transfers resulting|Partitions reassigned) .*\n(  .*\n)*\n|^WARNING: Not all replicas .*\n\n|^-config .*\n`)

// Ours is the stdout without the lines on what only Riak has.
func (c *Case) Ours() string { return notOurs.ReplaceAllString(c.Stdout, "") }
