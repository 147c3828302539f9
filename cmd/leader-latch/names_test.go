package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Names of hosts that this machine does not know are told, each once, with its line; that
// one of them hangs holds the others up no longer than the time that there is.
func TestChkconfigWarnsOfNamesWithoutAnAddress(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "riak.conf")
	if err := os.WriteFile(conf, []byte(`nodename = riak@vmhost
distributed_cookie = long-enough-for-anyone
strong_consistency = on
listener.leader_latch.a = vmhost:5323
listener.leader_latch.b = 127.0.0.1:5325
listener.leader_latch.c = nowhere:5326
leader_latch.join = riak@vmhost, riak@db1, riak@192.0.2.1, riak@2001:db8::1, riak@late
`), 0o644); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	e := &env{getenv: func(string) string { return "" }}
	e.lookup = func(ctx context.Context, host string) ([]string, error) {
		mu.Lock()
		asked = append(asked, host)
		mu.Unlock()
		switch host {
		case "db1":
			return []string{"192.0.2.2"}, nil
		case "late":
			<-ctx.Done()
			return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var stdout, stderr bytes.Buffer
	e.stdout, e.stderr = &stdout, &stderr
	if code := run(context.Background(), e, []string{"chkconfig", "-c", conf}); code != exitOK || stdout.String() != "config is OK\n" {
		t.Errorf("exit code %d, stdout %q", code, stdout.String())
	}
	want := []string{
		"warning: " + conf + ":1: nodename: vmhost has no address as far as this machine knows (no such host); correct it, or have DNS or /etc/hosts know it, here and on the other nodes",
		"warning: " + conf + ":7: leader_latch.join: late has no address as far as this machine knows (i/o timeout); correct it, or have DNS or /etc/hosts know it, here and on the other nodes",
		"warning: " + conf + ":6: listener.leader_latch.c: nowhere has no address as far as this machine knows (no such host); the node does not start without; use a numeric address or a name that this machine knows",
	}
	if got := strings.Split(strings.TrimSpace(stderr.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	slices.Sort(asked)
	if want := []string{"db1", "late", "nowhere", "vmhost"}; !slices.Equal(asked, want) {
		t.Errorf("looked for %v, want %v", asked, want)
	}
}
