package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The configuration file of the service is found as the unit finds it.
func TestUnitConfig(t *testing.T) {
	for name, c := range map[string]struct{ first, second, want string }{
		"no files":               {"", "", "/etc/riak/riak.conf"},
		"a file":                 {"# LEADER_LATCH_CONFIG=/a\n LEADER_LATCH_CONFIG = /b \n", "", "/b"},
		"the later file wins":    {"LEADER_LATCH_CONFIG=/a\n", "LEADER_LATCH_CONFIG=/b", "/b"},
		"the later line wins":    {"LEADER_LATCH_CONFIG=/a\nLEADER_LATCH_CONFIG=/b\n;LEADER_LATCH_CONFIG=/c", "", "/b"},
		"quotes":                 {"LEADER_LATCH_CONFIG='/with space'", "", "/with space"},
		"a flag wins":            {"LEADER_LATCH_CONFIG=/a", "LEADER_LATCH_OPTIONS=\"--timing=calm -c /b\"", "/b"},
		"a flag, written as one": {"LEADER_LATCH_OPTIONS=--config=/b --timing calm", "", "/b"},
		"relative to /":          {"LEADER_LATCH_CONFIG=etc/b", "", "/etc/b"},
		"other flags":            {"LEADER_LATCH_OPTIONS=--timing=calm", "", "/etc/riak/riak.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files := []string{filepath.Join(dir, "first"), filepath.Join(dir, "second")}
			for i, text := range []string{c.first, c.second} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(files[i], []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := unitConfig(files); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("LEADER_LATCH_OPTIONS=--no-such-flag"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := unitConfig([]string{bad}); err == nil {
		t.Errorf("with a flag that the service does not have: %q", got)
	}
}

// The scripts' questions are answered by the program's own reading of the files, with one
// line or none.
func TestInstalled(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	conf, own, unit := filepath.Join(etc, "riak.conf"), filepath.Join(etc, "leader-latch.conf"), filepath.Join(dir, "environment")
	defer func(files []string) { environmentFiles = files }(environmentFiles)
	environmentFiles = []string{unit}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(unit, "LEADER_LATCH_CONFIG="+conf)
	for _, c := range []struct {
		riak, own    string
		state, where string
	}{
		{"nodename = a@b", "", "/var/lib/riak/leader_latch", ""},
		{"platform_data_dir = /a", "strong_consistency = on", "/a/leader_latch", ""}, // neither has a final line end
		{"platform_data_dir = /a", "platform_data_dir = /b", "/b/leader_latch", ""},
		{"a.dir = /data\nplatform_data_dir = $(a.dir)/riak", "", "/data/riak/leader_latch", ""},
		{"platform_data_dir = ./data", "", filepath.Join(dir, "data/leader_latch"), ""},
		{"platform_data_dir = /a\nlistener.leader_latch.internal = here", "", "/a/leader_latch", ""}, // serve refuses it
		{"distributed_cookie = riak", "", "/var/lib/riak/leader_latch", ""},
		{"distributed_cookie = secret", "", "/var/lib/riak/leader_latch", conf},
		{"distributed_cookie = riak", "distributed_cookie = secret", "/var/lib/riak/leader_latch", own},
		{"distributed_cookie = riak", "leader_latch.second_cookie = secret", "/var/lib/riak/leader_latch", own},
	} {
		write(conf, c.riak)
		write(own, c.own)
		for question, want := range map[string]string{"state-folder": c.state, "cookie-file": c.where} {
			if want != "" {
				want += "\n"
			}
			if code, out, errs := inProcess("installed", question); code != exitOK || out != want || errs != "" {
				t.Errorf("%q and %q: %s is %q, exit code %d, %s; want %q", c.riak, c.own, question, out, code, errs, want)
			}
		}
	}
	for _, bad := range []string{"platform_data_dir = $(no.such)/x", "no setting"} {
		write(conf, bad)
		if code, out, _ := inProcess("installed", "state-folder"); code != exitFailed || out != "" {
			t.Errorf("%q: printed %q, exit code %d", bad, out, code)
		}
	}
	for _, args := range [][]string{{"installed"}, {"installed", "else"}, {"installed", "state-folder", "now"}} {
		if code, _, _ := inProcess(args...); code != exitUsage {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}
