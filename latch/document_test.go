package latch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"leaderlatch/latch/latchtest"
)

// proofs lists what proves each rule of PROTOCOL.md: transcripts, which
// name the rule themselves, and tests. Rule 12 is kept by whoever implements
// Elections; what this package does for it is proved here. Rule 16 is one line.
var proofs = map[int][]string{
	1:  {"joining", "documented-session"},
	2:  {"leader-changes", "others-come-and-go", "documented-session", "TestStuckReaders", "TestSameLeaderIsNoNews", "TestStuckReaderIsClosed"},
	3:  {"closing-leaves", "half-close-leaves", "reset-leaves", "reset-after-asking", "closing-after-asking", "leaving-while-waiting", "TestSilentAfterTheEnd", "TestGoneWhileHeldBack"},
	4:  {"succession"},
	5:  {"no-majority", "consensus-off", "documented-outage", "keyed-name-stays-taken", "observing-without-majority", "TestRefusalArrives"},
	6:  {"joining-twice", "keyed-joining-twice"},
	7:  {"anything-else", "sixteen-bad-lines", "bad-lines-after-joining", "keyed-elsewhere", "observing-plain"},
	8:  {"line-ends", "carriage-returns", "lines-in-pieces", "long-lines", "long-lines-leave", "TestCutLine", "TestEndlessLine"},
	9:  {"names", "spaces", "carriage-returns", "TestParseJoin"},
	10: {"order", "keyed-order", "keyed-leave-waits", "TestAnswersHoldBack"},
	11: {"name-comes-free", "name-stays-taken", "leaving-while-waiting", "keyed-name-in-use", "keyed-name-stays-taken"},
	12: {"TestGate", "TestGateCutsALine", "TestEveryEndGivesBackOnce"},
	13: {"others-come-and-go"},
	14: {"idle", "TestIdleTimeoutIsNotProlonged", "TestDeadHost", "TestListenOptions"},
	15: {"TestLimit", "TestLimitIsShared"},
	16: {"TestFencing"},
	17: {"keyed-elsewhere", "keyed-joining", "keyed-words", "keyed-limits", "keyed-name", "keyed-joining-twice", "TestParseExtensions", "TestNoKeyIsLogged", "TestKeysAreWiped"},
	18: {"keyed-moving", "keyed-moving-later", "keyed-name-in-use", "keyed-name-stays-taken", "TestTwoJOINsWithOneKey"},
	19: {"keyed-hold", "keyed-without-hold", "keyed-moving-later", "TestEveryEndOfAKeyedMember"},
	20: {"keyed-fin-ends", "keyed-fin-ends-later", "TestEveryEndOfAKeyedMember"},
	21: {"keyed-ping", "keyed-order", "keyed-without-hold", "TestAPINGWaitsForItsAnswer", "TestALIVEFollowsTheNewestLeader", "TestGate", "TestPINGsAreSpaced"},
	22: {"keyed-leave", "keyed-leave-waits", "TestLEAVEWaitsForNobody"},
	23: {"observing", "observing-words", "observing-plain", "observing-without-majority", "TestAnObserverIsNoMember", "TestAParkedObserver", "TestObserversAreGated", "TestAnObserveIsRefused", "TestASlowObserverIsToldTheLastLeader"},
}

// TestEveryRuleIsProved: the list above is complete, and it is true.
func TestEveryRuleIsProved(t *testing.T) {
	scripts := loadTranscripts(t)
	rules := make(map[string][]int) // of transcripts
	for _, s := range scripts {
		rules[transcriptName(s)] = s.Rules
	}
	tests := testNames(t)
	for rule := 1; rule <= len(proofs); rule++ {
		if len(proofs[rule]) == 0 {
			t.Errorf("nothing proves rule %d", rule)
		}
		for _, proof := range proofs[rule] {
			if strings.HasPrefix(proof, "Test") {
				if !slices.Contains(tests, proof) {
					t.Errorf("rule %d: there is no test %s", rule, proof)
				}
			} else if !slices.Contains(rules[proof], rule) {
				t.Errorf("rule %d: the transcript %s does not name it", rule, proof)
			}
		}
	}
	for name, named := range rules {
		if len(named) == 0 {
			t.Errorf("the transcript %s names no rule", name)
		}
		for _, rule := range named {
			if !slices.Contains(proofs[rule], name) {
				t.Errorf("the transcript %s names rule %d, and the list does not name the transcript", name, rule)
			}
		}
	}
}

func transcriptName(s *latchtest.Script) string {
	return strings.TrimSuffix(filepath.Base(s.File), ".txt")
}

// testNames returns the names of the test functions in this folder.
func testNames(t *testing.T) (names []string) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// TestDocumentIsTrue: PROTOCOL.md names the transcripts that there are, its rules come in
// their order, and the code's references into it lead somewhere.
func TestDocumentIsTrue(t *testing.T) {
	doc, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, list := range regexp.MustCompile(`(?m)^Transcripts: (.*)\.$`).FindAllSubmatch(doc, -1) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(list[1], -1) {
			named[string(m[1])] = true
		}
	}
	for _, s := range loadTranscripts(t) {
		if name := transcriptName(s); !named[name] {
			t.Errorf("PROTOCOL.md does not name the transcript %s", name)
		} else {
			delete(named, name)
		}
	}
	for name := range named {
		t.Errorf("PROTOCOL.md names the transcript %s, which does not exist", name)
	}

	rules := regexp.MustCompile(`(?m)^\*\*Rule (\d+)\.\*\* `).FindAllSubmatch(doc, -1)
	if len(rules) != len(proofs) {
		t.Errorf("PROTOCOL.md has %d rules; %d are proved", len(rules), len(proofs))
	}
	for i, m := range rules {
		if string(m[1]) != strconv.Itoa(i+1) {
			t.Errorf("PROTOCOL.md has rule %s in the place of rule %d", m[1], i+1)
		}
	}

	headings := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllSubmatch(doc, -1) {
		headings[string(m[1])] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	references := 0
	comment := regexp.MustCompile(`PROTOCOL\.md, ([A-Z][a-z]+(?: [A-Za-z]+)*)`)
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`\n\t*// `).ReplaceAllString(string(src), " ") // comments as they read
		for _, m := range comment.FindAllStringSubmatch(text, -1) {
			if m[1] == "Heading" {
				continue // the package comment on such references
			}
			references++
			for heading := range strings.SplitSeq(m[1], " and ") {
				if !headings[heading] {
					t.Errorf("%s refers to PROTOCOL.md, %s, which does not exist", file, heading)
				}
			}
		}
	}
	if references < 10 {
		t.Errorf("found %d references to PROTOCOL.md; the test looks for the wrong thing", references)
	}
}
