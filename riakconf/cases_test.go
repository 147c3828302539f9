package riakconf

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const testdata = "../testdata/riakconf"

// An expectation is the content of a NAME.json: what Riak's own tools made of NAME.conf.
type expectation struct {
	Settings [][2]string
	Error    *caseError
	Errors   []caseError
}

type caseError struct {
	Kind, File, Key, Wants string
	Line, Column           int
	History                []string
}

func (e expectation) errors() []caseError {
	if e.Errors == nil && e.Error != nil {
		return []caseError{*e.Error}
	}
	return e.Errors
}

// remade are cases on which the versions of Riak disagree or fail, with the
// outcome chosen here.
var remade = map[string][][2]string{
	"filevalue-crlf":   {{"a", "windows"}},
	"filevalue-spaces": {{"a", "secret-1"}},
}

// table reads the rows of a .tsv file.
func table(t *testing.T, path string) [][]string {
	t.Helper()
	var rows [][]string
	for line := range strings.Lines(readFile(t, path)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", path)
	}
	return rows
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, path)), v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestEdgeCases has one rule or trap of the grammar in each file.
func TestEdgeCases(t *testing.T) {
	dir := testdata + "/edge"
	t.Setenv("ORACLE_ENV", "from-environment")
	testTargets(t, dir, 150)
	t.Run("sub-environment, not set", func(t *testing.T) {
		os.Unsetenv("ORACLE_ENV") // t.Setenv above puts it back
		testTarget(t, dir, "sub-environment", "sub-environment.expanded.json")
	})
}

// TestRealFiles reads configurations as Riak shipped them. CORPUS names a
// folder with more of them, laid out in the same way.
func TestRealFiles(t *testing.T) {
	dir := testdata + "/real"
	if corpus := os.Getenv("CORPUS"); corpus != "" {
		dir = corpus
	}
	testTargets(t, dir, 3)
}

// testTargets runs the cases that TARGETS.tsv in dir lists.
func testTargets(t *testing.T, dir string, atLeast int) {
	cases := table(t, dir+"/TARGETS.tsv")
	passed := 0
	for _, c := range cases {
		if t.Run(c[0], func(t *testing.T) { testTarget(t, dir, c[0], c[1]) }) {
			passed++
		}
	}
	t.Logf("%s: %d of %d", dir, passed, len(cases))
	if len(cases) < atLeast {
		t.Errorf("%d cases, want at least %d", len(cases), atLeast)
	}
}

var errorTarget = regexp.MustCompile(`^error (\S+) (\S+) line (\d+)$`)

// testTarget compares what is read of a case with its target: the name of a
// .json file, or one of the words of TARGETS.tsv.
func testTarget(t *testing.T, dir, name, target string) {
	s, err := Read(filepath.Join(dir, name+".conf"))
	checkPositions(t, err)
	switch m := errorTarget.FindStringSubmatch(target); {
	case target == "any error":
		if err == nil {
			t.Errorf("no error")
		}
	case target == "free":
		compare(t, s, err, expectation{Settings: remade[name]})
	case m != nil:
		line, _ := strconv.Atoi(m[3])
		compare(t, s, err, expectation{Error: &caseError{Kind: m[1], File: m[2], Line: line, Column: 1}})
	default:
		var want expectation
		readJSON(t, filepath.Join(dir, target), &want)
		compare(t, s, err, want)
	}
}

// compare compares by way of JSON, as that is what others read.
func compare(t *testing.T, s *Settings, err error, want expectation) {
	t.Helper()
	var v any = s
	if err != nil {
		v = err
	}
	data, marshalErr := json.Marshal(v)
	if marshalErr != nil {
		t.Fatal(marshalErr)
	}
	var got expectation
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if want.Settings != nil && len(want.Settings) == 0 {
		want.Settings = [][2]string{}
	}
	if !reflect.DeepEqual(got.Settings, want.Settings) || !reflect.DeepEqual(got.errors(), want.errors()) {
		t.Errorf("got  %s\nwant %v %+v", data, want.Settings, want.errors())
	}
}

// checkPositions checks that each problem names a line that exists.
func checkPositions(t *testing.T, err error) {
	t.Helper()
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		t.Errorf("error is a %T, not Problems: %v", err, err)
	}
	for _, p := range problems {
		checkProblems(t, readFile(t, p.File), []Problem{p})
	}
}

// lines is the number of lines of a text; the last needs no line end.
func lines(text string) int {
	n := strings.Count(text, "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		n++
	}
	return n
}

// TestSettingsBeforeReferences compares what stands in the files, references
// and values from files not yet resolved.
func TestSettingsBeforeReferences(t *testing.T) {
	cases := 0
	for _, dir := range []string{"edge", "real"} {
		for _, c := range table(t, filepath.Join(testdata, dir, "TARGETS.tsv")) {
			if strings.HasPrefix(c[0], "filevalue") && c[0] != "filevalue-partial" {
				continue // their .v3.json is after that step
			}
			base := filepath.Join(testdata, dir, c[0])
			want := expectation{}
			readJSON(t, base+".json", &want)
			if _, err := os.Stat(base + ".v3.json"); err == nil {
				want = expectation{}
				readJSON(t, base+".v3.json", &want)
			}
			if want.Error != nil {
				continue
			}
			cases++
			r := newReader(base + ".conf")
			src := &source{path: r.path, name: c[0] + ".conf"}
			s := newSettings(src, r.file(src, nil)).hold()
			compare(t, s, nil, want)
		}
	}
	if cases < 90 {
		t.Errorf("only %d cases", cases)
	}
}

// TestEffectiveValues compares the values that are in effect for the keys
// that matter, defaults included, with those of Riak 2.1.1.
func TestEffectiveValues(t *testing.T) {
	dirs := []string{testdata + "/edge", testdata + "/real"}
	if corpus := os.Getenv("CORPUS"); corpus != "" {
		dirs = append(dirs, corpus)
	}
	cases, passed := 0, 0
	for _, dir := range dirs {
		files, _ := filepath.Glob(dir + "/*.effective.json")
		for _, file := range files {
			cases++
			name := strings.TrimSuffix(filepath.Base(file), ".effective.json")
			if t.Run(name, func(t *testing.T) { testEffective(t, filepath.Join(dir, name)) }) {
				passed++
			}
		}
	}
	t.Logf("%d of %d", passed, cases)
	if cases < 18 {
		t.Errorf("only %d cases", cases)
	}
}

func testEffective(t *testing.T, base string) {
	var want struct{ Values map[string]string }
	readJSON(t, base+".effective.json", &want)
	s, err := Read(base + ".conf")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Setting)
	for _, e := range s.Effective() {
		if _, twice := got[e.Key]; twice {
			t.Errorf("%s is listed twice", e.Key)
		}
		if keyLen(e.Key) != len(e.Key) {
			t.Errorf("%s is no key", e.Key)
		}
		got[e.Key] = e
		if _, set := s.Get(e.Key); set == e.Default {
			t.Errorf("%s: set %v, default %v", e.Key, set, e.Default)
		}
		if _, known := want.Values[e.Key]; e.Default && !known && !strings.HasPrefix(e.Key, ownPrefix) {
			t.Errorf("%s = %s is listed as a default, but does not matter", e.Key, e.Value)
		}
	}
	for key, value := range want.Values {
		if got[key].Value != value {
			t.Errorf("%s = %q, want %q", key, got[key].Value, value)
		}
	}
}
