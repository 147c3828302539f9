package latch

import (
	"errors"
	"fmt"
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

// smallInput is the input buffer of a reader; a longer line gets one of maxInput.
const smallInput = 256

// inputs are buffers of readers.
var inputs = sync.Pool{New: func() any { return new([smallInput]byte) }}

// Why connections end, for the log.
var (
	errIdle        = errors.New("no JOIN in time")
	errBadLines    = errors.New("too many lines that are not commands")
	errJoinTimeout = errors.New("no answer in time: no majority of the nodes has taken it")
	errOverLimit   = errors.New("over the connection limit")
	errStopping    = errors.New("the server is stopping")
	errNotLive     = errors.New("the node may not speak for the membership any longer")
	errEnded       = errors.New("closed by the node: it has lost its session or left its cluster, the member has moved, it leads and sends no PING, or an operator has it step down")
	errStuck       = errors.New("takes nothing")
	errLeft        = errors.New("the client has left")
)

// past is a deadline that wakes a reader or a writer at once.
var past = time.Unix(1, 0)

// conn is one connection. One goroutine at a time reads it: its own, or that of the lot
// in which it is parked; lines are written by whoever has something to say.
type conn struct {
	srv *Server
	id  uint64
	nc  socket
	raw syscall.RawConn

	// in is the input that is not answered yet, in small unless it is large. Only the
	// reader touches them.
	in    []byte
	small *[smallInput]byte

	// attended: the reader is the goroutine of all that are parked. Only the reader
	// touches it.
	attended bool

	// recognized: the first input has been looked at. Only the reader touches it.
	recognized bool

	surplus bool // over the limit: only here to be refused

	observes bool // it has sent OBSERVE, and is no member; guarded by mu, and here as there is room

	// mu guards what follows and is held over every write, so that the gate,
	// the write and the end of the connection exclude each other. Nothing
	// that may wait is done under it, neither closing nor logging.
	mu         sync.Mutex
	state      state
	crlf       bool        // how answers end; PROTOCOL.md, Lines
	spoken     bool        // crlf is settled by the client's first line
	waiting    bool        // a line is in the buffer that could not be answered yet
	asks       bool        // a further JOIN waits for a promise
	stopped    bool        // the client has said that it has stopped: by a FIN of its own that was read, or by LEAVE
	broken     bool        // the connection was reset, or lost: an end that is read after that is no FIN
	draining   bool        // a goroutine waits to write; nobody else does
	parked     bool        // it has no goroutine: the lot reads it when there is something to read
	watched    bool        // it has been parked before
	stays      bool        // it cannot be parked as it is
	way        way         // how it ended
	why        reason      // it ended
	bad        uint8       // lines answered ERROR
	tail       uint16      // bytes at the end of the send queue that are known to tell of no leader
	deadline   time.Time   // to join, or for the answer
	timer      *time.Timer // of the deadline, while it is parked; or nil
	membership Membership  // of an observer: observing
	group      string
	client     string
	keyed      *keyed // of a keyed member; nil: it is plain
	told, next leader // the last leader written, at least in part; the newest one
	out        []byte // rest of a line that was written in part
	cause      error  // why it ends, io.EOF and the like if by the client; while it is pending, what it waits for
}

// leader is what a LEADER line says.
type leader struct {
	name  string
	token uint64 // 0 without fencing
}

func newConn(s *Server, nc socket, raw syscall.RawConn, patience time.Duration) *conn {
	c := &conn{srv: s, nc: nc, raw: raw, deadline: time.Now().Add(patience)}
	c.arm()
	return c
}

// serve reads the connection until it is parked, or until its end, and then gives back
// what it held.
func (c *conn) serve() {
	if c.small == nil {
		c.openInput()
	}
	c.serveAfter(c.read())
}

// serveAfter is serve after a read.
func (c *conn) serveAfter(err error) {
	for {
		switch c.advance(err) {
		case parked:
			return
		case over:
			c.finish()
			c.srv.running.Done()
			return
		}
		err = c.read()
	}
}

func (c *conn) openInput() {
	c.small = inputs.Get().(*[smallInput]byte)
	c.in = c.small[:0]
}

func (c *conn) closeInput() {
	c.wipe(c.small[:])
	c.wipe(c.in[:cap(c.in)])
	inputs.Put(c.small)
	c.in, c.small = nil, nil
}

// wipe wipes a part of a buffer whose input may have had a key.
func (c *conn) wipe(b []byte) {
	if c.srv.cfg.Extensions {
		clear(b)
	}
}

// outcome is what is left for a reader to do.
type outcome uint8

const (
	readOn outcome = iota
	parked         // nothing: it does not have the connection any more
	over           // to finish
)

// read reads what there is, also while nothing may be answered, so that the end
// of the connection is seen at once.
func (c *conn) read() error {
	if len(c.in) == cap(c.in) {
		if len(c.in) == maxInput {
			return awaitHangup(c.raw)
		}
		c.in = append(make([]byte, 0, maxInput), c.in...)
		c.wipe(c.small[:])
	}
	n, err := c.nc.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return err
}

// advance answers the input as far as it may be answered and deals with err,
// with which the read ended.
func (c *conn) advance(err error) outcome {
	if err == nil || isTimeout(err) { // after an EOF nothing is answered
		c.answerLines()
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteEnd(err)
	switch {
	case err == nil && c.settle():
		return parked
	case err == nil:
		c.stays = false
		c.arm()
	case c.state == ended:
		// A socket tells an error once. If this read has got the one that
		// says that the client was lost, whoever ended the connection in the
		// meantime took it for closed by the client, or for closed in order.
		if !isTimeout(err) && !clientEnded(err) {
			c.way = byLoss
		}
	case !isTimeout(err):
		c.left(err)
	case c.park():
		return parked
	case c.state == joined || c.state == leaving || time.Now().Before(c.deadline):
		c.arm()
	case c.state == pending:
		cause := c.cause
		if cause == nil {
			cause = c.srv.noAnswer()
		}
		c.refuse(cause)
	default:
		c.end(errIdle)
	}
	if c.state == ended {
		return over
	}
	return readOn
}

// answerLines answers the complete lines in the buffer, in their order, until
// one has to wait.
func (c *conn) answerLines() {
	if !c.recognized && len(c.in) > 0 {
		c.recognize()
	}
	rest := c.in
	for {
		line, size, crlf, err := cutLine(rest)
		if size == 0 && err == nil {
			break
		}
		took, asked := c.take(line, crlf, err)
		if asked {
			c.logAsked()
		}
		if !took {
			break
		}
		rest = rest[size:]
	}
	if len(rest) == len(c.in) {
		return
	}
	n := copy(c.in, rest)
	c.wipe(c.in[n:])
	if c.in = c.in[:n]; n == 0 {
		c.in = c.small[:0]
	}
}

// take answers one line. took is false if the line has to wait until an earlier
// one is answered, or if nothing will be answered any more; PROTOCOL.md, Order
// of answers. asked says that it was a JOIN and the Elections have it. The lock is held
// for one line only, so that a client with many lines delays nobody who has to end it.
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
	switch r := parse(line, c.srv.cfg.Extensions); {
	case r.verb == verbJoin && c.state == joined && !c.observes:
		c.waiting = !c.answerAlreadyJoined()
	case (r.verb == verbJoin || r.verb == verbObserve) && c.state == fresh:
		c.join(r)
		asked = c.state == pending
	case r.verb == verbPing && c.keyed != nil:
		c.waiting = !c.ping()
	case r.verb == verbLeave && c.state == joined:
		c.leave()
	default:
		c.answerError()
	}
	return !c.waiting, asked
}

// held reports whether input has to wait: for the answer to a JOIN, or until the
// client takes the answers that it has. mu is held.
func (c *conn) held() bool {
	return c.state == pending || c.asks || c.draining || c.keyed != nil && c.keyed.asked
}

// arm has the reader look at the time limit that the state asks for; earlier, if the
// connection is to be parked then; and at once when there is something for it to do. mu is
// held.
func (c *conn) arm() {
	limit := c.deadline
	if c.state >= joined {
		limit = time.Time{}
	}
	if c.parked {
		c.setTimer(limit)
		return
	}
	c.setTimer(time.Time{})
	switch look := time.Now().Add(parkAfter); {
	case c.state == ended:
		limit = past
	case c.waiting && !c.held():
		limit = past
		if c.keyed != nil && c.keyed.early {
			limit = c.keyed.next
		}
	case c.state <= joined && !c.stays && (limit.IsZero() || look.Before(limit)):
		limit = look
	}
	c.nc.SetReadDeadline(limit)
}

// join asks the Elections for what a JOIN or an OBSERVE is for. mu is held.
func (c *conn) join(r request) {
	c.group, c.client, c.observes = string(r.group), string(r.client), r.verb == verbObserve
	if c.srv.stopping.Load() {
		c.refuse(errStopping)
		return
	}
	m, err := c.ask(r)
	if err != nil {
		c.refuse(err)
		return
	}
	c.membership, c.state = m, pending
	c.deadline = time.Now().Add(c.srv.cfg.JoinTimeout) // advance, from which this is called, arms the reader for it
}

// ask asks the Elections for it. mu is held.
func (c *conn) ask(r request) (Membership, error) {
	elections := c.srv.cfg.Elections
	switch {
	case c.observes:
		o, err := elections.Observe(c.group, c)
		return observing{o}, err
	case r.key != nil:
		c.keyed = &keyed{finEnds: r.finEnds}
		return elections.JoinKeyed(c.group, c.client, Keyed{string(r.key), r.hold}, c)
	}
	return elections.Join(c.group, c.client, c)
}

// noAnswer is why a JOIN had no answer in time.
func (s *Server) noAnswer() error {
	if why := s.cfg.Elections.Missing(); why != nil {
		return fmt.Errorf("no answer in time: %w", why)
	}
	return errJoinTimeout
}

// Leader implements [Member] and [Observer].
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
		c.state, c.stays, c.cause = joined, false, nil
		if c.parked || c.waiting {
			c.arm()
		}
	}
	if !c.srv.cfg.Fencing {
		token = 0
	}
	c.next = leader{name, token}
	c.push()
}

// nameInUse is that another member has the client's name.
type nameInUse struct{ holder string }

func (e nameInUse) Error() string { return "another member has the name, through " + e.holder }

// Waits implements [Member].
func (c *conn) Waits(holder string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != pending {
		return
	}
	if c.cause = nil; holder == "" {
		return
	}
	why := nameInUse{holder}
	c.cause = why
	if write := c.srv.tally.add("JOIN waits", why.Error(), c.who); write != nil {
		c.srv.running.Go(write) // a log may wait for its disk
	}
}

// Promised implements [Member]: the JOIN that waits for a promise is answered by the
// reader.
func (c *conn) Promised() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks = false; c.state != ended {
		c.arm()
	}
}

// Close implements [Member] and [Observer].
func (c *conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	why := errEnded
	if c.srv.stopping.Load() {
		why = errStopping
	}
	if c.state == pending {
		c.refuse(why)
		return
	}
	c.end(why)
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
