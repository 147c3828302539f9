package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/session"
	"leaderlatch/riakconf"
)

// What a node logs of a change of the cookie is the number that OPERATING.md gives the step.
func TestStepsOfACookie(t *testing.T) {
	for _, c := range []struct {
		from, to cookies
		want     string
	}{
		{cookies{"old", ""}, cookies{"old", ""}, "none"},
		{cookies{"old", "new"}, cookies{"old", "new"}, "none"},
		{cookies{"old", ""}, cookies{"old", "new"}, "1"},
		{cookies{"old", "other"}, cookies{"old", "new"}, "1"},
		{cookies{"old", "new"}, cookies{"new", "old"}, "2"},
		{cookies{"new", "old"}, cookies{"new", ""}, "3"},
		{cookies{"old", ""}, cookies{"new", ""}, "several at once"},
		{cookies{"old", ""}, cookies{"new", "old"}, "several at once"},
		{cookies{"old", "new"}, cookies{"new", ""}, "several at once"},
	} {
		if got, _, _ := strings.Cut(c.from.step(c.to), ":"); got != c.want {
			t.Errorf("%v to %v: step %q, want %q", c.from, c.to, got, c.want)
		}
	}
	twice := cookiesOf(&riakconf.Config{Cookie: "old", SecondCookie: "old"})
	if step := twice.step(cookies{"old", ""}); !strings.HasPrefix(step, "none") {
		t.Errorf("one cookie twice to the same one: step %q", step)
	}
}

// A node that begins anew does not wait for a key that is derived, which takes a while.
func TestANodeBeginsAnewWhileAKeyIsDerived(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	path := filepath.Join(data, "riak.conf")
	if err := os.WriteFile(path, []byte("platform_data_dir = "+data+"\nleader_latch.cluster_listener = 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, _, err := riakconf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := ensemble.OpenDir(t.Context(), conf.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	timing, err := session.TimingNamed(conf.Timing)
	if err != nil {
		t.Fatal(err)
	}
	aKey := func() (*clusterport.Key, error) { return clusterport.KeyFromSeed([32]byte{1}) }
	deriving, derived := make(chan struct{}), make(chan struct{})
	l := &lives{conf: conf, dir: dir, timing: timing, log: slog.New(slog.DiscardHandler), cookies: cookiesOf(conf), key: aKey}
	l.derive = func(string) (*clusterport.Key, error) {
		close(deriving)
		<-derived
		return aKey()
	}
	if err := l.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { l.current().Stop(t.Context()) }()
	rekeyed := make(chan error, 1)
	go func() { rekeyed <- l.rekey(t.Context(), cookies{Cookie: "new"}) }()
	<-deriving
	before := l.current()
	if err := l.anew(t.Context()); err != nil || l.current() == before {
		t.Fatalf("error %v", err)
	}
	close(derived)
	if err := <-rekeyed; err != nil || l.cookies.Cookie != "new" {
		t.Errorf("the next node: error %v", err)
	}
}
