package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/state"
)

// relay takes the connections of other nodes to a node in its place, and keeps all that both
// sides send.
type relay struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(b)
}

// relayTo has a node's cluster port be at another address than where others dial it, with a
// relay in between.
func relayTo(m *member) *relay {
	m.t.Helper()
	r, behind := &relay{}, net.JoinHostPort(loopback(), "5324")
	m.lines = append(m.lines, "leader_latch.cluster_listener = "+behind)
	l, err := net.Listen("tcp", net.JoinHostPort(m.ip, "5324"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	pass := func(to, from net.Conn) {
		io.Copy(io.MultiWriter(to, r), from)
		to.Close()
		from.Close()
	}
	go func() {
		for {
			other, err := l.Accept()
			if err != nil {
				return
			}
			node, err := net.Dial("tcp", behind)
			if err != nil {
				other.Close()
				continue
			}
			go pass(node, other)
			go pass(other, node)
		}
	}()
	return r
}

// formsOf are the forms in which a text may have been written down.
func formsOf(text string) (all [][]byte) {
	for _, form := range []string{
		text, hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text))),
		base64.RawStdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)),
	} {
		all = append(all, []byte(form))
	}
	return all
}

// The keys of clients are nowhere but in the memory of clients and nodes: not in the folders
// of the nodes, not in what commands print, not in logs at debug, not on the way between
// nodes. Nor are keys that were wrong, or that stood in lines that were.
func TestKeysAreWrittenNowhere(t *testing.T) {
	t.Parallel()
	all := founders(t, 3, "leader_latch.extensions.internal = on", "leader_latch.log.elections = on", "log.console = both", "log.console.level = debug")
	relays := map[string]*relay{}
	for _, m := range all {
		relays[m.name] = relayTo(m)
		m.run()
	}
	wantWhole(all)
	for _, m := range all {
		m.until("the level is the newest", func() bool { c := m.cluster(); return c.Level == c.Newest })
	}

	secrets := map[string]string{} // by what they are
	secret := func(what string) string {
		secrets[what] = fmt.Sprintf("%s~ajar?%d>sesame", what, time.Now().UnixNano())
		return secrets[what]
	}
	group := unique("vault")
	join := func(at *member, key string) *conn {
		c := at.dial()
		c.send("JOIN %s keeper key=%s hold=5000\n", group, key)
		return c
	}
	key := secret("right")
	keeper := join(all[0], key)
	keeper.SetReadDeadline(time.Now().Add(patience))
	leads, err := keeper.r.ReadString('\n')
	if !strings.HasPrefix(leads, "LEADER keeper ") {
		if state.NewestLevel >= state.KeyedLevel {
			t.Fatalf("read %q, %v", leads, err)
		}
		t.Skipf("keyed members are not switched on: a keyed JOIN is answered %q", leads)
	}
	leads = strings.TrimSuffix(leads, "\n")
	keeper.send("PING\n")
	if alive, err := keeper.r.ReadString('\n'); !strings.HasPrefix(alive, "ALIVE ") {
		t.Errorf("read %q, %v", alive, err)
	}

	// What is refused is not written down either.
	impostor := join(all[2], secret("wrong"))
	all[2].until("it waits for the name", func() bool { return len(all[2].group(group).Waiting) == 1 })
	impostor.Close()
	for what, line := range map[string]string{
		"hold": "JOIN g c key=%s hold=soon", "word": "JOIN g c key=%s hold=5000 more", "command": "JION g c key=%s hold=5000",
		"case": "join g c key=%s hold=5000", "http": "GET /?key=%s HTTP/1.1",
	} {
		c := all[1].dial()
		c.send(line+"\n", secret(what))
		c.want("ERROR")
	}
	long := all[1].dial()
	long.send("JOIN g c key=%s %s\n", secret("long"), strings.Repeat("x", 2000))
	long.want("ERROR")

	// The member moves, is left without a node, comes back, and loses that node too.
	second := join(all[1], key)
	second.want(leads)
	all[1].signal(syscall.SIGTERM)
	all[1].wantExit(exitOK)
	all[0].until("it is away", func() bool { g := all[0].group(group); return len(g.Members) == 1 && g.Members[0].Away })
	if said, err := all[0].command("wait", "--rolled", "--timeout", "2s"); err == nil || !strings.Contains(said, "whose node was stopped: 1 of "+all[1].name) {
		t.Errorf("wait --rolled while it is away: %v, %s", err, said)
	}
	third := join(all[2], key)
	third.want(leads)
	if said, err := all[0].command("wait", "--rolled", "--timeout", "2s"); err == nil || !strings.Contains(said, all[1].name+" has no session") {
		t.Errorf("wait --rolled when it is back, and its node is not: %v, %s", err, said)
	}
	places := map[string]string{} // texts, by where they are
	look := func(m *member) {
		for _, args := range [][]string{
			{"groups"}, {"groups", "--json"}, {"explain"}, {"explain", "--json"}, {"cluster", "status", "--json"}, {"ensemble-status", "--json"}, {"config", "effective", "--json"},
		} {
			out, rest := m.outputs(args...)
			places[m.name+": "+strings.Join(args, " ")] = out + rest
		}
		places[m.name+": stderr, "+m.log] = m.logText()
	}
	look(all[0])
	look(all[2])
	places[all[1].name+": stderr"] = all[1].logText()
	all[2].kill()
	third.wantGone()

	for _, m := range all {
		places[m.name+": cluster port"] = func() string {
			r := relays[m.name]
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.seen.String()
		}()
		err := filepath.WalkDir(m.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			places[path] = string(b)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	// Who searches finds what is there.
	var found []string
	for place, text := range places {
		if strings.Contains(text, group) {
			found = append(found, place)
		}
		for what, secret := range secrets {
			for _, form := range formsOf(secret) {
				if bytes.Contains([]byte(text), form) {
					t.Errorf("%s has the key %q (%s)", place, what, form)
				}
			}
		}
		if strings.HasSuffix(place, "cluster port") && len(text) < 1000 {
			t.Errorf("%s: %d bytes were seen", place, len(text))
		}
	}
	for _, where := range []string{"groups --json", "/log/console.log", "/data/leader_latch/log/", ": stderr"} {
		if !strings.Contains(strings.Join(found, "\n"), where) {
			t.Errorf("the name of the group is found in no %s, only in %q", where, found)
		}
	}
}
