package riakconf

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A Position is a place in a configuration file.
type Position struct {
	File string // as the operator gave it; what it includes, relative to that
	Line int    // from 1; 0 is the file as a whole
}

// String is FILE:LINE, or FILE alone for a file as a whole.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// A Problem is one thing that is wrong, or likely to be, and its cure.
type Problem struct {
	Position        // of an [Override]: its Origin, without a line
	Key      string // the key that it is about, if it is about one
	Text     string // one line

	outcome *outcome // what Riak's own tools report of it, if they do
}

// Error is one line: where, which key, what is wrong and how to cure it.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Position.String())
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are all problems of a configuration, in order of position.
type Problems []Problem

// Error is one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// The kinds of errors as Riak's own tools name them (riak.conf rules 23, 24,
// 25, 42 and 43); the last is an addition for the limits of this package.
const (
	kindSyntax   = "conf_syntax"
	kindLatin1   = "conf_to_latin1"
	kindOpen     = "file_open"
	kindMissing  = "substitution_missing_config"
	kindCircular = "circular_rhs"
	kindLimit    = "limit"
)

// An outcome is the machine-readable side of a problem.
type outcome struct {
	Kind    string          `json:"kind"`
	File    string          `json:"file,omitempty"` // relative to the folder of the main file
	Line    int             `json:"line,omitempty"`
	Column  json.RawMessage `json:"column,omitempty"`
	Reason  string          `json:"reason,omitempty"`  // of file_open: enoent, eisdir, eacces ...
	Key     string          `json:"key,omitempty"`     // of substitution_missing_config: where the reference stands
	Wants   *string         `json:"wants,omitempty"`   // and what it names
	History []string        `json:"history,omitempty"` // of circular_rhs: the chain, newest first
	Message string          `json:"message"`
}

// MarshalJSON is {"error":{...}}, the error an object with kind, file, line,
// key and the like as far as they apply; with more than one problem the first
// is in "error" and all are in "errors".
func (ps Problems) MarshalJSON() ([]byte, error) {
	all := make([]outcome, len(ps))
	for i, p := range ps {
		o := outcome{Kind: "invalid", File: p.File, Line: p.Line, Key: p.Key}
		if p.outcome != nil {
			o = *p.outcome
		}
		o.Message = p.Error()
		all[i] = o
	}
	var v struct {
		Error  *outcome  `json:"error"`
		Errors []outcome `json:"errors,omitempty"`
	}
	if len(all) > 0 {
		v.Error = &all[0]
	}
	if len(all) > 1 {
		v.Errors = all
	}
	return json.Marshal(v)
}
