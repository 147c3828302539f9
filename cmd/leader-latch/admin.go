package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/cmd/leader-latch/status"
	"leaderlatch/ensemble"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/state"
	"leaderlatch/riakconf"
)

// The admin socket: HTTP with JSON on a Unix socket in the data folder, mode
// 0660. Who may open it may operate the node; there is no port and no
// password.
//
//	GET /ping                   pong
//	GET /ensemble-status        ensembleStatus
//	GET /groups?group=G         []ensemble.Group
//	GET /groups/confirmed       ensemble.Confirmed
//	GET /changes?group=G        []ensemble.Change, the oldest first; 409 with a sentence if none are kept
//	POST /groups/step-down?group=G&token=N  answers when another one leads: stepDownAnswer
//	GET /wait                   answers when a JOIN would succeed
//	GET /wait/rolled            likewise, and when all keyed members have come back whose node was stopped
//	GET /cluster                ensemble.Cluster
//	POST /cluster/join?node=N&address=A  answers when the node is a member of the cluster of N
//	POST /cluster/leave?node=N  answers when the node is alone, and answers as such; without N, this one
//	POST /cluster/force-remove?node=N
//	POST /cluster/cookie        cookies: from here on the node has these
//	GET /ring                   status.Ring
//	POST /staging/{what}?node=N stagingAnswer, to riak-admin cluster
//
// What takes a while has &timeout=D: the node gives up after that, and says what was missing.
const adminSocket = "admin.sock"

// ensembleStatus is Riak's report, and what an operator could do about it.
type ensembleStatus struct {
	Report *status.Report `json:"report"`
	Hints  []string       `json:"hints"`
}

// notKept is why a node tells no changes of leaders.
var notKept = fmt.Sprintf("changes of leaders are kept from level %d of the formats on, and this cluster has a lower one; leader-latch cluster status says what keeps it from rising", state.KeyedLevel)

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
		writeJSON(w, a.node.current().Report().Groups(r.URL.Query().Get("group")))
	})
	mux.HandleFunc("GET /groups/confirmed", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.node.current().Report().Confirmed())
	})
	mux.HandleFunc("POST /groups/step-down", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := patienceOf(r)
		defer cancel()
		q := r.URL.Query()
		var token uint64
		if q.Has("token") {
			var err error
			if token, err = strconv.ParseUint(q.Get("token"), 10, 64); err != nil || token == 0 {
				http.Error(w, "no leader has such a token", http.StatusBadRequest)
				return
			}
		}
		leader, next, err := a.node.current().StepDown(ctx, q.Get("group"), token)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, stepDownAnswer{leader, next})
	})
	mux.HandleFunc("GET /changes", func(w http.ResponseWriter, r *http.Request) {
		changes, kept := a.node.current().Report().Changes(r.URL.Query().Get("group"))
		if !kept {
			http.Error(w, notKept, http.StatusConflict)
			return
		}
		writeJSON(w, changes)
	})
	mux.HandleFunc("GET /ring", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, realCluster{a}.Ring())
	})
	mux.Handle("POST /staging/{what}", a.staging)
	mux.HandleFunc("GET /wait", a.answerWait((*ensemble.Node).WaitReady))
	mux.HandleFunc("GET /wait/rolled", a.answerWait((*ensemble.Node).WaitRolled))
	mux.HandleFunc("GET /cluster", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, a.node.current().Cluster(r.Context()))
	})
	mux.HandleFunc("POST /cluster/join", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := patienceOf(r)
		defer cancel()
		q := r.URL.Query()
		writeError(w, a.join(ctx, ensemble.Place{Name: q.Get("node"), Address: q.Get("address")}))
	})
	mux.HandleFunc("POST /cluster/leave", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := patienceOf(r)
		defer cancel()
		writeError(w, a.leave(ctx, r.URL.Query().Get("node")))
	})
	mux.HandleFunc("POST /cluster/force-remove", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := patienceOf(r)
		defer cancel()
		writeError(w, a.node.current().ForceRemove(ctx, r.URL.Query().Get("node")))
	})
	mux.HandleFunc("POST /cluster/cookie", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := patienceOf(r)
		defer cancel()
		var c cookies
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCookies)).Decode(&c)
		if err == nil {
			err = a.node.rekey(ctx, c)
		}
		writeError(w, err)
	})
	return mux
}

// patienceOf is the context of a request, which ends when its timeout does or who asked has gone.
func patienceOf(r *http.Request) (context.Context, context.CancelFunc) {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil {
		return context.WithCancel(r.Context())
	}
	return context.WithTimeout(r.Context(), d)
}

// answerWait answers when the node is as wait says.
func (a *adminServer) answerWait(wait func(*ensemble.Node, context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if missing := a.missingSetting(); missing != "" {
			http.Error(w, missing, http.StatusConflict)
			return
		}
		ctx, cancel := patienceOf(r)
		defer cancel()
		writeError(w, a.withReasons(r, a.await(ctx, wait)))
	}
}

// await waits at whichever node is there then.
func (a *adminServer) await(ctx context.Context, wait func(*ensemble.Node, context.Context) error) error {
	for {
		node := a.node.current()
		err := wait(node, ctx)
		if !errors.Is(err, ensemble.ErrAnew) {
			return err
		}
		if err := a.next(ctx, node); err != nil {
			return err
		}
	}
}

// withReasons adds to why the node is not ready why those of its cluster do not answer
// without whom there is no majority. Who asks waits for a tenth longer than the node, and
// that is the time for it.
func (a *adminServer) withReasons(r *http.Request, err error) error {
	patience, e := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err == nil || e != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience/12)
	defer cancel()
	if c := a.node.current().Cluster(ctx); !c.Majority {
		for _, why := range whyDown(c) {
			err = fmt.Errorf("%w; %s", err, why)
		}
	}
	return err
}

