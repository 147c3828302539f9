// Package session is the protocol that makes it safe to act on the state: for how long a
// node may speak for its clients, when their connections have to be closed, and when the
// session of a silent node may be ended (../DESIGN.md, The rules of sessions).
//
// A [Roster] has a node's own session and its clients' memberships. It is pure code over
// clock readings: it starts nothing and waits for nothing. Its caller guards it against
// concurrent use, tells it what is applied, and does what [Roster.Step] says. A node drives it. The
// simulation of sim_test.go drives it by the same methods.
//
//	timing.go      how long everything lasts, and the inequality that makes it safe
//	clock.go       by which clocks time is measured, to the safe side
//	session.go     the node's own session: what the node has asked for, when it falls silent
//	lease.go       the gate, which is asked without a lock before every line
//	expirer.go     when others were silent for too long
//	promise.go     what clients were promised
//	roster.go      all of that together, with the memberships
//	keyed.go       members that outlive their connections and their node
//	stepdown.go    leaders that step down as an operator wants it
//	observe.go     clients that are told who leads, and are no members
//	membership.go  one client's place in a group, as its connection has it
//	dispatch.go    how committed changes reach the connections; it alone has a goroutine
//	omit.go        the rules that tests take away
package session
