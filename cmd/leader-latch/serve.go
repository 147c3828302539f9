package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"leaderlatch/cmd/leader-latch/servicelog"
	"leaderlatch/ensemble"
	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/ensemble/session"
	"leaderlatch/latch"
	"leaderlatch/riakconf"
)

var serveCommand = command{
	name:  "serve",
	short: "run the service in the foreground",
	long: `Runs the service in the foreground until SIGTERM or SIGINT. It then refuses
JOINs, closes the clients' connections, leaders first, lets their members
leave, so that successors are named at once or, where clients rely on the
client rule and do not close, when that allows it, and exits with 0. A second
signal ends it on the spot.

The flags are settings of riak.conf under the same name (--minimum-nodes is
leader_latch.minimum_nodes) and win over the file.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		overrides := settingFlags(fs)
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("serve", "unknown argument %q", args[0])
			}
			relaxTimers()
			conf, warnings, err := riakconf.Load(config, overrides()...)
			if err != nil {
				return e.problems(exitPermanent, nil, err)
			}
			return e.serve(ctx, conf, warnings)
		}
	},
}

// settingFlags declares a flag for each of the service's own settings and
// gives those that were set.
func settingFlags(fs *pflag.FlagSet) func() []riakconf.Override {
	keys := map[string]string{} // by flag
	for _, k := range riakconf.Keys() {
		flag := k.Flag()
		if flag == "" {
			continue
		}
		keys[flag] = k.Name
		help := k.Help
		switch {
		case k.Default != "":
			help += " (default " + k.Default + ")"
		case k.Note != "":
			help += " (default: " + k.Note + ")"
		}
		fs.String(flag, "", help)
		fs.Lookup(flag).DefValue = ""
	}
	return func() (set []riakconf.Override) {
		fs.Visit(func(f *pflag.Flag) {
			if key := keys[f.Name]; key != "" {
				set = append(set, riakconf.Override{Key: key, Value: f.Value.String(), Origin: "--" + f.Name})
			}
		})
		return set
	}
}

const (
	// lockPatience is how long a start waits for the process before: one that
	// was killed goes within a second, with all its connections. lockQuietly is
	// how long it does without a word.
	lockPatience = 5 * time.Second
	lockQuietly  = 200 * time.Millisecond

	// stopPatience bounds the graceful stop. Connections whose clients do not
	// answer, or rely on the client rule, take as long as S - L; the rest is a commit.
	stopPatience = 15 * time.Second
)

// serve runs the node from its configuration to its end. What it starts it
// stops in the reverse order, but for the one rule that clients go first.
func (e *env) serve(ctx context.Context, conf *riakconf.Config, warnings []riakconf.Problem) int {
	syscall.Umask(0o077)
	debug.SetTraceback("crash") // a panic ends in SIGABRT, not in exit code 2, on which nobody starts it anew
	// A core dump waits for all threads, before anything is closed and whatever its
	// limit, also for one that a disk has in its hands.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := cmp.Or(checkDataDir(conf), ensemble.CheckOwner(conf.DataDir())); err != nil {
		return e.fail(exitPermanent, err)
	}
	signal.Ignore(syscall.SIGPIPE) // a reader of stderr that goes away does not end the service
	logs, err := servicelog.Open(conf.Log, servicelog.Places{
		Console: e.stderr, Journal: e.getenv("JOURNAL_STREAM"), Syslog: servicelog.LocalSyslog, Check: ensemble.CheckOwner,
	})
	if err != nil {
		return e.fail(exitPermanent, err)
	}
	defer logs.Close()
	log := logs.Logger
	stderr := diskthread.Start()
	fail := func(code int, err error) int {
		log.Error("cannot serve", "error", err)
		if !logs.OnConsole { // the log is elsewhere; whoever started this sees it too
			stderr.DoWithin(time.Second, func() error {
				e.fail(code, err)
				return nil
			})
		}
		return code
	}
	if !logs.OnConsole && isTerminal(e.stderr) {
		stderr.DoWithin(time.Second, func() error {
			fmt.Fprintf(e.stderr, "leader-latch: the log goes to %s, the data are in %s\n", logPlace(conf.Log), conf.DataDir())
			return nil
		})
	}
	for _, w := range warnings {
		log.Warn("configuration: " + w.Error())
	}
	timing, err := session.TimingNamed(conf.Timing)
	if err != nil {
		return fail(exitPermanent, err)
	}

	dir, err := openDir(ctx, conf, func(holder int) {
		log.Info("waiting for another process to let go of the data folder", "process", holder, "for", lockPatience)
	})
	if err != nil {
		return fail(exitCode(err), err)
	}
	// The lock goes with the process, never before: whoever gets it takes it
	// for the proof that no connection of this one is left.
	if err := dir.Shared(); err != nil {
		log.Warn("should this process be killed while its disk hangs, its connections will close only when the disk answers", "error", err)
	}

	listeners, err := listen(ctx, conf)
	if err != nil {
		return fail(exitCode(err), err)
	}
	defer closeAll(listeners)
	socket, err := listenAdmin(dir)
	if err != nil {
		return fail(exitCode(err), fmt.Errorf("admin socket: %w", err))
	}
	defer dir.Remove(adminSocket) // an end in order
	defer socket.listener.Close()
	if socket.leftBehind {
		log.Warn("the process before did not end in order: it was killed, or it crashed, or its machine did")
	}

	node := &lives{conf: conf, dir: dir, timing: timing, log: log, derive: dir.Key, cookies: cookiesOf(conf)}
	node.key = sync.OnceValues(func() (*clusterport.Key, error) { return cookiesOf(conf).key(node.derive) })
	commands := newAdminServer(conf, node)
	node.order = commands.staging.order
	if err := node.start(ctx); err != nil {
		return fail(exitCode(err), err)
	}

	ended := make(chan error, len(listeners)+1)
	servers := serveLatch(conf, node, timing, listeners, log, ended)
	admin := &http.Server{Handler: commands.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go serveAdmin(admin, socket.listener, ended)
	defer socket.keep(log, func(l net.Listener) { go serveAdmin(admin, l, ended) })()

	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	stopping := make(chan os.Signal, 1)
	go func() {
		stopping <- <-signals
		<-signals // a second one, whatever is being waited for
		os.Exit(exitFailed)
	}()
	log.Info("started", "node", conf.NodeName, "version", versionText(), "listeners", addresses(listeners), "data", conf.DataDir())
	looking, enough := context.WithCancel(ctx)
	defer enough()
	go func() { // whom DNS keeps waiting keeps no client waiting
		for _, w := range e.unresolved(looking, conf) {
			log.Warn("configuration: " + w)
		}
	}()
	notify("READY=1")
	defer startWatchdog(func() bool { return node.current().Healthy() })() // it takes the locks that a hung node holds

	code := exitOK
	for again := true; again; {
		again = false
		select {
		case s := <-stopping:
			log.Info("stopping on a signal; a second one ends the process at once", "signal", s.String())
		case <-ctx.Done():
		case <-node.current().Failed():
			err := node.current().Err()
			if errors.Is(err, ensemble.ErrAnew) {
				err = node.anew(ctx)
			}
			if again = err == nil; !again {
				if gone := dir.DoWithin(time.Second, func() error { return nil }); exitCode(gone) == exitPermanent {
					err = gone // whatever else the node found of that first
				}
				code = fail(exitCode(err), err)
			}
		case err := <-ended:
			code = fail(exitFailed, err)
		}
	}
	notify("STOPPING=1")

	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if err := shutdown(stop, node.current(), servers, admin); err != nil && code == exitOK {
		code = fail(exitCode(err), err)
	}
	log.Info("stopped")
	return code
}

// openDir takes the data folder, and tells waits who has it, should that not let go at once.
func openDir(ctx context.Context, conf *riakconf.Config, waits func(holder int)) (*ensemble.Dir, error) {
	quietly, cancel := context.WithTimeout(ctx, lockQuietly)
	defer cancel()
	dir, err := ensemble.OpenDir(quietly, conf.DataDir())
	if !errors.Is(err, ensemble.ErrLocked) {
		return dir, err
	}
	holder, _ := process{conf}.pid()
	waits(holder)
	patience, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	return ensemble.OpenDir(patience, conf.DataDir())
}

// shutdown is the one order in which the service ends (ensemble's DESIGN.md, rule
// 9): nobody is let in any more, the node closes the connections of members,
// leaders first, ends its session and lets go of Raft; then the rest.
func shutdown(ctx context.Context, node *ensemble.Node, servers []*latch.Server, admin *http.Server) error {
	for _, s := range servers {
		s.Refuse()
	}
	err := node.Stop(ctx)
	for _, s := range servers {
		if e := s.Shutdown(ctx); e != nil && err == nil {
			err = fmt.Errorf("stop: connections are left: %w", e)
		}
	}
	admin.Close()
	return err
}

// listen binds every latch listener.
func listen(ctx context.Context, conf *riakconf.Config) ([]net.Listener, error) {
	var all []net.Listener
	var problems []error
	for _, l := range conf.Listeners {
		nl, err := latch.Listen(ctx, "tcp", l.Address())
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", l.Position, l.Key, explainBind(l.Address(), err)))
			continue
		}
		all = append(all, nl)
	}
	if problems != nil {
		closeAll(all)
		return nil, errors.Join(problems...)
	}
	return all, nil
}

// bindError is that an address cannot be listened on, and what to do about it.
type bindError struct {
	err  error
	text string
}

func (e *bindError) Error() string { return e.text }
func (e *bindError) Unwrap() error { return e.err }

func explainBind(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &bindError{err, fmt.Sprintf("%s is in use by another program; stop that one or choose another port", address)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &bindError{err, fmt.Sprintf("%s is not an address of this machine; use one of its own, or 0.0.0.0 for all", address)}
	case errors.Is(err, syscall.EACCES):
		return &bindError{err, fmt.Sprintf("%s: ports below 1024 need a privilege; choose a higher one", address)}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return &bindError{err, fmt.Sprintf("the host of %s cannot be resolved (%s); use a numeric address or a name that this machine knows", address, dns.Err)}
	}
	return err
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func addresses(listeners []net.Listener) string {
	var all []string
	for _, l := range listeners {
		all = append(all, l.Addr().String())
	}
	return strings.Join(all, " ")
}

// serveLatch starts a server for each listener. ended takes their errors.
func serveLatch(conf *riakconf.Config, node *lives, timing session.Timing, listeners []net.Listener, log *slog.Logger, ended chan<- error) []*latch.Server {
	var elect latch.Elections = elections{node}
	if !conf.StrongConsistency {
		elect = switchedOff{}
	}
	served, surplus := connectionLimits(conf.MaxConnections, openFiles(), timing.MaxMembers())
	if served < conf.MaxConnections {
		log.Warn("fewer connections are served than leader_latch.max_connections says: "+fewerBecause(conf, openFiles(), timing.MaxMembers()), "served", served)
	}
	limit := latch.NewLimit(served, surplus)
	var servers []*latch.Server
	for i, l := range conf.Listeners {
		s := latch.NewServer(latch.Config{
			Elections:   elect,
			Logger:      log.With("listener", l.Name),
			JoinTimeout: conf.JoinTimeout,
			IdleTimeout: conf.IdleTimeout,
			CloseGrace:  timing.Expiry - timing.Lease,
			Limit:       limit,
			Fencing:     l.Fencing,
			Extensions:  l.Extensions,
			MaxPings:    conf.MaxPings,
		})
		servers = append(servers, s)
		go func() {
			if err := s.Serve(listeners[i]); !errors.Is(err, latch.ErrServerClosed) {
				ended <- fmt.Errorf("listener %s: %w", l.Name, err)
			}
		}()
	}
	return servers
}

// elections is the node as a latch.Server wants it: the same methods, by the
// names of that package's types.
type elections struct{ node *lives }

func (e elections) Join(group, client string, m latch.Member) (latch.Membership, error) {
	ms, err := e.node.current().Join(group, client, m)
	if err != nil {
		return nil, err // not a nil *Membership in an interface
	}
	return ms, nil
}

func (e elections) JoinKeyed(group, client string, k latch.Keyed, m latch.Member) (latch.Membership, error) {
	ms, err := e.node.current().JoinKeyed(group, client, k.Key, k.Hold, m)
	if err != nil {
		return nil, err
	}
	return ms, nil
}

func (e elections) Observe(group string, by latch.Observer) (latch.Observation, error) {
	o, err := e.node.current().Observe(group, by)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (e elections) Missing() error { return e.node.current().Missing() }

// switchedOff stands in while strong_consistency is off.
type switchedOff struct{}

func (switchedOff) Join(string, string, latch.Member) (latch.Membership, error) {
	return nil, fmt.Errorf("%w: strong_consistency is off", latch.ErrUnavailable)
}

func (off switchedOff) JoinKeyed(group, client string, _ latch.Keyed, m latch.Member) (latch.Membership, error) {
	return off.Join(group, client, m)
}

func (off switchedOff) Observe(group string, _ latch.Observer) (latch.Observation, error) {
	_, err := off.Join(group, "", nil)
	return nil, err
}

func (switchedOff) Missing() error { return nil } // no Join waits

// logPlace is where the log goes, for who started the service and sees nothing of it.
func logPlace(log riakconf.Log) string {
	if log.Console == "off" {
		return "no file (log.console = off)"
	}
	return log.ConsoleFile
}

// isTerminal reports whether a person may read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// checkDataDir refuses a data folder that can be none, as a file is in its way.
func checkDataDir(conf *riakconf.Config) error {
	for path := conf.DataDir(); ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s: %s is a file, where a folder has to be; move it away, or name another folder", conf.Where("platform_data_dir"), path)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return nil
		}
	}
}