// join has the node join a cluster, and waits until the next one is a member.
func (a *adminServer) join(ctx context.Context, via ensemble.Place) error {
	node := a.node.current()
	if err := node.JoinCluster(ctx, via); err != nil {
		return err
	}
	if err := a.next(ctx, node); err != nil {
		return err
	}
	return a.node.current().WaitMember(ctx)
}

// leave has a node leave the cluster. If that is this one, it waits until the next one is
// there, and can do all that an operator may want next; also where the node goes on as the
// member that it was.
func (a *adminServer) leave(ctx context.Context, name string) error {
	node := a.node.current()
	err := node.Leave(ctx, name)
	if !errors.Is(node.Err(), ensemble.ErrAnew) {
		return err
	}
	if e := a.next(ctx, node); e != nil || err != nil {
		return cmp.Or(err, e)
	}
	return a.node.current().WaitMember(ctx)
}

// next waits until there is another node than this one.
func (a *adminServer) next(ctx context.Context, node *ensemble.Node) error {
	for a.node.current() == node {
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
	node := a.node.current()
	r := riakReport(node.Cluster(ctx))
	s := ensembleStatus{Report: r}
	if r.Enabled = a.conf.StrongConsistency; !r.Enabled {
		r.Active = false
	}
	if missing := a.missingSetting(); missing != "" {
		s.Hints = append(s.Hints, missing)
	}
	switch have := len(r.ReadyMembers); {
	case r.Active || !r.Enabled:
	case have == 0:
		s.Hints = append(s.Hints, "this node is in no cluster yet; leader-latch cluster status says what it waits for")
	case have < a.conf.MinimumNodes:
		s.Hints = append(s.Hints, fmt.Sprintf("the cluster has %d of the %d nodes with which elections begin (leader_latch.minimum_nodes); add nodes: leader-latch cluster join", have, a.conf.MinimumNodes))
	}
	return s
}

// missingSetting is the line of riak.conf without which no JOIN succeeds here.
func (a *adminServer) missingSetting() string {
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

// socketFile is the admin socket as it lies in the data folder.
type socketFile struct {
	dir      *ensemble.Dir
	listener net.Listener
	made     fs.FileInfo

	leftBehind bool // one lay there: who made it did not end in order, which removes it
}

// socketEvery is how often the node looks whether its admin socket is still there.
const socketEvery = time.Second

// listenAdmin makes the socket. The lock on the folder is held, so that one which lies
// there is a dead process's.
func listenAdmin(dir *ensemble.Dir) (*socketFile, error) {
	s := &socketFile{dir: dir}
	return s, s.listen()
}

// listen makes the socket, in the place of whatever is there. What may hang in the disk is
// done on threads that hold no other socket.
func (s *socketFile) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), adminSocket)
	defer f.Close()
	if err := s.dir.Do(func() error {
		err := os.Remove(s.dir.Path(adminSocket))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		s.leftBehind = err == nil
		return err
	}); err != nil {
		return err
	}
	binder := diskthread.Start(fd)
	defer binder.Close()
	err = binder.Do(func() error { return bindIn(s.dir.Path(""), fd) })
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	var made fs.FileInfo
	err = s.dir.Do(func() (err error) {
		if err = os.Chmod(s.dir.Path(adminSocket), 0o660); err == nil {
			made, err = os.Lstat(s.dir.Path(adminSocket))
		}
		return err
	})
	if err != nil {
		l.Close()
		return err
	}
	s.listener, s.made = l, made
	return nil
}

// there reports whether the socket is still the one in the folder.
func (s *socketFile) there() (there bool, err error) {
	err = s.dir.Do(func() error {
		info, err := os.Lstat(s.dir.Path(adminSocket))
		there = err == nil && os.SameFile(info, s.made)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return there, err
}

// keep makes the socket again when somebody has removed it, until stop is called. Where the
// whole folder is gone it does not: that ends the node.
func (s *socketFile) keep(log *slog.Logger, serve func(net.Listener)) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(socketEvery)
		defer tick.Stop()
		for told := false; ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if there, err := s.there(); there || err != nil {
				continue
			}
			old := s.listener
			err := s.listen()
			switch {
			case err == nil:
				old.Close()
				serve(s.listener)
				log.Warn("the admin socket was removed, and has been made again", "path", s.dir.Path(adminSocket))
			case !told:
				log.Warn("the admin socket was removed, and cannot be made again yet", "path", s.dir.Path(adminSocket), "error", err)
			}
			told = err != nil
		}
	}()
	return func() {
		close(done)
		select {
		case <-ended: // it makes none any more
		case <-time.After(time.Second): // nor will it before the disk answers
		}
	}
}

// serveAdmin serves the socket until it is closed.
func serveAdmin(admin *http.Server, l net.Listener, ended chan<- error) {
	if err := admin.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		ended <- fmt.Errorf("admin socket: %w", err)
	}
}

// bindIn binds a socket to its name in the folder, whose path may be too long for a
// socket's address, which holds 107 bytes: the folder goes by its descriptor.
func bindIn(dir string, fd int) error {
	short, done, err := shortPath(dir)
	if err != nil {
		return err
	}
	defer done()
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: short}))
}

// shortPath gives a path to the socket in dir that fits a socket's address, until done. It
// holds in the calling thread.
func shortPath(dir string) (path string, done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/thread-self/fd", strconv.Itoa(int(f.Fd())), adminSocket), func() { f.Close() }, nil
}
