package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestState plays the cases of testdata/state against the state machine. The
// notation is explained in sessions.txt. Every entry passes through its
// encoding, and after every entry the state through a snapshot.
func TestState(t *testing.T) {
	files, err := filepath.Glob("../../testdata/state/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var c *stateCase
		var lines []string
		flush := func() {
			if c != nil {
				c.run(t, lines)
			}
			lines = nil
		}
		for i, line := range strings.Split(string(text), "\n") {
			if claim, ok := strings.CutPrefix(line, "case: "); ok {
				flush()
				c = &stateCase{claim: claim, file: filepath.Base(file), line: i + 1}
				continue
			}
			lines = append(lines, line)
		}
		flush()
	}
}

type stateCase struct {
	claim, file string
	line        int
	state       *State
	index       uint64
	opened      []Incarnation
	got         []string // effects of the last entry not yet expected
}

func (c *stateCase) run(t *testing.T, lines []string) {
	t.Run(c.claim, func(t *testing.T) {
		c.state = New()
		entries := 0
		for i, line := range append(lines, "") {
			at := fmt.Sprintf("%s:%d", c.file, c.line+1+i)
			mark, rest, _ := strings.Cut(line, " ")
			if mark != "<" && len(c.got) > 0 && (mark == ">" || mark == "=" || i == len(lines)) {
				t.Fatalf("%s: also changed: %q", at, c.got)
			}
			switch mark {
			case ">":
				entries++
				c.apply(t, at, rest)
			case "<":
				if len(c.got) == 0 {
					t.Fatalf("%s: want %q, got nothing", at, rest)
				}
				if c.got[0] != rest {
					t.Fatalf("%s:\n got %q\nwant %q", at, c.got[0], rest)
				}
				c.got = c.got[1:]
			case "=":
				name, want, _ := strings.Cut(rest, ":")
				if got := c.members(name); got != strings.TrimSpace(want) {
					t.Fatalf("%s: members of %s:\n got %q\nwant %q", at, name, got, strings.TrimSpace(want))
				}
			case "", "#":
			default:
				t.Fatalf("%s: what is %q?", at, line)
			}
		}
		if entries == 0 {
			t.Fatal("an empty case")
		}
	})
}

func (c *stateCase) apply(t *testing.T, at, ops string) {
	c.index++
	entry := Entry{At: time.UnixMilli(int64(1000 * c.index))}
	for op := range strings.SplitSeq(ops, " ; ") {
		entry.Ops = append(entry.Ops, c.op(t, at, strings.Fields(op)))
	}
	level := c.state.level
	for _, op := range entry.Ops {
		if r, ok := op.(Raise); ok {
			level = max(level, r.Level) // as it is written
		}
	}
	decoded, err := Decode(Encode(level, entry))
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	for _, e := range c.state.Apply(c.index, decoded, nil) {
		c.got = append(c.got, c.show(e))
	}
	snapshot := snapshotOf(c.state)
	restored, err := restoreBytes(snapshot)
	if err != nil {
		t.Fatalf("%s: restore: %v", at, err)
	}
	if !bytes.Equal(snapshotOf(restored), snapshot) {
		t.Fatalf("%s: the snapshot of the restored state differs", at)
	}
	c.state = restored
}

func (c *stateCase) op(t *testing.T, at string, f []string) Op {
	num := func(i int) uint64 {
		v, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return v
	}
	inc := func(i int) Incarnation {
		if n, ok := strings.CutPrefix(f[i], "#"); ok {
			k, _ := strconv.Atoi(n)
			return c.opened[k-1]
		}
		return Incarnation(num(i))
	}
	switch f[0] {
	case "found":
		return Found{f[1], num(2)}
	case "activate":
		return Activate{}
	case "open":
		boot := "boot"
		if len(f) > 3 {
			boot = strings.TrimPrefix(f[3], "boot=")
		}
		return Open{NodeID(f[1]), num(2), boot, 2 * time.Second, 3 * time.Second, "riak@" + f[1], f[1] + ":5324", 1}
	case "renew":
		return Renew{inc(1), num(2)}
	case "join":
		return Join{inc(1), num(2), f[3], f[4]}
	case "leave":
		return Leave{inc(1), num(2), num(3)}
	case "end":
		return End{inc(1), num(2)}
	case "expire":
		return Expire{inc(1), num(2)}
	case "remove":
		return Remove{NodeID(f[1])}
	case "raise":
		return Raise{num(1)}
	}
	t.Fatalf("%s: no operation %q", at, f[0])
	return nil
}

func (c *stateCase) show(e Effect) string {
	inc := func(i Incarnation) string { return fmt.Sprintf("#%d", slices.Index(c.opened, i)+1) }
	id := func(m MemberID) string { return fmt.Sprintf("%s.%d", inc(m.Incarnation), m.Seq) }
	token := func(v uint64) string {
		v -= c.state.tokenBase
		return fmt.Sprintf("@%d.%d", v>>PositionBits, v%MaxOps)
	}
	switch e := e.(type) {
	case Opened:
		c.opened = append(c.opened, e.Incarnation)
		return fmt.Sprintf("opened %s %d %s", e.Node, e.Counter, inc(e.Incarnation))
	case Renewed:
		return fmt.Sprintf("renewed %s %s %d", e.Node, inc(e.Incarnation), e.Seq)
	case Ended:
		return fmt.Sprintf("ended %s %s", e.Node, inc(e.Incarnation))
	case Joined:
		return fmt.Sprintf("joined %s %s %s leader=%s %s", id(e.Member), e.Group, e.Client, e.Leader, token(e.Token))
	case Refused:
		return fmt.Sprintf("refused %s %s %s holder=%s", id(e.Member), e.Group, e.Client, e.Holder)
	case Left:
		return fmt.Sprintf("left %s %s %s", id(e.Member), e.Group, e.Client)
	case Led:
		return fmt.Sprintf("led %s %s %s", e.Group, e.Leader, token(e.Token))
	case Removed:
		return fmt.Sprintf("removed %s", e.Node)
	case Raised:
		return fmt.Sprintf("raised %d", e.Level)
	}
	return fmt.Sprintf("%T", e)
}

