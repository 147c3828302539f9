// Package state is the replicated state machine: who is a node of the cluster, which
// sessions there are, who is a member of which group and in which order. It is plain data
// and bytes, and knows of no Raft, clock, disk or network.
//
// state.go is the state and what each operation does to it, read.go what others read of
// it; key.go is what keyed members have beyond others, changes.go who has led, and why no
// more; entry.go and snapshot.go are its bytes, level.go how those may change. What
// [State.Apply] decides is part of the format (../DESIGN.md, Formats).
package state
