package e2e

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"leaderlatch/latch/latchtest"
)

// keyedClient is a client with a key, as PROTOCOL.md asks of one: it comes back at another node
// when its connection has ended, which it ends itself first, and asks for promises while it
// leads.
type keyedClient struct {
	group, name, key string
	hold             time.Duration
	fin              bool // fin=end
	every            time.Duration
	now              func() time.Duration
	dial             func(ctx context.Context, attempt int) (nc *net.TCPConn, where string, err error)
	rnd              *rand.Rand             // of run alone
	told             func(at time.Duration) // that it leads; with its lock held; may be nil

	over     chan struct{} // closed when the client is to end
	overOnce sync.Once
	done     chan struct{} // closed when it has

	mu      *sync.Mutex // guards what follows, and the account; may be that of others
	account latchtest.Keyed
	conn    *net.TCPConn    // nil: none
	away    []time.Duration // how long it was without an answer, each time that its connection had ended
	heard   []string        // lines, each of whose fields are others than in the one before
	refused int             // JOINs
	hangs   bool            // it sends no PING
	hung    time.Duration   // when it did last; 0: never
	came    time.Duration   // when it sent the JOIN that was answered last
	until   time.Duration   // the furthest promise
	losses  []loss          // of its leadership, while the process went on
	wrong   []string        // what was read and must not be
}

// loss is when a client read that it leads no more, with its last JOIN and its furthest promise.
type loss struct{ came, until, at time.Duration }

// newKey gives a key that nobody else has.
func newKey(rnd *rand.Rand) string { return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()) }

func (k *keyedClient) start() *keyedClient {
	if k.mu == nil {
		k.mu = new(sync.Mutex)
	}
	k.over, k.done = make(chan struct{}), make(chan struct{})
	k.account = latchtest.Keyed{Group: k.group, Client: k.name, Hold: k.hold > 0}
	go k.run()
	return k
}

// end has the client end, as a process that was killed does, or with a LEAVE.
func (k *keyedClient) end(leave bool) {
	k.overOnce.Do(func() {
		k.mu.Lock()
		k.account.Stops(k.now())
		nc := k.conn
		k.conn = nil
		k.mu.Unlock()
		close(k.over)
		if nc == nil {
			return
		}
		if leave {
			nc.SetWriteDeadline(time.Now().Add(time.Second))
			fmt.Fprint(nc, "LEAVE\n")
		}
		nc.Close()
	})
}

// breakOff ends the connection as a client does that goes on elsewhere: by a reset.
func (k *keyedClient) breakOff() {
	k.mu.Lock()
	nc := k.conn
	k.conn = nil
	k.account.Ends(k.now())
	k.mu.Unlock()
	if nc != nil {
		nc.SetLinger(0)
		nc.Close()
	}
}

// hang has the client send no PING, and not come back, or go on.
func (k *keyedClient) hang(does bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangs = does
	k.hung = k.now()
}

func (k *keyedClient) isHanging() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hangs
}

func (k *keyedClient) isOver() bool {
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}

func (k *keyedClient) run() {
	defer close(k.done)
	var lost time.Duration // when the connection ended; 0: there was none yet
	for attempt := 0; !k.isOver(); attempt++ {
		if k.isHanging() {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		nc, where, err := k.dial(ctx, attempt)
		cancel()
		if err == nil && k.serve(nc, where, lost) {
			lost = k.now()
			continue // at once
		}
		select {
		case <-k.over:
		case <-time.After(time.Duration(5+k.rnd.IntN(20)) * time.Millisecond):
		}
	}
}

// serve reads a connection until it ends, and reports whether its JOIN was answered by a leader.
func (k *keyedClient) serve(nc *net.TCPConn, where string, lost time.Duration) (joined bool) {
	k.mu.Lock()
	if k.isOver() {
		k.mu.Unlock()
		nc.Close()
		return false
	}
	k.conn = nc
	sent := k.now()
	c := k.account.Connects(sent, where)
	k.mu.Unlock()
	defer k.breakOff()
	line := fmt.Sprintf("JOIN %s %s key=%s hold=%d", k.group, k.name, k.key, k.hold.Milliseconds())
	if k.fin {
		line += " fin=end"
	}
	fmt.Fprintln(nc, line) // what fails here, the reader is told
	nc.SetReadDeadline(time.Now().Add(8 * time.Second))
	ended := make(chan struct{})
	defer close(ended)
	for r := bufio.NewReader(nc); ; {
		line, err := r.ReadString('\n')
		k.mu.Lock()
		if err != nil || k.conn != nc {
			k.mu.Unlock()
			return joined
		}
		line = strings.TrimSuffix(line, "\n")
		if line == errRefused.Error() || line == "ERROR" { // of a node of the older version, or before the level
			k.refused++
			k.mu.Unlock()
			return false
		}
		before := k.account.Newest()
		at := k.now()
		if err := c.Reads(at, line); err != nil {
			k.wrong = append(k.wrong, err.Error())
		}
		if k.told != nil && k.account.Newest().Leader == k.name && strings.HasPrefix(line, "LEADER ") {
			k.told(at)
		}
		if is := k.account.Newest(); before.Leader == k.name && is.Token != before.Token {
			k.losses = append(k.losses, loss{k.came, k.until, k.now()})
		}
		k.until = max(k.until, k.account.Leads(k.now()))
		if strings.HasPrefix(line, "LEADER ") && (len(k.heard) == 0 || k.heard[len(k.heard)-1] != line) {
			k.heard = append(k.heard, line)
		}
		first := !joined && strings.HasPrefix(line, "LEADER ")
		if first {
			joined, k.came = true, sent
			nc.SetReadDeadline(time.Time{})
			if lost > 0 {
				k.away = append(k.away, k.now()-lost)
			}
		}
		k.mu.Unlock()
		if first {
			go k.ping(nc, c, ended)
		}
	}
}

// pingAnswered is how long a client waits for an ALIVE before it tries another node.
const pingAnswered = 1500 * time.Millisecond

// ping asks for promises while the client leads, and now and then whether its connection is dead
// while it does not.
func (k *keyedClient) ping(nc *net.TCPConn, c *latchtest.KeyedConn, ended chan struct{}) {
	var asked time.Duration
	for {
		k.mu.Lock()
		now := k.now()
		asks := k.conn == nc && !k.hangs && (k.account.Newest().Leader == k.name || now-asked > time.Second)
		dead := k.conn == nc && c.Waits() > 0 && now-c.Waits() > pingAnswered
		if asks = asks && c.Waits() == 0; asks {
			asked = now
			c.Asks(now)
		}
		k.mu.Unlock()
		if dead {
			k.breakOff()
			return
		}
		if asks {
			nc.SetWriteDeadline(time.Now().Add(time.Second))
			fmt.Fprint(nc, "PING\n")
		}
		select {
		case <-ended:
			return
		case <-time.After(k.every):
		}
	}
}
