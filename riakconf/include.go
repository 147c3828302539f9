package riakconf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Limits that no honest configuration comes near; they turn a file that
// includes itself, or a device in the place of a file, into an error.
const (
	maxIncludeDepth = 32
	maxFiles        = 1000
	maxBytes        = 64 << 20 // of all files together
)

// overlay is the file beside riak.conf that may hold the keys that
// open-source Riak refuses to read.
const (
	overlay    = "leader-latch.conf"
	notOverlay = "leader_latch.conf" // but the keys in it begin so
)

// A reader turns files into settings.
type reader struct {
	path   string
	order  map[string]int // files in the order of their first reading
	reads  int
	budget int64 // bytes that may still be read

	problems []Problem
	warnings []Problem
	stopped  bool // a limit was reached; one problem says so
}

func newReader(path string) *reader {
	return &reader{path: path, order: make(map[string]int), budget: maxBytes}
}

// settings reads the main file and what belongs to it. The result is nil if a
// file has a problem of its own, as then no setting counts (riak.conf rule
// 23). A problem with a single value, a file or a reference that is missing,
// leaves the result standing with that key marked as broken.
func (r *reader) settings() *Settings {
	main := &source{path: r.path, name: filepath.Base(r.path)}
	list := r.file(main, nil)
	if main.name != overlay {
		list = append(list, r.overlay(main)...)
	}
	if len(r.problems) > 0 {
		return nil
	}
	s := newSettings(main, list)
	r.readValues(s)
	r.problems = append(r.problems, s.expand()...)
	return s.hold()
}

// overlay reads leader-latch.conf as if main included it on its last line.
func (r *reader) overlay(main *source) []setting {
	misnamed := main.beside(notOverlay)
	_, read := r.order[misnamed.path] // somebody may include it
	if _, err := os.Lstat(misnamed.path); err == nil && !read {
		r.warnings = append(r.warnings, Problem{
			Position: Position{File: misnamed.path},
			Text:     fmt.Sprintf("this file is not read; rename it to %s", overlay),
		})
	}
	src := main.beside(overlay)
	if _, err := os.Lstat(src.path); missing(err) {
		return nil
	}
	return r.file(src, nil)
}

// beside is the file that path, seen from src, stands for.
func (src *source) beside(path string) *source {
	if filepath.IsAbs(path) {
		return &source{path: filepath.Clean(path), name: filepath.Clean(path)}
	}
	return &source{
		path: filepath.Join(filepath.Dir(src.path), path),
		name: filepath.Join(filepath.Dir(src.name), path),
	}
}

// file reads a file and what it includes. The line of from, if any, is where
// it is included.
func (r *reader) file(src *source, from *setting) []setting {
	if _, known := r.order[src.path]; !known {
		r.order[src.path] = len(r.order)
	}
	r.reads++
	text, err := r.text(src.path)
	if err != nil {
		r.problems = append(r.problems, openProblem(src, from, err))
		return nil
	}
	list, problems := parse(src, text)
	r.problems = append(r.problems, problems...)
	if !slices.ContainsFunc(list, isInclude) {
		return list
	}
	var all []setting
	for _, s := range list {
		if isInclude(s) {
			all = append(all, r.include(s)...)
		} else {
			all = append(all, s)
		}
	}
	return all
}

func isInclude(s setting) bool { return s.key == "" }

// include reads the files that a line includes (riak.conf rules 29 and 30).
func (r *reader) include(s setting) []setting {
	names, err := r.match(s)
	if err != nil {
		r.problems = append(r.problems, openProblem(s.src.beside(filepath.Dir(s.value)), &s, err))
	}
	var all []setting
	for _, name := range names {
		src := s.src.beside(name)
		src.parent = s.src
		if text := r.tooFar(src); text != "" {
			r.stop(s, text)
		}
		if r.stopped {
			return nil
		}
		all = append(all, r.file(src, &s)...)
	}
	return all
}

// tooFar says why src must not be read, if so.
func (r *reader) tooFar(src *source) string {
	depth := 0
	for p := src.parent; p != nil; p = p.parent {
		if p.path == src.path {
			return fmt.Sprintf("with this line %s includes itself; take the line out", src.path)
		}
		depth++
	}
	switch {
	case depth > maxIncludeDepth:
		return fmt.Sprintf("included files go more than %d levels deep", maxIncludeDepth)
	case r.reads >= maxFiles:
		return fmt.Sprintf("more than %d files are included", maxFiles)
	}
	return ""
}

// stop reports that a limit is reached, once.
func (r *reader) stop(s setting, text string) {
	if !r.stopped {
		r.stopped = true
		r.problems = append(r.problems, limitProblem(s, text))
	}
}

func limitProblem(s setting, text string) Problem {
	return Problem{
		Position: s.position(),
		Key:      s.key,
		Text:     text,
		outcome:  &outcome{Kind: kindLimit, File: s.src.name, Line: s.line, Key: s.key},
	}
}

