package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node that runs an older version answers wait, and does not know what --rolled asks: that
// is no yes.
func TestWaitRolledAtANodeOfAnOlderVersion(t *testing.T) {
	home := t.TempDir()
	conf := filepath.Join(home, "etc", "riak.conf")
	data := filepath.Join(home, "data", "leader_latch")
	for _, dir := range []string{filepath.Dir(conf), data} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(conf, []byte("platform_data_dir = ./data\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(data) // a socket's address is short
	l, err := net.Listen("unix", adminSocket)
	if err != nil {
		t.Fatal(err)
	}
	older := http.NewServeMux()
	older.HandleFunc("GET /wait", func(http.ResponseWriter, *http.Request) {})
	node := &http.Server{Handler: older}
	go node.Serve(l)
	t.Cleanup(func() { node.Close() })

	wait := func(args ...string) (code int, stderr string) {
		var out bytes.Buffer
		e := &env{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		return waitCommand.run(context.Background(), e, conf, append(args, "--timeout", "300ms")), out.String()
	}
	if code, said := wait(); code != exitOK {
		t.Errorf("wait: %d, %s", code, said)
	}
	if code, said := wait("--rolled"); code != exitFailed || !strings.Contains(said, "not ready after 300ms: the node runs an older version, which does not know of keyed members; restart it") {
		t.Errorf("wait --rolled: %d, %s", code, said)
	}
}
