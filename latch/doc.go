// Package latch serves leader election to clients over TCP: a client sends
// JOIN <group> <client> and is told, for as long as its connection lasts, who
// leads the group. PROTOCOL.md beside this file is the wire as a text; comments
// of the form "PROTOCOL.md, Heading" point into it.
//
// What is promised: a membership lives exactly as long as its connection; a
// line that speaks of leadership is written only while the node may speak for
// the membership ([Membership.Live], asked under the lock of the write); no line
// is written after the end of a connection has been decided, and only after the
// client's side has learned of the end, or had [Config.CloseGrace] to do so, is
// the membership given back ([Membership.Closed]). A slow reader may miss leaders
// in between, never the newest.
//
// What is not: who leads, and that a majority knows it, is for the [Elections].
// Without a majority a JOIN is refused after [Config.JoinTimeout]. And what a
// client knows lags what was written to it: PROTOCOL.md, What a client may
// believe.
//
// Start with [Server], then conn.go: one goroutine per connection reads, and a single
// one all those whose clients have been silent for a while (park.go); whoever has
// something to say writes, without ever waiting, under the connection's lock; write.go
// holds what happens when the kernel does not take it, close.go the order in which a
// connection ends, and protocol.go, alone, the words of the wire; foreign.go knows other
// protocols by theirs. The package runs on Linux.
package latch
