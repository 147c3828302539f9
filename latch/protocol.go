package latch

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// The bounds of a client's line; PROTOCOL.md, Lines and Names.
const (
	maxLine = 1024 // bytes before the line end
	maxName = 255  // bytes of a group's or a client's name
)

// The bounds of what a keyed JOIN has beside the names; PROTOCOL.md, Keyed members.
const (
	minKey, maxKey = 16, 64 // bytes
	maxHold        = time.Hour
	maxHoldDigits  = len("3600000") // of milliseconds
)

// maxInput is what a connection needs to hold to tell the longest line, with
// its CRLF, from one that is too long.
const maxInput = maxLine + len("\r\n")

// The words of the wire.
const (
	wordJoin          = "JOIN"
	wordLeader        = "LEADER"
	wordJoinFailed    = "JOIN_FAILED SERVICE_UNAVAILABLE"
	wordAlreadyJoined = "ALREADY_JOINED"
	wordError         = "ERROR"

	wordPing  = "PING"
	wordAlive = "ALIVE"
	wordLeave = "LEAVE"

	wordObserve  = "OBSERVE"
	wordNoLeader = "NO_LEADER"

	wordKey  = "key="
	wordHold = "hold="
	wordFin  = "fin=end"
)

// maxAnswer is the length of the longest answer, ALREADY_JOINED with two names.
const maxAnswer = len(wordAlreadyJoined) + 2*(len(" ")+maxName) + len("\r\n")

// errLineTooLong ends a connection; PROTOCOL.md, Lines.
var errLineTooLong = errors.New("line of more than 1024 bytes")

// cutLine cuts the first line off input. line is without its line end, size is
// what it takes of input with it, and crlf tells which line end it was. A size
// of 0 means that the line is not complete yet.
func cutLine(input []byte) (line []byte, size int, crlf bool, err error) {
	i := bytes.IndexByte(input, '\n')
	line = input
	if i >= 0 {
		line, size = input[:i], i+1
	}
	// A CR at the end belongs to the line end, or will when its LF comes.
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line, crlf = line[:n-1], true
	}
	if len(line) > maxLine {
		return nil, 0, false, errLineTooLong
	}
	if size == 0 {
		return nil, 0, false, nil
	}
	return line, size, crlf, nil
}

// verb is what a line asks for.
type verb uint8

const (
	noVerb verb = iota // it is no command
	verbJoin
	verbPing
	verbLeave
	verbObserve
)

// request is a line of a client. What it says points into the line.
type request struct {
	verb          verb
	group, client []byte // of a JOIN; of an OBSERVE the group
	key           []byte // of a JOIN of a keyed member, else nil
	hold          time.Duration
	finEnds       bool // fin=end
}

// parse takes a line for what it is on a listener with extensions, or without: there JOIN
// with two names is the only command.
func parse(line []byte, extensions bool) (r request) {
	line = bytes.TrimRight(line, " ")
	if extensions {
		switch string(line) {
		case wordPing:
			return request{verb: verbPing}
		case wordLeave:
			return request{verb: verbLeave}
		}
	}
	if rest, ok := cutWord(line, wordObserve); ok && extensions {
		if r.group, rest = cutName(rest); !isName(r.group) || len(rest) > 0 {
			return request{}
		}
		r.verb = verbObserve
		return r
	}
	rest, ok := cutWord(line, wordJoin)
	if !ok {
		return request{}
	}
	r.verb = verbJoin
	r.group, rest = cutName(rest)
	r.client, rest = cutName(rest)
	if !isName(r.group) || !isName(r.client) || len(rest) > 0 && !(extensions && r.parseKeyed(rest)) {
		return request{}
	}
	return r
}

// cutWord cuts off the first word of a line, if it is this one and others follow.
func cutWord(line []byte, word string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(word))
	return rest, ok && len(rest) > 0 && rest[0] == ' '
}

// parseKeyed takes the words behind the names of a JOIN, in any order. It reports false
// if they are not those of a keyed member.
func (r *request) parseKeyed(words []byte) bool {
	holds := false
	for len(words) > 0 {
		var word []byte
		word, words = cutName(words)
		key, isKey := bytes.CutPrefix(word, []byte(wordKey))
		hold, isHold := bytes.CutPrefix(word, []byte(wordHold))
		switch {
		case isKey && r.key == nil && len(key) >= minKey && len(key) <= maxKey && isPrintable(key):
			r.key = key
		case isHold && !holds:
			if r.hold, holds = parseHold(hold); !holds {
				return false
			}
		case string(word) == wordFin && !r.finEnds:
			r.finEnds = true
		default:
			return false
		}
	}
	return r.key != nil && holds
}

// parseHold takes a number of milliseconds, in digits.
func parseHold(b []byte) (hold time.Duration, ok bool) {
	if len(b) == 0 || len(b) > maxHoldDigits {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		hold = 10*hold + time.Duration(c-'0')*time.Millisecond
	}
	return hold, hold <= maxHold
}

// cutName cuts off the first run of bytes that are not spaces.
func cutName(b []byte) (name, rest []byte) {
	b = bytes.TrimLeft(b, " ")
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i], b[i:]
	}
	return b, nil
}

// isName reports whether b can be the name of a group or a client;
// PROTOCOL.md, Names.
func isName(b []byte) bool {
	return len(b) > 0 && len(b) <= maxName && isPrintable(b)
}

// isPrintable reports whether b is ASCII that can be seen.
func isPrintable(b []byte) bool {
	for _, c := range b {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return true
}

// The answers. Each appends one line to b, ended as the client's first line was.

func appendLeader(b []byte, name string, crlf bool) []byte {
	b = append(append(b, wordLeader+" "...), name...)
	return appendEnd(b, crlf)
}

// appendFencedLeader is appendLeader for listeners with fencing tokens;
// PROTOCOL.md, Fencing tokens.
func appendFencedLeader(b []byte, name string, token uint64, crlf bool) []byte {
	b = append(append(b, wordLeader+" "...), name...)
	b = strconv.AppendUint(append(b, ' '), token, 10)
	return appendEnd(b, crlf)
}

// appendNoLeader says that nobody leads, to observers; PROTOCOL.md, Observers.
func appendNoLeader(b []byte, token uint64, crlf bool) []byte {
	b = strconv.AppendUint(append(b, wordNoLeader+" "...), token, 10)
	return appendEnd(b, crlf)
}

func appendAlreadyJoined(b []byte, group, client string, crlf bool) []byte {
	b = append(append(b, wordAlreadyJoined+" "...), group...)
	b = append(append(b, ' '), client...)
	return appendEnd(b, crlf)
}

func appendJoinFailed(b []byte, crlf bool) []byte {
	return appendEnd(append(b, wordJoinFailed...), crlf)
}

func appendError(b []byte, crlf bool) []byte {
	return appendEnd(append(b, wordError...), crlf)
}

func appendAlive(b []byte, lasts time.Duration, crlf bool) []byte {
	b = strconv.AppendInt(append(b, wordAlive+" "...), lasts.Milliseconds(), 10)
	return appendEnd(b, crlf)
}

func appendEnd(b []byte, crlf bool) []byte {
	if crlf {
		return append(b, "\r\n"...)
	}
	return append(b, '\n')
}
