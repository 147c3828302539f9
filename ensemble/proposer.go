package ensemble

import (
	"time"

	"github.com/hashicorp/raft"
)

// The proposer turns what the session wants into log entries. A batch is what
// has come in while the batches before are under way: no timer, so that a
// single JOIN does not wait, and load makes the batches grow.

// maxOutstanding is how many batches of a node are under way at once.
const maxOutstanding = 2

// retryAfter is the pause after a batch was refused: there is no raft leader,
// or another one.
const retryAfter = 20 * time.Millisecond

func (n *Node) runProposer() {
	type result struct {
		last uint64 // number of the batch's last operation
		err  error
	}
	results := make(chan result, maxOutstanding)
	outstanding := 0
	var retry <-chan time.Time
	for {
		for outstanding < maxOutstanding && retry == nil {
			n.mu.Lock()
			batch := n.roster.session.cut(n.now())
			n.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			outstanding++
			future := n.propose(batch)
			last := seqOf(batch[len(batch)-1])
			go func() { results <- result{last, future.Error()} }()
		}
		select {
		case <-n.done:
			return
		case <-n.wakeProposer:
		case <-retry:
			retry = nil
		case r := <-results:
			outstanding--
			n.mu.Lock()
			// A committed batch has been applied by now. What it did not
			// bring to acceptance stood behind a gap, left by a lost one.
			if _, missing := n.roster.session.accepted(r.last); r.err != nil || missing {
				n.roster.session.rewind()
			}
			n.mu.Unlock()
			if r.err != nil {
				n.log.Debug("batch not committed", "error", r.err)
				retry = time.After(retryAfter)
			}
		}
	}
}

// propose puts operations into the log as one entry.
func (n *Node) propose(ops []Op) raft.ApplyFuture {
	return n.raft.Apply(encodeEntry(Entry{At: time.Now(), Ops: ops}), n.cfg.Timing.Lease)
}
