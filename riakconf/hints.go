package riakconf

import (
	"fmt"
	"math/bits"
	"strings"
)

// maxStrays is how many keys are warned of; the others say nothing new.
const maxStrays = 1000

// strays warns of keys that are not in the schema but look as if they were
// meant for this service. All others that are not in it are Riak's, and left
// alone (riak.conf rule 54).
func (b *builder) strays() {
	most := len(b.warnings) + maxStrays
	for _, set := range b.settings.list {
		if len(b.warnings) == most {
			return
		}
		if meant := misspelt(set.key); meant != "" {
			b.warn(set.key, "this key is not known and does nothing; did you mean %s?", meant)
			continue
		}
		first := set.key[:wordLen(set.key)]
		listener, own := near(first, "listener"), near(first, "leaderlatch")
		if !listener && !own {
			continue // nearly all; files can have very many settings
		}
		switch w := words(set.key); {
		case own:
			b.strayOwn(set, w)
		case len(w) > 1 && near(w[1], "leaderlatch"):
			b.strayListener(set, w)
		}
	}
}

// misspelt is the key of Riak's that a key would be but for case and hyphens, if it has a
// meaning here, or "".
func misspelt(key string) string {
	if strings.ToLower(key) == key && !strings.Contains(key, "-") {
		return "" // nearly all
	}
	meant := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	if k, known := row(meant); known && k.judged() && !strings.HasPrefix(meant, ownPrefix) {
		return meant
	}
	return ""
}

func (b *builder) strayListener(set setting, w []string) {
	if w[0] == "listener" && w[1] == "leader_latch" {
		return // it was read as a listener
	}
	name := "internal"
	if len(w) == 3 {
		name = w[2]
	}
	b.warn(set.key, "this key is not known and does nothing; did you mean %s%s?", listenerPrefix, name)
}

func (b *builder) strayOwn(set setting, w []string) {
	if _, known := row(set.key); known {
		return
	}
	text := "this key is not known and does nothing"
	if meant := nearestOwn(w[1:]); meant != "" {
		text += fmt.Sprintf("; did you mean %s?", meant)
	}
	b.warn(set.key, "%s", text)
}

// nearestOwn is the key of this service's own that the words after its first
// come nearest to, or "".
func nearestOwn(w []string) string {
	best, meant := 4, "" // further away it is a guess
	for _, k := range schema {
		name, own := strings.CutPrefix(k.Name, ownPrefix)
		if !own {
			continue
		}
		given := strings.Join(w, ".")
		if prefix, fuzzy := strings.CutSuffix(name, "$name"); fuzzy && len(w) == 2 {
			name = prefix + w[1]
		}
		if d := distance(plain(given), plain(name)); d < best {
			best, meant = d, ownPrefix+name
		}
	}
	return meant
}

// near reports whether a word is another one, a plain one, but for case,
// hyphens, underscores and one or two slips.
func near(word, other string) bool {
	const most = 2
	word = plain(word)
	if word == other {
		return true
	}
	if d := len(word) - len(other); d < -most || d > most {
		return false
	}
	if bits.OnesCount32(letters(other)&^letters(word)) > most { // each takes a slip
		return false
	}
	return distance(word, other) <= most
}

var separators = strings.NewReplacer("_", "", "-", "", `\`, "")

func plain(word string) string { return strings.ToLower(separators.Replace(word)) }

// letters is the set of the letters from a to z in a word.
func letters(word string) (set uint32) {
	for i := range len(word) {
		if c := word[i]; 'a' <= c && c <= 'z' {
			set |= 1 << (c - 'a')
		}
	}
	return set
}

// distance is the least number of characters to insert, delete or replace to
// make b of a.
func distance(a, b string) int {
	costs := make([]int, len(b)+1) // of making the first j characters of b
	for j := range costs {
		costs[j] = j
	}
	for i := range len(a) {
		diagonal := costs[0]
		costs[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, costs[j], costs[j+1])
			}
			diagonal, costs[j+1] = costs[j+1], cost
		}
	}
	return costs[len(b)]
}
