package clusterport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// MaxFrame is how many bytes a frame may have.
const MaxFrame = 1 << 20

// ErrFrameTooLarge is wrapped by errors about a frame of over [MaxFrame] bytes.
var ErrFrameTooLarge = errors.New("frame too large")

const (
	frameHead = 4 // length of what follows, big endian

	// stuckTimeout is how long the other side may take nothing.
	stuckTimeout = 5 * time.Second

	// frameChunk is what the other side has to take within that: what a TLS
	// record holds.
	frameChunk = 16 << 10

	// keptFrame is up to which size the buffer of Read is used again.
	keptFrame = 64 << 10
)

// Framer sends and receives frames of bytes on a connection:
//
//	frame = length(4 bytes, big endian, at most 1 MiB) bytes
//
// Write may be called from any goroutine, Read by one at a time.
type Framer struct {
	conn  net.Conn
	r     *bufio.Reader
	in    []byte
	stuck time.Duration

	mu  sync.Mutex // guards what follows; held while a frame is written
	out []byte
	err error // of an earlier Write
}

// NewFramer returns a Framer on a connection, which is nobody else's to read or
// write from then on. It has no goroutines and needs no closing.
func NewFramer(c net.Conn) *Framer {
	return &Framer{conn: c, r: bufio.NewReaderSize(c, frameChunk), stuck: stuckTimeout}
}

// Write sends a frame, which it does not keep. If the other side takes nothing
// for 5 s, or anything else fails, then the connection is closed, and this and
// every further Write fails. A frame over [MaxFrame] is not sent at all.
func (f *Framer) Write(frame []byte) error {
	if len(frame) > MaxFrame {
		return fmt.Errorf("%w: %d bytes, at most %d are sent", ErrFrameTooLarge, len(frame), MaxFrame)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	first := min(len(frame), frameChunk-frameHead)
	f.out = binary.BigEndian.AppendUint32(f.out[:0], uint32(len(frame)))
	f.out = append(f.out, frame[:first]...)
	f.err = f.send(f.out)
	for rest := frame[first:]; f.err == nil && len(rest) > 0; {
		n := min(len(rest), frameChunk)
		f.err = f.send(rest[:n])
		rest = rest[n:]
	}
	if f.err != nil {
		f.conn.Close()
	}
	return f.err
}

func (f *Framer) send(b []byte) error {
	if err := f.conn.SetWriteDeadline(time.Now().Add(f.stuck)); err != nil {
		return err
	}
	_, err := f.conn.Write(b)
	return err
}

// Read returns the next frame, which is valid until the next Read. The error is
// [io.EOF] if the connection ends between frames. A frame over [MaxFrame] closes
// the connection before anything is set aside for it.
func (f *Framer) Read() ([]byte, error) {
	head, err := f.r.Peek(frameHead)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > MaxFrame {
		f.conn.Close()
		return nil, fmt.Errorf("%w: %d bytes announced, at most %d are taken", ErrFrameTooLarge, size, MaxFrame)
	}
	f.r.Discard(frameHead) // which Peek has read
	n := int(size)
	if n > cap(f.in) || cap(f.in) > keptFrame {
		f.in = make([]byte, n)
	}
	f.in = f.in[:n]
	if _, err := io.ReadFull(f.r, f.in); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return f.in, nil
}
