package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// source reads the program's own Go files: all constant texts, those that are added up as
// one, and which of them are the messages of warnings and errors.
func source(t *testing.T) (texts, grave []string) {
	t.Helper()
	visit := func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if text := constant(e); text != "" {
				texts = append(texts, text)
			}
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Warn" || f.Sel.Name == "Error") {
			if text := constant(call.Args[0]); text != "" {
				grave = append(grave, text)
			}
		}
		return true
	}
	for _, dir := range []string{"cmd", "ensemble", "latch"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || d.Name() == "loglines.go" {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(file, visit)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return texts, grave
}

// constant is the text of an expression, as far as it stands in the source; of what is
// added up, the beginning.
func constant(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ := strconv.Unquote(e.Value)
			return text
		}
	case *ast.BinaryExpr:
		return constant(e.X) + constant(e.Y)
	}
	return ""
}

// The lines that the documents explain are lines of the program, and each warning and
// error with a text of its own is explained.
func TestLogLinesAreThoseOfTheProgram(t *testing.T) {
	texts, grave := source(t)
	if len(grave) < 20 {
		t.Fatalf("only %d warnings and errors found in the source: %q", len(grave), grave)
	}
	var explained []string
	for _, l := range logLines {
		for _, line := range l.texts() {
			pieces := strings.Split(line, " ... ")
			explained = append(explained, pieces[0])
			for _, piece := range pieces {
				if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, piece) }) {
					t.Errorf("no text of the program has %q, which the table of log lines explains", piece)
				}
			}
		}
	}
	for _, line := range grave {
		if !slices.ContainsFunc(explained, func(e string) bool { return strings.HasPrefix(line, e) }) {
			t.Errorf("the table of log lines does not explain %q", line)
		}
	}
}

// The table of log lines in the documents is that of the program.
func TestDocumentHasTheLogLines(t *testing.T) {
	var table strings.Builder
	table.WriteString("| log line | means | to do |\n|---|---|---|\n")
	for _, l := range logLines {
		fmt.Fprintf(&table, "| %s | %s | %s |\n", l.lines, l.means, l.do)
	}
	doctest.WantTable(t, operatingDocument, "log lines", table.String())
}
