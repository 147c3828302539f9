package riakconf

import (
	"strings"
	"testing"
)

// TestDefaultsAreRiaks compares the schema, and the defaults of the keys that
// are not in it, with a list made from Riak's own schemas.
func TestDefaultsAreRiaks(t *testing.T) {
	riak := make(map[string]string) // default as in the Debian package; "" is none
	for _, r := range table(t, testdata+"/known-keys.tsv") {
		if r[1] == "(not a riak.conf key)" {
			continue
		}
		value, _, _ := strings.Cut(r[2], " (deb)")
		if value == "-" || strings.Contains(r[0], "$") {
			value = "" // riak.conf rule 53
		}
		riak[r[0]] = value
	}
	rows := make(map[string]Key)
	for _, k := range Keys() {
		rows[k.Name] = k
		value, known := riak[k.Name]
		switch own := strings.HasPrefix(k.Name, ownPrefix); {
		case own == known:
			t.Errorf("%s: a key of Riak %v, a key of our own %v", k.Name, known, own)
		case known && value != k.Default:
			t.Errorf("%s has the default %q, and %q with Riak", k.Name, k.Default, value)
		}
	}
	for name, value := range riak {
		_, known := rows[name]
		got, other := foreignDefaults()[name]
		switch {
		case known && other:
			t.Errorf("%s is in the schema and in defaults.conf", name)
		case !known && got != value:
			t.Errorf("%s has the default %q, and %q with Riak", name, got, value)
		}
	}
	for name := range foreignDefaults() {
		if _, known := riak[name]; !known {
			t.Errorf("defaults.conf has %s, and Riak has not", name)
		}
	}
	if _, problems := parse(&source{path: "defaults.conf"}, riakDefaults); problems != nil {
		t.Error(problems)
	}
}

func TestEveryRowIsWhole(t *testing.T) {
	flags := make(map[string]bool)
	for _, k := range Keys() {
		pattern := strings.Contains(k.Name, "$")
		if k.Help == "" || strings.Contains(k.Help, "\n") {
			t.Errorf("%s: help %q", k.Name, k.Help)
		}
		if (k.Default == "") == (k.Note == "") {
			t.Errorf("%s: default %q, note %q; want one of them", k.Name, k.Default, k.Note)
		}
		if (k.field == nil) != (pattern || k.Foreign || k.idle) {
			t.Errorf("%s: a row has a field unless it is a pattern, foreign or idle", k.Name)
		}
		if k.Default != "" && !strings.Contains(k.Default, "$(") {
			if _, err := k.Type.parse(k.Default); err != nil {
				t.Errorf("%s: the default does not fit: %v", k.Name, err)
			}
		}
		if k.Type.String() == "" {
			t.Errorf("%s: the type says nothing of itself", k.Name)
		}
		name := k.Flag()
		if own := strings.HasPrefix(k.Name, ownPrefix) && !pattern && !k.secret; (name != "") != own {
			t.Errorf("%s has the flag %q", k.Name, name)
		}
		if name != "" && flags[name] {
			t.Errorf("two keys have the flag %s", name)
		}
		flags[name] = true
		if found, known := row(k.Name); !pattern && (!known || found.Name != k.Name) {
			t.Errorf("row(%s) is %s", k.Name, found.Name)
		}
	}
	if !flags["minimum-nodes"] || flags["minimum_nodes"] || flags["second-cookie"] {
		t.Errorf("flags: %v", flags)
	}
}

// TestNameIsOneWord: $name stands for exactly one word (riak.conf rule 52).
func TestNameIsOneWord(t *testing.T) {
	for key, want := range map[string]string{
		"listener.leader_latch.a":            "listener.leader_latch.$name",
		`listener.leader_latch.rack\.one`:    "listener.leader_latch.$name",
		"leader_latch.fencing.a":             "leader_latch.fencing.$name",
		"leader_latch.extensions.a":          "leader_latch.extensions.$name",
		"listener.leader_latch.rack.one":     "",
		"listener.leader_latch":              "",
		"leader_latch.fencing":               "",
		"leader_latch.fencing.a.b":           "",
		"leader_latch.extensions.a.b":        "",
		"leader_latch.minimum_nodes":         "leader_latch.minimum_nodes",
		"leader_latch.minimum_nodes.further": "",
		"nodename":                           "nodename",
		"NodeName":                           "",
	} {
		if got, _ := row(key); got.Name != want {
			t.Errorf("%s is %q, want %q", key, got.Name, want)
		}
	}
}
