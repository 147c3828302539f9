package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/state"
)

// What may be forwarded: a node's own session, and only what any raft leader
// may put into its log without a look.
func TestWhatMayBeForwarded(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want string // in the error; empty: none
	}{
		{"a session's operations", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Open{Node: "n1", Counter: 1}, state.Renew{Incarnation: 1024, Seq: 1}, state.Join{Incarnation: 1024, Seq: 2, Group: "g", Client: "a"}, state.Leave{Incarnation: 1024, Seq: 3, Join: 2}, state.End{Incarnation: 1024, Seq: 4}}}), ""},
		{"another node's Open", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Open{Node: "n2", Counter: 1}}}), "an Open of another node, n2"},
		{"an Expire", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Renew{Incarnation: 1024, Seq: 1}, state.Expire{Incarnation: 1024, Renewal: 1}}}), "Expire"},
		{"a Found", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Found{Cluster: "c", TokenBase: 1}}}), "Found"},
		{"an Activate", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Activate{}}}), "Activate"},
		{"a Raise", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Raise{Level: 2}}}), "Raise"},
		{"a Lift", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Lift{Tokens: 2}}}), "Lift"},
		{"a Remove", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Remove{Node: "n1"}}}), "Remove"},
		{"a newer format", []byte{state.NewestLevel + 1, 0, 0}, "newer"},
		{"no entry", []byte("x"), "newer"},
		{"nothing", nil, "damaged"},
		{"a cut entry", state.Encode(state.NewestLevel, state.Entry{Ops: []state.Op{state.Join{Incarnation: 1024, Seq: 2, Group: "g", Client: "a"}}})[:6], "damaged"},
	} {
		err := checkForwarded(c.b, "n1")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What a session proposes is its node's to send: every operation that has a number in it, and
// Opens. All others are the raft leader's.
func TestASessionsOperationsMayBeForwarded(t *testing.T) {
	for _, op := range []state.Op{
		state.Open{Node: "n1", Counter: 1}, state.Renew{Seq: 1}, state.Join{Seq: 1}, state.KeyedJoin{Join: state.Join{Seq: 1}},
		state.Leave{Seq: 1}, state.StepDown{Seq: 1}, state.End{Seq: 1},
		state.Found{}, state.Activate{}, state.Expire{}, state.Remove{}, state.Raise{}, state.Lift{},
	} {
		_, opens := op.(state.Open)
		mine := opens || state.SeqOf(op) > 0
		if err := checkOps([]state.Op{op}, "n1"); (err == nil) != mine {
			t.Errorf("%T: %v; of a session: %v", op, err, mine)
		}
	}
}

// leaderSide is a raft leader at the other end of a forwarder: it takes
// proposals, and answers as a test says.
type leaderSide struct {
	t      *testing.T
	dialed chan *clusterport.Framer // a connection, as the raft leader sees it
	conns  chan net.Conn
}

func newForwarder(t *testing.T) (*forwarder, *leaderSide) {
	s := &leaderSide{t, make(chan *clusterport.Framer, 10), make(chan net.Conn, 10)}
	f := &forwarder{limit: 20 * time.Second, dial: func(_ context.Context, to state.NodeID) (net.Conn, error) {
		if to == "dead" {
			return nil, errors.New("connection refused")
		}
		near, far := net.Pipe()
		s.conns <- far
		s.dialed <- clusterport.NewFramer(far)
		t.Cleanup(func() { far.Close() })
		return near, nil
	}}
	t.Cleanup(f.close)
	return f, s
}

// wantProposal reads the next proposal.
func (s *leaderSide) wantProposal(f *clusterport.Framer, entry string) (number uint64) {
	s.t.Helper()
	b, err := f.Read()
	if err != nil {
		s.t.Fatal(err)
	}
	number, n := binary.Uvarint(b)
	if got := string(b[n:]); got != entry {
		s.t.Fatalf("got proposal %q, want %q", got, entry)
	}
	return number
}

type result struct {
	index uint64
	err   error
}

func send(f *forwarder, to state.NodeID, entry string) <-chan result {
	done := make(chan result, 1) // a second outcome would block, and be seen
	f.send(to, []byte(entry), func(index uint64, err error) { done <- result{index, err} })
	return done
}

func wantResult(t *testing.T, done <-chan result, index uint64, err string) {
	t.Helper()
	select {
	case r := <-done:
		if r.index != index || (r.err == nil) != (err == "") || r.err != nil && !strings.Contains(r.err.Error(), err) {
			t.Fatalf("outcome %d, %v; want %d, %q", r.index, r.err, index, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no outcome")
	}
}

// Proposals arrive in their order without waiting for answers, which may come
// in any.
func TestProposalsArePipelined(t *testing.T) {
	f, s := newForwarder(t)
	one, two := send(f, "l", "one"), send(f, "l", "two")
	leader := <-s.dialed
	first, second := s.wantProposal(leader, "one"), s.wantProposal(leader, "two")
	leader.Write(answerOf(second, 12, nil))
	wantResult(t, two, 12, "")
	leader.Write(answerOf(first, 0, errors.New("leadership lost")))
	wantResult(t, one, 0, "the raft leader: leadership lost")
	if len(s.dialed) != 0 {
		t.Error("a second connection was made")
	}
}

// What is under way when the raft leader changes, or its connection ends, is in
// doubt, and its proposer learns that at once.
func TestWhatHasNoAnswerIsInDoubt(t *testing.T) {
	f, s := newForwarder(t)
	one := send(f, "l", "one")
	s.wantProposal(<-s.dialed, "one")
	f.turn("l") // the same
	f.turn("m")
	wantResult(t, one, 0, errOtherLeader.Error())
	<-s.conns

	two := send(f, "m", "two")
	s.wantProposal(<-s.dialed, "two")
	three := send(f, "l", "three") // without a turn in between
	wantResult(t, two, 0, errOtherLeader.Error())
	<-s.conns
	s.wantProposal(<-s.dialed, "three")
	(<-s.conns).Close()
	wantResult(t, three, 0, "has ended")

	wantResult(t, send(f, "dead", "four"), 0, "connection refused")
	five := send(f, "l", "five") // works again
	leader := <-s.dialed
	leader.Write(answerOf(s.wantProposal(leader, "five"), 5, nil))
	wantResult(t, five, 5, "")

	f.limit = 10 * time.Millisecond
	wantResult(t, send(f, "l", "six"), 0, errNoAnswer.Error()) // nobody reads it
	f.limit = 20 * time.Second
	seven := send(f, "l", "seven")
	f.close()
	wantResult(t, seven, 0, errStopped.Error())
}

// A raft leader that answers what was not asked is none.
func TestBadAnswersEndTheLink(t *testing.T) {
	for name, answer := range map[string][]byte{
		"empty":            {},
		"a number alone":   {1},
		"another number":   answerOf(9, 1, nil),
		"an unknown kind":  {1, 2, 1},
		"a cut index":      {1, 0, 0x80},
		"more than it is":  append(answerOf(1, 1, nil), 0),
		"no integer":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"an index missing": {1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newForwarder(t)
			one := send(f, "l", "one")
			leader := <-s.dialed
			s.wantProposal(leader, "one")
			leader.Write(answer)
			wantResult(t, one, 0, "damaged data")
		})
	}
}

// A forwarder whose raft leader takes nothing does not grow without bound.
func TestForwardedProposalsAreBounded(t *testing.T) {
	f, _ := newForwarder(t)
	var all []<-chan result
	for range maxForwarded {
		all = append(all, send(f, "l", "x"))
	}
	wantResult(t, send(f, "l", "one more"), 0, errNoAnswer.Error())
	f.close()
	for _, done := range all {
		wantResult(t, done, 0, errStopped.Error())
	}
}
