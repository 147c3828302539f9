package ensemble

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"leaderlatch/ensemble/state"
)

// electionLog logs changes of groups' leaders as this node applies them. Applying waits for
// no log: a goroutine writes the lines, at a pace at which the log keeps up, as many groups
// may lose their leaders in one entry. Of more than it holds it says how many there were.
//
// Only what is applied while the node has a session is logged: entries that it applies
// again at a start, or late, would be told as if they were new. The nodes that had a
// session then have told them.
type electionLog struct {
	log *slog.Logger

	mu      sync.Mutex // taken last
	waiting []election
	omitted int

	wake chan struct{} // has room for one
	lost map[string]state.Left
}

// election is a change of a group's leader.
type election struct {
	at              time.Time
	group, from, to string // no name: nobody
	token           uint64 // of the new leader
	node, reason    string
}

const (
	maxElections = 1 << 16 // that wait to be logged: some 10 MB

	// The pace: the queues of a log hold 4,096 lines, and other lines come too.
	electionsAtOnce = 1000
	electionsPause  = 50 * time.Millisecond
)

func newElectionLog(log *slog.Logger) *electionLog {
	return &electionLog{log: log, wake: make(chan struct{}, 1), lost: make(map[string]state.Left)}
}

// applied takes note of the changes among the effects of an entry. It is called with one
// entry after the other, and does not wait.
func (l *electionLog) applied(s *state.State, effects []state.Effect) {
	var changes []election
	name := func(id state.NodeID) string {
		n, _ := s.Node(id)
		return n.Name
	}
	for _, e := range effects {
		switch e := e.(type) {
		case state.Joined:
			if e.Leader == e.Client {
				changes = append(changes, election{group: e.Group, to: e.Client, token: e.Token, node: name(e.Node), reason: "it is the first member of the group"})
			}
		case state.Left:
			if e.Led {
				l.lost[e.Group] = e
			}
			if e.Last {
				lost := l.lost[e.Group]
				changes = append(changes, election{group: e.Group, from: lost.Client, node: name(lost.Node), reason: reasonOf(s, lost)})
			}
		case state.SteppedDown:
			l.lost[e.Group] = state.Left{Client: e.Client, Node: e.Node, Reason: state.ReasonSteppedDown}
		case state.Led:
			lost := l.lost[e.Group]
			changes = append(changes, election{group: e.Group, from: lost.Client, to: e.Leader, token: e.Token, node: name(e.Node), reason: reasonOf(s, lost)})
		}
	}
	clear(l.lost)
	if len(changes) > 0 {
		l.add(time.Now(), changes)
	}
}

func (l *electionLog) add(at time.Time, changes []election) {
	l.mu.Lock()
	room := min(len(changes), maxElections-len(l.waiting))
	for _, e := range changes[:room] {
		e.at = at
		l.waiting = append(l.waiting, e)
	}
	l.omitted += len(changes) - room
	l.mu.Unlock()
	signal(l.wake)
}

// reasonOf is why a group has lost its leader, as far as the log of the cluster tells. Below
// state.KeyedLevel that is how the membership ended. From there on it is the reason, with its word.
func reasonOf(s *state.State, lost state.Left) string {
	node, _ := s.Node(lost.Node)
	at := node.Name + ", where the leader before was, "
	if s.Level() >= state.KeyedLevel {
		return fmt.Sprintf("%s (%v)", sentence(lost.Reason, at), lost.Reason)
	}
	switch {
	case lost.By == state.ByLeave:
		return "the connection of the leader before ended"
	case lost.By == state.ByEnd:
		return at + "stopped or left the cluster"
	case lost.By == state.ByOpen:
		return at + "was started again or had lost its session"
	case node.Removed:
		return at + "was removed from the cluster"
	default:
		return at + "was silent for too long"
	}
}

// sentence is a reason, about a leader at a node.
func sentence(why state.Reason, at string) string {
	switch why {
	case state.ReasonClosed, state.ReasonReset, state.ReasonSilent, state.ReasonStuck:
		return "the connection of the leader before ended"
	case state.ReasonLeft:
		return "the leader before left its group"
	case state.ReasonHoldOver:
		return "the leader before did not come back in time"
	case state.ReasonSteppedDown:
		return "the leader before stepped down"
	case state.ReasonNodeStopped:
		return at + "was stopped"
	case state.ReasonNodeRestarted:
		return at + "was started again"
	case state.ReasonSessionLost:
		return at + "had lost its session"
	case state.ReasonRemoved:
		return at + "was removed from the cluster, or left it"
	case state.ReasonNodeLost:
		return at + "was silent for too long"
	}
	return "the leader before leads no more, for a reason that only a newer version knows"
}

// run writes what is added until done is closed, and then what is left.
func (l *electionLog) run(done <-chan struct{}) {
	for {
		select {
		case <-l.wake:
		case <-done:
			l.write(nil)
			return
		}
		l.write(done)
	}
}

// write writes all that waits, at once where done is nil or closed.
func (l *electionLog) write(done <-chan struct{}) {
	for {
		l.mu.Lock()
		n := min(len(l.waiting), electionsAtOnce)
		some, omitted := l.waiting[:n:n], 0
		if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
			l.waiting, omitted, l.omitted = nil, l.omitted, 0
		}
		l.mu.Unlock()
		for _, e := range some {
			l.line(e)
		}
		if omitted > 0 {
			l.log.Warn("too many changes of leaders at once: not all are logged", "omitted", omitted)
		}
		if n < electionsAtOnce {
			return
		}
		if done != nil {
			select {
			case <-time.After(electionsPause):
			case <-done:
			}
		}
	}
}

// line logs a change as of when it was applied.
func (l *electionLog) line(e election) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(e.at, slog.LevelInfo, "leader changed", 0)
	r.AddAttrs(slog.String("group", e.group), slog.String("from", e.from), slog.String("to", e.to))
	if e.to != "" {
		r.AddAttrs(slog.Uint64("token", e.token))
	}
	r.AddAttrs(slog.String("reason", e.reason), slog.String("node", e.node))
	l.log.Handler().Handle(ctx, r)
}
