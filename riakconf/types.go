package riakconf

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// A Type says how the text of a value is read (riak.conf rules 46 to 51).
type Type struct {
	kind     kind
	words    []string      // of a word: those that it may be
	unit     time.Duration // of a duration: what it is rounded up to
	min, max int64         // of an integer
	port     int           // of an address: the usual one, for errors
}

type kind int

const (
	kindText kind = iota
	kindFlag
	kindWord
	kindInteger
	kindKeep
	kindSize
	kindDuration
	kindAddress
	kindFile
	kindFolder
	kindNode
	kindNodes
)

var (
	textType    = Type{kind: kindText}
	flagType    = Type{kind: kindFlag}
	numberType  = integer(math.MinInt64, math.MaxInt64)
	sizeType    = Type{kind: kindSize}
	addressType = Type{kind: kindAddress, port: clientPort}
	fileType    = Type{kind: kindFile}
	folderType  = Type{kind: kindFolder}
	nodeType    = Type{kind: kindNode}
	nodesType   = Type{kind: kindNodes}
)

func oneOf(words ...string) Type { return Type{kind: kindWord, words: words} }

func integer(min, max int64) Type { return Type{kind: kindInteger, min: min, max: max} }

func duration(unit time.Duration) Type { return Type{kind: kindDuration, unit: unit} }

// String describes the values, for a table of keys.
func (t Type) String() string {
	switch t.kind {
	case kindFlag:
		return "on or off"
	case kindWord:
		return alternatives(t.words)
	case kindInteger:
		switch {
		case t.min == math.MinInt64:
			return "a number"
		case t.max == math.MaxInt32:
			return fmt.Sprintf("a number from %d", t.min)
		}
		return fmt.Sprintf("a number from %d to %d", t.min, t.max)
	case kindKeep:
		return "a number, or current"
	case kindSize:
		return "a size, for example 64KB"
	case kindDuration:
		return "a duration, for example 1m30s"
	case kindAddress:
		return "host:port"
	case kindFile:
		return "a file"
	case kindFolder:
		return "a folder"
	case kindNode:
		return "name@host"
	case kindNodes:
		return "name@host or name@host:port, with commas between several"
	}
	return "text"
}

// parse reads a value. Its Go type is bool for a flag, int64 for a number or
// size, time.Duration for a duration, [Address], a slice of [Node] for nodes, and
// string for all others.
func (t Type) parse(s string) (any, error) {
	switch t.kind {
	case kindFlag:
		return parseFlag(s, "on", "off")
	case kindWord:
		return parseWord(s, t.words)
	case kindInteger:
		return parseRange(s, t.min, t.max)
	case kindKeep:
		if s == "current" { // riak.conf rule 59
			return int64(0), nil
		}
		return parseRange(s, 0, math.MaxInt32)
	case kindSize:
		return parseSize(s)
	case kindDuration:
		n, err := parseDuration(s, t.unit)
		if err == nil && n > math.MaxInt64/int64(t.unit) {
			err = fmt.Errorf("%s is longer than 292 years", s)
		}
		return time.Duration(n) * t.unit, err
	case kindAddress:
		return parseAddress(s, t.port)
	case kindNode:
		return s, checkNodename(s)
	case kindNodes:
		return parseNodes(s)
	}
	return s, nil
}

// parseFlag reads one of two words (riak.conf rule 47).
func parseFlag(s, yes, no string) (bool, error) {
	switch s {
	case yes:
		return true, nil
	case no:
		return false, nil
	}
	return false, fmt.Errorf("%s is neither %s nor %s", show(s), yes, no)
}

