// Package permanent has the failures that no restart cures, and says what does.
package permanent

import "fmt"

// Error is a failure that no restart cures: a person has to change something. Its text
// says what.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf gives an [*Error] with such a text.
func Errorf(format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...)}
}

// CureFolder is what helps where a data folder's content does not fit together.
const CureFolder = "restore the whole data folder from one copy, or move it away to start as a new node"
