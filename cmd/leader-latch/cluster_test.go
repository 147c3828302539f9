package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leaderlatch/ensemble"
	"leaderlatch/riakconf"
)

// A join that takes a while says meanwhile what the node waits for, once, and how to end it;
// one that comes to nothing, as others cannot reach the node, says so before.
func TestAJoinSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "riak.conf")
	if err := os.WriteFile(path, []byte("platform_data_dir = "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, _, err := riakconf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := ensemble.OpenDir(t.Context(), conf.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	socket, err := listenAdmin(data)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cluster", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, ensemble.Cluster{Joining: "riak@other", Waits: "riak@other does not answer\nriak@third does not either"})
		asked <- struct{}{}
	})
	mux.HandleFunc("POST /cluster/join", func(w http.ResponseWriter, _ *http.Request) {
		<-asked
		<-asked
	})
	node := &http.Server{Handler: mux}
	go node.Serve(socket.listener)
	defer node.Close()
	var stdout, stderr strings.Builder
	e := &env{stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }}
	if code := run(t.Context(), e, []string{"cluster", "join", "riak@other", "-c", path}); code != exitOK {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	want := "warning: " + path + ": nodename: other machines cannot reach this node at 127.0.0.1, so it would be a member that is down; put this machine's address behind the @\n" +
		"waiting: riak@other does not answer; riak@third does not either\nCtrl-C ends the wait; the node goes on asking until leader-latch cluster leave\n"
	if stderr.String() != want {
		t.Errorf("said %q, want %q", stderr.String(), want)
	}
}

// A node that has a session asks nobody any more to let it in, though its folder says so
// for a moment longer.
func TestStatusOfANodeThatWasJustLetIn(t *testing.T) {
	c := ensemble.Cluster{Joining: "riak@a", Majority: true, Members: []ensemble.ClusterMember{{Name: "riak@a", Session: true}, {Name: "riak@b", Up: true}}}
	const asks = "this node asks to be let into the cluster of riak@a, and goes on asking; leader-latch cluster leave gives that up"
	if hints := clusterHints(c, "riak@b"); len(hints) != 1 || hints[0] != asks {
		t.Errorf("without a session: %q", hints)
	}
	c.Members[1].Session = true
	if hints := clusterHints(c, "riak@b"); len(hints) != 0 {
		t.Errorf("with a session: %q", hints)
	}
}
