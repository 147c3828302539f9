package ensemble

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/permanent"
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

// opens counts the Opens of a node's sessions, and finds out whether its folder knows of all
// that there were. It is safe for concurrent use.
type opens struct {
	store   *logstore.Store
	cluster *cluster
	failed  func(error) // ends the node
	wake    func()      // has the node look again

	last    atomic.Uint64 // the counter on disk
	vetted  atomic.Bool   // that one is not behind what the cluster knows
	vetting atomic.Bool   // this is being found out
}

// next writes the next counter down.
func (o *opens) next() (uint64, error) {
	counter, err := nextCounter(o.store)
	if err == nil {
		o.last.Store(counter)
	}
	return counter, err
}

// mayOpen reports whether a session may be opened by what the folder knows. If nobody knows
// yet, that is being found out.
func (o *opens) mayOpen() bool {
	if o.vetted.Load() {
		return true
	}
	if o.vetting.CompareAndSwap(false, true) {
		go func() {
			defer o.vetting.Store(false)
			o.vet()
		}()
	}
	return false
}

// vet has the raft leader say whether it knows a later session of this node than
// the node itself does, or has seen a longer log of it, before the first one is opened:
// what its own folder says is older where that was restored from a copy. It asks when its
// log has met the raft leader's: if that began with a refusal, the raft leader knows why.
func (o *opens) vet() {
	switch leader := o.cluster.replica.LikelyRaftLeader(); leader {
	case "":
		return
	case o.cluster.self:
	default:
		s, ok := o.cluster.replica.Server(leader)
		if !ok {
			return
		}
		if !o.cluster.replica.HasHeard() {
			return
		}
		var counter uint64
		_, err := o.cluster.ask(o.cluster.life, clusterport.Admin, o.cluster.replica.AddressOf(s), leader, askCounter, nil, &counter)
		if lost, ok := errors.AsType[lossError](err); ok {
			o.failed(o.goneBack(lost.Error()))
			return
		}
		if err != nil {
			return // asked again at the next look
		}
		o.check(counter)
	}
	o.vetted.Store(true)
	o.wake()
}

// check fails the node if the state has accepted an Open of it that its
// own folder knows nothing of: the folder was restored from a copy, and with it
// Raft's votes and log have gone back.
func (o *opens) check(inState uint64) {
	if known := o.last.Load(); inState > known {
		o.failed(o.goneBack(fmt.Sprintf("the cluster has seen session %d of this node, its folder only knows %d", inState, known)))
	}
}

// goneBack is that the folder is an older one than the node has had.
func (o *opens) goneBack(seen string) error {
	return permanent.Errorf("%s: the folder %s was restored from a copy, and has forgotten what the node promised since; "+
		"move it away and let the node join as a new one", seen, o.cluster.dir.path)
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
