package clusterport

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// What the two sides say right after TLS, the dialler first:
//
//	message = length(2 bytes, big endian, at most 8192) JSON object
//
// The object holds the fields of message. A reader ignores fields that it does
// not know, so that later versions may add some. A change that older nodes
// must not overlook gets purposes with other names instead.
const (
	helloVersion = 1
	maxMessage   = 8 << 10
)

// Hello is how a node introduces itself.
type Hello struct {
	Cluster string  `json:"cluster,omitempty"` // id of its cluster; empty: it has none
	Node    string  `json:"node"`              // its id; the name on its certificate
	Name    string  `json:"name"`              // riak@host
	Address string  `json:"address"`           // where others reach its cluster port, host:port
	Formats Formats `json:"formats"`

	// Life is that of the node between a start and its end; empty: an older program does not
	// say. Two greetings of one node with two lives are of two processes, of which one has ended.
	Life string `json:"life,omitempty"`
}

// Formats are the versions of the data that nodes exchange: log entries,
// snapshots, forwarded proposals. One number stands for all of them, their level.
type Formats struct {
	Oldest int `json:"oldest"` // the oldest and
	Newest int `json:"newest"` // the newest that the node reads
	Writes int `json:"writes"` // what it writes now, to members of its cluster
}

func (f Formats) reads(version int) bool { return f.Oldest <= version && version <= f.Newest }

// agree reports an error unless each of two nodes reads what the other writes.
func agree(a, b Hello) error {
	if a.Formats.reads(b.Formats.Writes) && b.Formats.reads(a.Formats.Writes) {
		return nil
	}
	return fmt.Errorf("%w: %v writes %d and reads %d to %d, %v writes %d and reads %d to %d; install the same release on both",
		ErrFormat, a, a.Formats.Writes, a.Formats.Oldest, a.Formats.Newest, b, b.Formats.Writes, b.Formats.Oldest, b.Formats.Newest)
}

// String names the node to people.
func (h Hello) String() string {
	if h.Name == "" {
		return "node " + h.Node
	}
	return h.Name
}

// Bounds of a Hello's strings, in bytes.
const (
	maxID   = 128
	maxText = 300 // a host name has at most 253
)

// check reports what is wrong with a Hello by itself.
func (h Hello) check() error {
	switch {
	case h.Node == "":
		return fmt.Errorf("%w: it has no node id", ErrBadHello)
	case len(h.Node) > maxID || len(h.Cluster) > maxID || len(h.Life) > maxID || len(h.Name) > maxText || len(h.Address) > maxText:
		return fmt.Errorf("%w: an id has over %d bytes, or a name or an address over %d", ErrBadHello, maxID, maxText)
	case !printable(h.Node) || !printable(h.Cluster) || !printable(h.Life) || !printable(h.Name) || !printable(h.Address):
		return fmt.Errorf("%w: an id, a name or an address has a character that cannot be printed", ErrBadHello)
	case h.Formats.Oldest < 1 || !h.Formats.reads(h.Formats.Writes):
		return fmt.Errorf("%w: it writes format %d and reads %d to %d", ErrBadHello, h.Formats.Writes, h.Formats.Oldest, h.Formats.Newest)
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// message is what goes over the wire: a Hello, and in the answer perhaps a
// refusal.
type message struct {
	Version int `json:"version"`
	Hello
	Refusal *refusal `json:"refusal,omitempty"`
}

func writeMessage(w io.Writer, m message) error {
	m.Version = helloVersion
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBadHello, len(b), maxMessage)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// readMessage reads exactly one message. What is none gives an error that
// wraps [ErrBadHello]; other errors are the reader's.
func readMessage(r io.Reader) (message, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxMessage {
		return message{}, fmt.Errorf("%w: %d bytes announced, at most %d are allowed", ErrBadHello, n, maxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return message{}, err
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", ErrBadHello, err)
	}
	if m.Version < 1 {
		return message{}, fmt.Errorf("%w: version %d", ErrBadHello, m.Version)
	}
	return m, m.Hello.check()
}
