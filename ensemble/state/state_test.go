package state

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
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
			if mark != "<" && len(c.got) > 0 && (strings.Contains("> = ? ~", mark) && mark != "" || i == len(lines)) {
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
			case "?":
				name, want, _ := strings.Cut(rest, ":")
				if got := c.session(name); got != strings.TrimSpace(want) {
					t.Fatalf("%s: session %s:\n got %q\nwant %q", at, name, got, strings.TrimSpace(want))
				}
			case "~":
				name, want, _ := strings.Cut(rest, ":")
				if got := c.changes(name); got != strings.TrimSpace(want) {
					t.Fatalf("%s: changes of %s:\n got %q\nwant %q", at, name, got, strings.TrimSpace(want))
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
	decoded, err := decode(Encode(level, entry), built)
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
	// Words of the form name=value may stand behind all others.
	named := map[string]string{}
	for name, value, ok := strings.Cut(f[len(f)-1], "="); ok; name, value, ok = strings.Cut(f[len(f)-1], "=") {
		named[name], f = value, f[:len(f)-1]
	}
	duration := func(name string) time.Duration {
		if named[name] == "" {
			return 0
		}
		d, err := time.ParseDuration(named[name])
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return d
	}
	why := Reason(max(0, slices.Index(reasons[:], named["why"])))
	reads, _ := strconv.ParseUint(cmp.Or(named["reads"], "1"), 10, 64)
	switch f[0] {
	case "found":
		return Found{f[1], num(2)}
	case "activate":
		return Activate{}
	case "open":
		return Open{NodeID(f[1]), num(2), cmp.Or(named["boot"], "boot"), 2 * time.Second, cmp.Or(duration("S"), 3*time.Second), "riak@" + f[1], f[1] + ":5324", reads, why}
	case "renew":
		return Renew{inc(1), num(2)}
	case "join":
		j := Join{inc(1), num(2), f[3], f[4]}
		if key, ok := named["key"]; ok {
			return KeyedJoin{j, KeyOf(f[3], f[4], key), duration("hold")}
		}
		return j
	case "leave":
		return Leave{inc(1), num(2), num(3), why}
	case "step-down":
		var entry, op uint64
		if _, err := fmt.Sscanf(f[4], "@%d.%d", &entry, &op); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return StepDown{inc(1), num(2), num(3), c.state.tokenBase + uint64(PositionOf(entry, int(op)))}
	case "end":
		return End{inc(1), num(2), why}
	case "expire":
		return Expire{inc(1), num(2), why, NodeID(named["by"])}
	case "remove":
		return Remove{NodeID(f[1])}
	case "raise":
		return Raise{num(1)}
	case "lift":
		return Lift{num(1)}
	}
	t.Fatalf("%s: no operation %q", at, f[0])
	return nil
}

func (c *stateCase) token(v uint64) string {
	v -= c.state.tokenBase
	return fmt.Sprintf("@%d.%d", v>>PositionBits, v%MaxOps)
}

func (c *stateCase) show(e Effect) string {
	inc := func(i Incarnation) string { return fmt.Sprintf("#%d", slices.Index(c.opened, i)+1) }
	id := func(m MemberID) string { return fmt.Sprintf("%s.%d", inc(m.Incarnation), m.Seq) }
	hold := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return fmt.Sprintf(" hold=%v", d)
	}
	switch e := e.(type) {
	case Opened:
		c.opened = append(c.opened, e.Incarnation)
		return fmt.Sprintf("opened %s %d %s", e.Node, e.Counter, inc(e.Incarnation))
	case Renewed:
		return fmt.Sprintf("renewed %s %s %d", e.Node, inc(e.Incarnation), e.Seq)
	case Ended:
		if e.Orphaned {
			return fmt.Sprintf("ended %s %s orphaned", e.Node, inc(e.Incarnation))
		}
		return fmt.Sprintf("ended %s %s", e.Node, inc(e.Incarnation))
	case Emptied:
		return fmt.Sprintf("emptied %s %s", e.Node, inc(e.Incarnation))
	case Joined:
		return fmt.Sprintf("joined %s %s %s leader=%s %s%s", id(e.Member), e.Group, e.Client, e.Leader, c.token(e.Token), hold(e.Hold))
	case Moved:
		return fmt.Sprintf("moved %s to %s of %s %s %s leader=%s %s%s", id(e.From), id(e.Member), e.Node, e.Group, e.Client, e.Leader, c.token(e.Token), hold(e.Hold))
	case Refused:
		return fmt.Sprintf("refused %s %s %s holder=%s", id(e.Member), e.Group, e.Client, e.Holder)
	case Left:
		text := fmt.Sprintf("left %s %s %s", id(e.Member), e.Group, e.Client)
		if c.state.level >= KeyedLevel {
			text += " " + e.Reason.String()
			if e.Last {
				text += " the last " + c.token(e.Token)
			}
		}
		return text
	case SteppedDown:
		return fmt.Sprintf("stepped-down %s %s %s", id(e.Member), e.Group, e.Client)
	case Led:
		return fmt.Sprintf("led %s %s %s", e.Group, e.Leader, c.token(e.Token))
	case Removed:
		return fmt.Sprintf("removed %s", e.Node)
	case Raised:
		return fmt.Sprintf("raised %d", e.Level)
	}
	return fmt.Sprintf("%T", e)
}

