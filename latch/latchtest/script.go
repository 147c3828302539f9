package latchtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Script is a transcript of some connections with a server. Its lines are
//
//	# comment             the first one is the claim that the script proves
//	# rule 7              names a rule of PROTOCOL.md that it proves
//	@ key = value         a setting of riak.conf that the server must have
//	1> TEXT               connection 1 sends a line
//	1< TEXT               connection 1 receives exactly this line next
//	1>> "TEXT\r\n"        sends these bytes, in one write
//	1<< "TEXT\r\n"        receives exactly these bytes next
//	1< (closed)           receives the end: the server's FIN, not a reset
//	1. close              closes; also: half-close, reset
//
// In a line that is received <ms> stands for any number, and <t1> for the same number wherever
// the script says <t1>, which is lower than that for <t2>.
//
// Bytes are Go strings, several of them where needed, each repeated by *N: "a"*300.
// A connection is opened by its first line. It sends and expects lines that end
// in LF, or in CRLF if that is how the first bytes sent on it end.
//
// When all lines are played, each connection that is still open is sent a line
// that is no command, and the very next bytes must be the ERROR that answers it:
// nothing else was received. Then all are closed, and the server must close too.
type Script struct {
	File     string // as given to Parse
	Claim    string
	Rules    []int
	Settings []Setting
	steps    []step
}

// Setting is one line of riak.conf that a script asks for.
type Setting struct {
	Key, Value string
	Line       int
}

// step is one line of a script that is played.
type step struct {
	line int
	conn string
	verb verb
	text []byte
}

type verb string

const (
	sendLine    verb = ">"
	sendBytes   verb = ">>"
	expectLine  verb = "<"
	expectBytes verb = "<<"
	expectEnd   verb = "< (closed)"
	actClose    verb = ". close"
	actHalf     verb = ". half-close"
	actReset    verb = ". reset"
)

var (
	stepLine    = regexp.MustCompile(`^(\d+)(>>|<<|>|<|\.)(?: (.*))?$`)
	settingLine = regexp.MustCompile(`^@ (\S+) = (.*)$`)
	ruleComment = regexp.MustCompile(`^rule (\d+)$`)
	numberWord  = regexp.MustCompile(`<(ms|t\d)>`)
	quotedBytes = regexp.MustCompile(`^("(?:[^"\\]|\\.)*")(?:\*(\d+))?(?: +|$)`)
)

// Load reads all scripts of a folder, its files *.txt.
func Load(dir string) ([]*Script, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no transcripts in %s", dir)
	}
	var scripts []*Script
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s, err := Parse(file, text)
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// Parse reads one script. file is for messages.
func Parse(file string, text []byte) (*Script, error) {
	s := &Script{File: file}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := s.parseLine(n, strings.TrimSuffix(string(line), "\n")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	if s.Claim == "" {
		return nil, fmt.Errorf("%s: no comment that says what the script proves", file)
	}
	return s, nil
}

func (s *Script) parseLine(n int, line string) error {
	if strings.TrimSpace(line) == "" {
		return nil
	}
	if comment, ok := strings.CutPrefix(line, "#"); ok {
		comment = strings.TrimSpace(comment)
		if m := ruleComment.FindStringSubmatch(comment); m != nil {
			rule, err := strconv.Atoi(m[1])
			s.Rules = append(s.Rules, rule)
			return err
		}
		if s.Claim == "" {
			s.Claim = comment
		}
		return nil
	}
	if m := settingLine.FindStringSubmatch(line); m != nil {
		s.Settings = append(s.Settings, Setting{m[1], m[2], n})
		return nil
	}
	m := stepLine.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("%q is no line of a transcript", line)
	}
	st := step{line: n, conn: m[1], verb: verb(m[2]), text: []byte(m[3])}
	switch {
	case line == st.conn+string(expectEnd):
		st.verb = expectEnd
	case st.verb == ".":
		st.verb = verb(". " + m[3])
		if st.verb != actClose && st.verb != actHalf && st.verb != actReset {
			return fmt.Errorf("%q is neither close nor half-close nor reset", m[3])
		}
	case st.verb == sendBytes || st.verb == expectBytes:
		text, err := unquote(m[3])
		if err != nil {
			return err
		}
		st.text = text
	}
	s.steps = append(s.steps, st)
	return nil
}

// unquote reads Go strings, each with an optional *N behind it.
func unquote(s string) ([]byte, error) {
	var out []byte
	for s != "" {
		m := quotedBytes.FindStringSubmatch(s)
		if m == nil {
			return nil, fmt.Errorf("%s is not a quoted string", s)
		}
		text, err := strconv.Unquote(m[1])
		if err != nil {
			return nil, fmt.Errorf("%s is not a Go string", m[1])
		}
		times := 1
		if m[2] != "" {
			if times, err = strconv.Atoi(m[2]); err != nil {
				return nil, err
			}
		}
		out = append(out, bytes.Repeat([]byte(text), times)...)
		s = s[len(m[0]):]
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no bytes")
	}
	return out, nil
}
