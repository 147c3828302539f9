package riakconf

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Limits on references. Riak has none and can be brought down with a few
// lines that double each other (riak.conf rule 45).
const (
	maxReferenceDepth = 100_000
	maxExpansion      = 64 << 20 // bytes that all references together may bring in
	maxBadReferences  = 1000     // then the rest is not looked at
	maxCircles        = 1 << 20  // keys in all circles that are told of; likewise
)

// riakDefaults are the defaults of Riak 2.1 (Debian package) for the keys
// that are not in the schema. They exist for references only.
//
//go:embed defaults.conf
var riakDefaults string

var foreignDefaults = sync.OnceValue(func() map[string]string {
	defaults := make(map[string]string)
	list, _ := parse(&source{path: "defaults.conf"}, riakDefaults) // a test reads it too
	for _, s := range list {
		defaults[s.key] = s.value
	}
	return defaults
})

// expand resolves the references in all values and in the schema's defaults.
// A key whose value cannot be resolved is marked as broken; those that are so
// already have their problem, and so have the keys that lead to them.
func (s *Settings) expand() []Problem {
	var problems []Problem
	x := &expander{lookup: s.raw, done: make(map[string]string), failed: make(map[string]*badReference), open: make(map[string]bool)}
	unread := maps.Clone(s.broken)
	circles := 0
	full := false
	for i, set := range s.list {
		if unread[set.key] || !strings.Contains(set.value, "$(") {
			continue
		}
		if full {
			s.broken[set.key] = true
			continue
		}
		value, bad := x.expand(set.key, set.value)
		switch {
		case bad == nil:
			s.list[i].value = value
			continue
		case !unread[bad.key]:
			problems = append(problems, bad.problem(set))
			circles += len(bad.history)
			full = bad.kind == kindLimit || len(problems) == maxBadReferences || circles > maxCircles
		}
		s.broken[set.key] = true
	}
	for _, k := range schema {
		if _, set := s.index[k.Name]; set || k.Default == "" {
			continue
		}
		value, bad := x.expand(k.Name, k.Default)
		if bad != nil {
			s.broken[k.Name] = true
			continue
		}
		s.defaults[k.Name] = value
	}
	return problems
}

// raw is the text that a name stands for: what the files set, else the
// default, else what the environment has (riak.conf rules 36, 42 and 44). It
// may have references itself.
func (s *Settings) raw(name string) (text string, known bool) {
	if i, set := s.index[name]; set {
		return s.list[i].value, true
	}
	if k, known := rows()[name]; known && k.Default != "" {
		return k.Default, true
	}
	if text, known = foreignDefaults()[name]; known {
		return text, true
	}
	return os.LookupEnv(name)
}

// An expander resolves references.
type expander struct {
	lookup func(name string) (text string, known bool)
	done   map[string]string        // names that are resolved
	failed map[string]*badReference // names that lead to what nothing sets
	path   []string                 // names that are being resolved, outermost first
	open   map[string]bool          // the same, to find a circle
	spent  int                      // of maxExpansion
}

// expand resolves the references in text, which is the value of name.
//
// The leftmost $( up to the next ) is replaced by the resolved value of what
// it names, and the new text is searched again from its start (riak.conf
// rules 37 to 41). What stands to the left of a reference has no $( of its
// own, so it is enough to go on at the seam: out is what was searched, rest
// what was not.
func (x *expander) expand(name, text string) (string, *badReference) {
	if !strings.Contains(text, "$(") {
		return text, nil
	}
	if value, done := x.done[name]; done {
		return value, nil
	}
	if bad := x.failed[name]; bad != nil {
		return "", bad
	}
	if len(x.path) == maxReferenceDepth {
		return "", x.limit(name, fmt.Sprintf("references go more than %d levels deep", maxReferenceDepth))
	}
	x.path = append(x.path, name)
	x.open[name] = true
	defer func() {
		x.path = x.path[:len(x.path)-1]
		delete(x.open, name)
	}()

	out := make([]byte, 0, 2*len(text))
	rest := append(make(pile, 0, 4), text)
	for len(rest) > 0 {
		before, found := rest.takeUntil("(")
		out = append(out, before...)
		if !found {
			break
		}
		if !bytes.HasSuffix(out, []byte("$")) {
			out = append(out, '(')
			continue
		}
		ref, closed := rest.takeUntil(")")
		if !closed { // riak.conf rule 38
			out = append(out, "("+ref...)
			break
		}
		out = out[:len(out)-1]
		value, bad := x.follow(name, referenceName(ref))
		if bad != nil {
			if bad.kind == kindMissing { // a circle looks different from each key
				x.failed[name] = bad
			}
			return "", bad
		}
		if x.spent += len(value) + 1; x.spent > maxExpansion {
			return "", x.limit(name, fmt.Sprintf("references bring in more than %d MiB of text; do they double each other?", maxExpansion>>20))
		}
		rest = append(rest, value)
	}
	value := string(out)
	if len(x.path) > 1 { // else it is put in the place of the text
		x.done[name] = value
	}
	return value, nil
}

