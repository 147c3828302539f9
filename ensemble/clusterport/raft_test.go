package clusterport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// addressBook is where the nodes of a cluster are now.
type addressBook struct {
	mu   sync.Mutex
	addr map[string]string
}

func (b *addressBook) set(id, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addr == nil {
		b.addr = make(map[string]string)
	}
	b.addr[id] = addr
}

func (b *addressBook) lookup(id string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.addr[id]; ok {
		return a, nil
	}
	return "", errors.New("not in the book")
}

// server is a Raft server on a port.
type server struct {
	*node
	*raft.Raft
	trans *raft.NetworkTransport
	store *raft.InmemStore
	snaps *raft.InmemSnapshotStore
	log   *entries
}

// entries is a state machine: what was applied.
type entries struct {
	mu  sync.Mutex
	all []string
}

func (e *entries) Apply(l *raft.Log) any {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, string(l.Data))
	return nil
}

func (e *entries) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots here") }
func (e *entries) Restore(r io.ReadCloser) error       { return r.Close() }

func (e *entries) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.all, " ")
}

// startServer starts a server, with the log and votes of old if there is one.
func startServer(t *testing.T, id string, book *addressBook, old *server) *server {
	t.Helper()
	s := &server{node: start(t, id), store: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore(), log: new(entries)}
	if old != nil {
		s.store, s.snaps = old.store, old.snaps
	}
	book.set(id, s.addr)
	layer := s.Port.Raft(book.lookup)
	s.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                layer,
		ServerAddressProvider: layer,
		MaxPool:               3,
		Timeout:               5 * time.Second,
		Logger:                hclog.NewNullLogger(),
	})
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(id)
	cfg.HeartbeatTimeout = 300 * time.Millisecond
	cfg.ElectionTimeout = 300 * time.Millisecond
	cfg.LeaderLeaseTimeout = 150 * time.Millisecond
	cfg.CommitTimeout = 5 * time.Millisecond
	cfg.Logger = hclog.NewNullLogger()
	r, err := raft.NewRaft(cfg, s.log, s.store, s.store, s.snaps, s.trans)
	if err != nil {
		t.Fatal(err)
	}
	s.Raft = r
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	s.Raft.Shutdown().Error()
	s.trans.Close()
	s.Port.Close()
}

// cluster starts n servers that know each other.
func cluster(t *testing.T, n int) ([]*server, *addressBook) {
	book := new(addressBook)
	var all []*server
	var config raft.Configuration
	for i := range n {
		s := startServer(t, fmt.Sprint("n", i), book, nil)
		all = append(all, s)
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(s.id), Address: raft.ServerAddress(s.addr)})
	}
	if err := all[0].BootstrapCluster(config).Error(); err != nil {
		t.Fatal(err)
	}
	return all, book
}

