package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/status"
	"leaderlatch/riakconf"
)

// The admin socket: HTTP with JSON on a Unix socket in the data folder, mode
// 0660. Who may open it may operate the node; there is no port and no
// password.
//
//	GET /ping                   pong
//	GET /ensemble-status        ensembleStatus
//	GET /groups?group=G         []ensemble.Group
//	GET /wait                   answers when a JOIN would succeed
//	GET /cluster                ensemble.Cluster
//	POST /cluster/join?node=N&address=A  answers when the node is a member of the cluster of N
//	POST /cluster/leave?node=N  answers when the node is no member any more; without N, this one
//	POST /cluster/force-remove?node=N
//	GET /ring                   status.Ring
//	POST /staging/{what}?node=N stagingAnswer, to riak-admin cluster
const adminSocket = "admin.sock"

// ensembleStatus is Riak's report, and what an operator could do about it.
type ensembleStatus struct {
	Report *status.Report `json:"report"`
	Hints  []string       `json:"hints"`
}

// adminServer answers the commands that run beside the node.
type adminServer struct {
	conf    *riakconf.Config
	node    *lives
	staging *staging
}

func newAdminServer(conf *riakconf.Config, node *lives) *adminServer {
	a := &adminServer{conf: conf, node: node}
	a.staging = &staging{node: conf.NodeName, cluster: realCluster{a}}
	return a
}

func (a *adminServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "pong\n") })
	mux.HandleFunc("GET /ensemble-status", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.status(r.Context()))
	})
	mux.HandleFunc("GET /groups", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.node.now().Groups(r.URL.Query().Get("group")))
	})
	mux.HandleFunc("GET /ring", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, realCluster{a}.Ring())
	})
	mux.Handle("POST /staging/{what}", a.staging)
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		if hint := a.hint(); hint != "" {
			http.Error(w, hint, http.StatusConflict)
			return
		}
		ctx := r.Context()
		if d, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		writeError(w, a.waitReady(ctx))
	})
	mux.HandleFunc("GET /cluster", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.node.now().Cluster(r.Context()))
	})
	mux.HandleFunc("POST /cluster/join", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		writeError(w, a.join(r.Context(), ensemble.Place{Name: q.Get("node"), Address: q.Get("address")}))
	})
	mux.HandleFunc("POST /cluster/leave", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, a.node.now().Leave(r.Context(), r.URL.Query().Get("node")))
	})
	mux.HandleFunc("POST /cluster/force-remove", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, a.node.now().ForceRemove(r.Context(), r.URL.Query().Get("node")))
	})
	return mux
}

// waitReady waits until a JOIN would succeed, at whichever node is there then.
func (a *adminServer) waitReady(ctx context.Context) error {
	for {
		node := a.node.now()
		err := node.WaitReady(ctx)
		if !errors.Is(err, ensemble.ErrAnew) {
			return err
		}
		if err := a.next(ctx, node); err != nil {
			return err
		}
	}
}

// join has the node join a cluster, and waits until the next one is a member.
func (a *adminServer) join(ctx context.Context, via ensemble.Place) error {
	node := a.node.now()
	if err := node.JoinCluster(ctx, via); err != nil {
		return err
	}
	if err := a.next(ctx, node); err != nil {
		return err
	}
	return a.node.now().WaitMember(ctx)
}

// next waits until there is another node than this one.
func (a *adminServer) next(ctx context.Context, node *ensemble.Node) error {
	for a.node.now() == node {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func writeError(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (a *adminServer) status(ctx context.Context) ensembleStatus {
	node := a.node.now()
	r := node.Status(ctx)
	s := ensembleStatus{Report: r}
	if r.Enabled = a.conf.StrongConsistency; !r.Enabled {
		r.Active = false
	}
	if hint := a.hint(); hint != "" {
		s.Hints = append(s.Hints, hint)
	}
	if have := len(r.ReadyMembers); !r.Active && r.Enabled && have < a.conf.MinimumNodes {
		s.Hints = append(s.Hints, fmt.Sprintf("the cluster has %d of the %d nodes with which elections begin (leader_latch.minimum_nodes); add nodes: leader-latch cluster join", have, a.conf.MinimumNodes))
	}
	return s
}

// hint is the line of riak.conf without which no JOIN succeeds here.
func (a *adminServer) hint() string {
	switch {
	case !a.conf.StrongConsistency:
		return fmt.Sprintf("%s: set strong_consistency = on; without it every JOIN is refused", a.conf.Path)
	case len(a.conf.Listeners) == 0:
		return fmt.Sprintf("%s: there is no listener.leader_latch.<name> line, so no client can connect; add listener.leader_latch.internal = 127.0.0.1:5323", a.conf.Path)
	}
	return ""
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // fails only with the connection
}

// listenAdmin opens the socket. The lock on the folder is held, so that a
// socket which lies there is a dead process's.
func listenAdmin(dir string) (net.Listener, error) {
	short, done, err := shortPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(filepath.Join(dir, adminSocket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", short)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by the short path it could not
	if err := os.Chmod(filepath.Join(dir, adminSocket), 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// shortPath gives a path to the socket in dir that fits a socket's address,
// which holds 107 bytes: the folder goes by its descriptor, until done.
func shortPath(dir string) (path string, done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd())), adminSocket), func() { f.Close() }, nil
}

// errNodeDown is that no node runs on the data folder.
var errNodeDown = errors.New("node is not running")

// admin asks the node that runs on this machine.
type admin struct {
	conf   *riakconf.Config
	client *http.Client
}

func newAdmin(conf *riakconf.Config) *admin {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := shortPath(conf.DataDir())
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		return d.DialContext(ctx, "unix", short)
	}
	return &admin{conf, &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// get asks for a path and reads the answer into v: JSON, or text for a
// *string. errNodeDown is returned if no node runs.
func (a *admin) get(ctx context.Context, path string, query url.Values, v any) error {
	return a.ask(ctx, http.MethodGet, path, query, v)
}

// post is get for what changes the node.
func (a *admin) post(ctx context.Context, path string, query url.Values, v any) error {
	return a.ask(ctx, http.MethodPost, path, query, v)
}

func (a *admin) ask(ctx context.Context, method, path string, query url.Values, v any) error {
	u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errNodeDown
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not talk to the node by %s: run this as root or as the user that the service runs as", filepath.Join(a.conf.DataDir(), adminSocket))
	case err != nil:
		return fmt.Errorf("ask the node: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return &adminError{resp.StatusCode, string(answer)}
	}
	if text, ok := v.(*string); ok {
		*text = string(answer)
		return nil
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer, v)
}

// adminError is a node's refusal, in its own words.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return strings.TrimSpace(e.text) }
