package latch

import (
	"bytes"
	"errors"
	"strconv"
)

// The bounds of a client's line; PROTOCOL.md, Lines and Names.
const (
	maxLine = 1024 // bytes before the line end
	maxName = 255  // bytes of a group's or a client's name
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

// parseJoin takes the names from a JOIN. Anything that is not one is for the
// caller to answer with ERROR: there is no other command.
func parseJoin(line []byte) (group, client []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(wordJoin))
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return nil, nil, false
	}
	group, rest = cutName(rest)
	client, rest = cutName(rest)
	if !isName(group) || !isName(client) || len(bytes.TrimLeft(rest, " ")) > 0 {
		return nil, nil, false
	}
	return group, client, true
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
	if len(b) == 0 || len(b) > maxName {
		return false
	}
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

func appendEnd(b []byte, crlf bool) []byte {
	if crlf {
		return append(b, "\r\n"...)
	}
	return append(b, '\n')
}
