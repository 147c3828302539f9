package latch

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// state is how far a connection has come. It only moves forward.
type state uint8

const (
	fresh   state = iota // has not asked for anything yet
	pending              // its JOIN is with the Elections
	joined               // its JOIN is answered
	leaving              // the rest of its last line waits to be written
	ended                // nothing will be written any more
)

// maxBadLines is how many lines in a row may be answered ERROR before joining;
// PROTOCOL.md, Anything else.
const maxBadLines = 16

// inlineInput is the input buffer that every connection has; a longer line gets
// one of maxInput. It makes conn as large as a size class of the allocator, 512.
const inlineInput = 256

// Why connections end, for the log.
var (
	errIdle        = errors.New("no JOIN in time")
	errBadLines    = errors.New("too many lines that are not commands")
	errJoinTimeout = errors.New("no answer in time: there is no majority, or another live member has the name")
	errOverLimit   = errors.New("over the connection limit")
	errStopping    = errors.New("the server is stopping")
	errNotLive     = errors.New("the node may not speak for the membership any longer")
	errEnded       = errors.New("ended by the elections")
	errStuck       = errors.New("takes nothing")
)

// past is a deadline that wakes a reader or a writer at once.
var past = time.Unix(1, 0)

// conn is one connection. One goroutine reads it, for as long as it lasts;
// lines are written by whoever has something to say.
type conn struct {
	srv     *Server
	nc      socket
	raw     syscall.RawConn
	surplus bool // over the limit: only here to be refused

	// in is the input that is not answered yet. Only the reader touches it.
	in     []byte
	inline [inlineInput]byte

	// mu guards what follows and is held over every write, so that the gate,
	// the write and the end of the connection exclude each other. Nothing
	// that may wait is done under it, neither closing nor logging.
	mu         sync.Mutex
	state      state
	crlf       bool  // how answers end; PROTOCOL.md, Lines
	spoken     bool  // crlf is settled by the client's first line
	waiting    bool  // a line is in the buffer that could not be answered yet
	draining   bool  // a goroutine waits to write; nobody else does
	way        way   // how it ended
	bad        uint8 // lines answered ERROR
	deadline   time.Time
	membership Membership
	group      string
	client     string
	told, next leader // the last leader written, at least in part; the newest one
	out        []byte // rest of a line that was written in part
	tail       int    // bytes at the end of the send queue that tell of no leader
	cause      error  // why it ends; io.EOF and the like if by the client
}

// leader is what a LEADER line says.
type leader struct {
	name  string
	token uint64 // 0 without fencing
}

func newConn(s *Server, nc socket, raw syscall.RawConn, patience time.Duration) *conn {
	c := &conn{srv: s, nc: nc, raw: raw, deadline: time.Now().Add(patience)}
	c.in = c.inline[:0]
	c.nc.SetReadDeadline(c.deadline)
	return c
}

// serve reads the connection until its end and then gives back what it held.
func (c *conn) serve() {
	for {
		goesOn, asked := c.advance(c.read())
		if !goesOn {
			break
		}
		if asked {
			// The Elections made the stack grow, and it would stay as large
			// while the connection lasts. A new goroutine has a small one.
			c.log(slog.LevelDebug, "JOIN asked for")
			c.srv.running.Go(c.serve)
			return
		}
	}
	c.finish()
}

// read reads what there is, also while nothing may be answered, so that the end
// of the connection is seen at once.
func (c *conn) read() error {
	if len(c.in) == cap(c.in) {
		if len(c.in) == maxInput {
			return awaitHangup(c.raw)
		}
		c.in = append(make([]byte, 0, maxInput), c.in...)
	}
	n, err := c.nc.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return err
}

