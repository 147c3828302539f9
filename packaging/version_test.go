package packaging

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An entry of the changelog: a version, its day or "unreleased", and what changes.
type entry struct{ version, day, text string }

func changelog(t *testing.T) (all []entry) {
	t.Helper()
	text, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		heading, text, _ := strings.Cut(part, "\n")
		m := regexp.MustCompile(`^(\S+) \((\S+)\)$`).FindStringSubmatch(heading)
		if m == nil {
			t.Fatalf("CHANGELOG.md: heading %q is not VERSION (DAY)", heading)
		}
		all = append(all, entry{m[1], m[2], text})
	}
	return all
}

// parts gives the three numbers of a version.
func parts(t *testing.T, version string) (numbers [3]int) {
	t.Helper()
	m := regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`).FindStringSubmatch(version)
	if m == nil {
		t.Fatalf("version %q is not three numbers with dots between", version)
	}
	for i, number := range m[1:] {
		numbers[i], _ = strconv.Atoi(number)
	}
	return numbers
}

// below reports whether a version is lower than another.
func below(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// The changelog begins with the version of the program, and goes back from there. Each
// version but that one has its day.
func TestTheChangelogBeginsWithTheVersion(t *testing.T) {
	all := changelog(t)
	if len(all) == 0 || all[0].version != Version() {
		t.Fatalf("CHANGELOG.md does not begin with %s, the version in VERSION", Version())
	}
	newer := [3]int{1 << 30}
	for i, e := range all {
		this := parts(t, e.version)
		if !below(this, newer) {
			t.Errorf("CHANGELOG.md: %s stands below a version that is no newer", e.version)
		}
		newer = this
		_, err := time.Parse(time.DateOnly, e.day)
		released := err == nil
		if !released && (i > 0 || e.day != "unreleased") {
			t.Errorf("CHANGELOG.md: %s has %q in place of its day", e.version, e.day)
		}
		if !strings.Contains(e.text, "\n- ") || released && strings.Contains(e.text, "\n- Nothing yet.") {
			t.Errorf("CHANGELOG.md does not say what %s changes", e.version)
		}
	}
}
