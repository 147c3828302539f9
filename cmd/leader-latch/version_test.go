package main

import (
	"runtime/debug"
	"testing"
)

// A binary that was built by go build alone goes by what Go has noted in it.
func TestCommitOf(t *testing.T) {
	set := func(pairs ...string) (all []debug.BuildSetting) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return all
	}
	const revision = "67516f8ff55b0123456789abcdef0123456789ab"
	for _, c := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{set("vcs.revision", revision, "vcs.modified", "false"), "67516f8"},
		{set("vcs.modified", "true", "vcs.revision", revision), "67516f8-dirty"},
		{set("vcs.modified", "true"), ""},
		{set("GOOS", "linux"), ""},
		{nil, ""},
	} {
		if got := commitOf(c.settings); got != c.want {
			t.Errorf("%v: %q, want %q", c.settings, got, c.want)
		}
	}
}
