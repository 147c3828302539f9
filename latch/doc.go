// Package latch serves leader election to clients over TCP. A client sends
// JOIN <group> <client>. It is told who leads the group, for as long as its
// connection lasts. PROTOCOL.md beside this file is the protocol. Comments of the
// form "PROTOCOL.md, Heading" point into it.
//
// The package promises:
//
//  1. A plain membership lives exactly as long as its connection. How long that of a keyed
//     member does is up to the Elections: they are told how the connection ended.
//  2. A line that speaks of leadership is written only while the node may speak for
//     the membership ([Membership.Live], asked under the lock of the write).
//  3. No line is written after the end of a connection has been decided.
//  4. The membership is given back ([Membership.Closed]) only after the client's side
//     has learned of the end, or had [Config.CloseGrace] to do so.
//  5. A slow reader may miss leaders in between. It never misses the newest one.
//
// The package does not decide who leads, nor whether a majority knows it: the
// [Elections] do. Without a majority a JOIN is refused after [Config.JoinTimeout].
// What a client knows may be older than what was written to it: PROTOCOL.md, What a
// client may believe.
//
// Start with [Server], then conn.go. One goroutine for each connection reads. A single
// goroutine reads for all clients that have been silent for a while (park.go). Whoever has
// a line for a client writes it under the connection's lock, and never waits.
//
//	keyed.go     what keyed members say and are told
//	observe.go   connections that observe a group, and are no members
//	write.go     what happens when the kernel does not take a line
//	close.go     the order in which a connection ends
//	protocol.go  the words of the protocol; no other file has them
//	foreign.go   how other protocols are recognised
//
// The package runs on Linux.
package latch
