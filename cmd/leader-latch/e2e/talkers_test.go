package e2e

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/cmd/leader-latch/internal/doctest"
)

// The table of latch/CLIENTS.md that says what the programs with which people talk to the
// service miss between the two parts of a script. Tests play its columns; one of them,
// that of the host that vanishes, is among the tests of faults.

// talkers are these programs, as they are called before host and port: the rows.
var talkers = []string{"nc.openbsd", "nc.traditional", "ncat", "busybox nc", "inetutils-telnet", curl}

// curl may turn to its stdin before it has shown an answer, and then shows none until
// there is more to read.
const curl = "curl -sN telnet://"

// columns are all columns, in their order.
var columns = []string{"node killed", "node stopped in order", "node's host vanished", "script killed by TERM", "script killed by KILL", "`break` in the loop", "`exit` in the loop"}

// misfortune is what happens to scripts around talkers: a column.
type misfortune struct {
	column  string
	node    *proc              // at which the scripts lead
	leading string             // what a script does when it leads
	befall  func(s *talk)      // what happens when all lead
	noticed func(s *talk) bool // by now
}

// talk is a script around a talker. It leads a group in which nobody else is.
type talk struct {
	*script
	node  *proc
	group string
}

func newTalk(t *testing.T, talker string, node *proc, leading string) *talk {
	t.Helper()
	group := unique("talk")
	host, port, _ := net.SplitHostPort(node.addr)
	to := host + " " + port
	if talker == curl {
		to = "telnet://" + host + ":" + port
	}
	return &talk{newScript(t, "sh", fmt.Sprintf(`{ echo JOIN %s me; sleep 600; } | %s %s | {
  while read -r line; do
    case $line in LEADER*) echo "I lead"; %s ;; esac
  done
  echo over
}`, group, talker, to, leading)), node, group}
}

// loopEnded is that the loop, which would go on leading, has ended.
func (s *talk) loopEnded() bool {
	select {
	case said := <-s.said:
		return said.line == "over"
	default:
		return false
	}
}

// left is that the membership has ended.
func (s *talk) left() bool { return len(s.node.group(s.group).Members) == 0 }

// wantColumns has these misfortunes befall scripts around all talkers, and expects that
// CLIENTS.md's table says whether that was noticed, within a time to look. Where it says
// yes, longer is waited for it.
func wantColumns(t *testing.T, look time.Duration, start func(*script), misfortunes ...misfortune) {
	t.Helper()
	table := doctest.Table(t, clientsDocument, "programs")
	expected := cellsOf(table)
	type played struct {
		misfortune
		*talk
		talker string
	}
	var pending []played
	for _, m := range misfortunes {
		for _, talker := range talkers {
			s := newTalk(t, talker, m.node, m.leading)
			start(s.script)
			pending = append(pending, played{m, s, talker})
		}
	}
	for _, s := range pending {
		s.until(s.talker+" has joined", func() bool { return !s.left() })
		if s.talker != curl {
			s.want("I lead")
		}
	}
	for _, s := range pending {
		s.befall(s.talk)
	}
	cells := map[string]map[string]string{}
	for _, c := range columns {
		cells[c] = map[string]string{}
	}
	for began := time.Now(); len(pending) > 0; time.Sleep(20 * time.Millisecond) {
		pending = slices.DeleteFunc(pending, func(s played) bool {
			wait := look
			if expected[s.column][s.talker] == "yes" && !doctest.Updating() {
				wait = patience
			}
			switch waited := time.Since(began); {
			case s.noticed(s.talk):
				cells[s.column][s.talker] = "yes"
				t.Logf("%s, %s: noticed after %v", s.talker, s.column, waited.Round(time.Millisecond))
			case waited > wait:
				cells[s.column][s.talker] = "**no**"
			default:
				return false
			}
			return true
		})
	}

	tableMu.Lock()
	defer tableMu.Unlock()
	table = doctest.Table(t, clientsDocument, "programs")
	old := cellsOf(table)
	var b strings.Builder
	fmt.Fprintf(&b, "| program | %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)+1))
	for _, talker := range talkers {
		fmt.Fprintf(&b, "| `%s` |", talker)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", cmp.Or(cells[c][talker], old[c][talker]))
		}
		b.WriteString("\n")
	}
	doctest.WantTable(t, clientsDocument, "programs", b.String())
}

var tableMu sync.Mutex // held while columns are compared or written: others play others

// cellsOf reads the table: cells by column and talker.
func cellsOf(table string) map[string]map[string]string {
	cells := map[string]map[string]string{}
	for _, c := range columns {
		cells[c] = map[string]string{}
	}
	for line := range strings.Lines(table) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != len(columns)+3 {
			continue
		}
		for i, c := range columns {
			cells[c][strings.Trim(f[1], " `")] = strings.TrimSpace(f[i+2])
		}
	}
	return cells
}

func wantTalkers(t *testing.T) {
	t.Helper()
	for _, talker := range talkers {
		realClient(t, strings.Fields(talker)[0])
	}
}

func TestDocumentSaysWhatTalkersMiss(t *testing.T) {
	wantTalkers(t)
	t.Parallel()
	node, killed, stopped := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	kill := func(sig syscall.Signal) func(*talk) { return func(s *talk) { s.signal(s.pid(), sig) } }
	end := func(sig syscall.Signal) func(*talk) { // a second signal to the node would not let it stop in order
		var once sync.Once
		return func(s *talk) { once.Do(func() { s.node.signal(sig) }) }
	}
	nothing := func(*talk) {}
	wantColumns(t, 3*time.Second, func(s *script) { s.start() },
		misfortune{"node killed", killed, ":", end(syscall.SIGKILL), (*talk).loopEnded},
		misfortune{"node stopped in order", stopped, ":", end(syscall.SIGTERM), (*talk).loopEnded},
		misfortune{"script killed by TERM", node, ":", kill(syscall.SIGTERM), (*talk).left},
		misfortune{"script killed by KILL", node, ":", kill(syscall.SIGKILL), (*talk).left},
		misfortune{"`break` in the loop", node, "break", nothing, (*talk).left},
		misfortune{"`exit` in the loop", node, "exit", nothing, (*talk).left},
	)
}
