package riakconf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestReferencesReachDefaults(t *testing.T) {
	path := write(t, "riak.conf", `
a = $(ring_size) $(log.console.level) $(search.root_dir) $(platform_lib_dir)
platform_data_dir = /data
b = $(ring.state_dir) $(leader_latch.timing)
`)
	want := []string{
		"a=64 info /data/yz /usr/lib/riak/lib",
		"platform_data_dir=/data",
		"b=/data/ring normal",
	}
	if got := pairs(t, path); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReferenceNames(t *testing.T) {
	for ref, want := range map[string]string{
		"a": "a", "  a.b ": "a.b", "a.": "a", "a..": "a.", `a\.`: `a\.`, "\ta": "\ta", "": "", ".": "",
	} {
		if got := referenceName(ref); got != want {
			t.Errorf("%q is %q, want %q", ref, got, want)
		}
	}
}

func TestEnvironmentComesAfterTheDefaults(t *testing.T) {
	t.Setenv("RIAKCONF_TEST", "$(x)/y")
	t.Setenv("RIAKCONF_EMPTY", "")
	t.Setenv("ring_size", "no")
	path := write(t, "riak.conf", "x = 1\na = $(RIAKCONF_TEST)\nb = <$(RIAKCONF_EMPTY)>\nc = $(ring_size)\n")
	want := []string{"x=1", "a=1/y", "b=<>", "c=64"}
	if got := pairs(t, path); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRescan has values that make a reference only when they are put
// together: the text is searched again from its start each time.
func TestRescan(t *testing.T) {
	path := write(t, "riak.conf", `
dollar = $
call = (x)
open = $(
x = 1
a = $$(call)
b = $(dollar)$(call)
c = $(open)x)
e = $$$(call)$(x))
f = $(open)
g = $(dollar)$(dollar)(x)
`)
	want := []string{
		"dollar=$", "call=(x)", "open=$(", "x=1",
		"a=1", // $ and (x)
		"b=1", // $$(call), whose leftmost $( is at the second dollar; and so on
		"c=1",
		"e=$11)",
		"f=$(",
		"g=$1",
	}
	if got := pairs(t, path); !slices.Equal(got, want) {
		t.Errorf("\n%q\nwant\n%q", got, want)
	}
}

func TestBadReferencesNameWhereAndWhat(t *testing.T) {
	path := write(t, "riak.conf", `
a = $(b)
b = $(nope)
c = $()
d = $(e)
e = $(f)
f = $(e)
platform_data_dir = $(none)
`)
	wantLines(t, "problems", readProblems(t, path),
		`riak.conf:2: a: it refers to "b", and nothing sets "nope", which that refers to; set it or correct the name`,
		`riak.conf:3: b: nothing sets "nope", which $(..) refers to; set it or correct the name`,
		`riak.conf:4: c: a reference without a name; write $(key)`,
		`riak.conf:5: d: the references run in a circle, "d" -> "e" -> "f" -> "e"; give one of these keys a value of its own`,
		`riak.conf:6: e: the references run in a circle, "e" -> "f" -> "e"; `,
		`riak.conf:7: f: the references run in a circle, "f" -> "e" -> "f"; `,
		`riak.conf:8: platform_data_dir: nothing sets "none"`)
}

// TestBrokenValuesAreNotJudged: what leads to a problem is not a second one.
func TestBrokenValuesAreNotJudged(t *testing.T) {
	path := write(t, "riak.conf", `
platform_log_dir = $(<nonesuch)
log.error.file = $(platform_log_dir)/x
nodename = $(k40)
leader_latch.voters = $(k1)
k0 = 0123456789
`+doubling(40))
	wantLines(t, "problems", loadProblems(t, path),
		`riak.conf:2: platform_log_dir: "nonesuch": there is no such file`,
		"riak.conf:4: nodename: references bring in more than 64 MiB of text")
}

// doubling is keys k1, k2 ... each of which is the one before it twice.
func doubling(n int) string {
	var conf strings.Builder
	for i := range n {
		fmt.Fprintf(&conf, "k%d = $(k%d)$(k%d)\n", i+1, i, i)
	}
	return conf.String()
}

func TestLongCircleIsShownInShort(t *testing.T) {
	var conf strings.Builder
	for i := range 100 {
		fmt.Fprintf(&conf, "k%d = $(k%d)\n", i, (i+1)%100)
	}
	got := readProblems(t, write(t, "riak.conf", conf.String()))
	if len(got) != 100 {
		t.Fatalf("%d problems, want 100", len(got))
	}
	wantLines(t, "first", got[:1],
		`riak.conf:1: k0: the references run in a circle, "k0" -> "k1" -> "k2" -> "k3" -> "k4" -> "k5" -> ... -> `+
			`"k95" -> "k96" -> "k97" -> "k98" -> "k99" -> "k0"; give`)
}

func TestReferencesMayGoDeep(t *testing.T) {
	const depth = 20_000
	var conf strings.Builder
	for i := range depth {
		fmt.Fprintf(&conf, "k%d = $(k%d)\n", i, i+1)
	}
	fmt.Fprintf(&conf, "k%d = end\n", depth)
	s, err := Read(write(t, "riak.conf", conf.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Get("k0"); got != "end" {
		t.Errorf("k0 = %q", got)
	}
}

func TestExpansionLimits(t *testing.T) {
	got := readProblems(t, write(t, "riak.conf", "k0 = 0123456789\n"+doubling(60)))
	if len(got) != 1 || !strings.Contains(got[0], "references bring in more than 64 MiB of text") {
		t.Errorf("doubling: %q", got)
	}

	var deep strings.Builder
	for i := range maxReferenceDepth + 2 {
		fmt.Fprintf(&deep, "k%d = $(k%d)\n", i, i+1)
	}
	wantLines(t, "too deep", readProblems(t, write(t, "riak.conf", deep.String())),
		"riak.conf:1: k0: references go more than 100000 levels deep")

	var bad strings.Builder
	for i := range maxBadReferences + 5 {
		fmt.Fprintf(&bad, "k%d = $(nope)\n", i)
	}
	if got := readProblems(t, write(t, "riak.conf", bad.String())); len(got) != maxBadReferences {
		t.Errorf("%d problems, want %d", len(got), maxBadReferences)
	}
}

// TestLongChainsOfBadReferences: what a chain of references leads to is found
// out once, not for each key in it. Otherwise these take minutes.
func TestLongChainsOfBadReferences(t *testing.T) {
	const length = maxReferenceDepth - 1
	var chain strings.Builder
	for i := range length {
		fmt.Fprintf(&chain, "k%d = $(k%d)\n", i, i+1)
	}
	for end, want := range map[string]int{
		"":                                    maxBadReferences,
		fmt.Sprintf("k%d = $(<no)\n", length): 1, // the keys that lead there are no problems of their own
		fmt.Sprintf("k%[1]d = $(k%[1]d)\n", length): maxCircles/length + 1,
	} {
		if got := readProblems(t, write(t, "riak.conf", chain.String()+end)); len(got) != want {
			t.Errorf("with %q: %d problems, want %d", end, len(got), want)
		}
	}
}

// FuzzExpand looks for settings on which the resolving of references panics,
// hangs, or comes to something else than the rule, read literally, says.
func FuzzExpand(f *testing.F) {
	addEdgeCases(f)
	f.Fuzz(func(t *testing.T, text string) {
		src := &source{path: "riak.conf", name: "riak.conf"}
		list, _ := parse(src, text)
		list = slices.DeleteFunc(list, isInclude)
		s := newSettings(src, list)
		before := make(map[string]string)
		for _, set := range s.list {
			before[set.key] = set.value
		}
		problems := s.expand()
		checkProblems(t, text, problems)
		for _, set := range s.list {
			got := set.value
			if s.broken[set.key] || len(problems) == maxBadReferences {
				continue
			}
			if want, ok := literally(before, set.key, nil); ok && got != want {
				t.Errorf("%s = %q is %q, want %q", set.key, before[set.key], got, want)
			}
		}
	})
}

// literally resolves the references of a key word for word as riak.conf rules
// 37 to 41 say: replace the first, search again. ok is false where it gives up.
func literally(values map[string]string, key string, within []string) (value string, ok bool) {
	value, set := values[key]
	if !set {
		value, set = (&Settings{}).raw(key)
	}
	if !set || len(within) > 100 || slices.Contains(within, key) {
		return "", false
	}
	for range 100 {
		front, back, opened := strings.Cut(value, "$(")
		name, back, closed := strings.Cut(back, ")")
		if !opened || !closed {
			return value, true
		}
		name = strings.Trim(name, " ")
		if !strings.HasSuffix(name, `\.`) {
			name = strings.TrimSuffix(name, ".")
		}
		inner, ok := literally(values, name, append(within, key))
		if !ok || len(value) > 10_000 {
			return "", false
		}
		value = front + inner + back
	}
	return "", false
}
