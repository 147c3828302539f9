package latchtest

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long an expected line may take. It only has to be longer than
// any server that works takes on a loaded machine.
const patience = 20 * time.Second

// Play plays a script against the server that dial reaches, and fails the test
// at the first line that differs. The connections must be TCP.
func Play(t testing.TB, dial func() (net.Conn, error), s *Script) {
	t.Helper()
	p := &player{dial: dial, peers: make(map[string]*peer), numbers: make(map[string]uint64)}
	defer p.close()
	for _, st := range s.steps {
		if err := p.play(st); err != nil {
			t.Fatalf("%s:%d: %v", s.File, st.line, err)
		}
	}
	for _, name := range p.order {
		if err := p.peers[name].silent(); err != nil {
			t.Fatalf("%s: at the end of the script, connection %s: %v", s.File, name, err)
		}
	}
	for _, name := range p.order {
		if err := p.peers[name].leave(); err != nil {
			t.Fatalf("%s: after the script, connection %s: %v", s.File, name, err)
		}
	}
}

type player struct {
	dial  func() (net.Conn, error)
	peers map[string]*peer
	order []string // of opening

	numbers map[string]uint64 // by their names in the script
}

// peer is one connection of a script.
type peer struct {
	conn   tcp
	r      *bufio.Reader
	first  []byte // what was sent until the first line end
	end    string // how lines end; empty before the first
	half   bool   // our side is closed
	closed bool   // nothing more can come
}

type tcp interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

func (p *player) close() {
	for _, peer := range p.peers {
		peer.conn.Close()
	}
}

func (p *player) peer(name string) (*peer, error) {
	if peer := p.peers[name]; peer != nil {
		return peer, nil
	}
	conn, err := p.dial()
	if err != nil {
		return nil, fmt.Errorf("open connection %s: %w", name, err)
	}
	peer := &peer{conn: conn.(tcp), r: bufio.NewReader(conn)}
	p.peers[name] = peer
	p.order = append(p.order, name)
	return peer, nil
}

func (p *player) play(st step) error {
	peer, err := p.peer(st.conn)
	if err != nil {
		return err
	}
	switch st.verb {
	case sendLine:
		return peer.send(append(st.text, peer.lineEnd()...))
	case sendBytes:
		return peer.send(st.text)
	case expectLine:
		if numberWord.Match(st.text) {
			return p.expectNumbers(peer, string(st.text))
		}
		return peer.expect(append(st.text, peer.lineEnd()...))
	case expectBytes:
		return peer.expect(st.text)
	case expectEnd:
		return peer.expectEnd()
	case actHalf:
		peer.half = true
		return peer.conn.CloseWrite()
	case actReset:
		if err := peer.conn.SetLinger(0); err != nil {
			return err
		}
	}
	peer.closed = true
	return peer.conn.Close()
}

// expectNumbers reads a line in which the script names numbers.
func (p *player) expectNumbers(peer *peer, want string) error {
	peer.conn.SetReadDeadline(time.Now().Add(patience))
	got, err := peer.r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("got %s, want %q", outcome(got, err), want)
	}
	var line strings.Builder // as a regular expression
	rest := 0
	names := numberWord.FindAllStringSubmatchIndex(want, -1)
	for _, at := range names {
		line.WriteString(regexp.QuoteMeta(want[rest:at[0]]) + `(\d+)`)
		rest = at[1]
	}
	line.WriteString(regexp.QuoteMeta(want[rest:] + peer.lineEnd()))
	m := regexp.MustCompile("^" + line.String() + "$").FindSubmatch(got)
	if m == nil {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	for i, at := range names {
		number, err := strconv.ParseUint(string(m[i+1]), 10, 64)
		if err != nil {
			return err
		}
		if err := p.name(want[at[2]:at[3]], number); err != nil {
			return fmt.Errorf("got %q, want %q: %w", got, want, err)
		}
	}
	return nil
}

// name takes a number for one of the script.
func (p *player) name(name string, number uint64) error {
	if name == "ms" {
		return nil
	}
	for other, n := range p.numbers {
		if cmp.Compare(name, other) != cmp.Compare(number, n) {
			return fmt.Errorf("<%s> is %d", other, n)
		}
	}
	p.numbers[name] = number
	return nil
}

func (p *peer) lineEnd() string {
	if p.end == "" {
		return "\n"
	}
	return p.end
}

func (p *peer) send(b []byte) error {
	if p.end == "" {
		p.first = append(p.first, b...)
		if i := bytes.IndexByte(p.first, '\n'); i >= 0 {
			p.end = "\n"
			if bytes.HasSuffix(p.first[:i], []byte("\r")) {
				p.end = "\r\n"
			}
		}
	}
	p.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.conn.Write(b)
	return err
}

// expect reads as many bytes as it wants, or up to the first that differs, and
// then the rest of that line for the message.
func (p *peer) expect(want []byte) error {
	p.conn.SetReadDeadline(time.Now().Add(patience))
	var got []byte
	for len(got) < len(want) {
		b, err := p.r.ReadByte()
		if err != nil {
			return fmt.Errorf("got %s, want %q", outcome(got, err), want)
		}
		got = append(got, b)
		if b != want[len(got)-1] {
			if b != '\n' {
				p.conn.SetReadDeadline(time.Now().Add(time.Second))
				rest, _ := p.r.ReadBytes('\n')
				got = append(got, rest...)
			}
			return fmt.Errorf("got %q, want %q", got, want)
		}
	}
	return nil
}

func (p *peer) expectEnd() error {
	p.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := p.r.ReadBytes('\n')
	if len(line) > 0 || err != io.EOF {
		return fmt.Errorf("got %s, want the end of the connection", outcome(line, err))
	}
	p.closed = true
	return nil
}

// silent checks that nothing was received that the script did not expect.
func (p *peer) silent() error {
	switch {
	case p.closed:
		return nil
	case p.half:
		return p.expectEnd()
	}
	end := p.lineEnd()
	if err := p.send([]byte("nothing?" + end)); err != nil {
		return err
	}
	if err := p.expect([]byte("ERROR" + end)); err != nil {
		return fmt.Errorf("%w: something was received that the script does not say", err)
	}
	return nil
}

// leave closes our side and reads to the end. That others have left before may be
// news, but nothing else may come: an ERROR would be one that silent took for the
// answer to its own line.
func (p *peer) leave() error {
	if p.closed {
		return nil
	}
	if err := p.conn.CloseWrite(); err != nil {
		return nil // the server has reset it; what it sent before does not matter now
	}
	p.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := p.r.ReadBytes('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err == nil && !bytes.HasPrefix(line, []byte("LEADER ")):
			return fmt.Errorf("got %s, want the end of the connection", outcome(line, err))
		case err != nil:
			return nil
		}
	}
}

// outcome tells what was read, for a message.
func outcome(got []byte, err error) string {
	var how string
	switch {
	case err == nil:
		return fmt.Sprintf("%q", got)
	case err == io.EOF:
		how = "the end of the connection"
	case errors.Is(err, os.ErrDeadlineExceeded):
		how = fmt.Sprintf("nothing more within %v", patience)
	default:
		how = err.Error()
	}
	if len(got) == 0 {
		return how
	}
	return fmt.Sprintf("%q and then %s", got, how)
}