// apply has an entry committed, whoever leads.
func apply(t *testing.T, all []*server, entry string) (leader *server) {
	t.Helper()
	eventually(t, "entry "+entry+" is committed", func() bool {
		for _, s := range all {
			if s.State() == raft.Leader && s.Raft.Apply([]byte(entry), time.Second).Error() == nil {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// TestRaft: three servers elect and replicate; and again when one is somewhere
// else; and another node that has its old address never hears of it.
func TestRaft(t *testing.T) {
	all, book := cluster(t, 3)
	leader := apply(t, all, "one")
	apply(t, all, "two")
	for _, s := range all {
		eventually(t, s.id+" has both entries", func() bool { return strings.HasSuffix(s.log.String(), "one two") })
	}
	if addr, id := leader.LeaderWithID(); string(addr) != leader.addr || string(id) != leader.id {
		t.Errorf("the raft leader is %s at %s, want %s at its plain address %s", id, addr, leader.id, leader.addr)
	}

	// The raft leader itself moves.
	var rest []*server
	for _, s := range all {
		if s != leader {
			rest = append(rest, s)
		}
	}
	leader.stop()
	apply(t, rest, "three")
	moved := startServer(t, leader.id, book, leader)
	if moved.addr == leader.addr {
		t.Fatal("it has the same address")
	}
	eventually(t, "the one that moved has all entries", func() bool { return strings.HasSuffix(moved.log.String(), "one two three") })
	for _, s := range rest {
		eventually(t, s.id+" knows the raft leader by a plain address", func() bool {
			addr, id := s.LeaderWithID()
			want, _ := book.lookup(string(id))
			return id != "" && string(addr) == want
		})
	}
}

// TestRaftNeverReachesAnotherServer: an address that belongs to another member
// by now is not talked to.
func TestRaftNeverReachesAnotherServer(t *testing.T) {
	a, c := start(t, "a"), start(t, "c")
	book := new(addressBook)
	book.set("b", c.addr)
	la, lc := a.Raft(book.lookup), c.Raft(book.lookup)
	defer lc.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := lc.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer conn.Close()
		b, _ := io.ReadAll(conn)
		got <- b
	}()
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: la, ServerAddressProvider: la, MaxPool: 3, Timeout: patience, Logger: hclog.NewNullLogger(),
	})
	defer trans.Close()
	err := trans.RequestVote("b", raft.ServerAddress(c.addr), &raft.RequestVoteRequest{}, new(raft.RequestVoteResponse))
	if !errors.Is(err, ErrWrongNode) || !strings.Contains(err.Error(), c.addr) {
		t.Errorf("error is %v, want ErrWrongNode at %s", err, c.addr)
	}
	if b := <-got; len(b) > 0 {
		t.Errorf("the other server got %q", b)
	}
}

// TestRaftPoolsByServer: a pooled connection to a server is never used for
// another one, also if they have had the same address.
func TestRaftPoolsByServer(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	book := new(addressBook)
	book.set("b", b.addr)
	la, lb := a.Raft(book.lookup), b.Raft(book.lookup)
	config := func(l *RaftLayer) *raft.NetworkTransportConfig {
		return &raft.NetworkTransportConfig{Stream: l, ServerAddressProvider: l, MaxPool: 3, Timeout: patience, Logger: hclog.NewNullLogger()}
	}
	ta, tb := raft.NewNetworkTransportWithConfig(config(la)), raft.NewNetworkTransportWithConfig(config(lb))
	defer ta.Close()
	defer tb.Close()
	go func() {
		for rpc := range tb.Consumer() {
			rpc.Respond(&raft.RequestVoteResponse{}, nil)
			return
		}
	}()
	ask := func(id string) error {
		return ta.RequestVote(raft.ServerID(id), raft.ServerAddress(b.addr), &raft.RequestVoteRequest{}, new(raft.RequestVoteResponse))
	}
	if err := ask("b"); err != nil { // and its connection is in the pool now
		t.Fatal(err)
	}
	book.set("d", b.addr)
	if err := ask("d"); !errors.Is(err, ErrWrongNode) {
		t.Errorf("error is %v, want ErrWrongNode", err)
	}
}

// TestRaftDialsByID: an address without a node id is not dialled, as it would
// be if the transport had no address provider.
func TestRaftDialsByID(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	l := a.Raft((&addressBook{}).lookup)
	for _, address := range []string{b.addr, "node:", ""} {
		if _, err := l.Dial(raft.ServerAddress(address), patience); err == nil || !strings.Contains(err.Error(), "ServerAddressProvider") {
			t.Errorf("%q: error is %v, want one that names the ServerAddressProvider", address, err)
		}
	}
	if _, err := l.Dial("node:b", patience); err == nil || !strings.Contains(err.Error(), "not in the book") {
		t.Errorf("error is %v, want that of the lookup", err)
	}
	if own, err := l.ServerAddr("a"); err != nil || string(own) != a.addr {
		t.Errorf("own address is %q, error %v, want %s", own, err, a.addr)
	}
}

// TestRaftLayerEnds: with its connections, but without the port; and a new one
// takes its place.
func TestRaftLayerEnds(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	book := new(addressBook)
	book.set("a", a.addr)
	book.set("b", b.addr)
	if _, _, err := a.Dial(t.Context(), Raft, b.addr, "b"); !errors.Is(err, ErrNotServed) {
		t.Errorf("before there is a layer: %v, want ErrNotServed", err)
	}
	la := a.Raft(book.lookup)
	for range 2 {
		lb := b.Raft(book.lookup)
		dialled, err := la.Dial("node:b", patience)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := lb.Accept()
		if err != nil {
			t.Fatal(err)
		}
		other := a.to(b, Admin)
		lb.Close()
		wantEnd(t, dialled)
		if _, err := accepted.Write([]byte("x")); err == nil {
			t.Error("the accepted connection is still open")
		}
		if _, err := lb.Accept(); !errors.Is(err, ErrClosed) {
			t.Errorf("Accept after Close: %v, want ErrClosed", err)
		}
		if _, err := lb.Dial("node:a", patience); err == nil {
			t.Error("Dial after Close: no error")
		}
		if _, err := la.Dial("node:b", patience); !errors.Is(err, ErrNotServed) {
			t.Errorf("after the layer's end: %v, want ErrNotServed", err)
		}
		wantEcho(t, other)
	}

	older := b.Raft(book.lookup)
	newer := b.Raft(book.lookup)
	if _, err := older.Accept(); !errors.Is(err, ErrClosed) {
		t.Errorf("the older layer: %v, want ErrClosed", err)
	}
	older.Close() // does not end the newer one
	if _, err := la.Dial("node:b", patience); err != nil {
		t.Error(err)
	}
	if _, err := newer.Accept(); err != nil {
		t.Error(err)
	}
}

// TestRaftThatDoesNotAccept gets no pile of connections.
func TestRaftThatDoesNotAccept(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b", func(cfg *Config) { cfg.HandshakeTimeout = 2 * time.Second })
	b.Raft(nil)
	wantEnd(t, a.to(b, Raft))
}

// A connection may be silent for ever between two requests, and a request may take as
// long as it likes while something comes of it. Who stops in the middle of one is hung up
// on, also if nothing of it is asked for any more.
func TestWhoStopsWithinARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 5 * time.Second
		other, own := net.Pipe()
		defer other.Close()
		r := &requests{Conn: own, pause: pause, hangUp: func() { own.Close() }}
		buf := make([]byte, 1)
		go func() {
			for range 2 {
				time.Sleep(time.Hour)
				for range 10 {
					other.Write([]byte("x"))
					time.Sleep(pause - time.Millisecond)
				}
				other.Read(make([]byte, 1)) // the answer
			}
			time.Sleep(time.Hour)
			other.Write([]byte("x"))
		}()
		for request := range 2 {
			for b := range 10 {
				if _, err := r.Read(buf); err != nil {
					t.Fatalf("byte %d of request %d: %v", b, request, err)
				}
			}
			r.Write([]byte("y"))
		}
		if _, err := r.Read(buf); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := r.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != pause {
			t.Errorf("stopped: %v after %v", err, time.Since(began))
		}
		if _, err := r.Read(buf); err == nil || time.Since(began) != pause {
			t.Errorf("asked for the rest: %v after %v", err, time.Since(began))
		}
		if _, err := other.Write([]byte("x")); err == nil {
			t.Error("the connection is open still")
		}
	})
}