func (c *stateCase) members(group string) string {
	var names []string
	if g := c.state.groups[group]; g != nil {
		for m := g.first; m != nil; m = m.next {
			names = append(names, m.client)
		}
	}
	return strings.Join(names, " ")
}

// randomEntry draws an entry that is sometimes right, often a duplicate, a
// gap, of a dead incarnation or with an old counter.
func randomEntry(r *rand.Rand, s *State, index uint64) Entry {
	var incs []Incarnation
	for inc := range s.sessions {
		incs = append(incs, inc)
	}
	slices.Sort(incs)
	incs = append(incs, Incarnation(r.Uint64N(index<<PositionBits+1)))
	seqs := make(map[Incarnation]uint64)
	seq := func(inc Incarnation) uint64 {
		if seqs[inc] == 0 {
			if ses := s.sessions[inc]; ses != nil {
				seqs[inc] = ses.seq
			}
		}
		seqs[inc]++
		switch r.IntN(12) {
		case 0:
			seqs[inc]--
		case 1:
			seqs[inc]++
		}
		return seqs[inc]
	}
	e := Entry{At: time.UnixMilli(int64(index))}
	if r.IntN(30) == 0 {
		e.Ops = append(e.Ops, Raise{1 + r.Uint64N(NewestLevel)})
	}
	if r.IntN(30) == 0 {
		e.Ops = append(e.Ops, Lift{r.Uint64N(1 << 40)})
	}
	for range 1 + r.IntN(8) {
		inc := incs[r.IntN(len(incs))]
		node := NodeID(fmt.Sprintf("n%d", r.IntN(4)))
		switch r.IntN(14) {
		case 0:
			counter := r.Uint64N(3)
			if n := s.nodes[node]; n != nil {
				counter += n.counter
			}
			e.Ops = append(e.Ops, Open{node, counter, fmt.Sprint(r.IntN(5) / 4), time.Second, 2 * time.Second, "riak@" + string(node), "a:1", 1})
		case 1, 2:
			e.Ops = append(e.Ops, Renew{inc, seq(inc)})
		case 3:
			var renewal uint64
			if ses := s.sessions[inc]; ses != nil && r.IntN(2) == 0 {
				renewal = ses.renewal
			}
			if r.IntN(3) == 0 {
				e.Ops = append(e.Ops, Expire{inc, renewal})
			}
		case 4:
			if r.IntN(8) == 0 {
				e.Ops = append(e.Ops, End{inc, seq(inc)})
			}
		case 5, 6, 7:
			n := seq(inc)
			e.Ops = append(e.Ops, Leave{inc, n, 1 + r.Uint64N(n+1)})
		default:
			e.Ops = append(e.Ops, Join{inc, seq(inc), fmt.Sprintf("g%d", r.IntN(3)), fmt.Sprintf("c%d", r.IntN(40))})
		}
	}
	return e
}

// TestStateRandomOps: on two copies, one of which is thrown away and restored
// from a snapshot now and then, random entries give the same effects and the
// same bytes; and what the effects tell is what the groups show.
func TestStateRandomOps(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			a, b := New(), New()
			told := make(map[string]string) // leader by group, from effects
			tokens := make(map[string]uint64)
			kinds := make(map[string]int)
			for index := uint64(1); index <= 400; index++ {
				entry, err := Decode(Encode(NewestLevel, randomEntry(r, a, index)))
				if err != nil {
					t.Fatal(err)
				}
				ea := a.Apply(index, entry, nil)
				eb := b.Apply(index, entry, nil)
				if !slices.Equal(ea, eb) {
					t.Fatalf("entry %d: effects differ:\n%v\n%v", index, ea, eb)
				}
				if !bytes.Equal(snapshotOf(a), snapshotOf(b)) {
					t.Fatalf("entry %d: states differ", index)
				}
				if r.IntN(20) == 0 {
					if b, err = restoreBytes(snapshotOf(b)); err != nil {
						t.Fatal(err)
					}
				}
				for _, e := range ea {
					kinds[fmt.Sprintf("%T", e)]++
					group, leader, token := "", "", uint64(0)
					switch e := e.(type) {
					case Joined:
						group, leader, token = e.Group, e.Leader, e.Token
					case Led:
						group, leader, token = e.Group, e.Leader, e.Token
					default:
						continue
					}
					if token < tokens[group] || token == tokens[group] && told[group] != leader {
						t.Fatalf("entry %d: group %s: token %d of %s after %d of %s", index, group, token, leader, tokens[group], told[group])
					}
					told[group], tokens[group] = leader, token
				}
				for name, g := range a.groups {
					if told[name] != g.first.client {
						t.Fatalf("entry %d: group %s: told %s leads, but %s does", index, name, told[name], g.first.client)
					}
				}
			}
			for _, k := range []string{"Opened", "Renewed", "Ended", "Joined", "Refused", "Left", "Led", "Raised"} {
				if kinds["state."+k] == 0 {
					t.Errorf("the run had no %s: it proves little", k)
				}
			}
		})
	}
}