// match lists the files that an include line names. A star stands for any
// characters in the last part of the path, also for the dot that a name
// begins with; no match is no error (riak.conf rule 29).
func (r *reader) match(s setting) ([]string, error) {
	dir, pattern := filepath.Split(s.value)
	if !strings.Contains(pattern, "*") {
		if _, err := os.Lstat(s.src.beside(s.value).path); missing(err) || pattern == "" {
			r.warnings = append(r.warnings, Problem{
				Position: s.position(),
				Text:     fmt.Sprintf("there is no file %s to include; paths are relative to the file that has the line", s.value),
			})
			return nil, nil
		}
		return []string{s.value}, nil
	}
	files, err := os.ReadDir(s.src.beside(dir).path) // sorted by name
	if missing(err) {
		return nil, nil
	}
	var names []string
	for _, f := range files {
		if matches(pattern, f.Name()) {
			names = append(names, dir+f.Name())
		}
	}
	return names, err
}

// matches reports whether name is like pattern, a star being any characters.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	first, middle, last := parts[0], parts[1:len(parts)-1], parts[len(parts)-1]
	rest, ok := strings.CutPrefix(name, first)
	for _, part := range middle {
		var found bool
		_, rest, found = strings.Cut(rest, part)
		ok = ok && found
	}
	return ok && strings.HasSuffix(rest, last)
}

// readValues puts the content of a file in the place of every value that is
// exactly $(<PATH) (riak.conf rules 33 to 35). As in Riak a byte of the file
// is a character, whatever its encoding, and one final line end is removed.
func (r *reader) readValues(s *Settings) {
	for i := range s.list {
		set := &s.list[i]
		path, isFile := strings.CutPrefix(set.value, "$(<")
		path, closed := strings.CutSuffix(path, ")")
		path = strings.Trim(path, blanks)
		if !isFile || !closed || path == "" {
			continue
		}
		src := set.src.beside(path)
		text, err := r.text(src.path)
		if err != nil {
			r.problems = append(r.problems, openProblem(src, set, err))
			s.broken[set.key] = true
			continue
		}
		if line, ended := strings.CutSuffix(text, "\n"); ended {
			text = strings.TrimSuffix(line, "\r")
		}
		set.value = fromLatin1(text)
	}
}

// fromLatin1 turns bytes into the characters U+0000 to U+00FF.
func fromLatin1(bytes string) string {
	var b strings.Builder
	for i := range len(bytes) {
		b.WriteRune(rune(bytes[i]))
	}
	return b.String()
}

var errTooLarge = fmt.Errorf("the configuration is larger than %d MiB", maxBytes>>20)

// text reads a whole file.
func (r *reader) text(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		b.Grow(int(min(info.Size(), r.budget)) + 1)
	}
	n, err := io.Copy(&b, io.LimitReader(f, r.budget+1))
	if err != nil {
		return "", err
	}
	if n > r.budget {
		r.budget = 0
		return "", errTooLarge
	}
	r.budget -= n
	return b.String(), nil
}

// missing reports whether err says that there is no such file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// openProblem is the problem of a file that cannot be read: the main file, or
// one that the line of from names.
func openProblem(src *source, from *setting, err error) Problem {
	p := Problem{
		Position: Position{File: src.path},
		outcome:  &outcome{Kind: kindOpen, File: src.name},
	}
	subject := ""
	if from != nil {
		p.Position, p.Key = from.position(), from.key
		p.outcome.Key = from.key
		subject = strconv.Quote(src.path) + ": "
	}
	switch {
	case missing(err):
		p.outcome.Reason = "enoent"
		p.Text = "there is no such file; name the right one, or create it"
		if from == nil {
			p.Text = "there is no such file; name the right one by --config or LEADER_LATCH_CONFIG, or create it"
		}
	case errors.Is(err, syscall.EISDIR):
		p.outcome.Reason = "eisdir"
		p.Text = "this is a folder; name the file in it"
	case errors.Is(err, fs.ErrPermission):
		p.outcome.Reason = "eacces"
		p.Text = fmt.Sprintf("permission denied for user id %d; let it read the file, or run as the user who may", os.Geteuid())
	case errors.Is(err, errTooLarge):
		p.outcome.Kind = kindLimit
		p.Text = err.Error() + "; is the right file named?"
	default:
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		p.outcome.Reason = err.Error()
		p.Text = "the file cannot be read: " + err.Error()
	}
	p.Text = subject + p.Text
	return p
}

// inOrder sorts by file, in the order of reading, and by line. Overrides come
// last.
func (r *reader) inOrder(problems []Problem) Problems {
	rank := func(p Problem) int {
		if n, known := r.order[p.File]; known {
			return n
		}
		return len(r.order)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line))
	})
	return problems
}