// Raft gets an error for a snapshot that stops in its middle, and no connection is left.
// Who sends it learns of that, however often it tries.
func TestASnapshotThatStops(t *testing.T) {
	a, b := start(t, "a"), start(t, "b", func(cfg *Config) { cfg.RequestPause = 100 * time.Millisecond })
	book := new(addressBook)
	book.set("b", b.addr)
	la, lb := a.Raft(book.lookup), b.Raft(book.lookup)
	config := func(l *RaftLayer) *raft.NetworkTransportConfig {
		return &raft.NetworkTransportConfig{Stream: l, ServerAddressProvider: l, MaxPool: 3, Timeout: patience, Logger: hclog.NewNullLogger()}
	}
	ta, tb := raft.NewNetworkTransportWithConfig(config(la)), raft.NewNetworkTransportWithConfig(config(lb))
	defer ta.Close()
	defer tb.Close()
	open := func(n *node) int {
		n.Port.mu.Lock()
		defer n.Port.mu.Unlock()
		return len(n.conns)
	}
	for range 5 {
		goOn := make(chan struct{})
		sent := make(chan error, 1)
		go func() {
			data := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), readerFunc(func([]byte) (int, error) { <-goOn; return 0, io.EOF }))
			sent <- ta.InstallSnapshot("b", "", &raft.InstallSnapshotRequest{Size: 2 << 20}, new(raft.InstallSnapshotResponse), data)
		}()
		rpc := <-tb.Consumer()
		if _, err := io.Copy(io.Discard, rpc.Reader); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the snapshot ended with %v", err)
		}
		io.Copy(io.Discard, rpc.Reader) // as Raft does
		rpc.Respond(&raft.InstallSnapshotResponse{}, errors.New("half a snapshot"))
		eventually(t, "no connection is left at the receiver", func() bool { return open(b) == 0 })
		close(goOn)
		if err := <-sent; err == nil {
			t.Error("it was sent whole")
		}
	}
	eventually(t, "nor at the sender", func() bool { return open(a) == 0 })
}

