package latch_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/latch"
	"leaderlatch/latch/latchtest"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take that happens at once.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(parkAtOnce) != "" {
		latch.ParkAtOnce()
	}
	code := m.Run()
	if code == 0 {
		if stacks := leaked(); stacks != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind after all tests:\n%s\n", stacks)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of the servers' goroutines that do not go away.
func leaked() string {
	var found []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		found = found[:0]
		buf := make([]byte, 1<<20)
		for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "latch.(*conn)") || strings.Contains(stack, "latch.(*Server)") {
				found = append(found, stack)
			}
		}
		if len(found) == 0 {
			return ""
		}
	}
	return strings.Join(found, "\n\n")
}

// fixture is a server with its elections.
type fixture struct {
	t      testing.TB
	e      *latchtest.Elections
	s      *latch.Server
	addr   string
	log    *logBuffer
	served chan error
	pushed int // by pushMany
}

// serve starts a server on a listener of its own. Its Close is checked at the end.
func serve(t testing.TB, change ...func(*latch.Config)) *fixture {
	t.Helper()
	l, err := latch.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, e: latchtest.NewElections(), addr: l.Addr().String(), log: new(logBuffer), served: make(chan error, 1)}
	cfg := latch.Config{
		Elections: f.e,
		Logger:    slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	f.s = latch.NewServer(cfg)
	go func() { f.served <- f.s.Serve(l) }()
	t.Cleanup(func() {
		f.s.Close()
		f.e.Sync()
		f.e.Close()
		if err := <-f.served; !errors.Is(err, latch.ErrServerClosed) {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
		if n := f.s.Conns(); n != 0 {
			t.Errorf("%d connections are left after Close", n)
		}
	})
	return f
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the logged lines that contain what.
func (b *logBuffer) lines(what string) (found []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, what) {
			found = append(found, line)
		}
	}
	return found
}

// client is one connection to the server.
type client struct {
	t testing.TB
	*net.TCPConn
	r *bufio.Reader
}

func (f *fixture) dial() *client {
	f.t.Helper()
	return f.dialWith(net.Dialer{})
}

// dialSmall opens a connection whose receive buffer is as small as can be, and
// whose client is therefore soon stuck if it does not read.
func (f *fixture) dialSmall() *client {
	f.t.Helper()
	return f.dialWith(net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		})
		return err
	}})
}

func (f *fixture) dialWith(d net.Dialer) *client {
	f.t.Helper()
	nc, err := d.DialContext(context.Background(), "tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { nc.Close() })
	// The smallest bufio.Reader: what the test has not asked for stays in the
	// kernel, as with a client that does not read.
	return &client{f.t, nc.(*net.TCPConn), bufio.NewReaderSize(nc, 16)}
}

// join opens a connection and joins.
func (f *fixture) join(group, name, leader string) *client {
	f.t.Helper()
	c := f.dial()
	c.send("JOIN " + group + " " + name)
	c.want("LEADER " + leader)
	return c
}

// joinPending opens a connection and sends a JOIN that the elections keep.
func (f *fixture) joinPending(group, name string) *client {
	f.t.Helper()
	n := f.e.Pending()
	c := f.dial()
	c.send("JOIN " + group + " " + name)
	eventually(f.t, "the JOIN is pending", func() bool { return f.e.Pending() == n+1 })
	return c
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := c.Write([]byte(line + "\n")); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) line() (string, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	return c.r.ReadString('\n')
}

func (c *client) want(line string) {
	c.t.Helper()
	got, err := c.line()
	if err != nil || got != line+"\n" {
		c.t.Fatalf("got %q, error %v, want %q", got, err, line)
	}
}

// wantEnd reads the server's FIN.
func (c *client) wantEnd() {
	c.t.Helper()
	if got, err := c.line(); err != io.EOF || got != "" {
		c.t.Fatalf("got %q, error %v, want the end of the connection", got, err)
	}
}

// readAll reads until the end and returns the error that it came with; nil is
// the server's FIN.
func (c *client) readAll() (string, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c.r)
	return string(b), err
}

// readsAgain prepares a client with a small receive buffer to read all that waits
// for it: with the small one the kernels may go on with a few hundred bytes per
// probe of the window, every 200 ms.
func (c *client) readsAgain() { c.SetReadBuffer(1 << 16) }

// delayAcks makes the client's kernel acknowledge late, as it does by itself once
// a connection is some lines old.
func (c *client) delayAcks() {
	raw, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) reset() {
	c.SetLinger(0)
	c.TCPConn.Close()
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not true after %v: %s", patience, what)
		}
	}
}
