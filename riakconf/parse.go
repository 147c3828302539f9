package riakconf

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// blanks are the only characters that may stand around a key or a value
// (riak.conf rule 5).
const blanks = " \t"

// A source is a file that settings come from.
type source struct {
	path   string  // as the operator gave it, or relative to that
	name   string  // relative to the folder of the main file
	parent *source // the file that includes it, if any
}

// A setting is one line of a file: key = value, or an include, whose key is
// empty and whose value is the path.
type setting struct {
	key, value string // the key as it is written: a dot inside a word is \.
	src        *source
	line       int
}

func (s setting) position() Position { return Position{s.src.path, s.line} }

// parse reads the text of one file. It returns the settings in order, or the
// problems: the first line that does not fit (riak.conf rule 23), or every
// value with characters above U+00FF (rule 24). Keys and values are parts of
// text, not copies.
func parse(src *source, text string) ([]setting, []Problem) {
	if !utf8.ValidString(text) { // riak.conf rule 1
		return nil, []Problem{notUTF8(src, text)}
	}
	var wide []Problem
	settings := make([]setting, 0, strings.Count(text, "=")+1)
	for n, rest := 1, text; rest != ""; n++ {
		line, tail, ended := strings.Cut(rest, "\n")
		rest = tail
		if ended { // riak.conf rule 3
			line = strings.TrimSuffix(line, "\r")
		}
		key, value, fit := parseLine(line, ended)
		switch {
		case !fit:
			return nil, []Problem{syntaxProblem(src, n, diagnose(line, n))}
		case key == "" && value == "":
		case aboveLatin1(value):
			wide = append(wide, latin1Problem(src, n, key))
		default:
			settings = append(settings, setting{key, value, src, n})
		}
	}
	if wide != nil {
		return nil, wide
	}
	return settings, nil
}

// parseLine reads one line, without its line end. A line that says nothing
// has neither key nor value, an include has no key. A line that fits neither
// form is reported by fit.
func parseLine(line string, ended bool) (key, value string, fit bool) {
	line = strings.TrimLeft(line, blanks)
	if line == "" || line[0] == '#' { // riak.conf rules 6 and 7
		return "", "", true
	}
	if key, value, fit = parseSetting(line, ended); fit {
		return key, value, true
	}
	value, fit = parseInclude(line)
	return "", value, fit
}

// parseSetting reads key = value (riak.conf rules 9 to 18).
func parseSetting(line string, ended bool) (key, value string, fit bool) {
	key = line[:keyLen(line)]
	rest, equals := strings.CutPrefix(strings.TrimLeft(line[len(key):], blanks), "=")
	if key == "" || !equals {
		return "", "", false
	}
	value, _, comment := strings.Cut(strings.TrimLeft(rest, blanks), "#")
	if comment || ended { // riak.conf rule 16
		value = strings.TrimRight(value, blanks)
	}
	return key, value, value != ""
}

// keyLen is the length of the key that s begins with: words joined by single
// dots (riak.conf rule 10).
func keyLen(s string) int {
	n := wordLen(s)
	for n > 0 && n < len(s) && s[n] == '.' {
		w := wordLen(s[n+1:])
		if w == 0 {
			break
		}
		n += 1 + w
	}
	return n
}

// wordLen is the length of the word of a key that s begins with.
func wordLen(s string) int {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		case c == '\\' && i+1 < len(s) && s[i+1] == '.':
			i++
		default:
			return i
		}
	}
	return len(s)
}

// parseInclude reads an include line (riak.conf rule 27): no blank between
// the word and the path is needed, and none may stand behind the path unless
// a comment follows.
func parseInclude(line string) (path string, fit bool) {
	rest, include := strings.CutPrefix(line, "include")
	if !include {
		return "", false
	}
	rest = strings.TrimLeft(rest, blanks)
	path = rest[:pathLen(rest)]
	rest = rest[len(path):]
	fit = path != "" && (rest == "" || strings.HasPrefix(strings.TrimLeft(rest, blanks), "#"))
	return path, fit
}

func pathLen(s string) int {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == '*', c == '/':
		default:
			return i
		}
	}
	return len(s)
}

// aboveLatin1 reports whether s, valid UTF-8, has a character above U+00FF
// (riak.conf rule 20): the lead bytes of those begin at 0xC4.
func aboveLatin1(s string) bool {
	for i := range len(s) {
		if s[i] >= 0xC4 {
			return true
		}
	}
	return false
}

// diagnose says what is wrong with a line that does not fit, and its cure.
func diagnose(line string, n int) string {
	if n == 1 && strings.HasPrefix(line, "\uFEFF") {
		return "the file begins with a byte order mark; save it as UTF-8 without one"
	}
	if strings.Contains(line, "\x00") {
		return "this is not plain text; save the file as UTF-8"
	}
	line = strings.TrimLeft(line, blanks)
	key := line[:keyLen(line)]
	rest := strings.TrimLeft(line[len(key):], blanks)
	switch {
	case strings.HasPrefix(line, "["):
		return "there are no [sections] here; write each setting as key = value, with its full key"
	case strings.HasPrefix(line, ";"), strings.HasPrefix(line, "%"), strings.HasPrefix(line, "//"):
		return "a comment begins with #"
	case strings.HasPrefix(line, "="):
		return "no key before the =; write key = value"
	case key == "include":
		return "an include takes one path of letters, digits and - _ . * / without quotes, " +
			"and no blank after it unless a comment follows"
	case key != "" && strings.HasPrefix(rest, "="):
		return "no value after the =; write one (a # begins a comment, also inside quotes) or put # in front of the line"
	case key != "" && strings.HasPrefix(rest, ":"):
		return "use = between key and value, not :"
	case key != "" && (rest == "" || rest[0] == '#' || !strings.Contains(rest, "=")):
		return "no = after the key; write key = value, or put # in front of a comment"
	case strings.Contains(rest, "="):
		return fmt.Sprintf("%s does not belong in a key; a key is words of letters, digits, _ and - joined by single dots", quoteFirst(line[len(key):]))
	}
	return "this is neither key = value nor a comment; a comment begins with #"
}

// quoteFirst quotes the first character of s, and of a dot the next one too.
func quoteFirst(s string) string {
	dot := len(s) - len(strings.TrimPrefix(s, "."))
	_, n := utf8.DecodeRuneInString(s[dot:])
	return strconv.Quote(s[:dot+n])
}

func syntaxProblem(src *source, line int, text string) Problem {
	return Problem{
		Position: Position{src.path, line},
		Text:     text,
		outcome:  &outcome{Kind: kindSyntax, File: src.name, Line: line, Column: []byte("1")},
	}
}

func latin1Problem(src *source, line int, key string) Problem {
	return Problem{
		Position: Position{src.path, line},
		Key:      key,
		Text:     "the value has a character above U+00FF; use only characters of ISO 8859-1 (Latin-1), written as UTF-8",
		outcome:  &outcome{Kind: kindLatin1, File: src.name, Line: line, Column: []byte("null")},
	}
}

// notUTF8 is the problem of a text that is not UTF-8, at its first bad byte.
func notUTF8(src *source, text string) Problem {
	valid := 0
	for valid < len(text) {
		r, n := utf8.DecodeRuneInString(text[valid:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		valid += n
	}
	line := 1 + strings.Count(text[:valid], "\n")
	return syntaxProblem(src, line, fmt.Sprintf("byte 0x%02X is not UTF-8; the whole file has to be, comments too", text[valid]))
}