// parseWord reads one of several words (riak.conf rule 48).
func parseWord(s string, words []string) (string, error) {
	for _, w := range words {
		if s == w {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s is not possible here; write %s", show(s), alternatives(words))
}

// parseRange reads an integer from min to max.
func parseRange(s string, min, max int64) (int64, error) {
	n, err := parseInteger(s)
	switch {
	case err != nil:
		return 0, err
	case n.Cmp(big.NewInt(min)) < 0:
		return 0, fmt.Errorf("%s is below %d", s, min)
	case n.Cmp(big.NewInt(max)) > 0:
		return 0, fmt.Errorf("%s is above %d", s, max)
	}
	return n.Int64(), nil
}

// parseInteger reads an optional sign and digits (riak.conf rule 49).
func parseInteger(s string) (*big.Int, error) {
	_, digits := cutSign(s)
	if !isDigits(digits) {
		return nil, fmt.Errorf("%s is not a whole number; write digits only, for example 64", show(s))
	}
	if len(s) > maxNumber {
		return nil, errLongNumber
	}
	n, _ := new(big.Int).SetString(s, 10)
	return n, nil
}

// parseSize reads a number of bytes, rounded up (riak.conf rule 49).
func parseSize(s string) (int64, error) {
	units := []struct {
		name  string
		bytes int64
	}{{"KB", 1 << 10}, {"kb", 1 << 10}, {"MB", 1 << 20}, {"mb", 1 << 20}, {"GB", 1 << 30}, {"gb", 1 << 30}}
	number, factor := s, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = n, u.bytes
		}
	}
	sign, decimal := cutSign(number)
	r, err := parseDecimal(decimal)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size; write a number and nothing, KB, MB or GB after it, for example 64KB", show(s))
	}
	if sign == "-" {
		r.Neg(r)
	}
	n := ceil(r.Mul(r, new(big.Rat).SetInt64(factor)))
	if !n.IsInt64() {
		return 0, fmt.Errorf("%s is too large", s)
	}
	return n.Int64(), nil
}

// durationUnits in the order in which they are tried: ms before m.
var durationUnits = []struct {
	name   string
	length time.Duration
}{
	{"ms", time.Millisecond},
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"d", 24 * time.Hour},
	{"w", 7 * 24 * time.Hour},
	{"f", 14 * 24 * time.Hour},
}

// parseDuration reads pairs of number and unit and counts them in a unit,
// rounded up (riak.conf rule 50).
func parseDuration(s string, in time.Duration) (int64, error) {
	total := new(big.Rat)
	for rest := strings.ToLower(s); rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if n < 0 {
			n = len(rest)
		}
		number := rest[:n]
		rest = rest[n:]
		amount, err := parseDecimal(number)
		if err != nil || number[0] == '0' && !strings.Contains(number, ".") {
			return 0, durationError(s)
		}
		var unit time.Duration
		for _, u := range durationUnits {
			if tail, ok := strings.CutPrefix(rest, u.name); ok {
				unit, rest = u.length, tail
				break
			}
		}
		if unit == 0 {
			return 0, durationError(s)
		}
		total.Add(total, amount.Mul(amount, new(big.Rat).SetInt64(int64(unit))))
	}
	if total.Sign() == 0 {
		return 0, durationError(s)
	}
	n := ceil(total.Quo(total, new(big.Rat).SetInt64(int64(in))))
	if !n.IsInt64() {
		return 0, fmt.Errorf("%s is too long", show(s))
	}
	return n.Int64(), nil
}

func durationError(s string) error {
	return fmt.Errorf("%s is not a duration; write numbers with f, w, d, h, m, s or ms after them and no blanks, "+
		"for example 1m30s; zero is not possible", show(s))
}

// maxNumber is the most characters that a number has; more than that only
// costs time.
const maxNumber = 100

var errLongNumber = fmt.Errorf("a number of more than %d characters", maxNumber)

// parseDecimal reads digits, with or without decimals, also .5.
func parseDecimal(s string) (*big.Rat, error) {
	whole, fraction, point := strings.Cut(s, ".")
	if point && !isDigits(fraction) || !isDigits(whole) && !(point && whole == "") {
		return nil, errors.New("not a number")
	}
	if len(s) > maxNumber {
		return nil, errLongNumber
	}
	r, _ := new(big.Rat).SetString(s)
	return r, nil
}

// ceil is the least integer that is not below r.
func ceil(r *big.Rat) *big.Int {
	n, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return n
}

func cutSign(s string) (sign, rest string) {
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		return s[:1], s[1:]
	}
	return "", s
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// show quotes a value for a message, cut if it is long.
func show(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "..."
	}
	return strconv.Quote(s)
}

// alternatives is "a, b or c".
func alternatives(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
