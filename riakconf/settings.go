package riakconf

import (
	"encoding/json"
	"iter"
	"path/filepath"
	"strings"

	"github.com/magiconair/properties"
)

// Settings are the settings of a configuration: after includes, with the last
// of duplicates in the place of the first (riak.conf rule 22), references
// resolved, types not judged. They do not change any more, and any goroutine
// may read them.
type Settings struct {
	props    *properties.Properties // key to value, in order; what readers get, once hold was called
	list     []setting              // the same, with the line that won; what is worked on
	index    map[string]int32       // key to place in list
	broken   map[string]bool        // keys whose value could not be found out
	defaults map[string]string      // of the schema's keys that are not set
	main     *source

	overruled map[string]setting // of keys with a meaning here: the line before the one that wins, where that is in the same file and has another value
}

// newSettings puts the settings of all files in order. It takes list over.
func newSettings(main *source, list []setting) *Settings {
	s := &Settings{
		index:    make(map[string]int32, len(list)),
		broken:   make(map[string]bool),
		defaults: make(map[string]string),
		main:     main,

		overruled: make(map[string]setting),
	}
	s.list = list[:0]
	for _, set := range list {
		if i, again := s.index[set.key]; again {
			s.overrule(s.list[i], set)
			s.list[i] = set
		} else {
			s.index[set.key] = int32(len(s.list))
			s.list = append(s.list, set)
		}
	}
	return s
}

// overrule notes that a setting gives way to another one. Between files that is what they
// are for, and what a start script appends again and again says the same.
func (s *Settings) overrule(before, by setting) {
	if k, known := row(by.key); !known || k.Foreign {
		return
	}
	switch {
	case before.src != by.src:
		delete(s.overruled, by.key)
	case before.value != by.value:
		s.overruled[by.key] = before
	}
}

// hold has readers get what the list has come to. It returns s.
func (s *Settings) hold() *Settings {
	s.props = properties.NewProperties()
	s.props.DisableExpansion = true // it would expand ${..}, and from the environment
	for _, set := range s.list {
		s.props.Set(set.key, set.value)
	}
	return s
}

// Get returns the value of a key that the files set.
func (s *Settings) Get(key string) (value string, set bool) { return s.props.Get(key) }

// All yields the keys and values that the files set, in order. A dot inside a
// word of a key is written \. as in the file.
func (s *Settings) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, key := range s.props.Keys() {
			value, _ := s.props.Get(key)
			if !yield(key, value) {
				return
			}
		}
	}
}

// position is where a key is set, or the main file as a whole.
func (s *Settings) position(key string) Position {
	if i, set := s.index[key]; set {
		return s.list[i].position()
	}
	return Position{File: s.main.path}
}

// MarshalJSON is {"settings":[[key,value],...]}, what the files set in order.
func (s *Settings) MarshalJSON() ([]byte, error) {
	pairs := make([][2]string, 0, s.props.Len())
	for key, value := range s.All() {
		pairs = append(pairs, [2]string{key, value})
	}
	return json.Marshal(map[string][][2]string{"settings": pairs})
}

// A Setting is a key with the value that is in effect.
type Setting struct {
	Key, Value string
	Path       string // of a file or folder of this service: in full; else ""
	Default    bool   // no file sets it
	Idle       bool   // it has no effect here but on what refers to it
}

// Effective lists what the files set, in order, and then the defaults of the
// other keys that matter to this service, in the order of [Keys]. Keys
// without a default are left out, and so are patterns: a key like
// listener.leader_latch.$name is there only where a line sets it (riak.conf
// rule 53).
func (s *Settings) Effective() []Setting {
	var all []Setting
	for key, value := range s.All() {
		all = append(all, s.setting(key, value))
	}
	b := newBuilder(s, nil)
	b.build() // for the defaults that depend on other settings
	for _, k := range schema {
		if _, set := s.Get(k.Name); set || strings.Contains(k.Name, "$") {
			continue
		}
		value := s.defaults[k.Name]
		if k.derived != nil {
			value = k.derived(b.config)
		}
		if value != "" {
			e := s.setting(k.Name, value)
			e.Default = true
			all = append(all, e)
		}
	}
	return all
}

// setting is what a key with a value means here.
func (s *Settings) setting(key, value string) Setting {
	k, known := row(key)
	e := Setting{Key: key, Value: value, Idle: !known || k.Foreign || k.idle}
	if k.Type.kind == kindFile || k.Type.kind == kindFolder {
		e.Path, _ = s.absolute(value) // it is relative where the working folder cannot be found out
	}
	return e
}

// absolute is a path of a file or folder in full: relative ones are relative
// to the parent of the folder of riak.conf, as with Riak.
func (s *Settings) absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	main, err := filepath.Abs(s.main.path)
	return filepath.Join(filepath.Dir(filepath.Dir(main)), path), err
}

// words splits a key at its dots, but not at those that are written \. (riak.conf rule 10).
func words(key string) []string {
	var all []string
	for {
		n := wordLen(key)
		all = append(all, key[:n])
		if n == len(key) {
			return all
		}
		key = key[n+1:]
	}
}

// unescape is a word of a key as it is meant.
func unescape(word string) string { return strings.ReplaceAll(word, `\.`, ".") }
