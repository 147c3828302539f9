//go:build bench

package replica

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"leaderlatch/ensemble/logstore"
	"leaderlatch/ensemble/state"
)

// MakeLarge makes the log of a new node that of a large cluster: a snapshot with so many members,
// and so many bytes of entries behind it. The members are those of sessions that are opened so,
// and whose nodes are removed. In the log members leave and come back, so often as it gives. All
// of it is as the level has it.
func MakeLarge(store *logstore.Store, folder Folder, level uint64, sessions []state.Open, members, logBytes int) (changes int, err error) {
	snapshots, err := newSnapshots(folder, store, raftLogger(slog.New(slog.DiscardHandler), func(state.NodeID) string { return "" }))
	if err != nil {
		return 0, err
	}
	l := &large{fsm: newFSM(nobody{}), level: level, members: make([]largeMember, members)}
	if err := l.replay(store, sessions); err != nil {
		return 0, err
	}
	for l.joined < members {
		l.apply(l.joins())
	}
	if err := l.snapshot(snapshots); err != nil {
		return 0, err
	}
	first, err := store.FirstIndex()
	if err == nil {
		err = store.DeleteRange(first, l.last.Index)
	}
	for size := 0; err == nil && size < logBytes; {
		var logs []*raft.Log
		for range 16 {
			e := l.next(l.churn())
			logs = append(logs, &e)
			size += len(e.Data)
		}
		err = store.StoreLogs(logs)
	}
	return l.turn, err
}

// large is such a cluster as it is being made.
type large struct {
	fsm           *fsm
	level         uint64
	last          raft.Log // the last entry
	configuration raft.Configuration
	configuredAt  uint64

	sessions []largeSession
	members  []largeMember
	joined   int // how many have joined
	turn     int // of whom leaves next
}

type largeSession struct {
	incarnation state.Incarnation
	seq         uint64
}

type largeMember struct{ join uint64 } // the number of its Join

const largeBatch = 500 // operations in an entry

// replay applies what is in the log, opens the sessions, and has their nodes removed.
func (l *large) replay(store store, sessions []state.Open) error {
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	if first != 1 {
		return fmt.Errorf("the log begins at %d: this is not the folder of a new node", first)
	}
	for i := first; i <= last; i++ {
		if err := store.GetLog(i, &l.last); err != nil {
			return err
		}
		switch l.last.Type {
		case raft.LogConfiguration:
			l.configuration, l.configuredAt = raft.DecodeConfiguration(l.last.Data), i
		case raft.LogCommand:
			l.fsm.Apply(&l.last)
		}
	}
	var open, remove []state.Op
	for i, o := range sessions {
		l.sessions = append(l.sessions, largeSession{incarnation: state.Incarnation(state.PositionOf(last+1, i))})
		open, remove = append(open, o), append(remove, state.Remove{Node: o.Node})
	}
	l.apply(open)
	l.apply(remove)
	return l.fsm.broken
}

// next is an entry that follows on the last one.
func (l *large) next(ops []state.Op) raft.Log {
	l.last = raft.Log{Index: l.last.Index + 1, Term: l.last.Term, Type: raft.LogCommand, Data: state.Encode(l.level, state.Entry{At: time.Now(), Ops: ops})}
	return l.last
}

func (l *large) apply(ops []state.Op) {
	e := l.next(ops)
	l.fsm.Apply(&e)
}

// join has the nth member join, in groups of five.
func (l *large) join(n int) state.Op {
	s := &l.sessions[n%len(l.sessions)]
	s.seq++
	l.members[n].join = s.seq
	return state.Join{Incarnation: s.incarnation, Seq: s.seq, Group: fmt.Sprintf("group-%d", n/5), Client: fmt.Sprintf("worker-%d.example.com:7077", n)}
}

func (l *large) joins() (ops []state.Op) {
	for ; l.joined < len(l.members) && len(ops) < largeBatch; l.joined++ {
		ops = append(ops, l.join(l.joined))
	}
	return ops
}

// churn has members leave and come back, and one session renewed.
func (l *large) churn() []state.Op {
	s := &l.sessions[l.turn/largeBatch%len(l.sessions)]
	s.seq++
	ops := []state.Op{state.Renew{Incarnation: s.incarnation, Seq: s.seq}}
	for len(ops) < largeBatch {
		n := l.turn * 7919 % len(l.members)
		l.turn++
		s := &l.sessions[n%len(l.sessions)]
		s.seq++
		ops = append(ops, state.Leave{Incarnation: s.incarnation, Seq: s.seq, Join: l.members[n].join}, l.join(n))
	}
	return ops
}

func (l *large) snapshot(snapshots *snapshots) error {
	s, err := l.fsm.Snapshot()
	if err != nil {
		return err
	}
	defer s.Release()
	sink, err := snapshots.Create(1, l.last.Index, l.last.Term, l.configuration, l.configuredAt, nil)
	if err != nil {
		return err
	}
	return s.Persist(sink)
}
