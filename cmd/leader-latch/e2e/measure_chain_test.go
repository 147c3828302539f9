//go:build bench

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A chain is what is left of three nodes when nothing is decided, kept or encrypted: their
// processes pass on what a hand-over passes on, and each flushes as much, where they do.
// What it takes, Go, the kernel, the disk and the machine take for that.
type chain struct {
	flushes chan string // lines for which to flush

	mu        sync.Mutex // guards what follows, and writes to other nodes
	leader    net.Conn   // nil: this one leads the others
	followers []net.Conn
	waiting   []net.Conn // clients who are to be told
	round     int
	stored    int // how many have flushed for that round
}

func init() { outsiders["chain"] = beChain }

// startChain starts three processes, and gives the addresses for clients of the one that
// leads and of the two others.
func startChain(t *testing.T) (addrs []string) {
	var others []string
	for range 2 {
		ip := loopback()
		startOutsider(t, "chain", ip+":5323", t.TempDir(), ip+":5324")
		addrs, others = append(addrs, ip+":5323"), append(others, ip+":5324")
	}
	ip := loopback()
	startOutsider(t, "chain", append([]string{ip + ":5323", t.TempDir(), "-"}, others...)...)
	return append([]string{ip + ":5323"}, addrs...)
}

// beChain is one of the processes. It is told its address for clients, a folder, its
// address for other nodes, or "-", and then those of the others if it leads them.
func beChain(in *bufio.Reader, args []string) error {
	n := &chain{flushes: make(chan string, 1024)}
	clients, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	if err := n.startDisk(args[1]); err != nil {
		return err
	}
	if args[2] != "-" {
		others, err := net.Listen("tcp4", args[2])
		if err != nil {
			return err
		}
		go func() {
			c, err := others.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			n.leader = c
			n.mu.Unlock()
			n.listen(c)
		}()
	}
	for _, addr := range args[3:] {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			return err
		}
		n.followers = append(n.followers, c)
		go n.listen(c)
	}
	go func() {
		for {
			c, err := clients.Accept()
			if err != nil {
				return
			}
			go n.serve(c)
		}
	}()
	fmt.Println("ready")
	in.ReadString('\n')
	return nil
}

// startDisk starts what writes and flushes, in a file that does not grow.
func (n *chain) startDisk(dir string) error {
	const size = 4 << 20
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return err
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	go func() {
		block := make([]byte, 4096)
		for at := int64(0); ; at = (at + int64(len(block))) % size {
			line := <-n.flushes
			if _, err := f.WriteAt(block, at); err != nil {
				panic(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				panic(err)
			}
			n.flushed(line)
		}
	}()
	return nil
}

// serve serves a client: its name says which of the two it is.
func (n *chain) serve(c net.Conn) {
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		c.Close()
		return
	}
	waits := strings.HasSuffix(line, " b\n")
	if waits {
		n.mu.Lock()
		n.waiting = append(n.waiting, c)
		n.mu.Unlock()
	}
	fmt.Fprintln(c, "LEADER a")
	in.ReadString('\n') // until it leaves
	c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case waits:
		n.waiting = slices.DeleteFunc(n.waiting, func(w net.Conn) bool { return w == c })
	case n.leader != nil:
		fmt.Fprintln(n.leader, "proposed")
	default:
		n.propose()
	}
}

// listen does what another node says.
func (n *chain) listen(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n.mu.Lock()
		switch what, round, _ := strings.Cut(strings.TrimSpace(line), " "); what {
		case "proposed":
			n.propose()
		case "entry":
			n.flushes <- round
		case "stored":
			n.store(round)
		case "committed":
			n.tell()
		}
		n.mu.Unlock()
	}
}

// propose sends an entry to all. mu is held.
func (n *chain) propose() {
	n.round++
	n.stored = 0
	for _, f := range n.followers {
		fmt.Fprintln(f, "entry", n.round)
	}
	n.flushes <- fmt.Sprint(n.round)
}

// flushed says that an entry is on disk here.
func (n *chain) flushed(round string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leader != nil {
		fmt.Fprintln(n.leader, "stored", round)
		return
	}
	n.store(round)
}

// store counts who has an entry, and has it told when they are a majority. mu is held.
func (n *chain) store(round string) {
	if round != fmt.Sprint(n.round) {
		return
	}
	if n.stored++; n.stored != 2 {
		return
	}
	n.tell()
	for _, f := range n.followers {
		fmt.Fprintln(f, "committed")
	}
}

// tell tells the clients who wait. mu is held.
func (n *chain) tell() {
	for _, c := range n.waiting {
		fmt.Fprintln(c, "LEADER b")
	}
}