// Of transfers that stopped one after the other, as each was tried anew, Raft waits for one
// only, however many have come meanwhile.
func TestSnapshotsThatStopOneAfterTheOther(t *testing.T) {
	const pause = time.Second
	a, b := start(t, "a"), start(t, "b", func(cfg *Config) { cfg.RequestPause = pause })
	book := new(addressBook)
	book.set("b", b.addr)
	la, lb := a.Raft(book.lookup), b.Raft(book.lookup)
	config := func(l *RaftLayer) *raft.NetworkTransportConfig {
		return &raft.NetworkTransportConfig{Stream: l, ServerAddressProvider: l, MaxPool: 3, Timeout: patience, Logger: hclog.NewNullLogger()}
	}
	ta, tb := raft.NewNetworkTransportWithConfig(config(la)), raft.NewNetworkTransportWithConfig(config(lb))
	defer ta.Close()
	defer tb.Close()
	const transfers = 5
	goOn := make(chan struct{})
	var sending sync.WaitGroup
	for range transfers {
		sending.Go(func() {
			data := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), readerFunc(func([]byte) (int, error) { <-goOn; return 0, io.EOF }))
			if err := ta.InstallSnapshot("b", "", &raft.InstallSnapshotRequest{Size: 2 << 20}, new(raft.InstallSnapshotResponse), data); err == nil {
				t.Error("it was sent whole")
			}
		})
	}
	eventually(t, "all have come", func() bool {
		b.Port.mu.Lock()
		defer b.Port.mu.Unlock()
		return len(b.conns) == transfers
	})
	began := time.Now()
	for range transfers {
		rpc := <-tb.Consumer()
		if _, err := io.Copy(io.Discard, rpc.Reader); err == nil {
			t.Error("it came whole")
		}
		rpc.Respond(&raft.InstallSnapshotResponse{}, errors.New("half a snapshot"))
	}
	if took := time.Since(began); took > 3*pause {
		t.Errorf("%d transfers that stopped held up Raft for %v, want %v", transfers, took, pause)
	}
	close(goOn)
	sending.Wait()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestLostIsTold: the end of the last connection on which a node's requests come in is told,
// for each of its lives, and no other's.
func TestLostIsTold(t *testing.T) {
	lost := make(chan Hello, 10)
	a := start(t, "a", func(cfg *Config) { cfg.Lost = func(_ context.Context, peer Hello) { lost <- peer } })
	b := start(t, "b").is(func(h *Hello) { h.Life = "one" })
	one := b.self()
	accept := raftAccepts(a)
	open := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " connections"), func() bool {
			a.Port.mu.Lock()
			defer a.Port.mu.Unlock()
			return len(a.conns) == n
		})
	}
	first, second := b.to(a, Raft), b.to(a, Raft)
	accept()
	accept()
	b.is(func(h *Hello) { h.Life = "two" })
	two, third := b.self(), b.to(a, Raft)
	accept()
	b.to(a, Admin).Close()
	first.Close()
	open(2)
	select {
	case peer := <-lost:
		t.Fatalf("%+v is told to be lost, of which one connection is left", peer)
	default:
	}
	second.Close()
	if peer := <-lost; peer != one {
		t.Errorf("lost is %+v, want %+v", peer, one)
	}
	third.Close()
	if peer := <-lost; peer != two {
		t.Errorf("lost is %+v, want %+v", peer, two)
	}
}

// TestLostEndsWithThePort: who was told of a loss is waited for, and told that the port closes.
func TestLostEndsWithThePort(t *testing.T) {
	told, returned := make(chan bool), false
	a := start(t, "a", func(cfg *Config) {
		cfg.Lost = func(ctx context.Context, _ Hello) {
			told <- true
			<-ctx.Done()
			returned = true
		}
	})
	accept := raftAccepts(a)
	c := start(t, "b").to(a, Raft)
	accept()
	c.Close()
	<-told
	a.Close()
	if !returned {
		t.Error("it has not returned when the port is closed")
	}
}

// raftAccepts has a port serve Raft, which reads what other nodes ask. Each call of accept
// waits for one connection.
func raftAccepts(n *node) (accept func()) {
	layer := n.Raft(new(addressBook).lookup)
	return func() {
		n.t.Helper()
		c, err := layer.Accept()
		if err != nil {
			n.t.Fatal(err)
		}
		go func() {
			io.Copy(io.Discard, c)
			c.Close()
		}()
	}
}
