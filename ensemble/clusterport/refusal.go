package clusterport

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Reasons to refuse a connection. Those with a code below survive the wire: the
// owner's Admit returns an error that wraps one, and on the other side Dial
// returns an error that wraps the same one.
var (
	// ErrWrongCookie: the other side has another cookie, or none.
	ErrWrongCookie = errors.New("another distributed_cookie; set the same one on all nodes")

	// ErrNotTLS: what answers does not speak TLS.
	ErrNotTLS = errors.New("not a cluster port: it does not speak TLS")

	// ErrWrongCluster: the two nodes belong to different clusters, or one of
	// them to none.
	ErrWrongCluster = errors.New("another cluster")

	// ErrUnknownNode: the node is not a member of the cluster.
	ErrUnknownNode = errors.New("not a member of the cluster")

	// ErrRemoved: the node was a member of the cluster and was removed. It has
	// to stop for good.
	ErrRemoved = errors.New("removed from the cluster")

	// ErrFormat: one of the two nodes does not read what the other writes.
	ErrFormat = errors.New("no common format version")

	// ErrWrongNode: another node answers than the one that was meant.
	ErrWrongNode = errors.New("another node answers at this address")

	// ErrNotServed: the node has nothing for this purpose, not now or not in
	// its version.
	ErrNotServed = errors.New("not served here")

	// ErrBadHello: what the other side introduced itself with is none of what
	// nodes send.
	ErrBadHello = errors.New("not a hello of a node")
)

// codes are the names of reasons on the wire. They stay as they are.
var codes = []struct {
	code string
	err  error
}{
	{"wrong-cluster", ErrWrongCluster},
	{"unknown-node", ErrUnknownNode},
	{"removed", ErrRemoved},
	{"format", ErrFormat},
	{"not-served", ErrNotServed},
	{"bad-hello", ErrBadHello},
}

// codeRefused stands for a reason without a code of its own.
const codeRefused = "refused"

func codeOf(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return codeRefused
}

// refusal is a reason on the wire.
type refusal struct {
	Code   string `json:"code"`
	Reason string `json:"reason"` // for people, one line
}

// maxReason bounds the text of a refusal, in bytes.
const maxReason = 300

func refuse(err error) *refusal { return &refusal{codeOf(err), line(err.Error())} }

// line makes a text that came from elsewhere fit for a log.
func line(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// RefusedError is what a dialler gets that the other node has refused.
// [errors.Is] finds the reason in it, if it is one of this package's; a newer
// node may have others.
type RefusedError struct {
	Peer    Hello // who refused
	Purpose Purpose
	Reason  string // for people, one line

	kind error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused by %v: %s", e.Peer, e.Reason)
}

func (e *RefusedError) Unwrap() error { return e.kind }

// error is what the refusal means to who asked.
func (r *refusal) error(peer Hello, p Purpose) *RefusedError {
	e := &RefusedError{Peer: peer, Purpose: p, Reason: line(r.Reason)}
	for _, c := range codes {
		if c.code == r.Code {
			e.kind = c.err
		}
	}
	return e
}
