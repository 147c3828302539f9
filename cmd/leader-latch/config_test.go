package main

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"leaderlatch/riakconf"
)

// inProcess runs a command line without a process.
func inProcess(args ...string) (code int, stdout, stderr string) {
	var o, e bytes.Buffer
	code = run(context.Background(), &env{stdout: &o, stderr: &e, getenv: func(string) string { return "" }}, args)
	return code, o.String(), e.String()
}

// What config effective prints is a riak.conf that says the same: every
// setting, in its place, and the defaults too, for every sample that can be
// read at all.
func TestConfigEffectiveIsARiakConf(t *testing.T) {
	t.Setenv("ORACLE_ENV", "from-environment")
	var samples []string
	for _, dir := range []string{"edge", "real"} {
		all, err := filepath.Glob("../../testdata/riakconf/" + dir + "/*.conf")
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, all...)
	}
	read := 0
	for _, sample := range samples {
		before, err := riakconf.Read(sample)
		code, out, _ := inProcess("config", "effective", "--config", sample)
		if err != nil {
			if code != exitFailed || out != "" {
				t.Errorf("%s, which cannot be read: exit code %d, printed %q", sample, code, out)
			}
			continue
		}
		read++
		wantCode := exitOK
		if _, _, err := riakconf.Load(sample); err != nil {
			wantCode = exitFailed
		}
		if code != wantCode {
			t.Errorf("%s: exit code %d", sample, code)
			continue
		}
		copied := filepath.Join(t.TempDir(), "riak.conf")
		if err := os.WriteFile(copied, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
		after, err := riakconf.Read(copied)
		if err != nil {
			t.Errorf("%s: what it prints cannot be read: %v", sample, err)
			continue
		}
		// A value that no line can hold is there for people only.
		var want, got [][2]string
		misfits := 0
		for _, s := range before.Effective() {
			if value := cmp.Or(s.Path, s.Value); fitsLine(value) {
				want = append(want, [2]string{s.Key, value})
			} else {
				misfits++
			}
		}
		for key, value := range after.All() {
			got = append(got, [2]string{key, value})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%.2000q\nwant\n%.2000q", sample, got, want)
		}
		if strings.Count(out, "\n") != len(want)+misfits {
			t.Errorf("%s: not a line for each setting:\n%.2000s", sample, out)
		}
	}
	if read < 80 {
		t.Errorf("only %d of %d samples could be read", read, len(samples))
	}
}

// Some values can only come from a file or the environment.
func TestFitsLine(t *testing.T) {
	for value, want := range map[string]bool{
		"a": true, "a b": true, "=": true, `"a"`: true, "$(a": true, "\u00ff": true, "\x00": true, "a\rb": true,
		"": false, "a#b": false, "a\nb": false, "a\r": false, " a": false, "a\t": false, "\u0100": false, "\xff": false,
	} {
		if got := fitsLine(value); got != want {
			t.Errorf("%q: %v", value, got)
		}
		name := filepath.Join(t.TempDir(), "riak.conf")
		if err := os.WriteFile(name, []byte("k = "+value+" # default\nk2 = "+value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		same := false
		if s, err := riakconf.Read(name); err == nil {
			a, _ := s.Get("k")
			b, _ := s.Get("k2")
			same = a == value && b == value
		}
		if same != want {
			t.Errorf("%q: is read back: %v", value, same)
		}
	}
}