// follow resolves a reference to wants that stands in the value of name.
func (x *expander) follow(name, wants string) (string, *badReference) {
	if x.open[wants] { // riak.conf rule 43
		history := slices.Clone(append(x.path, wants))
		slices.Reverse(history)
		return "", &badReference{kind: kindCircular, key: name, wants: wants, history: history}
	}
	text, known := x.lookup(wants)
	if !known {
		return "", &badReference{kind: kindMissing, key: name, wants: wants}
	}
	return x.expand(wants, text)
}

func (x *expander) limit(name, text string) *badReference {
	return &badReference{kind: kindLimit, key: name, text: text}
}

// referenceName is the key that the text of a reference names: spaces around
// it and one trailing dot are dropped (riak.conf rules 37 and 39).
func referenceName(ref string) string {
	ref = strings.Trim(ref, " ")
	if strings.HasSuffix(ref, `\.`) {
		return ref
	}
	return strings.TrimSuffix(ref, ".")
}

// A badReference says why a value cannot be resolved.
type badReference struct {
	kind    string
	key     string   // where the reference stands
	wants   string   // what it names
	history []string // of a circle, newest first
	text    string   // of a limit
}

// problem is the problem that s has with it, be it in its own value or in one
// that it leads to.
func (bad *badReference) problem(s setting) Problem {
	if bad.kind == kindLimit {
		return limitProblem(s, bad.text)
	}
	p := Problem{
		Position: s.position(),
		Key:      s.key,
		outcome:  &outcome{Kind: bad.kind},
	}
	switch {
	case bad.kind == kindCircular:
		p.outcome.History = bad.history
		p.Text = fmt.Sprintf("the references run in a circle, %s; give one of these keys a value of its own", chain(bad.history))
	case bad.wants == "":
		p.Text = "a reference without a name; write $(key)"
	case bad.key == s.key:
		p.Text = fmt.Sprintf("nothing sets %s, which $(..) refers to; set it or correct the name", show(bad.wants))
	default:
		p.Text = fmt.Sprintf("it refers to %s, and nothing sets %s, which that refers to; set it or correct the name", show(bad.key), show(bad.wants))
	}
	if bad.kind == kindMissing {
		p.outcome.Key, p.outcome.Wants = bad.key, &bad.wants
	}
	return p
}

// chain shows the way into a circle and around it.
func chain(history []string) string {
	const most = 12
	var names []string
	for i, name := range slices.Backward(history) {
		switch at := len(history) - 1 - i; {
		case at < most/2, i < most/2:
			names = append(names, show(name))
		case at == most/2:
			names = append(names, "...")
		}
	}
	return strings.Join(names, " -> ")
}

// A pile is text in pieces, the foremost on top, so that putting text in front
// of it moves none of it.
type pile []string

// takeUntil takes what stands before the next sep, and sep; or all, if there
// is none.
func (p *pile) takeUntil(sep string) (s string, found bool) {
	var further strings.Builder // what follows the first piece
	for first := true; len(*p) > 0 && !found; first = false {
		top := len(*p) - 1
		var before, after string
		before, after, found = strings.Cut((*p)[top], sep)
		*p = (*p)[:top]
		if after != "" {
			*p = append(*p, after)
		}
		if first {
			s = before // most often all of it
		} else {
			further.WriteString(before)
		}
	}
	return s + further.String(), found
}
