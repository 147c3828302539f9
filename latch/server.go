package latch

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says how a [Server] behaves. Zero durations and numbers mean the default.
type Config struct {
	// Elections is the state that the server serves. It must be set.
	Elections Elections

	// Logger is where the server logs; nil: nowhere. In normal life nothing
	// above Debug is logged but JOINs that are refused or wait, and clients of other
	// protocols, of which there is a line for each reason and 10 s, however many there are.
	Logger *slog.Logger

	// JoinTimeout is the time within which a JOIN is answered
	// (PROTOCOL.md, rules 5 and 11). Default 3 s.
	JoinTimeout time.Duration

	// IdleTimeout is the time within which a connection has to join, counted
	// from its being accepted (PROTOCOL.md, rule 14). Default 60 s.
	IdleTimeout time.Duration

	// StuckTimeout is how long a client may take nothing of what waits for it
	// (PROTOCOL.md, rule 2). It is noticed up to an eighth later. It is about
	// what the kernel could not take; what it could, TCP_USER_TIMEOUT limits,
	// to the 9 s of Listen. Default 9 s.
	StuckTimeout time.Duration

	// CloseGrace is how long the FIN of a connection that the server ended
	// may stay unacknowledged before the membership is given back all the
	// same: S - L of the timing (ensemble's DESIGN.md, rule 6). Default 400 ms.
	CloseGrace time.Duration

	// Limit bounds the connections of all servers that share it; nil: none.
	Limit *Limit

	// Fencing adds the fencing token to LEADER lines (PROTOCOL.md, rule 16).
	Fencing bool

	// Extensions serves keyed members too (PROTOCOL.md, Keyed members), and adds fencing
	// tokens for everybody. Without it their lines are answered ERROR, as any that are no
	// commands.
	Extensions bool

	// MaxPings is how many PINGs of a connection are answered in a second, evenly spaced.
	// Further ones wait, and what comes behind them too. Default 100.
	MaxPings int
}

// ErrServerClosed is returned by [Server.Serve] after Shutdown or Close.
var ErrServerClosed = errors.New("latch: server closed")

// Server serves elections to TCP clients. Its methods may be called from any
// goroutine.
type Server struct {
	cfg       Config
	log       *slog.Logger
	tally     *tally
	stopping  atomic.Bool    // set under mu, by Shutdown and Close
	closed    atomic.Bool    // set by Close
	done      chan struct{}  // closed when stopping is set
	running   sync.WaitGroup // connections, and what else goes on for them
	unwatched sync.Once      // told that connections cannot be watched
	grace     time.Duration  // closeGrace, but in tests
	lot       *lot           // set before the first connection begins; nil: none is parked

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[uint64]*conn
	lastID    uint64
}

// NewServer returns a Server that serves nothing yet.
func NewServer(cfg Config) *Server {
	fallback(&cfg.JoinTimeout, 3*time.Second)
	fallback(&cfg.IdleTimeout, 60*time.Second)
	fallback(&cfg.StuckTimeout, 9*time.Second)
	fallback(&cfg.CloseGrace, 400*time.Millisecond)
	cfg.Fencing = cfg.Fencing || cfg.Extensions
	if cfg.MaxPings <= 0 {
		cfg.MaxPings = 100
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg:       cfg,
		log:       cfg.Logger,
		tally:     newTally(cfg.Logger),
		done:      make(chan struct{}),
		grace:     closeGrace,
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[uint64]*conn),
	}
}

func fallback(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Serve accepts connections of l, which should come from [Listen], and serves
// them, until Shutdown or Close; then it returns ErrServerClosed. It closes l.
// When descriptors run out it waits, longer and longer up to 250 ms, and tries
// again; any error that will not pass by itself it returns.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.addListener(l) {
		return ErrServerClosed
	}
	defer s.removeListener(l)

	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accepted(nc)
		case s.stopping.Load():
			return ErrServerClosed
		case !passes(err):
			return err
		default:
			if pause == 0 {
				s.log.Warn("connections cannot be accepted, trying again", "listener", l.Addr().String(), "error", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), 250*time.Millisecond)
			if !s.sleep(pause) {
				return ErrServerClosed
			}
		}
	}
}

// passes reports whether an error of Accept may be gone the next time: a lack of
// something, or one that came in with the connection (accept(2)).
func passes(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC,
		syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO, syscall.ENETDOWN,
		syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENONET,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sleep waits for d. It reports false if the server stops before.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

// accepted starts a connection, as far as the limit lets it.
func (s *Server) accepted(nc net.Conn) {
	seat, warn := s.cfg.Limit.take()
	if warn {
		s.log.Warn("connection limit reached", "max", s.cfg.Limit.max)
	}
	if seat == seatNone || !s.start(nc, seat) {
		nc.Close()
		s.cfg.Limit.leave(seat)
	}
}

func (s *Server) start(nc net.Conn, seat seat) bool {
	sock, ok := nc.(socket)
	if !ok {
		s.log.Error("connection is not a TCP connection", "remote", nc.RemoteAddr().String())
		return false
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		s.log.Error("connection has no descriptor", "remote", nc.RemoteAddr().String(), "error", err)
		return false
	}
	patience := s.cfg.IdleTimeout
	if seat == seatSurplus {
		patience = s.cfg.Limit.patience
	}
	c := newConn(s, sock, raw, patience)
	c.surplus = seat == seatSurplus

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	if s.lastID++; s.lastID == 1 {
		s.openLot()
	}
	c.id = s.lastID
	s.conns[c.id] = c
	s.running.Add(1)
	go c.serve()
	return true
}

// forget drops a connection that has finished.
func (s *Server) forget(c *conn) {
	seat := seatRegular
	if c.surplus {
		seat = seatSurplus
	}
	s.cfg.Limit.leave(seat)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.id)
}

// Refuse stops accepting, refuses the JOINs that wait and all further ones, and
// closes the connections that have not joined. Joined ones stay. It does not wait.
func (s *Server) Refuse() {
	for _, c := range s.stop() {
		c.stop()
	}
}

// Shutdown does what Refuse does, and waits. Joined connections are for the
// Elections to end, in their order. It returns nil when all connections have ended, or the context's error when
// that is done first; the rest then goes on ending, and Close hurries it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Refuse()
	over := make(chan struct{})
	go func() {
		s.wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting, ends all connections at once and without a further
// line, and waits until they are gone and their memberships given back, which
// may take as long as CloseGrace.
func (s *Server) Close() error {
	s.closed.Store(true)
	for _, c := range s.stop() {
		c.hurry()
	}
	s.wait()
	return nil
}

// closeGrace is how long a client may take to close its side. A server that stops waits
// for none: the process would come back later.
func (s *Server) closeGrace() time.Duration {
	if s.stopping.Load() {
		return 0
	}
	return s.grace
}

// wait waits until all connections have ended, of a server that has stopped.
func (s *Server) wait() {
	s.running.Wait()
	if s.lot != nil {
		s.lot.close()
	}
	s.tally.flush()
}

// stop stops accepting and returns the connections that there are.
func (s *Server) stop() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping.Swap(true) {
		close(s.done)
	}
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}
