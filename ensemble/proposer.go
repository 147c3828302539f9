package ensemble

import (
	"slices"
	"time"

	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
)

// The proposer turns what the session wants into log entries. A batch is what
// has come in while the batches before are under way: no timer, so that a
// single JOIN does not wait, and load makes the batches grow.

// retryAfter is the pause after a batch was refused: there is no raft leader,
// or another one.
const retryAfter = 20 * time.Millisecond

// outcome is what came of a batch.
type outcome struct {
	last  uint64 // number of the batch's last operation
	index uint64 // of its entry in the log
	err   error  // it was not committed, or nobody knows
}

func (n *Node) runProposer() {
	outcomes := make(chan outcome, session.MaxOutstanding) // never full: there are no more under way
	outstanding := 0
	var committed []outcome // not yet applied by this node's own state machine
	var retry <-chan time.Time
	for {
		n.mu.Lock()
		committed = slices.DeleteFunc(committed, func(o outcome) bool {
			applied := n.roster.Settled(o.index, o.last)
			if applied {
				outstanding--
			}
			return applied
		})
		n.mu.Unlock()
		for outstanding < session.MaxOutstanding && retry == nil {
			n.mu.Lock()
			batch := n.roster.Batch(n.now())
			n.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			outstanding++
			last := state.SeqOf(batch[len(batch)-1])
			n.replica.Submit(batch, func(index uint64, err error) { outcomes <- outcome{last, index, err} })
		}
		select {
		case <-n.done:
			return
		case <-n.wakeProposer:
		case <-retry:
			retry = nil
		case o := <-outcomes:
			if o.err == nil {
				committed = append(committed, o)
				continue
			}
			n.log.Debug("batch not committed", "error", o.err)
			outstanding--
			n.mu.Lock()
			n.roster.Lost()
			n.mu.Unlock()
			retry = time.After(retryAfter)
		}
	}
}