// advance answers the input as far as it may be answered and deals with err,
// the outcome of the read. It reports whether the connection goes on, and whether
// a JOIN was asked of the Elections.
func (c *conn) advance(err error) (goesOn, asked bool) {
	if err == nil || isTimeout(err) { // after an EOF nothing is answered
		asked = c.answerLines()
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
	case c.state == ended:
		// A socket tells an error once. If this read has got the one that
		// says that the client was lost, whoever ended the connection in the
		// meantime took it for closed by the client, or for closed in order.
		if !isTimeout(err) && !clientEnded(err) {
			c.way = byLoss
		}
	case !isTimeout(err):
		c.left(err)
	case c.state == joined || c.state == leaving || time.Now().Before(c.deadline):
		c.arm()
	case c.state == pending:
		c.refuse(errJoinTimeout)
	default:
		c.end(errIdle)
	}
	return c.state != ended, asked
}

// answerLines answers the complete lines in the buffer, in their order, until
// one has to wait. It reports whether a JOIN was asked of the Elections.
func (c *conn) answerLines() (asked bool) {
	rest := c.in
	for {
		line, size, crlf, err := cutLine(rest)
		if size == 0 && err == nil {
			break
		}
		took, isJoin := c.take(line, crlf, err)
		asked = asked || isJoin
		if !took {
			break
		}
		rest = rest[size:]
	}
	if len(rest) == 0 && cap(c.in) > inlineInput {
		c.in = c.inline[:0]
	} else if len(rest) < len(c.in) {
		c.in = c.in[:copy(c.in, rest)]
	}
	return asked
}

// take answers one line. took is false if the line has to wait until an earlier
// one is answered, or if nothing will be answered any more; PROTOCOL.md, Order
// of answers. The lock is held for one line only, so that a client with many
// lines delays nobody who has to end it.
func (c *conn) take(line []byte, crlf bool, err error) (took, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting = c.held(); c.waiting || c.state == ended {
		return false, false
	}
	if !c.spoken {
		c.spoken, c.crlf = true, crlf
	}
	if c.surplus {
		c.refuse(errOverLimit)
		return false, false
	}
	if err != nil {
		c.sayLast(appendError, err)
		return false, false
	}
	group, client, ok := parseJoin(line)
	switch {
	case !ok:
		c.answerError()
	case c.state == joined:
		c.answerAlreadyJoined()
	default:
		c.group, c.client = string(group), string(client)
		c.join()
		asked = c.state == pending
	}
	return true, asked
}

// held reports whether input has to wait: for the answer to a JOIN, or until the
// client takes the answers that it has. mu is held.
func (c *conn) held() bool { return c.state == pending || c.draining }

// arm sets the reader's deadline to what the state asks for: it carries the time
// limits, and one in the past wakes the reader when there is something for it to
// do. mu is held.
func (c *conn) arm() {
	t := c.deadline
	switch {
	case c.state == ended, c.waiting && !c.held():
		t = past
	case c.state == joined, c.state == leaving:
		t = time.Time{}
	}
	c.nc.SetReadDeadline(t)
}

// join asks the Elections for the membership. mu is held.
func (c *conn) join() {
	if c.srv.stopping.Load() {
		c.refuse(errStopping)
		return
	}
	m, err := c.srv.cfg.Elections.Join(c.group, c.client, c)
	if err != nil {
		c.refuse(err)
		return
	}
	c.membership, c.state = m, pending
	c.deadline = time.Now().Add(c.srv.cfg.JoinTimeout)
	c.arm()
}

// Leader implements [Member].
func (c *conn) Leader(name string, token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case leaving, ended:
		return
	case pending:
		if !c.membership.Live() {
			c.refuse(errNotLive) // it has been told nothing yet
			return
		}
		c.state = joined
		c.arm()
	}
	if !c.srv.cfg.Fencing {
		token = 0
	}
	c.next = leader{name, token}
	c.push()
}

// Close implements [Member].
func (c *conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == pending {
		c.refuse(errEnded)
		return
	}
	c.end(errEnded)
}

// stop ends a connection that has not joined, for the server's shutdown.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case fresh:
		c.end(errStopping)
	case pending:
		c.refuse(errStopping)
	}
}