// session shows what an Expire of a session has to name, and after which silence it may come.
func (c *stateCase) session(name string) string {
	k, _ := strconv.Atoi(strings.TrimPrefix(name, "#"))
	ses, ok := c.state.Session(c.opened[k-1])
	if !ok {
		return "none"
	}
	text := fmt.Sprintf("sign=%d silence=%v members=%d keyed=%d", ses.Sign, ses.Silence, ses.Members, ses.Keyed)
	if ses.Orphaned {
		text += " orphaned"
	}
	return text
}

// changes shows the changes of a group's leader.
func (c *stateCase) changes(group string) string {
	var all []string
	for _, h := range c.state.Changes(group) {
		all = append(all, fmt.Sprintf("%s>%s %s %v %s/%s", h.From, h.To, c.token(h.Token), cmp.Or(h.Reason.String(), "-"), h.Node, h.By))
	}
	return strings.Join(all, ", ")
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

// Below its level the state takes nothing from what there is from there on, not even a number
// of a session: what came of it no snapshot of that level could hold.
func TestNothingIsKeyedBelowItsLevel(t *testing.T) {
	for level := uint64(FirstLevel); level <= built; level++ {
		s := New()
		s.Apply(1, Entry{Ops: []Op{Raise{level}, Open{Node: "n1", Counter: 1, Boot: "boot"}}}, nil)
		inc, _, _ := s.Current("n1")
		effects := s.Apply(2, Entry{Ops: []Op{KeyedJoin{Join{inc, 1, "g", "a"}, Key{}, time.Second}, StepDown{inc, 2, 1, 0}}}, nil)
		seq, _, _ := s.Accepted(inc)
		if took, want := len(effects) > 0 || seq > 0 || len(s.Changes("g")) > 0, level >= KeyedLevel; took != want {
			t.Errorf("level %d: effects %v, number %d, changes %v", level, effects, seq, s.Changes("g"))
		}
	}
}

// What keyed members and former leaders have beyond others is elsewhere, so that who has
// neither takes no memory for it: these are sizes in which memory is given out.
func TestPlainMembersAndGroupsTakeNoMore(t *testing.T) {
	if size := unsafe.Sizeof(member{}); size > 64 {
		t.Errorf("a member takes %d bytes", size)
	}
	if size := unsafe.Sizeof(group{}); size > 80 {
		t.Errorf("a group takes %d bytes", size)
	}
}

// Whoever compares what two states say of who leads takes the higher token for the newer
// word, also where nobody leads.
func TestWordsOfWhoLeadsCompare(t *testing.T) {
	gone := 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 4))
		s := New()
		last := map[string]uint64{}
		for index := uint64(1); index <= 300; index++ {
			effects := s.Apply(index, randomEntry(r, s, index), nil)
			told := map[string]uint64{}
			for _, e := range effects {
				group, token := "", uint64(0)
				switch e := e.(type) {
				case Joined:
					if group = e.Group; e.Leader == e.Client {
						token = e.Token
					}
				case Led:
					group, token = e.Group, e.Token
				case Left:
					if group = e.Group; e.Last {
						token, gone = e.Token, gone+1
					}
				}
				if token > 0 && token <= max(last[group], told[group]) {
					t.Fatalf("seed %d, entry %d: %#v after %d", seed, index, e, max(last[group], told[group]))
				}
				if token > 0 {
					told[group] = token
				}
			}
			for _, group := range []string{"g0", "g1", "g2"} {
				leader, token := s.Leader(group)
				g, ok := s.Group(group)
				if (leader != "") != ok || leader != g.Leader || token < last[group] || token < told[group] || leader != "" && token != g.Token {
					t.Fatalf("seed %d, entry %d: %q leads %s with %d, after %d", seed, index, leader, group, token, last[group])
				}
				last[group] = token
			}
		}
	}
	if gone < 20 {
		t.Errorf("%d groups have vanished: that proves little", gone)
	}
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
	if index == 1 && r.IntN(4) > 0 { // before there are nodes that would have to read it
		e.Ops = append(e.Ops, Raise{built})
	}
	if r.IntN(30) == 0 {
		e.Ops = append(e.Ops, Raise{1 + r.Uint64N(built)})
	}
	if r.IntN(30) == 0 {
		e.Ops = append(e.Ops, Lift{r.Uint64N(1 << 40)})
	}
	for range 1 + r.IntN(8) {
		inc := incs[r.IntN(len(incs))]
		node := NodeID(fmt.Sprintf("n%d", r.IntN(4)))
		why := Reason(r.IntN(len(reasons)))
		switch r.IntN(21) {
		case 0:
			counter := r.Uint64N(3)
			if n := s.nodes[node]; n != nil {
				counter += n.counter
			}
			e.Ops = append(e.Ops, Open{node, counter, fmt.Sprint(r.IntN(5) / 4), time.Second, 2 * time.Second, "riak@" + string(node), "a:1", 3 - r.Uint64N(12)/11, why})
		case 1, 2:
			e.Ops = append(e.Ops, Renew{inc, seq(inc)})
		case 3:
			var renewal uint64
			if ses := s.sessions[inc]; ses != nil && r.IntN(2) == 0 {
				renewal = ses.sign()
			}
			if r.IntN(3) == 0 {
				e.Ops = append(e.Ops, Expire{inc, renewal, why, node})
			}
		case 4:
			if r.IntN(8) == 0 {
				e.Ops = append(e.Ops, End{inc, seq(inc), why})
			}
		case 5, 6, 7:
			if g := s.groups[fmt.Sprintf("g%d", r.IntN(3))]; g != nil && r.IntN(2) == 0 { // a leader
				of := g.first.id
				e.Ops = append(e.Ops, Leave{of.Incarnation, seq(of.Incarnation), of.Seq, why})
				break
			}
			n := seq(inc)
			e.Ops = append(e.Ops, Leave{inc, n, 1 + r.Uint64N(n+1), why})
		case 8, 9, 10, 11, 12, 13: // whose key is right in one case of two
			j := Join{inc, seq(inc), fmt.Sprintf("g%d", r.IntN(3)), fmt.Sprintf("c%d", r.IntN(40))}
			key := KeyOf(j.Group, j.Client, fmt.Sprint(r.IntN(4)/2))
			e.Ops = append(e.Ops, KeyedJoin{j, key, time.Duration(r.IntN(5)) * time.Second})
		case 14:
			if g := s.groups[fmt.Sprintf("g%d", r.IntN(3))]; g != nil {
				of := g.first.id
				e.Ops = append(e.Ops, StepDown{of.Incarnation, seq(of.Incarnation), of.Seq, g.token - r.Uint64N(5)/4})
			}
		case 15:
			if r.IntN(12) == 0 {
				e.Ops = append(e.Ops, Remove{"n3"})
			}
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
	kinds := make(map[string]int)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			a, b := New(), New()
			told := make(map[string]string) // leader by group, from effects
			tokens := make(map[string]uint64)
			for index := uint64(1); index <= 400; index++ {
				entry, err := decode(Encode(built, randomEntry(r, a, index)), built)
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
		})
	}
	for _, k := range []string{"Opened", "Renewed", "Ended", "Emptied", "Joined", "Moved", "Refused", "Left", "SteppedDown", "Led", "Removed", "Raised"} {
		if kinds["state."+k] < 40 {
			t.Errorf("the runs had %d times %s: they prove little", kinds["state."+k], k)
		}
	}
	t.Log(kinds)
}
