package clusterport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// framers are the two ends of a connection between nodes.
func framers(t testing.TB) (dialled, accepted *Framer) {
	a, b := start(t, "a"), start(t, "b")
	got := make(chan net.Conn, 1)
	b.Handle(Forward, func(c net.Conn, _ Hello) {
		got <- c
		<-b.ctx.Done()
	})
	c := a.to(b, Forward)
	c.SetDeadline(time.Time{})
	return NewFramer(c), NewFramer(<-got)
}

func TestFrames(t *testing.T) {
	a, b := framers(t)
	sizes := []int{0, 1, frameChunk - frameHead - 1, frameChunk - frameHead, frameChunk - frameHead + 1, 2*frameChunk - frameHead, keptFrame, keptFrame + 1, MaxFrame, 5, 0}
	go func() {
		for i, n := range sizes {
			a.Write(bytes.Repeat([]byte{byte(i)}, n))
		}
		a.conn.Close()
	}()
	for i, n := range sizes {
		got, err := b.Read()
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, n)) {
			t.Fatalf("frame %d has %d bytes, error %v, want %d", i, len(got), err, n)
		}
	}
	if _, err := b.Read(); err != io.EOF {
		t.Errorf("error at the end is %v, want io.EOF", err)
	}
}

// TestFramesStayWhole: however many write at once.
func TestFramesStayWhole(t *testing.T) {
	a, b := framers(t)
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				if err := a.Write(bytes.Repeat([]byte{byte(w)}, rand.IntN(3*frameChunk))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	count := make(map[byte]int)
	empty := 0
	for range writers * each {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(f) == 0 {
			empty++
			continue
		}
		count[f[0]]++
		if !bytes.Equal(f, bytes.Repeat(f[:1], len(f))) {
			t.Fatal("a frame has bytes of two writers")
		}
	}
	wg.Wait()
	total := empty
	for _, n := range count {
		total += n
	}
	if len(count) != writers || total != writers*each {
		t.Errorf("frames by writer: %v, %d empty", count, empty)
	}
}

func TestHugeFrameIsNotSent(t *testing.T) {
	a, b := framers(t)
	if err := a.Write(make([]byte, MaxFrame+1)); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("error is %v, want ErrFrameTooLarge", err)
	}
	if err := a.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	if f, err := b.Read(); string(f) != "next" {
		t.Errorf("got %q, error %v, want the next frame", f, err)
	}
}

// TestHugeFrameIsNotRead: it is refused by its length alone.
func TestHugeFrameIsNotRead(t *testing.T) {
	for _, n := range []uint32{MaxFrame + 1, 1<<32 - 1} {
		c := &bytesConn{r: bytes.NewReader(binary.BigEndian.AppendUint32(nil, n))}
		f := NewFramer(c)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := f.Read()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFrameTooLarge) || !c.closed {
			t.Errorf("%d bytes: error %v, closed %v, want ErrFrameTooLarge and true", n, err, c.closed)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<19 {
			t.Errorf("%d bytes: %d were allocated", n, got)
		}
	}
}

// TestStuckReaderIsClosed: one who takes nothing does not hold writers up for
// long; all of them learn of it.
func TestStuckReaderIsClosed(t *testing.T) {
	a, b := framers(t) // b does not read
	a.stuck = 100 * time.Millisecond
	errs := make(chan error, 3)
	for range cap(errs) {
		go func() {
			for {
				if err := a.Write(make([]byte, MaxFrame)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for range cap(errs) {
		if err := <-errs; !timedOut(err) {
			t.Errorf("error is %v, want a timeout", err)
		}
	}
	if err := a.Write(nil); !timedOut(err) {
		t.Errorf("a later Write gives %v, want the same error", err)
	}
	wantEnd(t, b.conn)
}

// TestSlowReaderIsNotClosed: one who takes little at a time is not stuck,
// however long a frame takes.
func TestSlowReaderIsNotClosed(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	a := NewFramer(near)
	a.stuck = time.Second
	written := make(chan error, 1)
	go func() { written <- a.Write(make([]byte, MaxFrame)) }()
	buf := make([]byte, frameChunk)
	began := time.Now()
	for left := frameHead + MaxFrame; left > 0; {
		n, err := far.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		left -= n
		time.Sleep(20 * time.Millisecond)
	}
	if err := <-written; err != nil {
		t.Errorf("error is %v after %v", err, time.Since(began))
	}
	if took := time.Since(began); took < a.stuck {
		t.Errorf("the frame took %v, too short to prove anything", took)
	}
}

// TestNothingIsReadAhead: what follows the handshake in one packet is there.
func TestNothingIsReadAhead(t *testing.T) {
	b := start(t, "b")
	c := connect(t, b.addr)
	say := append(encoded(t, message{Hello: hello("a")}), "and more"...)
	cfg := clientTLS(ourKey, "a")
	tc := tlsClient(t, c, cfg)
	tc.Write(say)
	if _, err := readMessage(tc); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len("and more"))
	if _, err := io.ReadFull(tc, buf); err != nil || string(buf) != "and more" {
		t.Errorf("echo is %q, error %v", buf, err)
	}
}

// bytesConn is a connection that gives bytes.
type bytesConn struct {
	net.Conn
	r      io.Reader
	closed bool
}

func (c *bytesConn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c *bytesConn) Close() error {
	c.closed = true
	return nil
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'})
	f.Add([]byte{0, 16, 0, 0})
	f.Add([]byte{0, 16, 0, 1})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		fr := NewFramer(&bytesConn{r: bytes.NewReader(in)})
		var out []byte
		for {
			frame, err := fr.Read()
			if err == nil {
				out = append(binary.BigEndian.AppendUint32(out, uint32(len(frame))), frame...)
				continue
			}
			rest := in[len(out):]
			var want error
			switch {
			case len(rest) == 0:
				want = io.EOF
			case len(rest) >= frameHead && binary.BigEndian.Uint32(rest) > MaxFrame:
				want = ErrFrameTooLarge
			default:
				want = io.ErrUnexpectedEOF
			}
			if !errors.Is(err, want) {
				t.Errorf("after %d bytes of %d the error is %v, want %v", len(out), len(in), err, want)
			}
			break
		}
		if !bytes.HasPrefix(in, out) {
			t.Error(fmt.Errorf("frames %q are not those of %q", out, in))
		}
	})
}
