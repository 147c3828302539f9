// Package riakconf reads an operator's riak.conf into plain typed values.
//
// It reads the whole grammar of Riak's configuration files: what Riak 2.1
// accepts as Riak 2.1 reads it, what only newer versions accept (lines of
// blanks, include, values from files, numeric IPv6 addresses) as they do, and
// what makes Riak's own tools crash is an ordinary error. The rules are
// numbered, in RULES.md; comments cite them as "riak.conf rule N".
//
// The file belongs to Riak too. Keys that are not in the schema here are
// accepted and left alone, and their values are never judged; a near miss of
// a key of this service gets a warning.
//
// A later line wins over an earlier one with the same key, the file
// leader-latch.conf beside riak.conf wins over riak.conf, and an [Override],
// which is how a flag of the command line comes in, wins over both.
//
// Start with [Load] for a checked [Config], or with [Read] for the settings
// as they stand, their types not judged. Both report all that is wrong at
// once, as [Problems]. [Keys] is the schema.
//
// The data flows one way, a file for each step:
//
//	parse.go    text to settings; knows no key
//	include.go  files to one list of settings; values from files
//	expand.go   references
//	settings.go the settings in order, and where each stands
//	types.go    text to typed values; address.go and node.go for two of them
//	schema.go   the keys: type, default, help
//	config.go   the Config; hints.go for keys that miss it narrowly
package riakconf

import "slices"

// An Override is a setting that comes from elsewhere and wins over the files.
type Override struct {
	Key    string // as in riak.conf
	Value  string
	Origin string // what to call it in an error, for example --minimum-nodes
}

// Read reads the settings of the riak.conf at path and of the
// leader-latch.conf beside it, if there is one: included files in their
// place, duplicates gone, references resolved. Types are not judged.
// The error, if any, is of type [Problems].
func Read(path string) (*Settings, error) {
	r := newReader(path)
	s := r.settings()
	if len(r.problems) > 0 {
		return nil, r.inOrder(r.problems)
	}
	return s, nil
}

// Load reads the riak.conf at path as [Read] does, puts the overrides on top
// and checks everything that this service uses.
//
// The warnings are in order of position and come with an error as well as
// without. The error, if any, is of type [Problems] and has all that is
// wrong; only a file that cannot be read, or has an error of syntax or
// encoding, hides what else is wrong, as none of its settings count
// (riak.conf rule 23).
func Load(path string, overrides ...Override) (*Config, []Problem, error) {
	r := newReader(path)
	s := r.settings()
	if s == nil {
		return nil, r.inOrder(r.warnings), r.inOrder(r.problems)
	}
	b := newBuilder(s, overrides)
	b.build()
	warnings := r.inOrder(slices.Concat(r.warnings, b.warnings))
	if problems := slices.Concat(r.problems, b.problems); len(problems) > 0 {
		return nil, warnings, r.inOrder(problems)
	}
	return b.config, warnings, nil
}

// DataDir gives the folder of this service's own state, as [Config.DataDir] does, for who
// has to find it whatever is wrong with the other settings. The error, if any, is of
// type [Problems]: a file cannot be read, or the setting of the folder is wrong.
func DataDir(path string) (string, error) {
	r := newReader(path)
	s := r.settings()
	if s == nil {
		return "", r.inOrder(r.problems)
	}
	b := newBuilder(s, nil)
	b.build()
	if b.config.PlatformDataDir == "" {
		return "", r.inOrder(slices.Concat(r.problems, b.problems))
	}
	return b.config.DataDir(), nil
}

// CookieFile gives the file in which the secret of the cluster stands, or the one that it
// is to have, or "" where no file sets it or it is the default, which is none. The error, if any, is of type
// [Problems]: a file cannot be read.
func CookieFile(path string) (string, error) {
	r := newReader(path)
	s := r.settings()
	if s == nil {
		return "", r.inOrder(r.problems)
	}
	for _, key := range []string{keyCookie, keySecondCookie} {
		if cookie, set := s.Get(key); set && cookie != defaultCookie {
			return s.position(key).File, nil
		}
	}
	return "", nil
}
