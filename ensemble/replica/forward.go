package replica

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// A node that is not the raft leader sends its proposals to the raft leader, over one
// connection and without waiting for answers in between:
//
//	proposal = number(uvarint) log entry
//	answer   = number(uvarint) 0 index of the entry(uvarint)
//	         | number(uvarint) 1 why it was not committed, or nobody knows(text)
//
// An answer may come out of turn. If no answer comes, nobody knows what became of the
// proposal, as when this node's own Raft loses its leadership. The proposal is then
// proposed again, and takes effect once.

// forwarder is the sending side. It is safe for concurrent use.
type forwarder struct {
	dial  func(ctx context.Context, to state.NodeID) (net.Conn, error)
	limit time.Duration // an answer takes no longer, or the connection is given up

	mu   sync.Mutex
	link *link // to the raft leader of the last proposal; nil: none
}

var (
	errOtherLeader = errors.New("there is another raft leader")
	errNoAnswer    = errors.New("the raft leader does not answer")
)

// send proposes an entry to the raft leader. The outcome goes to done, once,
// from another goroutine. Entries that are sent to one raft leader arrive there
// in their order, or not at all.
func (f *forwarder) send(to state.NodeID, entry []byte, done func(index uint64, err error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link == nil || f.link.to != to || f.link.ctx.Err() != nil {
		f.link.fail(errOtherLeader)
		f.link = newLink(to)
		go f.link.run(f.dial)
	}
	f.link.send(entry, f.limit, done)
}

// turn gives up what is under way to any other node than the raft leader.
func (f *forwarder) turn(to state.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link != nil && f.link.to != to {
		f.link.fail(errOtherLeader)
		f.link = nil
	}
}

func (f *forwarder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.link.fail(errStopped)
	f.link = nil
}

// link is a connection to a raft leader, made or being made.
type link struct {
	to     state.NodeID
	ctx    context.Context // done when it has failed
	cancel context.CancelFunc
	queue  chan []byte // frames to be written

	mu      sync.Mutex // guards what follows
	err     error      // why it has failed
	last    uint64     // number of the last proposal
	pending map[uint64]*forwarded
}

// forwarded is a proposal without an answer.
type forwarded struct {
	done  func(index uint64, err error)
	limit *time.Timer
}

// maxForwarded is how many proposals may be under way on a link. The proposer
// has far fewer.
const maxForwarded = 16

func newLink(to state.NodeID) *link {
	l := &link{to: to, queue: make(chan []byte, maxForwarded), pending: make(map[uint64]*forwarded)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *link) send(entry []byte, limit time.Duration, done func(index uint64, err error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	if err == nil && len(l.pending) >= maxForwarded {
		err = errNoAnswer
	}
	if err != nil {
		go done(0, err)
		return
	}
	l.last++
	l.pending[l.last] = &forwarded{done, time.AfterFunc(limit, func() { l.fail(errNoAnswer) })}
	frame := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64+len(entry)), l.last)
	l.queue <- append(frame, entry...) // has room: nothing is queued that is not pending
}

// run connects, writes, and reads answers, until the link fails.
func (l *link) run(dial func(ctx context.Context, to state.NodeID) (net.Conn, error)) {
	c, err := dial(l.ctx, l.to)
	if err != nil {
		l.fail(err)
		return
	}
	defer context.AfterFunc(l.ctx, func() { c.Close() })()
	defer c.Close()
	f := clusterport.NewFramer(c)
	go func() {
		for {
			b, err := f.Read()
			if err == nil {
				err = l.answered(b)
			}
			if err != nil {
				l.fail(fmt.Errorf("the connection to the raft leader has ended: %w", err))
				return
			}
		}
	}()
	for {
		select {
		case frame := <-l.queue:
			if err := f.Write(frame); err != nil {
				l.fail(err)
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// answered takes an answer; an error says that it is none.
func (l *link) answered(b []byte) error {
	number, n := binary.Uvarint(b)
	if n <= 0 || n >= len(b) || b[n] > 1 {
		return state.ErrCorrupt
	}
	rest := b[n+1:]
	var index uint64
	var err error
	if b[n] == 0 {
		if index, n = binary.Uvarint(rest); n <= 0 || n != len(rest) {
			return state.ErrCorrupt
		}
	} else {
		err = fmt.Errorf("the raft leader: %s", rest)
	}
	l.mu.Lock()
	p := l.pending[number]
	delete(l.pending, number)
	l.mu.Unlock()
	if p == nil {
		return state.ErrCorrupt
	}
	p.limit.Stop()
	p.done(index, err)
	return nil
}

// fail ends the link, and with it all that is under way on it. A nil link has
// nothing to end.
func (l *link) fail(err error) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.cancel()
	for number, p := range l.pending {
		p.limit.Stop()
		go p.done(0, l.err)
		delete(l.pending, number)
	}
}

func answerOf(number, index uint64, err error) []byte {
	b := binary.AppendUvarint(nil, number)
	if err != nil {
		return append(append(b, 1), err.Error()...)
	}
	return binary.AppendUvarint(append(b, 0), index)
}

// checkForwarded reports an error unless an entry is one that a node may send:
// its own sessions' operations, and no session but its own.
func checkForwarded(b []byte, from state.NodeID) error {
	entry, err := state.Decode(b)
	if err != nil {
		return err
	}
	return checkOps(entry.Ops, from)
}

func checkOps(ops []state.Op, from state.NodeID) error {
	for _, op := range ops {
		switch op := op.(type) {
		case state.Open:
			if op.Node != from {
				return fmt.Errorf("an Open of another node, %s", cmp.Or(op.Name, string(op.Node)))
			}
		case state.Renew, state.Join, state.KeyedJoin, state.Leave, state.StepDown, state.End:
		default:
			return fmt.Errorf("a %T, which is the raft leader's to propose", op)
		}
	}
	return nil
}

// dialMember opens a connection for proposals.
func (r *Replica) dialMember(ctx context.Context, to state.NodeID) (net.Conn, error) {
	s, ok := r.Server(to)
	if !ok {
		return nil, fmt.Errorf("%s is not a member", r.NameOf(to))
	}
	c, _, err := r.port.Dial(ctx, clusterport.Forward, r.AddressOf(s), string(to))
	return c, err
}

// acceptProposals is the receiving side: it proposes what a node sends, as long
// as this one is the raft leader. Raft has at most maxForwarded of them and one more at once.
func (r *Replica) acceptProposals(c net.Conn, peer clusterport.Hello) {
	f := clusterport.NewFramer(c)
	room := make(chan struct{}, maxForwarded)
	for {
		b, err := f.Read()
		if err != nil {
			return
		}
		number, k := binary.Uvarint(b)
		if k <= 0 {
			r.log.Warn("a node sends proposals that cannot be read: its connection is closed", "node", peer.String())
			return
		}
		entry := bytes.Clone(b[k:])
		// What stands in the log stops every node that cannot read it.
		if err := checkForwarded(entry, state.NodeID(peer.Node)); err != nil {
			r.log.Warn("refused a proposal of another node", "node", peer.String(), "error", err)
			f.Write(answerOf(number, 0, err))
			continue
		}
		future := r.raft.Apply(entry, r.cfg.Lease)
		select {
		case room <- struct{}{}:
		case <-r.done:
			return
		}
		// On its own: Raft leaves some questions without an answer when it
		// shuts down, and answers in no order that another node could rely on.
		go func() {
			err := awaitCommit(future)
			f.Write(answerOf(number, future.Index(), err)) // fails with the connection
			<-room
		}()
	}
}
