package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/session"
	"leaderlatch/riakconf"
)

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
	l := &lives{conf: conf, dir: dir, timing: timing, log: slog.New(slog.DiscardHandler), key: aKey}
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
	if err := <-rekeyed; err != nil {
		t.Errorf("the next node: error %v", err)
	}
}
