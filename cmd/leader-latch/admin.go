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
const adminSocket = "admin.sock"

// ensembleStatus is Riak's report, and what an operator could do about it.
type ensembleStatus struct {
	Report *status.Report `json:"report"`
	Hints  []string       `json:"hints"`
}

// adminServer answers the commands that run beside the node.
type adminServer struct {
	conf *riakconf.Config
	node *ensemble.Node
}

func (a *adminServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "pong\n") })
	mux.HandleFunc("GET /ensemble-status", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.status())
	})
	mux.HandleFunc("GET /groups", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.node.Groups(r.URL.Query().Get("group")))
	})
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
		if err := a.node.WaitReady(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}

func (a *adminServer) status() ensembleStatus {
	r := a.node.Status()
	s := ensembleStatus{Report: r}
	if r.Enabled = a.conf.StrongConsistency; !r.Enabled {
		r.Active = false
	}
	if hint := a.hint(); hint != "" {
		s.Hints = append(s.Hints, hint)
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
	u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
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
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return &adminError{resp.StatusCode, string(body)}
	}
	if text, ok := v.(*string); ok {
		*text = string(body)
		return nil
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(body, v)
}

// adminError is a node's refusal, in its own words.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return strings.TrimSpace(e.text) }
