package ensemble

import (
	"errors"
	"sync"

	"leaderlatch/ensemble/permanent"
)

// ErrUnavailable is returned by [Node.Join] when no membership can come about
// at this node now: the cluster has never reached its minimum size, or the
// node is stopping or has failed.
var ErrUnavailable = errors.New("elections are unavailable")

// ErrAnew is why a node fails that has left its cluster or is about to join
// another: its life is over in order, and the folder is that of a new node,
// which [Start] starts when this one is stopped.
var ErrAnew error = &orderlyError{errors.New("the node begins anew")}

// ErrUnreachable is wrapped by errors about a node that could not be asked.
var ErrUnreachable = errors.New("cannot be reached")

// PermanentError is a failure that no restart cures: a person has to change
// something. Its text says what.
type PermanentError = permanent.Error

// orderlyError is a failure after which the node can still end in order: it goes
// on until it is stopped.
type orderlyError struct{ error }

func (e *orderlyError) Unwrap() error { return e.error }

func inOrder(err error) bool {
	_, ok := errors.AsType[*orderlyError](err)
	return ok
}

// failure is why a node cannot go on. The first one counts.
type failure struct {
	once sync.Once
	err  error
	set  chan struct{} // closed once err is set
}

func newFailure() *failure { return &failure{set: make(chan struct{})} }

// fail sets the failure, and calls then.
func (f *failure) fail(err error, then func()) {
	f.once.Do(func() {
		f.err = err
		close(f.set)
		then()
	})
}

// get gives the failure, nil while there is none.
func (f *failure) get() error {
	select {
	case <-f.set:
		return f.err
	default:
		return nil
	}
}
