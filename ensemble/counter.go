package ensemble

import (
	"fmt"
	"time"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/session"
)

// What a folder says of the promises of its last session, in one transaction with the
// counter of its Open. A process that takes the folder over ends that session as soon as
// it opens one, and waits before for as long as the promises last.
var (
	counterKey    = []byte("leader_latch.open_counter") // of the last Open
	promisesOfKey = []byte("leader_latch.promises_of")  // the counter of the session that the next value is about
	promiseKey    = []byte("leader_latch.promise")      // how long its promises last, ns; 0: it has made none
)

// nextCounter writes the next open counter down and gives it. It is on disk before it is
// used, beside Raft's votes, so that neither goes back alone; and with it, that its
// session has made no promise yet.
func nextCounter(s *logstore.Store) (uint64, error) {
	last, err := s.GetUint64(counterKey)
	if err == nil {
		err = s.SetUint64s(logstore.Number{Key: counterKey, N: last + 1}, logstore.Number{Key: promisesOfKey, N: last + 1}, logstore.Number{Key: promiseKey})
	}
	if err != nil {
		return 0, fmt.Errorf("open counter: %w", err)
	}
	return last + 1, nil
}

// notePromise writes down how long the promises of the session with a counter last; 0: no
// promise does.
func notePromise(s *logstore.Store, counter uint64, lasts time.Duration) error {
	return s.SetUint64s(logstore.Number{Key: promisesOfKey, N: counter}, logstore.Number{Key: promiseKey, N: uint64(lasts)})
}

// boundBy gives for how long a process that takes over a folder is bound by the promises
// of the session with the last counter.
func boundBy(s *logstore.Store) (counter uint64, bound time.Duration, err error) {
	counter, err = s.GetUint64(counterKey)
	var of, lasts uint64
	if err == nil {
		of, err = s.GetUint64(promisesOfKey)
	}
	if err == nil {
		lasts, err = s.GetUint64(promiseKey)
	}
	switch {
	case err != nil || counter == 0:
	case of != counter: // an older program has opened that session, with a timing that it alone knew
		bound = session.Calm.Promise()
	default:
		bound = time.Duration(lasts)
	}
	return counter, bound, err
}

// note writes down that the session with a counter has made a promise, and lets those
// who wait for that ask again. If the disk fails, so does the node, which ends them.
func (n *Node) note(counter uint64) {
	err := notePromise(n.store, counter, n.cfg.Timing.Promise())
	n.mu.Lock()
	again := n.roster.Promised(counter, err == nil)
	n.mu.Unlock()
	for _, m := range again {
		m.Promised()
	}
}

// unpromise has the folder say that no promise lasts, where the node has ended its session in
// order: the next process has nothing to wait for. Should that fail, it waits.
func (n *Node) unpromise() {
	n.mu.Lock()
	counter, noted := n.roster.Noted()
	n.mu.Unlock()
	if noted {
		notePromise(n.store, counter, 0)
	}
}
